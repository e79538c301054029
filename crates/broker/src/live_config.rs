//! The configuration as it is now, its changes at run time, and the file that keeps them. Java: `Configuration`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use ferromq_config::{Configuration, InvalidValue, replace_file};
use ferromq_protocol::body::DataVersion;
use parking_lot::Mutex;
use tracing::warn;

use crate::clock::now_ms;
use crate::config::BrokerConfig;

/// Owner of the configuration in force: read without a lock, swapped whole when an operator changes it.
pub struct LiveConfig {
    broker_name: String,
    current: ArcSwap<BrokerConfig>,
    /// Counts changes, each after it is in force.
    changes: AtomicU64,
    version: Mutex<DataVersion>,
    file: Option<PathBuf>,
    /// Held while a change is written and followed, so that changes reach the file, and all parts, in the order in which they come into
    /// force.
    writing: Mutex<()>,
}

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    #[error("nothing was changed, because {} cannot be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl LiveConfig {
    /// `file` is where the configuration came from, if from a file.
    pub fn new(config: BrokerConfig, file: Option<PathBuf>) -> LiveConfig {
        let version = DataVersion { counter: 0, state_version: 0, timestamp: now_ms() };
        LiveConfig {
            broker_name: config.broker_name.clone(),
            current: ArcSwap::from_pointee(config),
            changes: AtomicU64::new(0),
            version: Mutex::new(version),
            file,
            writing: Mutex::new(()),
        }
    }

    /// The name that this process is known by; a change of `brokerName` waits for the next start.
    pub fn broker_name(&self) -> &str {
        &self.broker_name
    }

    /// The configuration as it is now. Cheap; not to be kept over a wait.
    pub fn current(&self) -> Guard<Arc<BrokerConfig>> {
        self.current.load()
    }

    /// Grows with each change: what followed from the configuration before holds as long as it stays.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// [`LiveConfig::update_and`], where no part has a copy.
    #[cfg(test)]
    pub fn update<K: AsRef<str>, V: AsRef<str>>(&self, changes: &[(K, V)]) -> Result<Vec<String>, ChangeError> {
        self.update_and(changes, |_, _| {})
    }

    /// Applies all changes or none, and gives the keys that now differ. The file that the broker was started with is written first, so
    /// that nothing is in force that the next start would take back; blocks until it is on disk. If anything has changed, `follow` is given
    /// what now holds and the keys that differ, for the parts that have copies of their own; one change at a time and in their order, so that
    /// no part is left with an older one.
    pub fn update_and<K: AsRef<str>, V: AsRef<str>>(
        &self,
        changes: &[(K, V)],
        follow: impl FnOnce(&BrokerConfig, &[String]),
    ) -> Result<Vec<String>, ChangeError> {
        let _one_at_a_time = self.writing.lock();
        let mut next = BrokerConfig::clone(&self.current.load());
        let changed = next.apply(changes)?;
        next.check().map_err(|(key, allowed)| InvalidValue {
            key: key.to_owned(),
            value: next.listing().remove(key).unwrap_or_default(),
            allowed,
        })?;
        if changed.is_empty() {
            return Ok(changed);
        }
        match &self.file {
            Some(path) => replace_file(path, next.to_properties().as_bytes())
                .map_err(|source| ChangeError::Write { path: path.clone(), source })?,
            None => warn!("the change holds until the next start: the broker was started without a configuration file"),
        }
        let next = Arc::new(next);
        self.current.store(Arc::clone(&next));
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.version.lock().next(now_ms());
        follow(&next, &changed);
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
    fn a_change_that_cannot_be_written_is_not_made() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("broker.conf");
        let live = LiveConfig::new(BrokerConfig::default(), Some(file.clone()));
        // As a full disk: the new version cannot be written.
        std::fs::create_dir(directory.path().join("broker.conf.tmp")).unwrap();
        for _ in 0..2 {
            let error = live.update(&[("maxMessageSize", "100")]).unwrap_err();
            assert!(matches!(error, ChangeError::Write { .. }), "{error}");
        }
        assert_eq!((live.current().max_message_size, live.data_version().counter), (4_194_304, 0));
        std::fs::remove_dir(directory.path().join("broker.conf.tmp")).unwrap();
        assert_eq!(live.update(&[("maxMessageSize", "100")]).unwrap(), ["maxMessageSize"]);
        assert!(std::fs::read_to_string(&file).unwrap().contains("maxMessageSize=100\n"));
    }

    #[test]
    fn whoever_follows_changes_made_at_the_same_time_ends_with_the_last() {
        let live = live();
        let followed = Mutex::new(0);
        let change = |size: usize| {
            let follow = |config: &BrokerConfig, keys: &[String]| {
                assert_eq!(keys, ["maxMessageSize"]);
                let size = config.max_message_size;
                std::thread::yield_now();
                *followed.lock() = size;
            };
            live.update_and(&[("maxMessageSize", size.to_string())], follow).unwrap();
        };
        for round in 0..200 {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn(move || change(1000 + round * 4 + thread));
                }
            });
            assert_eq!(*followed.lock(), live.current().max_message_size, "round {round}");
        }
    }

    #[test]
    fn a_new_name_waits_for_the_next_start() {
        let live = live();
        assert_eq!(live.update(&[("brokerName", "broker-b")]).unwrap(), ["brokerName"]);
        assert_eq!((live.broker_name(), &*live.current().broker_name), ("broker-a", "broker-b"));
    }
}
