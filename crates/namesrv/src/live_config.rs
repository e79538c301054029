//! The configuration as it is now, its changes at run time, and the file that keeps them. Java: `Configuration`.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ferromq_config::{Configuration, InvalidValue, replace_file};
use parking_lot::Mutex;

use crate::config::Config;

/// Keys that can never be changed from outside: they name files on the nameserver's disk.
const PROTECTED: [&str; 4] = ["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"];

/// Owner of the current configuration.
pub struct LiveConfig {
    current: ArcSwap<Config>,
    /// Held while a change is written, so that changes do not overtake each other.
    writing: Mutex<()>,
}

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("Can not update config in black list.")]
    Protected,
    #[error(transparent)]
    Invalid(#[from] InvalidValue),
    #[error("the configuration file cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl LiveConfig {
    pub fn new(config: Config) -> LiveConfig {
        LiveConfig { current: ArcSwap::from_pointee(config), writing: Mutex::new(()) }
    }

    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Applies all changes or none, and writes the whole configuration to `configStorePath` (blocks until it is on disk), as Java does.
    /// Unknown keys are left out.
    pub fn change(&self, changes: &[(String, String)]) -> Result<Arc<Config>, ChangeError> {
        let _one_at_a_time = self.writing.lock();
        let mut next = Config::clone(&self.current.load());
        let listed = |key: &str| next.config_black_list.split(';').any(|protected| protected == key);
        if changes.iter().any(|(key, _)| PROTECTED.contains(&&**key) || listed(key)) {
            return Err(ChangeError::Protected);
        }
        let changed = next.apply(changes)?;
        if !changed.is_empty() {
            replace_file(&next.config_store_path, next.to_properties().as_bytes())?;
            tracing::info!(keys = ?changed, "configuration changed");
        }
        let next = Arc::new(next);
        self.current.store(Arc::clone(&next));
        Ok(next)
    }
}
