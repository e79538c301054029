//! The tables in `config/` of a store, read without changing anything (a broker sets a damaged one aside), and held against its queues.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ferromq_protocol::body::{ConsumerOffsetTable, DelayOffsetTable, SubscriptionGroupTable, TopicConfigTable};
use ferromq_protocol::{json, topics};
use ferromq_store::check::{CheckResult, Finding, Part};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Nothing longer is read.
const FILE_LEN_MAX: u64 = 1 << 30;
/// Offsets that are ahead and told one by one.
const TOLD_MAX: u64 = 100;

/// What the files hold.
pub struct ConfigFiles {
    dir: PathBuf,
    pub topics: Option<BTreeSet<String>>,
    consumer_offsets: Option<ConsumerOffsetTable>,
    delay_offsets: Option<DelayOffsetTable>,
}

impl ConfigFiles {
    /// Reads them, and tells what cannot be read.
    pub fn read(root: &Path, tell: &mut dyn FnMut(&Finding)) -> ConfigFiles {
        let dir = root.join("config");
        let topics: Option<TopicConfigTable> = table(&dir.join("topics.json"), tell);
        let _: Option<SubscriptionGroupTable> = table(&dir.join("subscriptionGroup.json"), tell);
        let consumer_offsets = table(&dir.join("consumerOffset.json"), tell);
        let delay_offsets = table(&dir.join("delayOffset.json"), tell);
        ConfigFiles {
            topics: topics
                .map(|table| table.topic_config_table.into_iter().map(|(name, _)| name.to_string()).collect()),
            consumer_offsets,
            delay_offsets,
            dir,
        }
    }

    /// Holds them against what the queues have.
    pub fn hold_against(&self, checked: &CheckResult, tell: &mut dyn FnMut(&Finding)) {
        if let Some(known) = &self.topics {
            let path = self.dir.join("topics.json");
            for topic in checked.topics().filter(|topic| !known.contains(*topic) && !topics::is_system(topic)) {
                let what =
                    format!("does not have the topic {topic}, which has queues (cleanUnusedTopic takes them away)");
                tell(&finding(false, &path, what));
            }
        }
        // The next start brings back what is ahead after a crash.
        let mut ahead = Ahead { is_fault: checked.summary.clean, told: 0, checked, tell };
        if let Some(table) = &self.consumer_offsets {
            let path = self.dir.join("consumerOffset.json");
            for (key, queues) in &table.offset_table {
                let (topic, group) = key.split_once('@').unwrap_or((key, ""));
                for (id, offset) in queues {
                    ahead.look(&path, &format!("group {group} is"), topic, *id, *offset);
                }
            }
        }
        if let Some(table) = &self.delay_offsets {
            let path = self.dir.join("delayOffset.json");
            for (level, offset) in &table.offset_table {
                ahead.look(
                    &path,
                    &format!("delay level {level} is"),
                    topics::SCHEDULE_TOPIC,
                    level.saturating_sub(1),
                    *offset,
                );
            }
        }
        if ahead.told > TOLD_MAX {
            let what = format!("and {} more offsets that are ahead", ahead.told - TOLD_MAX);
            (ahead.tell)(&finding(ahead.is_fault, &self.dir, what));
        }
    }
}

/// Offsets beyond the end of their queue.
struct Ahead<'a> {
    is_fault: bool,
    told: u64,
    checked: &'a CheckResult,
    tell: &'a mut dyn FnMut(&Finding),
}

impl Ahead<'_> {
    fn look(&mut self, path: &Path, who: &str, topic: &str, id: i32, offset: i64) {
        let end = u32::try_from(id).ok().and_then(|id| self.checked.queue_end(topic, id)).unwrap_or(0);
        if u64::try_from(offset).is_ok_and(|offset| offset > end) {
            self.told += 1;
            if self.told <= TOLD_MAX {
                let what = format!("{who} at {offset} of {topic} queue {id}, which ends at {end}");
                (self.tell)(&finding(self.is_fault, path, what));
            }
        }
    }
}

fn finding(is_fault: bool, path: &Path, what: String) -> Finding {
    Finding { is_fault, part: Part::Config, path: path.to_owned(), at: None, what }
}

/// The file, or its backup.
fn table<T: DeserializeOwned + Serialize + Default>(path: &Path, tell: &mut dyn FnMut(&Finding)) -> Option<T> {
    let mut backup_path = path.as_os_str().to_owned();
    backup_path.push(".bak");
    let backup_path = PathBuf::from(backup_path);
    let parsed = |path: &Path| {
        content(path).and_then(|bytes| match bytes {
            Some(bytes) if bytes.is_empty() => Err("it is empty".to_owned()),
            Some(bytes) => json::from_file(&bytes).map(Some),
            None => Ok(None),
        })
    };
    let backup: Result<Option<T>, String> = parsed(&backup_path);
    let has_backup = matches!(backup, Ok(Some(_)));
    if let Err(reason) = &backup {
        tell(&finding(false, &backup_path, format!("cannot be read: {reason}")));
    }
    match parsed(path) {
        Ok(Some(table)) => return Some(table),
        Ok(None) if has_backup => tell(&finding(false, path, "is missing; a start uses its backup".to_owned())),
        Ok(None) => {}
        Err(reason) => {
            let remedy = if has_backup { "a start uses its backup" } else { "there is no good backup" };
            tell(&finding(true, path, format!("cannot be read: {reason}; {remedy}")));
        }
    }
    backup.ok().flatten()
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(format!("it is longer than {FILE_LEN_MAX} bytes"));
    }
    Ok(Some(bytes))
}
