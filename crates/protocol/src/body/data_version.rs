//! The version that every table carries: who has seen which state of it.

use serde::{Deserialize, Serialize};

/// Changes with every change of a table. Two tables with equal versions are taken for equal. Java: DataVersion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    pub counter: i64,
    /// Counts changes of the broker's role; 0 from peers before 5.0.
    pub state_version: i64,
    /// When the last change was made, milliseconds.
    pub timestamp: i64,
}

impl DataVersion {
    /// One change more, made at `now_ms`. Java: nextVersion.
    pub fn next(&mut self, now_ms: i64) {
        self.next_in_state(now_ms, self.state_version);
    }

    /// One change more in a role state. Java: nextVersion(stateVersion).
    pub fn next_in_state(&mut self, now_ms: i64, state_version: i64) {
        self.counter = self.counter.wrapping_add(1);
        self.state_version = state_version;
        self.timestamp = now_ms;
    }
}
