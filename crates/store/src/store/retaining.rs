//! What of the store goes with time.

use std::sync::Arc;

use super::Store;
use crate::keepers::Keeper;

impl Store {
    /// Adds a keeper: before a segment goes it is asked, for as long as somebody else has it too. To be called before there is traffic.
    pub fn add_keeper(&self, keeper: Arc<dyn Keeper>) {
        self.keepers.add(&keeper);
    }
}
