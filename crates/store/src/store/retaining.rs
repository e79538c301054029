//! What of the store goes with time.

use std::sync::Arc;

use super::Store;
use crate::keepers::Keeper;
use crate::retention_rules::RetentionRules;

impl Store {
    /// Adds a keeper: before a segment goes it is asked, for as long as somebody else has it too. One that comes
    /// after [`Store::begin_retention`] may find some gone.
    pub fn add_keeper(&self, keeper: Arc<dyn Keeper>) {
        self.retention.keepers.add(&keeper);
    }

    /// Lets old messages go from now on, as [`StoreConfig::retention`](crate::StoreConfig::retention) says: whoever needs some of them
    /// for longer is known by now. Without this call nothing goes.
    pub fn begin_retention(&self) {
        self.retention.begin();
    }

    /// A keeper needs no more what it was asked for: the segment that it held up need not wait until it is asked again.
    pub fn go_on_with_retention(&self) {
        self.retention.signal.wake_now();
    }

    /// Changes what is kept, at once, and which directories count as full.
    pub fn change_retention(&self, rules: RetentionRules) {
        self.log_dirs.full_above(rules.forced_ratio);
        self.retention.change_rules(rules);
    }

    /// Has messages beyond their reserved time go now, whatever the hour. Java: executeDeleteFilesManually.
    pub fn delete_expired(&self) {
        self.retention.delete_by_hand();
    }
}
