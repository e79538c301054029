//! Key-value configuration: namespaces of text, kept in one JSON file. Java: `KVConfigManager`.
//!
//! A change is on disk before it is visible and before it is answered, so a reader never sees what a restart could take back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ferromq_config::{LoadError, read_saved, replace_file};
use ferromq_protocol::json;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Namespace in which brokers look up ordered topics: topic → `broker-a:4;broker-b:4`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Most bytes of names and values that there may be, so that file and answers stay short.
const BYTES_MAX: usize = 4 * 1024 * 1024;

type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// The file's one member. Java: `KVConfigSerializeWrapper`.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KvFile {
    config_table: Namespaces,
}

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("the key-value configuration would have {len} bytes, the limit is {BYTES_MAX}")]
    Full { len: usize },
    #[error("the key-value configuration cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Owner of the namespaces and of their file.
pub struct KvConfig {
    file: PathBuf,
    /// Held while a change is written, so that changes reach the file in the order they become visible.
    writing: Mutex<()>,
    namespaces: Mutex<Namespaces>,
}

impl KvConfig {
    /// Reads the file; one that is missing is an empty table. One that cannot be read: see [`read_saved`].
    pub fn open(file: &Path) -> Result<KvConfig, LoadError> {
        let saved = read_saved(file, json::from_file::<KvFile>)?;
        let namespaces = saved.map(|file| file.config_table).unwrap_or_default();
        Ok(KvConfig { file: file.into(), writing: Mutex::new(()), namespaces: Mutex::new(namespaces) })
    }

    pub fn value(&self, namespace: &str, key: &str) -> Option<String> {
        self.namespaces.lock().get(namespace)?.get(key).cloned()
    }

    /// All keys of a namespace; one that was emptied by deletes is still there.
    pub fn namespace(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        self.namespaces.lock().get(namespace).cloned()
    }

    /// Blocks until the file is on disk. On error nothing has changed.
    pub fn put(&self, namespace: &str, key: &str, value: &str) -> Result<(), KvError> {
        self.change(|namespaces| {
            namespaces.entry(namespace.into()).or_default().insert(key.into(), value.into());
        })
    }

    /// Blocks until the file is on disk. Deleting what is not there is fine.
    pub fn delete(&self, namespace: &str, key: &str) -> Result<(), KvError> {
        self.change(|namespaces| {
            if let Some(keys) = namespaces.get_mut(namespace) {
                keys.remove(key);
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Namespaces)) -> Result<(), KvError> {
        let _one_at_a_time = self.writing.lock();
        let mut next = KvFile { config_table: self.namespaces.lock().clone() };
        let before = len(&next.config_table);
        change(&mut next.config_table);
        let len = len(&next.config_table);
        if len > BYTES_MAX && len > before {
            return Err(KvError::Full { len });
        }
        replace_file(&self.file, &json::to_vec(&next))?;
        *self.namespaces.lock() = next.config_table;
        Ok(())
    }
}

/// Bytes of it all; an entry has some besides its text.
fn len(namespaces: &Namespaces) -> usize {
    let of_entry = |(key, value): (&String, &String)| key.len() + value.len() + 16;
    namespaces.iter().map(|(name, keys)| name.len() + 16 + keys.iter().map(of_entry).sum::<usize>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(file: &Path) -> KvConfig {
        KvConfig::open(file).unwrap()
    }

    #[test]
    fn file_of_the_java_nameserver_reads_and_writes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kvConfig.json");
        // As Java 5.3.3 has written it.
        std::fs::write(
            &file,
            r#"{"configTable":{"NSX":{},"ORDER_TOPIC_CONFIG":{"TopicOrder2":"broker-a:2"},"NSW":{}}}"#,
        )
        .unwrap();
        let kv = open(&file);
        assert_eq!(kv.value(ORDER_TOPIC_CONFIG, "TopicOrder2").as_deref(), Some("broker-a:2"));
        assert_eq!(kv.namespace("NSX"), Some(BTreeMap::new()));
        assert_eq!(kv.namespace("NoNs"), None);
        kv.put("NSW", "k", "v").unwrap();
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            r#"{"configTable":{"NSW":{"k":"v"},"NSX":{},"ORDER_TOPIC_CONFIG":{"TopicOrder2":"broker-a:2"}}}"#
        );
    }

    #[test]
    fn changes_survive_a_reopen_and_emptied_namespaces_stay() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("not/yet/there.json");
        let kv = open(&file);
        kv.put("ns", "key", "value").unwrap();
        kv.put("ns", "gone", "x").unwrap();
        kv.delete("ns", "gone").unwrap();
        kv.delete("nowhere", "gone").unwrap();
        let kv = open(&file);
        assert_eq!(kv.namespace("ns"), Some([("key".into(), "value".into())].into()));
        assert_eq!(kv.namespace("nowhere"), None);
        kv.delete("ns", "key").unwrap();
        assert_eq!(open(&file).namespace("ns"), Some(BTreeMap::new()));
    }

    #[test]
    fn a_damaged_file_never_becomes_its_own_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kv.json");
        let kv = open(&file);
        kv.put("ns", "key", "one").unwrap();
        kv.put("ns", "key", "two").unwrap();
        std::fs::write(&file, "{\"configTable\":{\"ns").unwrap();
        let kv = open(&file);
        assert_eq!(kv.value("ns", "key").as_deref(), Some("one"));
        kv.put("ns", "other", "three").unwrap();
        std::fs::write(&file, "{").unwrap();
        assert_eq!(open(&file).value("ns", "key").as_deref(), Some("one"), "the backup is still the good one");
        std::fs::write(&file, "{").unwrap();
        std::fs::write(dir.path().join("kv.json.bak"), "").unwrap();
        assert!(matches!(KvConfig::open(&file), Err(LoadError::Damaged { .. })));
    }

    #[test]
    fn a_file_with_comments_or_nothing_in_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kv.json");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(open(&file).namespace("ns"), None);
        std::fs::write(&file, "// ours\n{configTable:{ns:{key:'one',}/* more */}}").unwrap();
        assert_eq!(open(&file).value("ns", "key").as_deref(), Some("one"));
    }

    #[test]
    fn there_is_room_for_so_much_and_what_is_known_stays() {
        let dir = tempfile::tempdir().unwrap();
        let kv = open(&dir.path().join("kv.json"));
        kv.put("ns", "key", &"v".repeat(BYTES_MAX - 1000)).unwrap();
        let error = kv.put("ns", "other", &"v".repeat(1000)).unwrap_err();
        assert!(matches!(error, KvError::Full { len } if len > BYTES_MAX), "{error}");
        assert_eq!(kv.value("ns", "other"), None);
        kv.delete("ns", "key").unwrap();
        kv.put("ns", "other", &"v".repeat(1000)).unwrap();
    }

    #[test]
    fn failed_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let kv = open(&dir.path().join("kv.json"));
        kv.put("ns", "key", "one").unwrap();
        // A directory where the temporary file should go makes the write fail.
        std::fs::create_dir(dir.path().join("kv.json.tmp")).unwrap();
        kv.put("ns", "key", "two").unwrap_err();
        assert_eq!(kv.value("ns", "key").as_deref(), Some("one"));
    }
}
