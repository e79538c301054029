//! A table of strings: runtime information, order configuration, KV namespaces.

use serde::{Deserialize, Serialize};

use super::Table;

/// Java: KVTable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    pub table: Table<String, String>,
}
