//! The broker's own configuration, shown and changed while it runs: 25, 26.
//!
//! Java: `AdminBrokerProcessor`, `Configuration`. Java takes an impossible value in silence and keeps the old one; here
//! it is refused, with what would be possible.

use std::sync::Arc;

use ferromq_config::{Configuration, decode_text, parse_properties};
use ferromq_protocol::header::BrokerConfigReply;
use ferromq_protocol::{Reply, json};
use ferromq_store::Store;
use tracing::info;

use crate::answer::Answer;
use crate::config::BrokerConfig;
use crate::live_config::LiveConfig;
use crate::peer::Origin;
use crate::refusal::Refusal;
use crate::scrubbing::Scrubbing;
use crate::topics::Topics;

/// Keys that can never be changed from outside, whatever `configBlackList` says. Java: `AdminBrokerProcessor.initConfigBlackList`.
const PROTECTED: [&str; 3] = ["brokerConfigPath", "rocketmqHome", "configBlackList"];

/// GET_BROKER_CONFIG: every key, one line each.
pub(crate) fn listing(config: &LiveConfig) -> Reply {
    let version = String::from_utf8_lossy(&json::to_vec(&config.data_version())).into_owned();
    let header = BrokerConfigReply { version: version.into() };
    Reply::ok().header(header).body(config.current().to_properties())
}

/// UPDATE_BROKER_CONFIG. Answered when the file that the broker was started with holds the change.
pub(crate) fn update(
    config: &Arc<LiveConfig>,
    topics: &Arc<Topics>,
    store: &Arc<Store>,
    scrubbing: &Arc<Scrubbing>,
    origin: &Origin,
    changes: &[u8],
) -> Result<Answer, Refusal> {
    let entries = parse_properties(&decode_text(changes)).map_err(|error| Refusal::system_error(error.to_string()))?;
    let changes: Vec<(String, String)> = entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    refuse_protected(&config.current(), &changes)?;
    let (config, topics, store) = (Arc::clone(config), Arc::clone(topics), Arc::clone(store));
    let scrubbing = Arc::clone(scrubbing);
    let peer = origin.address;
    Ok(Answer::off_task(move || {
        let follow = |config: &BrokerConfig, changed: &[String]| {
            info!(keys = ?changed, %peer, "configuration changed");
            store.limit_message_len(config.message_len_max());
            store.change_retention(config.retention());
            if changed.iter().any(|key| key == "brokerPermission") {
                topics.renew_version();
            }
        };
        config.update_and(&changes, follow).map_err(|error| Refusal::system_error(error.to_string()))?;
        scrubbing.follow_config().map_err(|error| {
            Refusal::system_error(format!("the change is in force, but there is no thread for the scrub: {error}"))
        })?;
        Ok(Reply::ok())
    }))
}

fn refuse_protected(config: &BrokerConfig, changes: &[(String, String)]) -> Result<(), Refusal> {
    let listed = |key: &str| config.config_black_list.split(';').any(|protected| protected.trim() == key);
    if changes.iter().any(|(key, _)| PROTECTED.contains(&key.as_str()) || listed(key)) {
        return Err(Refusal::no_permission("Can not update config in black list."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: &str) -> Vec<(String, String)> {
        vec![(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn protected_keys() {
        let config = BrokerConfig {
            config_black_list: "configBlackList;brokerConfigPath;maxMessageSize".into(),
            ..BrokerConfig::default()
        };
        for key in ["rocketmqHome", "configBlackList", "brokerConfigPath", "maxMessageSize"] {
            let refusal = refuse_protected(&config, &change(key, "1")).unwrap_err();
            assert_eq!((refusal.code.0, &*refusal.remark), (16, "Can not update config in black list."));
        }
        assert!(refuse_protected(&config, &change("fileReservedTime", "1")).is_ok());
    }

    #[test]
    fn live_values() {
        let config = LiveConfig::new(BrokerConfig::default(), None);
        assert_eq!(config.update(&change("maxMessageSize", "100")).unwrap(), ["maxMessageSize"]);
        assert_eq!(config.current().max_message_size, 100);
        assert!(config.update(&change("noSuchKey", "1")).unwrap().is_empty());
        assert!(config.update(&change("maxMessageSize", "abc")).is_err());
        assert!(config.update(&change("brokerRole", "SLAVE")).is_err());
    }
}
