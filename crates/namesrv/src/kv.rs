//! Key-value configuration: namespaces of text, kept in one JSON file. Java: `KVConfigManager`; spec broker §A.5.
//!
//! A change is on disk before it is visible and before it is answered, so a reader never sees what a restart could take back.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ferromq_config::replace_file;
use ferromq_protocol::json;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Namespace in which brokers look up ordered topics: topic → `broker-a:4;broker-b:4`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

/// Why the file cannot be read at start.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("{}: cannot be read: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}: is not the key-value configuration ({reason}), and neither is its .bak; repair or remove it", file.display())]
    Damaged { file: PathBuf, reason: String },
}

type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// The file's one member. Java: `KVConfigSerializeWrapper`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KvFile {
    config_table: Namespaces,
}

/// Owner of the namespaces and of their file.
pub struct KvConfig {
    file: PathBuf,
    /// Held while a change is written, so that changes reach the file in the order they become visible.
    writing: Mutex<()>,
    namespaces: Mutex<Namespaces>,
}

impl KvConfig {
    /// Reads the file; one that is missing is an empty table. A damaged one falls back to its `.bak` and says so in the log.
    pub fn open(file: &Path) -> Result<KvConfig, KvError> {
        let namespaces = match read(file)? {
            Some(Ok(namespaces)) => namespaces,
            None => Namespaces::new(),
            Some(Err(reason)) => {
                let mut backup = file.as_os_str().to_owned();
                backup.push(".bak");
                let Some(Ok(namespaces)) = read(backup.as_ref())? else {
                    return Err(KvError::Damaged { file: file.into(), reason });
                };
                tracing::error!(file = %file.display(), %reason, "the key-value configuration is damaged; its .bak is used instead");
                namespaces
            }
        };
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
    pub fn put(&self, namespace: &str, key: &str, value: &str) -> io::Result<()> {
        self.change(|namespaces| {
            namespaces.entry(namespace.into()).or_default().insert(key.into(), value.into());
        })
    }

    /// Blocks until the file is on disk. Deleting what is not there is fine.
    pub fn delete(&self, namespace: &str, key: &str) -> io::Result<()> {
        self.change(|namespaces| {
            if let Some(keys) = namespaces.get_mut(namespace) {
                keys.remove(key);
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Namespaces)) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock();
        let mut next = KvFile { config_table: self.namespaces.lock().clone() };
        change(&mut next.config_table);
        replace_file(&self.file, &json::to_vec(&next))?;
        *self.namespaces.lock() = next.config_table;
        Ok(())
    }
}

/// `None`: no such file. `Some(Err)`: not what it should be, and why.
fn read(file: &Path) -> Result<Option<Result<Namespaces, String>>, KvError> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(
            json::from_slice::<KvFile>(&bytes).map(|file| file.config_table).map_err(|error| error.to_string()),
        )),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KvError::Unreadable { file: file.into(), source }),
    }
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
        // reference/store/kvConfig.json
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
    fn damaged_file_falls_back_to_its_backup() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kv.json");
        let kv = open(&file);
        kv.put("ns", "key", "one").unwrap();
        kv.put("ns", "key", "two").unwrap();
        std::fs::write(&file, "{\"configTable\":{\"ns").unwrap();
        assert_eq!(open(&file).value("ns", "key").as_deref(), Some("one"));
        std::fs::write(dir.path().join("kv.json.bak"), "").unwrap();
        assert!(matches!(KvConfig::open(&file), Err(KvError::Damaged { .. })));
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
