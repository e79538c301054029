//! A store against a plain list: random appends, batches, clean stops, kills, damaged tails.

use std::collections::BTreeMap;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::message::Record;
use proptest::prelude::*;

use super::*;
use crate::Effort;
use crate::testing::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        queue: u32,
        len: usize,
    },
    Batch {
        queue: u32,
        lens: Vec<usize>,
    },
    Half,
    Read {
        queue: u32,
    },
    Query,
    Close,
    Kill,
    /// A kill, and garbage where the next record would go.
    KillWithGarbage {
        garbage: Vec<u8>,
    },
    /// A kill that takes the last record's end with it.
    Tear,
    /// A kill after which queue and index pages written since the last open are as they were then, here and there.
    PowerLoss {
        seed: u64,
    },
    /// A clean stop, after which somebody removes the consume queues.
    LoseQueues,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3_u32, 0..900_usize).prop_map(|(queue, len)| Step::Append { queue, len }),
        3 => (0..3_u32, proptest::collection::vec(0..200_usize, 1..6)).prop_map(|(queue, lens)| Step::Batch { queue, lens }),
        1 => Just(Step::Half),
        3 => (0..3_u32).prop_map(|queue| Step::Read { queue }),
        2 => Just(Step::Query),
        1 => Just(Step::Close),
        1 => Just(Step::Kill),
        1 => proptest::collection::vec(any::<u8>(), 1..200).prop_map(|garbage| Step::KillWithGarbage { garbage }),
        1 => Just(Step::Tear),
        2 => any::<u64>().prop_map(|seed| Step::PowerLoss { seed }),
        1 => Just(Step::LoseQueues),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    queue: Option<u32>,
    offset: u64,
    body: Vec<u8>,
    physical: u64,
    len: usize,
}

struct Model {
    site: Site,
    store: Option<Store>,
    /// In log order.
    messages: Vec<Known>,
    count: u32,
    /// End of the log when the store was last opened: everything before was made durable then.
    durable: u64,
    /// The header of each index file at that time.
    headers: BTreeMap<PathBuf, Vec<u8>>,
}

const TOPIC: &str = "Model";

impl Model {
    fn new() -> Model {
        let site = Site::new();
        let store = Some(site.open());
        Model { site, store, messages: Vec::new(), count: 0, durable: 0, headers: BTreeMap::new() }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    /// A body that no other message has.
    fn body(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let mut body = vec![u8::try_from(len % 251).unwrap(); len];
        body.extend(self.count.to_be_bytes());
        body
    }

    fn key(body: &[u8]) -> String {
        let number = body[body.len() - 4..].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("UNIQ_KEY\u{1}{number}\u{2}KEYS\u{1}all  k{number}\u{2}")
    }

    fn next_offset(&self, queue: u32) -> u64 {
        self.messages.iter().filter(|known| known.queue == Some(queue)).count() as u64
    }

    fn apply(&mut self, step: Step) {
        self.site.advance(900);
        match step {
            Step::Append { queue, len } => {
                let body = self.body(len);
                let placed = self.store().append(&message(TOPIC, queue, &body, &Model::key(&body))).unwrap();
                assert_eq!(placed.queue_offset.0, self.next_offset(queue));
                let (physical, len) = (placed.physical_offset.0, placed.record_len);
                self.messages.push(Known { queue: Some(queue), offset: placed.queue_offset.0, body, physical, len });
            }
            Step::Batch { queue, lens } => {
                let bodies: Vec<_> = lens.iter().map(|len| self.body(*len)).collect();
                let texts: Vec<_> = bodies.iter().map(|body| Model::key(body)).collect();
                let batch: Vec<_> =
                    bodies.iter().zip(&texts).map(|(body, text)| message(TOPIC, queue, body, text)).collect();
                let placed = self.store().append_batch(&batch).unwrap();
                assert_eq!(placed.queue_offset.0, self.next_offset(queue));
                let lens: Vec<_> = batch.iter().map(|message| message.record_len()).collect();
                for (at, body) in bodies.into_iter().enumerate() {
                    let offset = placed.queue_offset.0 + at as u64;
                    let physical = placed.physical_offsets[at].0;
                    self.messages.push(Known { queue: Some(queue), offset, body, physical, len: lens[at] });
                }
            }
            Step::Half => {
                let body = self.body(10);
                let text = Model::key(&body);
                let mut half = message(TOPIC, 0, &body, &text);
                half.sys_flag = ferromq_protocol::message::SysFlag(0x4);
                let placed = self.store().append(&half).unwrap();
                let (physical, len) = (placed.physical_offset.0, placed.record_len);
                self.messages.push(Known { queue: None, offset: 0, body, physical, len });
            }
            Step::Read { queue } => {
                settle(self.store());
                self.check_queue(queue);
            }
            Step::Query => {
                settle(self.store());
                self.check_index();
            }
            Step::Close => {
                self.store().close().unwrap();
                self.reopen();
            }
            Step::Kill => self.reopen(),
            Step::KillWithGarbage { garbage } => {
                let end = self.store().watermarks().written.0;
                self.store = None;
                self.overwrite(end, &garbage);
                self.reopen();
            }
            Step::Tear => {
                let Some(last) = self.messages.pop() else { return };
                self.store = None;
                // The counter at the end of the body makes the CRC wrong.
                let text = Model::key(&last.body).len();
                let at = last.physical + (last.len - text - 2 - TOPIC.len() - 1 - 4) as u64;
                self.overwrite(at, &[0xFF; 3]);
                self.reopen();
            }
            Step::PowerLoss { seed } => {
                self.store = None;
                self.lose_pages(seed);
                self.reopen();
            }
            Step::LoseQueues => {
                settle(self.store());
                self.store().close().unwrap();
                self.store = None;
                let dir = self.site.dir.path().join("store/consumequeue");
                if dir.exists() {
                    std::fs::remove_dir_all(dir).unwrap();
                }
                self.reopen();
            }
        }
    }

    fn overwrite(&self, at: u64, bytes: &[u8]) {
        let start = at - at % 4096;
        let path = self.site.dir.path().join("store/commitlog").join(crate::files::segment_name(start));
        let fits = bytes.len().min(usize::try_from(start + 4096 - at).unwrap());
        if let Ok(mut file) = std::fs::OpenOptions::new().write(true).open(path) {
            file.seek(SeekFrom::Start(at - start)).unwrap();
            file.write_all(&bytes[..fits]).unwrap();
        }
    }

    fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut dirs = vec![self.site.dir.path().join("store").join(below)];
        let mut found = Vec::new();
        while let Some(dir) = dirs.pop() {
            found.extend(crate::files::list_files(&dir).unwrap());
            dirs.extend(crate::files::list_dirs(&dir).unwrap());
        }
        found
    }

    fn lose_pages(&self, seed: u64) {
        let mut dice = seed | 1;
        let mut lost = || {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice.is_multiple_of(3)
        };
        let long = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        for path in self.files("consumequeue") {
            let mut bytes = std::fs::read(&path).unwrap();
            for entry in bytes.chunks_mut(20) {
                if long(&entry[..8]) >= self.durable && word(&entry[8..12]) != i32::MAX as u32 && lost() {
                    entry.fill(0);
                }
            }
            std::fs::write(path, bytes).unwrap();
        }
        let config = self.site.config();
        let entries_at = 40 + 4 * config.index_slots as usize;
        for path in self.files("index") {
            let mut bytes = std::fs::read(&path).unwrap();
            let header = self.headers.get(&path).cloned().unwrap_or_else(|| vec![0; 40]);
            let durable_entries = word(&header[36..40]).max(1);
            for slot in (40..entries_at).step_by(4) {
                let newest = word(&bytes[slot..slot + 4]);
                if newest >= durable_entries && lost() {
                    let mut before = newest;
                    while before >= durable_entries {
                        let at = entries_at + 20 * before as usize + 16;
                        before = word(&bytes[at..at + 4]);
                    }
                    bytes[slot..slot + 4].copy_from_slice(&before.to_be_bytes());
                }
            }
            for entry in bytes[entries_at + 20 * durable_entries as usize..].chunks_mut(20) {
                if lost() {
                    entry.fill(0);
                }
            }
            if lost() {
                bytes[..40].copy_from_slice(&header);
            }
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(self.site.open());
        self.durable = self.store().watermarks().written.0;
        self.headers = self
            .files("index")
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(path).unwrap()[..40].to_vec()))
            .collect();
        for queue in 0..3 {
            self.check_queue(queue);
        }
        self.check_index();
        for known in &self.messages {
            let bytes = self.store().message_at(PhysicalOffset(known.physical), Effort::Full).unwrap().unwrap();
            assert_eq!(Record::parse(&bytes).unwrap().body(), known.body);
        }
    }

    fn check_queue(&self, queue: u32) {
        let expected: Vec<_> = self
            .messages
            .iter()
            .filter(|known| known.queue == Some(queue))
            .map(|known| (known.offset, known.body.clone()))
            .collect();
        assert_eq!(read_bodies(self.store(), TOPIC, queue, 0), expected);
    }

    fn check_index(&self) {
        let mut per_key: BTreeMap<String, usize> = BTreeMap::new();
        for known in &self.messages {
            let text = Model::key(&known.body);
            let key = ferromq_protocol::message::property(&text, "UNIQ_KEY").unwrap().to_owned();
            assert_eq!(query_bodies(self.store(), TOPIC, &key), std::slice::from_ref(&known.body), "key {key}");
            *per_key.entry("all".to_owned()).or_default() += 1;
        }
        let all = per_key.get("all").copied().unwrap_or(0);
        assert_eq!(query_bodies(self.store(), TOPIC, "all").len(), all.min(64));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_list(steps in proptest::collection::vec(step(), 1..60)) {
        let mut model = Model::new();
        for step in steps {
            model.apply(step);
        }
        model.apply(Step::Kill);
        model.apply(Step::Close);
    }
}
