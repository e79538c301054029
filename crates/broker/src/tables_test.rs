//! All tables together against a model: saves fail and succeed again, and a copy of the directory, which is what a killed broker leaves,
//! has everything that was told to be saved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use ferromq_protocol::QueueId;
use ferromq_store::{Store, StoreConfig};
use proptest::prelude::*;

use crate::config::BrokerConfig;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::{self, Groups};
use crate::live_config::LiveConfig;
use crate::persistence::Persistence;
use crate::topics::{self, Topics, perm};

const FILES: [&str; 3] = ["topics.json", "subscriptionGroup.json", "consumerOffset.json"];

#[derive(Clone, Debug)]
enum Step {
    /// Saves of this file fail from now on.
    Break(usize),
    Mend(usize),
    Topic {
        name: u8,
        queues: i32,
    },
    RemoveTopic {
        name: u8,
    },
    Group {
        name: u8,
        retries: i32,
    },
    RemoveGroup {
        name: u8,
    },
    Forbid {
        name: u8,
        bits: i32,
    },
    Commit {
        name: u8,
        offset: i64,
    },
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0_u8..3;
    prop_oneof![
        2 => (0..FILES.len()).prop_map(Step::Break),
        2 => (0..FILES.len()).prop_map(Step::Mend),
        2 => (name.clone(), 1..9).prop_map(|(name, queues)| Step::Topic { name, queues }),
        1 => name.clone().prop_map(|name| Step::RemoveTopic { name }),
        2 => (name.clone(), 0..9).prop_map(|(name, retries)| Step::Group { name, retries }),
        1 => name.clone().prop_map(|name| Step::RemoveGroup { name }),
        1 => (name.clone(), 1..9).prop_map(|(name, bits)| Step::Forbid { name, bits }),
        2 => (name, 0_i64..99).prop_map(|(name, offset)| Step::Commit { name, offset }),
        2 => Just(Step::Kill),
    ]
}

struct Tables {
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    offsets: ConsumerOffsets,
    /// Last: its threads write what the tables give them.
    _persistence: Persistence,
}

impl Tables {
    fn open(directory: &Path) -> Tables {
        let persistence = crate::testing::eager_persistence();
        let config = Arc::new(LiveConfig::new(BrokerConfig::default(), None));
        let topics = Arc::new(Topics::open(directory, &config, &persistence).unwrap());
        // Nothing is stored: the offsets are of topics that this broker does not have.
        let store = StoreConfig { segment_len: 1 << 16, ..StoreConfig::at(directory.join("store")) };
        let store = Arc::new(Store::open(store).unwrap());
        Tables {
            offsets: ConsumerOffsets::open(directory, &config.current(), &topics, &store, &persistence).unwrap(),
            groups: Arc::new(Groups::open(directory, &config, &persistence).unwrap()),
            topics,
            _persistence: persistence,
        }
    }

    /// Waits for the save of a table. True if it succeeded.
    fn is_saved(&self, file: usize) -> bool {
        let (done, saved) = std::sync::mpsc::channel();
        let done = move |outcome: Result<(), _>| done.send(outcome.is_ok()).unwrap();
        match file {
            0 => return self.topics.wait_saved().is_ok(),
            1 => self.groups.when_saved(done),
            _ => self.offsets.when_saved(done),
        }
        saved.recv().unwrap()
    }

    fn value(&self, key: &Key) -> Option<i64> {
        let topic = topic(key.name);
        match key.what {
            What::Topic => self.topics.find(&topic).map(|topic| topic.read_queue_nums.into()),
            What::Group => self.groups.find(&topic).map(|group| group.retry_max_times.into()),
            What::Forbidden => Some(self.groups.forbidden(&topic, "T").into()).filter(|bits| *bits != 0),
            What::Offset => self.offsets.committed(&elsewhere(key.name), "G", QueueId(0)).map(|offset| offset.as_i64()),
        }
    }
}

fn topic(name: u8) -> String {
    format!("Name{name}")
}

/// A topic that is never made here.
fn elsewhere(name: u8) -> String {
    format!("Elsewhere{name}")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Topic,
    Group,
    Forbidden,
    Offset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    what: What,
    name: u8,
}

/// What may be found of each key: what was last told to be saved, or what was made since.
type Model = BTreeMap<Key, BTreeSet<Option<i64>>>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_told_to_be_saved_is_there_after_a_kill(steps in prop::collection::vec(step(), 1..40)) {
        let directory = tempfile::tempdir().unwrap();
        let tables = Tables::open(directory.path());
        for file in 0..2 {
            // The first save of all.
            prop_assert!(tables.is_saved(file));
        }
        let mut model = Model::new();
        for step in steps {
            let (file, changed) = match step {
                Step::Break(file) => {
                    let fresh = directory.path().join(format!("{}.tmp", FILES[file]));
                    // It may just be written.
                    while !fresh.is_dir() && fs::create_dir(&fresh).is_err() {
                        std::thread::yield_now();
                    }
                    continue;
                }
                Step::Mend(file) => {
                    let fresh = directory.path().join(format!("{}.tmp", FILES[file]));
                    if fresh.is_dir() {
                        fs::remove_dir(fresh).unwrap();
                    }
                    continue;
                }
                Step::Kill => {
                    check(directory.path(), &model)?;
                    continue;
                }
                Step::Topic { name, queues } => {
                    tables.topics.update(topics::new_config(&topic(name), queues, perm::READ_WRITE)).unwrap();
                    (0, vec![(What::Topic, name, Some(queues.into()))])
                }
                Step::RemoveTopic { name } => {
                    tables.topics.remove(&topic(name));
                    (0, vec![(What::Topic, name, None)])
                }
                Step::Group { name, retries } => {
                    let mut group = groups::new_group(&topic(name));
                    group.retry_max_times = retries;
                    tables.groups.update(group);
                    (1, vec![(What::Group, name, Some(retries.into()))])
                }
                Step::RemoveGroup { name } => {
                    let had = tables.groups.remove(&topic(name)).is_some();
                    let forbidden = had.then_some((What::Forbidden, name, None));
                    (1, [(What::Group, name, None)].into_iter().chain(forbidden).collect())
                }
                Step::Forbid { name, bits } => {
                    tables.groups.forbid(&topic(name), "T", bits).unwrap();
                    (1, vec![(What::Forbidden, name, Some(bits.into()))])
                }
                Step::Commit { name, offset } => {
                    tables.offsets.commit(&elsewhere(name), "G", QueueId(0), offset);
                    (2, vec![(What::Offset, name, Some(offset))])
                }
            };
            for (what, name, value) in changed {
                model.entry(Key { what, name }).or_insert_with(|| [None].into()).insert(value);
            }
            if tables.is_saved(file) {
                // With it everything before that is in the same file.
                for (key, possible) in &mut model {
                    let of = match key.what { What::Topic => 0, What::Group | What::Forbidden => 1, What::Offset => 2 };
                    if of == file {
                        *possible = [tables.value(key)].into();
                    }
                }
            }
        }
        check(directory.path(), &model)?;
    }
}

/// A broker that is killed leaves the files as they are; nothing is flushed or saved for it.
fn check(directory: &Path, model: &Model) -> Result<(), TestCaseError> {
    let killed = tempfile::tempdir().unwrap();
    for file in FILES.iter().filter(|file| directory.join(file).exists()) {
        fs::copy(directory.join(file), killed.path().join(file)).unwrap();
    }
    let found = Tables::open(killed.path());
    for (key, possible) in model {
        prop_assert!(possible.contains(&found.value(key)), "{key:?}: {:?}, not {possible:?}", found.value(key));
    }
    Ok(())
}
