//! Starts of the broker on directories that were damaged at random, its tables, timers and marks among them: each is up with all that is whole,
//! what waits and what groups have consumed included, and names what is not; or it does not start, and says which file and what to do.
//!
//! `FERROMQ_DAMAGE_CASES=1000` makes it more cases, `FERROMQ_DAMAGE_SEED=n` one of them. What a start makes of log, queues and index is looked
//! at closer in the store (`damaged_starts_test.rs`).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
/// What waits is due when the broker starts, and comes within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends to the broker whose files come in the place of another's.
const OTHER: u32 = 3;

/// By their path below the store's directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Topic, queue and offset.
type Place = (String, u32, u64);

/// A directory, and what was put into it.
struct Known {
    files: Files,
    clean: bool,
    /// Accepted, with where the log has it.
    sent: Vec<Sent>,
    /// Halves that were taken back.
    rolled_back: HashSet<Id>,
}

#[derive(Clone, Debug)]
struct Sent {
    id: Id,
    /// Index into [`QUEUES`]: where it is, or comes.
    queue: usize,
    /// Where it is; of what waits, where it does.
    place: Place,
    physical: u64,
    waits: bool,
}

impl Known {
    /// A broker is started on an empty directory, is sent everything, and ends.
    fn make(broker: &mut Broker, sender: u32, clean: bool) -> Known {
        let mut dice = Dice(u64::from(sender));
        make_topics(broker.port);
        let mut wire = Wire::connect(broker.port).expect("the broker is up");
        let (mut accepted, mut rolled_back, mut number) = (Vec::new(), HashSet::new(), 0);
        let wait_ms = if clean { 5_000 } else { 25_000 };
        let count = 100 + dice.below(200);
        for at in 0..count {
            if at == count / 2 && !clean {
                // Not all that a kill leaves is newer than what was saved.
                Known::consume(&mut wire);
                Known::await_saved(&broker.store);
            }
            // What waits is due before the next start, and not before this one ends.
            let queue = if dice.one_in(8) { 4 + dice.below(3) as usize } else { dice.below(4) as usize };
            let id = Id { sender, number };
            number += 1;
            let (topic, queue_id) = QUEUES[queue];
            let properties = match queue {
                4 => format!("TIMER_DELIVER_MS\u{1}{}\u{2}", now_ms() + wait_ms + number as i64),
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
                if !commits {
                    rolled_back.insert(id);
                    continue;
                }
            }
            accepted.push((id, queue, physical(&reply)));
        }
        Known::consume(&mut wire);
        let last_due = now_ms() + wait_ms + number as i64;
        if clean {
            assert!(broker.process.terminate().success());
        } else {
            broker.process.kill_hard();
        }
        await_condition("all of it to be due", || (now_ms() > last_due).then_some(()));
        let files = read_all(&broker.store);
        fs::remove_dir_all(&broker.store).expect("nobody uses it");
        let places = places_in(&files);
        let mut come = BTreeMap::new();
        for (physical, (place, id)) in &places {
            if let Some(id) = id
                && QUEUES.iter().any(|(topic, queue)| (*topic, *queue) == (&*place.0, place.1))
            {
                come.entry(*id).or_insert((place.clone(), *physical));
            }
        }
        let sent = accepted.into_iter().map(|(id, queue, waits_at)| match come.remove(&id) {
            Some((place, physical)) => Sent { id, queue, place, physical, waits: false },
            None => Sent { id, queue, place: places[&waits_at].0.clone(), physical: waits_at, waits: true },
        });
        Known { sent: sent.collect(), files, clean, rolled_back }
    }

    /// Who reads comes into being, and then has read something.
    fn consume(wire: &mut Wire) {
        wire.pull(QUEUES[0].0, 0, 0).expect("the broker is up");
        for (topic, queue) in &QUEUES[..4] {
            wire.commit(topic, *queue, CONSUMED).expect("the broker is up");
        }
    }

    /// What groups have consumed, and how far the timers are.
    fn await_saved(store: &Path) {
        await_condition("offsets and timers to be saved", || {
            let offsets = fs::read_to_string(store.join("config/consumerOffset.json")).unwrap_or_default();
            let timers = fs::read(store.join("timers/checkpoint")).unwrap_or_default();
            (offsets.contains("Plain@endurance") && timers.iter().any(|byte| *byte != 0)).then_some(())
        });
    }

    /// The length of the record at a place, if its bytes are as they were.
    fn intact(&self, now: &Files, physical: u64) -> Option<usize> {
        let path = segment(physical);
        let at = usize::try_from(physical % SEGMENT_LEN).expect("short");
        let len = Record::parse(self.files.get(&path)?.get(at..)?).ok()?.record_len();
        (self.files[&path].get(at..at + len)? == now.get(&path)?.get(at..at + len)?).then_some(len)
    }

    fn is_touched(&self, now: &Files, path: &str) -> bool {
        self.files.get(Path::new(path)) != now.get(Path::new(path))
    }

    /// What stands in the log and is not as it was.
    fn claims(&self, now: &Files) -> Claims {
        let mut claims = Claims::default();
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
                    let place = (record.topic().to_owned(), record.queue_id().0, record.queue_offset().0);
                    claims.places.insert(place);
                    claims.ids.extend(parse(record.body()));
                }
            }
        }
        claims
    }
}

/// Records that somebody else wrote over the log, or of which bits flipped.
#[derive(Default)]
struct Claims {
    /// Where they say that they belong: no checksum covers that.
    places: BTreeSet<Place>,
    ids: HashSet<Id>,
}

/// The records of the log, by their places in it: where they belong, and what they are.
fn places_in(files: &Files) -> BTreeMap<u64, (Place, Option<Id>)> {
    let mut places = BTreeMap::new();
    for (path, bytes) in files.iter().filter(|(path, _)| path.starts_with("commitlog")) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let start: u64 = name.parse().expect("a segment's name");
        let mut at = 0;
        while let Ok(record) = Record::parse(&bytes[at..]) {
            let place = (record.topic().to_owned(), record.queue_id().0, record.queue_offset().0);
            places.insert(start + at as u64, (place, parse(record.body())));
            at += record.record_len();
        }
    }
    places
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
    match dice.below(10) {
        0 | 1 if len > 0 => {
            let len = dice.below(len);
            bytes.truncate(len as usize);
            files.insert(path, bytes);
            format!("{name} cut to {len}")
        }
        2..5 if len > 0 => {
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
        7 => {
            // Files of minutes and of the index are named by times.
            let alike: Vec<_> = other.keys().filter(|path| path.starts_with(part)).collect();
            let from = match other.get_key_value(&path) {
                Some((same, _)) if !dice.one_in(4) => same,
                _ if alike.is_empty() => return "nothing".to_owned(),
                _ => alike[dice.below(alike.len() as u64) as usize],
            };
            files.insert(path, other[from].clone());
            format!("{} of another broker as {name}", from.display())
        }
        8 => {
            let dir = path.parent().expect("it is below").to_owned();
            if dir.as_os_str().is_empty() {
                return "nothing".to_owned();
            }
            files.retain(|path, _| !path.starts_with(&dir));
            format!("directory {} removed", dir.display())
        }
        9 => {
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
            // Its two outputs are read one beside the other.
            await_condition("what it has said", || {
                broker.process.logged(|line| line.contains("broker listens")).then_some(())
            });
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
        let known = self.known;
        let mut wire = Wire::connect(broker.port).expect("the broker is up");
        // Without their table the topics are not known, but their queues are there.
        make_topics(broker.port);
        let claims = known.claims(self.files);
        let mut found = Vec::new();
        for (queue, (topic, id)) in QUEUES.into_iter().enumerate() {
            for (offset, id) in self.read(&mut wire, broker, topic, id) {
                self.check_sent(broker, &claims, queue, offset, id);
                found.push((queue, offset, id));
            }
        }
        let there: HashSet<_> = found.iter().map(|(queue, offset, _)| (*queue, *offset)).collect();
        if there.len() != found.len() {
            self.fail(broker, "an offset twice");
        }
        let is_told = self.is_told(&claims);
        for sent in known.sent.iter().filter(|sent| is_told && !sent.waits) {
            if found.contains(&(sent.queue, sent.place.2, Some(sent.id))) {
                continue;
            }
            let is_whole = known.intact(self.files, sent.physical).is_some() && !claims.places.contains(&sent.place);
            if is_whole && !Words::of(broker).say_cut(sent.physical) {
                self.fail(broker, &format!("{sent:?} is whole and not there"));
            }
            // What it says when a message is read may come behind the answer.
            let began = Instant::now();
            while !Words::of(broker).name(sent) {
                if began.elapsed() > PATIENCE {
                    self.fail(broker, &format!("{sent:?} is gone, and it is not named"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if is_told {
            self.await_what_waited(&mut wire, broker, &claims);
        }
        self.check_consumed(&mut wire, broker);
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

    /// Whether a start can tell our segments from those of another broker. How each begins is in the list, once that was written after it.
    fn is_told(&self, claims: &Claims) -> bool {
        let is_touched = ["inventory", "checkpoint"].iter().any(|path| self.known.is_touched(self.files, path));
        let is_listed = self.known.clean && !is_touched;
        is_listed || claims.ids.iter().all(|id| id.sender != OTHER)
    }

    /// Whether what stands in a queue is what was sent, or what somebody else wrote over the log.
    fn check_sent(&self, broker: &Broker, claims: &Claims, queue: usize, offset: u64, id: Option<Id>) {
        let (topic, queue_id) = QUEUES[queue];
        let sent = self.known.sent.iter().find(|sent| sent.queue == queue && Some(sent.id) == id);
        // What waited may come once more.
        let is_again = |sent: &Sent| queue >= 4 && sent.place.2 < offset;
        let is_right = sent.is_some_and(|sent| sent.waits || sent.place.2 == offset || is_again(sent));
        let is_claimed = claims.places.contains(&(topic.to_owned(), queue_id, offset))
            || id.is_some_and(|id| claims.ids.contains(&id));
        if !is_right && !is_claimed {
            let what = if id.is_some_and(|id| self.known.rolled_back.contains(&id)) {
                "was taken back"
            } else {
                "nobody sent so"
            };
            self.fail(broker, &format!("{id:?}, which {what}, is at {topic}/{queue_id}/{offset}"));
        }
    }

    /// What waited is due. It comes, or is named.
    fn await_what_waited(&self, wire: &mut Wire, broker: &Broker, claims: &Claims) {
        let (known, began) = (self.known, Instant::now());
        let mut waiting: Vec<_> = known.sent.iter().filter(|sent| sent.waits).collect();
        loop {
            let words = Words::of(broker);
            let mut come = HashSet::new();
            for (topic, id) in &QUEUES[4..] {
                come.extend(self.read(wire, broker, topic, *id).into_iter().filter_map(|(_, id)| id));
            }
            waiting.retain(|sent| {
                let is_whole =
                    known.intact(self.files, sent.physical).is_some() && !claims.places.contains(&sent.place);
                let is_cut = words.say_cut(sent.physical);
                let is_excused = ["topics.json", "delayOffset.json"].iter().any(|table| self.excuses(&words, table));
                !(come.contains(&sent.id) || is_excused || (!is_whole || is_cut) && words.name(sent))
            });
            match waiting.first() {
                None => return,
                Some(sent) if began.elapsed() > PATIENCE => {
                    self.fail(broker, &format!("{sent:?} waited, does not come and is not named"));
                }
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Whether a table says something else than it did: that is named where it cannot be read or is missing. What can be read is believed,
    /// since people edit tables.
    fn excuses(&self, words: &Words, table: &str) -> bool {
        let path = Path::new("config").join(table);
        self.known.is_touched(self.files, &path.to_string_lossy())
            && (words.any(|line| line.contains(table)) || self.files.get(&path).is_some_and(|now| !now.is_empty()))
    }

    fn check_consumed(&self, wire: &mut Wire, broker: &Broker) {
        let words = Words::of(broker);
        let table = self.known.files.get(Path::new("config/consumerOffset.json"));
        // A kill may have come before it was saved.
        let was_saved = table.is_some_and(|table| String::from_utf8_lossy(table).contains("Plain@endurance"));
        assert!(was_saved || !self.known.clean, "it was stopped in order");
        // All of this was said before it was up.
        for (topic, id) in QUEUES[..4].iter().filter(|_| was_saved) {
            let consumed = wire.consumed(topic, *id).expect("the broker is up");
            let is_named = words.any(|line| {
                line.contains("a group has consumed more messages than the queue has")
                    && line.contains(&format!("queue={id} "))
            });
            if consumed != Some(CONSUMED) && !is_named && !self.excuses(&words, "consumerOffset.json") {
                self.fail(broker, &format!("{topic}/{id} was consumed up to {CONSUMED}, and now {consumed:?}"));
            }
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

/// What a broker has said at WARN and ERROR.
struct Words {
    lines: Vec<String>,
    log_dir: String,
}

impl Words {
    fn of(broker: &Broker) -> Words {
        let mut lines = broker.process.log_lines();
        lines.retain(|line| line.contains(" WARN ") || line.contains("ERROR "));
        Words { lines, log_dir: broker.store.join("commitlog").display().to_string() }
    }

    fn any(&self, is_it: impl Fn(&str) -> bool) -> bool {
        self.lines.iter().any(|line| is_it(line))
    }

    /// Whether the log was cut off before that place, by words of their own.
    fn say_cut(&self, physical: u64) -> bool {
        self.any(|line| {
            let is_cut = line.contains("what follows the last whole record is cut off")
                || line.contains("removed a log file behind the end of the log")
                || line.contains("queues have entries behind the end of the log")
                    && number_in(line, " furthest=").is_some_and(|end| physical < end);
            is_cut && number_in(line, " end=").is_some_and(|end| end <= physical)
        })
    }

    /// Whether one who looks for this message finds a line that says what became of it: its segment, its place there, or its places in the
    /// queue.
    fn name(&self, sent: &Sent) -> bool {
        let path = format!("{}/{:020}", self.log_dir, sent.physical - sent.physical % SEGMENT_LEN);
        let (topic, queue, offset) = &sent.place;
        let in_queue = [format!("topic=\"{topic}\" queue={queue} "), format!("topic={topic} queue={queue} ")];
        self.say_cut(sent.physical)
            || self.any(|line| {
                let are_gone = line.contains("the first files of the commit log are gone") && {
                    let first = line.split_once(&self.log_dir).and_then(|(_, rest)| number_in(rest, "/"));
                    let count = number_in(line, " count=").unwrap_or(0);
                    first.is_some_and(|first| (first..first + count * SEGMENT_LEN).contains(&sent.physical))
                };
                let padded = format!("{line} ");
                let is_of = |offset: u64| {
                    [" offset=", " queue_offset="].iter().any(|name| padded.contains(&format!("{name}{offset} ")))
                };
                let from = |name| number_in(line, name).is_some_and(|first| first <= *offset);
                let in_queue = in_queue.iter().any(|place| padded.contains(place))
                    && (line.contains("queue removed: there is no commit log")
                        || line.contains("the log has a later message at this offset") && from(" offset=")
                        || is_of(*offset)
                        || from(" found="));
                are_gone
                    || in_queue
                    || line.contains(&path)
                    || line.contains(&format!("physical_offset={} ", sent.physical))
            })
    }
}

/// The number behind the first `name`.
fn number_in(line: &str, name: &str) -> Option<u64> {
    let (_, rest) = line.split_once(name)?;
    let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[test]
fn a_start_on_a_damaged_directory_is_up_with_what_is_whole_or_says_why_not() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let nameserver = Nameserver::start(home.path());
    let store = home.path().join("store");
    let mut broker = Broker::start_in(home.path(), "damaged", &nameserver.addr(), &SETTINGS, &store, Vec::new());
    // Soon after one another, so that what waits is due in one minute and its files have one name.
    let first = Known::make(&mut broker, 1, true);
    broker.start_again();
    let other = Known::make(&mut broker, OTHER, true);
    broker.start_again();
    let bases = [first, Known::make(&mut broker, 2, false)];
    let seeds = match of_env("FERROMQ_DAMAGE_SEED", u64::MAX) {
        u64::MAX => 0..of_env("FERROMQ_DAMAGE_CASES", CASES),
        seed => seed..seed + 1,
    };
    let (count, mut refused, mut untold, mut failed) = (seeds.end - seeds.start, 0, 0, Vec::new());
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
        untold += u64::from(!case.is_told(&known.claims(&files)));
        if panic::catch_unwind(AssertUnwindSafe(|| case.run(&mut broker))).is_err() {
            failed.push(seed);
            broker.process.kill_hard();
            let _ = fs::remove_dir_all(&broker.store);
        }
        refused += u64::from(!broker.process.logged(|line| line.contains("broker listens")));
    }
    println!("{count} starts, {refused} refused; {untold} with segments of another broker that no list knows");
    assert!(failed.is_empty(), "FERROMQ_DAMAGE_SEED is one of {failed:?}");
}
