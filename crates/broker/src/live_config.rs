//! The configuration as it is now, and its changes at run time. Java: `Configuration`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use ferromq_config::{Configuration, InvalidValue};
use ferromq_protocol::body::DataVersion;
use parking_lot::Mutex;

use crate::clock::now_ms;
use crate::config::BrokerConfig;

/// Owner of the configuration in force: read without a lock, swapped whole when an operator changes it.
pub struct LiveConfig {
    broker_name: String,
    current: ArcSwap<BrokerConfig>,
    version: Mutex<DataVersion>,
    file: Option<PathBuf>,
}

impl LiveConfig {
    /// `file` is where the configuration came from, if from a file.
    pub fn new(config: BrokerConfig, file: Option<PathBuf>) -> LiveConfig {
        let version = DataVersion { counter: 0, state_version: 0, timestamp: now_ms() };
        LiveConfig {
            broker_name: config.broker_name.clone(),
            current: ArcSwap::from_pointee(config),
            version: Mutex::new(version),
            file,
        }
    }

    /// The name that this process is known by; a change of `brokerName` waits for the next start.
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// The file that a change is to be written to; `None` when the broker was started without one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The configuration as it is now. Cheap; not to be kept over a wait.
    pub fn current(&self) -> Guard<Arc<BrokerConfig>> {
        self.current.load()
    }

    /// Applies all changes or none, and gives the keys that now differ. Saving the file is the caller's part.
    pub fn update<K: AsRef<str>, V: AsRef<str>>(&self, changes: &[(K, V)]) -> Result<Vec<String>, InvalidValue> {
        // The lock makes two updates follow each other.
        let mut version = self.version.lock();
        let mut next = BrokerConfig::clone(&self.current.load());
        let changed = next.apply(changes)?;
        next.check().map_err(|(key, allowed)| InvalidValue {
            key: key.to_owned(),
            value: next.listing().remove(key).unwrap_or_default(),
            allowed,
        })?;
        self.current.store(Arc::new(next));
        version.next(now_ms());
        Ok(changed)
    }

    pub fn data_version(&self) -> DataVersion {
        self.version.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> LiveConfig {
        let loaded = BrokerConfig::parse("brokerName=broker-a\n", "broker.conf".as_ref()).unwrap();
        LiveConfig::new(BrokerConfig::complete(loaded).unwrap(), None)
    }

    #[test]
    fn updates_are_swapped_in_whole() {
        let live = live();
        assert_eq!(live.update(&[("maxMessageSize", "100")]).unwrap(), ["maxMessageSize"]);
        assert_eq!(live.current().max_message_size, 100);
        assert_eq!(live.data_version().counter, 1);
        assert!(live.update(&[("maxMessageSize", "-1")]).is_err());
        // What would stop the next start is refused now.
        for (key, value) in [("brokerRole", "SLAVE"), ("aclEnable", "true"), ("namesrvAddr", "nowhere")] {
            assert!(live.update(&[(key, value)]).is_err(), "{key}={value}");
        }
        assert_eq!(live.current().max_message_size, 100);
    }

    #[test]
    fn a_new_name_waits_for_the_next_start() {
        let live = live();
        assert_eq!(live.update(&[("brokerName", "broker-b")]).unwrap(), ["brokerName"]);
        assert_eq!((live.broker_name(), &*live.current().broker_name), ("broker-a", "broker-b"));
    }
}
