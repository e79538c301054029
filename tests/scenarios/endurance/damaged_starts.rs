//! Starts of the broker on directories that were damaged at random, its tables, timers and marks among them: each is up with all that is whole,
//! and says what is not; or it does not start, and says which file and what to do.
//!
//! `FERROMQ_DAMAGE_CASES=1000` makes it more cases, `FERROMQ_DAMAGE_SEED=n` one of them. What a start makes of log, queues and index is looked
//! at closer in the store (`damaged_starts_test.rs`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use ferromq_protocol::message::Record;

use super::audit::{Dice, Id, QUEUES, body, parse};
use super::load::make_topics;
use super::of_env;
use super::wire::{Outgoing, Wire, end_transaction, now_ms, physical, placed, send};
use crate::cluster::{Broker, Nameserver};
use crate::process::await_condition;

const CASES: u64 = 30;
const SEGMENT_LEN: u64 = 65_536;
const SETTINGS: [&str; 8] = [
    "mappedFileSizeCommitLog=65536",
    "mappedFileSizeConsumeQueue=1000",
    "maxHashSlotNum=100",
    "maxIndexNum=400",
    "messageDelayLevel=1s 2s",
    "maxTransferCountOnMessageInMemory=1000",
    "maxTransferBytesOnMessageInMemory=1000000",
    "maxTransferCountOnMessageInDisk=1000",
];
/// Consumed in each of the first four queues.
const CONSUMED: u64 = 7;

/// By their path below the store's directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A directory, and what was put into it.
struct Known {
    files: Files,
    clean: bool,
    /// Accepted, with where the log has it.
    sent: Vec<Sent>,
}

#[derive(Clone, Debug)]
struct Sent {
    id: Id,
    /// Index into [`QUEUES`]: where it is, or comes.
    queue: usize,
    /// In its queue; of what waits there is none yet.
    offset: Option<u64>,
    physical: u64,
}

impl Known {
    /// A broker is started on an empty directory, is sent everything, and ends.
    fn make(broker: &mut Broker, sender: u32, clean: bool) -> Known {
        let mut dice = Dice(u64::from(sender));
        make_topics(broker.port);
        let mut wire = Wire::connect(broker.port).expect("the broker is up");
        let (mut sent, mut number) = (Vec::new(), 0);
        for _ in 0..100 + dice.below(200) {
            // What waits is due before the next start, and not before this one ends.
            let queue = if dice.one_in(8) { 4 + dice.below(3) as usize } else { dice.below(4) as usize };
            let id = Id { sender, number };
            number += 1;
            let (topic, queue_id) = QUEUES[queue];
            let properties = match queue {
                4 => format!("TIMER_DELIVER_MS\u{1}{}\u{2}", now_ms() + 5_000 + number as i64),
                5 => "DELAY\u{1}2\u{2}".to_owned(),
                6 => "TRAN_MSG\u{1}true\u{2}PGROUP\u{1}endurance\u{2}".to_owned(),
                _ => String::new(),
            };
            let len = dice.below(900) as usize;
            let answer = wire.ask(send(&Outgoing {
                topic,
                queue: queue_id,
                bodies: &[body(id, len)],
                keys: &[id.key()],
                properties: &properties,
                sys_flag: if queue == 6 { 4 } else { 0 },
            }));
            let answer = answer.expect("the broker is up");
            let reply = placed(&answer).unwrap_or_else(|refused| panic!("{refused:?}"));
            if queue == 6 {
                // Rolled back ones must stay away; the others are messages like any.
                let commits = dice.one_in(2);
                let ended = wire.ask(end_transaction(&reply, &id.key(), commits)).expect("the broker is up");
                assert_eq!(ended.code, 0, "{ended:?}");
                continue;
            }
            let offset = (queue < 4).then_some(reply.queue_offset.0);
            sent.push(Sent { id, queue, offset, physical: physical(&reply) });
        }
        // Who reads comes into being, and then has read something.
        wire.pull(QUEUES[0].0, 0, 0).expect("the broker is up");
        for (topic, queue) in &QUEUES[..4] {
            wire.commit(topic, *queue, CONSUMED).expect("the broker is up");
        }
        let last_due = now_ms() + 5_000 + number as i64;
        if clean {
            assert!(broker.process.terminate().success());
        } else {
            broker.process.kill_hard();
        }
        await_condition("all of it to be due", || (now_ms() > last_due).then_some(()));
        let files = read_all(&broker.store);
        fs::remove_dir_all(&broker.store).expect("nobody uses it");
        Known { files, clean, sent }
    }

    /// The length of the record at a place, if its bytes are as they were.
    fn intact(&self, now: &Files, physical: u64) -> Option<usize> {
        let path = segment(physical);
        let at = usize::try_from(physical % SEGMENT_LEN).expect("short");
        let len = Record::parse(self.files.get(&path)?.get(at..)?).ok()?.record_len();
        (self.files[&path].get(at..at + len)? == now.get(&path)?.get(at..at + len)?).then_some(len)
    }

    fn is_untouched(&self, now: &Files, under: &str) -> bool {
        let of = |files: &Files| -> Files {
            files.iter().filter(|(path, _)| path.starts_with(under)).map(|(a, b)| (a.clone(), b.clone())).collect()
        };
        of(&self.files) == of(now)
    }

    /// Places that something in the log claims which is not as it was: no checksum covers where a record says that it belongs.
    fn claims(&self, now: &Files) -> BTreeSet<(String, u32, u64)> {
        let mut claims = BTreeSet::new();
        for (path, bytes) in now.iter().filter(|(path, _)| path.starts_with("commitlog")) {
            let start = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            let Some(start) = start else { continue };
            if self.files.get(path) == Some(bytes) {
                continue;
            }
            for at in 0..bytes.len() {
                if let Ok(record) = Record::parse(&bytes[at..])
                    && record.physical_offset().0 == start + at as u64
                    && self.intact(now, start + at as u64).is_none()
                {
                    claims.insert((record.topic().to_owned(), record.queue_id().0, record.queue_offset().0));
                }
            }
        }
        claims
    }
}

fn segment(physical: u64) -> PathBuf {
    Path::new("commitlog").join(format!("{:020}", physical - physical % SEGMENT_LEN))
}

fn read_all(root: &Path) -> Files {
    let (mut files, mut dirs) = (Files::new(), vec![root.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("it is there") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let bytes = fs::read(&path).expect("it can be read");
                files.insert(path.strip_prefix(root).expect("it is below").to_owned(), bytes);
            }
        }
    }
    files
}

fn write_all(root: &Path, files: &Files) {
    for (path, bytes) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("it is below")).expect("temporary directory is writable");
        fs::write(path, bytes).expect("temporary directory is writable");
    }
}

/// Does something to the files, and says what. Directories are there as far as files in them are.
fn damage(files: &mut Files, other: &Files, dice: &mut Dice) -> String {
    // Each part as likely as the others, however many files it has.
    let parts: BTreeSet<PathBuf> = files.keys().filter_map(|path| Some(path.iter().next()?.into())).collect();
    let parts: Vec<_> = parts.into_iter().collect();
    let part = &parts[dice.below(parts.len() as u64) as usize];
    let of_part: Vec<PathBuf> = files.keys().filter(|path| path.starts_with(part)).cloned().collect();
    let path = of_part[dice.below(of_part.len() as u64) as usize].clone();
    let mut bytes = files[&path].clone();
    let (name, len) = (path.display().to_string(), bytes.len() as u64);
    // An entry there has no checksum: one that leads elsewhere is believed, and its timer does not come.
    let is_minute = part.ends_with("timers") && !path.ends_with("checkpoint");
    match dice.below(10) {
        0 | 1 if len > 0 => {
            let len = dice.below(len);
            bytes.truncate(len as usize);
            files.insert(path, bytes);
            format!("{name} cut to {len}")
        }
        2..5 if len > 0 && !is_minute => {
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(len, |last| last as u64 + 1);
            let mut said = format!("bits flipped in {name}:");
            for _ in 0..1 + dice.below(4) {
                let (at, bit) = (dice.below(end) as usize, dice.below(8));
                bytes[at] ^= 1 << bit;
                write!(said, " {at}/{bit}").expect("into a string");
            }
            files.insert(path, bytes);
            said
        }
        5 => {
            files.remove(&path);
            format!("{name} removed")
        }
        6 => {
            let with = of_part[dice.below(of_part.len() as u64) as usize].clone();
            let second = files[&with].clone();
            files.insert(path, second);
            let said = format!("{name} and {} swapped", with.display());
            files.insert(with, bytes);
            said
        }
        7 if other.contains_key(&path) && !is_minute => {
            files.insert(path.clone(), other[&path].clone());
            format!("{name} of another broker")
        }
        8 => {
            let dir = path.parent().expect("it is below").to_owned();
            if dir.as_os_str().is_empty() {
                return "nothing".to_owned();
            }
            files.retain(|path, _| !path.starts_with(&dir));
            format!("directory {} removed", dir.display())
        }
        9 if !is_minute => {
            let garbage = (0..dice.below(3000)).map(|_| dice.next().to_be_bytes()[0]).collect();
            files.insert(path, garbage);
            format!("garbage as {name}")
        }
        _ => {
            files.insert(path, Vec::new());
            format!("{name} empty")
        }
    }
}

struct Case<'a> {
    what: String,
    known: &'a Known,
    files: &'a Files,
}

impl Case<'_> {
    fn fail(&self, broker: &Broker, why: &str) -> ! {
        panic!("{why}\n  {}\n  the broker said: {:#?}", self.what, broker.process.log_lines());
    }

    fn run(&self, broker: &mut Broker) {
        write_all(&broker.store, self.files);
        let is_up = broker.try_start();
        if broker.process.logged(|line| line.contains("panicked at")) {
            self.fail(broker, "a panic");
        }
        if is_up {
            self.audit(broker);
            if !broker.process.terminate().success() {
                self.fail(broker, "it did not stop in order");
            }
            if broker.process.logged(|line| line.contains("panicked at")) {
                self.fail(broker, "a panic");
            }
        } else {
            let root = broker.store.display().to_string();
            let remedies = ["Put ", "put ", "Move ", "move ", "Set ", "Mount ", "Start again", "Correct ", "correct "];
            let names = |line: &str| {
                line.starts_with("mqbroker: ")
                    && line.contains(&root)
                    && remedies.iter().any(|word| line.contains(word))
            };
            if !broker.process.logged(names) {
                self.fail(broker, "it does not start, and names no file or no remedy");
            }
        }
        fs::remove_dir_all(&broker.store).expect("nobody uses it");
    }

    fn audit(&self, broker: &Broker) {
        let (known, now) = (self.known, self.files);
        let mut wire = Wire::connect(broker.port).expect("the broker is up");
        // Without their table the topics are not known, but their queues are there.
        make_topics(broker.port);
        let (mut found, mut is_strange) = (Vec::new(), false);
        for (queue, (topic, id)) in QUEUES.into_iter().enumerate() {
            for (offset, id) in self.read(&mut wire, broker, topic, id) {
                match id {
                    Some(id) if known.sent.iter().any(|sent| sent.id == id) || queue == 6 => {
                        found.push((queue, offset, id));
                    }
                    _ => is_strange = true,
                }
            }
        }
        let said = broker.process.logged(|line| line.contains(" WARN ") || line.contains("ERROR"));
        if is_strange {
            // Another broker's, or not as it was sent: it may be there, but not without a word.
            if !said && known.is_untouched(now, "commitlog") {
                self.fail(broker, "messages that nobody sent");
            }
            return;
        }
        let claims = known.claims(now);
        let there: HashSet<_> = found.iter().map(|(queue, offset, _)| (*queue, *offset)).collect();
        if there.len() != found.len() {
            self.fail(broker, "an offset twice");
        }
        for sent in known.sent.iter().filter(|sent| sent.offset.is_some()) {
            let (topic, id) = QUEUES[sent.queue];
            let offset = sent.offset.expect("they are filtered");
            let is_there = found.contains(&(sent.queue, offset, sent.id));
            if is_there || claims.contains(&(topic.to_owned(), id, offset)) {
                continue;
            }
            if known.intact(now, sent.physical).is_some() && known.clean {
                self.fail(broker, &format!("{sent:?} is whole and not there"));
            }
            if !said {
                self.fail(broker, &format!("{sent:?} is gone, and nobody says so"));
            }
        }
        // What waited is due. What says how far it had got has no checksum where it is JSON.
        let tables_are_right = known.is_untouched(now, "config");
        for sent in known.sent.iter().filter(|sent| sent.offset.is_none() && tables_are_right) {
            if known.intact(now, sent.physical).is_none() || !claims.is_empty() || !known.clean {
                continue;
            }
            let (topic, id) = QUEUES[sent.queue];
            await_condition(&format!("{sent:?}, which waited, after {}", self.what), || {
                self.read(&mut wire, broker, topic, id).iter().any(|(_, found)| *found == Some(sent.id)).then_some(())
            });
        }
        for (topic, id) in &QUEUES[..4] {
            let group = wire.consumed(topic, *id).expect("the broker is up");
            if known.clean && tables_are_right && group != Some(CONSUMED) {
                self.fail(broker, &format!("{topic}/{id} was consumed up to {CONSUMED}, and now {group:?}"));
            }
        }
        // It goes on.
        for (queue, (topic, id)) in QUEUES.into_iter().enumerate().take(4) {
            let new = Id { sender: 1000, number: queue as u64 };
            let answer = wire.ask(send(&Outgoing {
                topic,
                queue: id,
                bodies: &[body(new, 5)],
                keys: &[new.key()],
                properties: "",
                sys_flag: 0,
            }));
            let reply = placed(&answer.expect("the broker is up"));
            let reply = reply.unwrap_or_else(|refused| self.fail(broker, &format!("it takes nothing: {refused:?}")));
            let offset = reply.queue_offset.0;
            if found.iter().any(|(of, known, _)| *of == queue && *known >= offset) {
                self.fail(broker, &format!("{topic}/{id} gives {offset} again"));
            }
            await_condition("the new message", || {
                self.read(&mut wire, broker, topic, id).contains(&(offset, Some(new))).then_some(())
            });
        }
    }

    /// All that a queue has, with who sent it if it is as it was sent.
    fn read(&self, wire: &mut Wire, broker: &Broker, topic: &str, queue: u32) -> Vec<(u64, Option<Id>)> {
        let (mut found, mut next) = (Vec::new(), 0);
        loop {
            let stretch = wire.try_pull(topic, queue, next);
            let stretch = stretch.unwrap_or_else(|error| self.fail(broker, &format!("{topic}/{queue}: {error}")));
            for one in &stretch.messages {
                let record = one.record();
                if record.queue_offset().0 < next {
                    self.fail(broker, &format!("{topic}/{queue} goes back from {next}"));
                }
                found.push((record.queue_offset().0, parse(record.body())));
            }
            if stretch.next <= next {
                return found;
            }
            next = stretch.next;
        }
    }
}

#[test]
fn a_start_on_a_damaged_directory_is_up_with_what_is_whole_or_says_why_not() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let nameserver = Nameserver::start(home.path());
    let store = home.path().join("store");
    let mut broker = Broker::start_in(home.path(), "damaged", &nameserver.addr(), &SETTINGS, &store, Vec::new());
    let mut bases = vec![Known::make(&mut broker, 1, true)];
    for (sender, clean) in [(2, false), (3, true)] {
        broker.start_again();
        bases.push(Known::make(&mut broker, sender, clean));
    }
    let (other, bases) = bases.split_last().expect("there are three");
    let seeds = match of_env("FERROMQ_DAMAGE_SEED", u64::MAX) {
        u64::MAX => 0..of_env("FERROMQ_DAMAGE_CASES", CASES),
        seed => seed..seed + 1,
    };
    let (count, mut refused) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let mut dice = Dice(seed);
        let known = &bases[usize::from(dice.one_in(3))];
        let mut files = known.files.clone();
        let mut what = format!("seed {seed}, {}", if known.clean { "stopped" } else { "killed" });
        for _ in 0..1 + dice.below(2) {
            write!(what, "; {}", damage(&mut files, &other.files, &mut dice)).expect("into a string");
        }
        eprintln!("case: {what}");
        let case = Case { what, known, files: &files };
        case.run(&mut broker);
        refused += u64::from(!broker.process.logged(|line| line.contains("broker listens")));
    }
    println!("{count} starts, {refused} of them refused");
}
