//! Tables that are gone although the store has what they were about. One that is missing counts as empty, which is right on a new broker only.

use std::path::Path;

use ferromq_protocol::topics::SCHEDULE_TOPIC;
use ferromq_store::Store;
use tracing::error;

/// File, whether only delayed messages need it, and what becomes of it.
const TABLES: [(&str, bool, &str); 4] = [
    ("topics.json", false, "topics are made anew when they are used, with the settings of new ones"),
    ("subscriptionGroup.json", false, "groups have the settings of new ones"),
    (
        "consumerOffset.json",
        false,
        "groups begin where their clients say, which may be behind messages they have not had",
    ),
    ("delayOffset.json", true, "delayed messages that the log still has are delivered again"),
];

/// Says which tables are missing with their backups. Before they are made.
pub(crate) fn name(config_dir: &Path, store: &Store) {
    for (file, means) in missing(config_dir, store) {
        error!(path = %config_dir.join(file).display(), "this table and its backup are missing, though there are messages: {means}. To have it back, stop the broker and put a copy in its place");
    }
}

fn missing<'a>(config_dir: &Path, store: &Store) -> Vec<(&'a str, &'a str)> {
    let (any, delayed) = (!store.topics().is_empty(), !store.queue_ids(SCHEDULE_TOPIC).is_empty());
    let is_gone = |file: &str| ["", ".bak"].iter().all(|end| !config_dir.join(format!("{file}{end}")).exists());
    let needed = TABLES.into_iter().filter(|(_, of_delayed, _)| if *of_delayed { delayed } else { any });
    needed.filter(|(file, _, _)| is_gone(file)).map(|(file, _, means)| (file, means)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wait_until;
    use ferromq_protocol::QueueId;
    use ferromq_protocol::message::{NewMessage, SysFlag};
    use ferromq_store::StoreConfig;

    fn put(store: &Store, topic: &str) {
        let host = "127.0.0.1:1".parse().unwrap();
        let message = NewMessage {
            topic,
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 0,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"x",
            properties: "",
        };
        store.append(&message).unwrap();
        wait_until("it is there", || store.queue_bounds(topic, QueueId(0)).is_some_and(|bounds| bounds.max.0 > 0));
    }

    #[test]
    fn only_what_there_must_have_been_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let config_dir = root.path().join("config");
        std::fs::create_dir(&config_dir).unwrap();
        let config = StoreConfig { segment_len: 1 << 16, ..StoreConfig::at(root.path()) };
        let store = Store::open(config).unwrap();
        let files = || missing(&config_dir, &store).into_iter().map(|(file, _)| file).collect::<Vec<_>>();
        assert!(files().is_empty(), "of a new broker nothing is missing");
        put(&store, "T");
        assert_eq!(files(), ["topics.json", "subscriptionGroup.json", "consumerOffset.json"]);
        put(&store, SCHEDULE_TOPIC);
        std::fs::write(config_dir.join("topics.json.bak"), "{}").unwrap();
        std::fs::write(config_dir.join("consumerOffset.json"), "{}").unwrap();
        assert_eq!(files(), ["subscriptionGroup.json", "delayOffset.json"]);
    }
}
