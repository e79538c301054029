//! The commit log as it lies there: its files, each record of it, and where it ends.

use std::io;
use std::path::{Path, PathBuf};

use ferromq_protocol::message::record::{BLANK_LEN, RECORD_LEN_MIN};
use ferromq_protocol::message::{ParsedRecord, Record};

use super::CheckError;
use super::report::{Part, Report};
use super::window::{Window, is_blank};
use crate::files;
use crate::segments::stated_len;
use crate::torn_text::has_lost_properties;
use crate::walk::{LogItem, record_at};

/// Read at a time by who reads on, and by who looks here and there.
pub const STEP: usize = 1 << 20;
const STEP_BRIEF: usize = 16 * 1024;

#[derive(Clone, Debug)]
struct Segment {
    start: u64,
    len: u64,
    path: PathBuf,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

#[derive(Debug)]
pub struct Log {
    /// In order of their places, which do not overlap.
    segments: Vec<Segment>,
    open: Option<(usize, Window)>,
}

/// What is known to be on the disk: what cannot be read there is damage; behind it, it is what a crash leaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct DurableLog {
    /// The broker was stopped in order.
    pub clean: bool,
    /// All bytes before this place are.
    pub log: u64,
    /// All records stored up to this time are.
    pub time: i64,
}

impl DurableLog {
    /// Whether all bytes before `end` are on the disk, as far as places tell.
    fn reaches(self, end: u64) -> bool {
        self.clean || end <= self.log
    }

    fn covers(self, record: &Record<'_>) -> bool {
        self.clean || record.physical_offset().0 < self.log || record.store_timestamp() <= self.time
    }

    fn covers_whole(self, record: &Record<'_>) -> bool {
        self.reaches(record.physical_offset().0 + record.record_len() as u64) || record.store_timestamp() < self.time
    }
}

/// What going through the log came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogWalk {
    /// Behind the last record.
    pub end: u64,
    pub records: u64,
    /// Of all store times.
    pub newest_time: i64,
}

/// A part of the log without a record.
struct Hole {
    path: PathBuf,
    at: u64,
    physical: u64,
    /// `None` for zeros that nothing has followed so far, which are the log's end.
    why: Option<String>,
}

impl Hole {
    /// A record follows at `end`.
    fn tell(self, report: &mut Report<'_>, end: u64) {
        let len = end.saturating_sub(self.physical);
        let why = self.why.as_deref().unwrap_or("zeros");
        report.fault(Part::Log, &self.path, self.at, format_args!("{len} bytes hold no record: {why}"));
    }

    /// Nothing does.
    fn tell_of_end(self, report: &mut Report<'_>, known: DurableLog, segment_end: u64) {
        let Some(why) = self.why else { return };
        // A sync may end in the middle of a record.
        if known.reaches(segment_end) {
            let what = format_args!("what stands here is no record, and none follows: {why}");
            report.fault(Part::Log, &self.path, self.at, what);
        } else {
            let what = format_args!("a torn record, which the next start cuts off: {why}");
            report.note(Part::Log, &self.path, self.at, what);
        }
    }
}

impl Log {
    /// Lists the files. A name, a length or a place that does not fit is told.
    pub fn find(dirs: &[PathBuf], known: DurableLog, report: &mut Report<'_>) -> Result<Log, CheckError> {
        let mut segments = Vec::new();
        for dir in dirs {
            for path in files::list_files(dir)? {
                let len = path.metadata().map_err(|source| CheckError::Io { path: path.clone(), source })?.len();
                match start_of(&path) {
                    Some(start) => segments.push(Segment { start, len, path }),
                    None if files::is_copy_of_segment(&path) => {
                        report.note(
                            Part::Log,
                            &path,
                            None,
                            "a copy that a truncation has left; the next start removes it",
                        );
                    }
                    None => report.fault(Part::Log, &path, None, "not a name of a log file"),
                }
            }
        }
        segments.sort_by(|a, b| (a.start, &a.path).cmp(&(b.start, &b.path)));
        let expected = segments.iter().map(|segment| segment.len).max().unwrap_or(0);
        let mut fitting: Vec<Segment> = Vec::with_capacity(segments.len());
        let last = segments.len().saturating_sub(1);
        for (number, mut segment) in segments.into_iter().enumerate() {
            let before = fitting.last().map(Segment::end);
            match before {
                Some(end) if segment.start < end => {
                    report.fault(Part::Log, &segment.path, None, "lies over the file before it, and is passed over");
                    continue;
                }
                Some(end) if segment.start > end => {
                    let gap = segment.start - end;
                    report.fault(
                        Part::Log,
                        &segment.path,
                        None,
                        format_args!("{gap} bytes of the log are missing before it"),
                    );
                }
                _ => {}
            }
            if segment.len != expected {
                let what = format_args!("has {} bytes, others have {expected}", segment.len);
                // Behind what is on the disk, a crash may take the length of more than one.
                let is_new = (number == last || !known.reaches(segment.start + 1)) && is_blank(&segment.path);
                report.tell(!is_new, Part::Log, &segment.path, None, what);
                if is_new {
                    segment.len = expected;
                }
            }
            fitting.push(segment);
        }
        Ok(Log { segments: fitting, open: None })
    }

    /// The same files, read by somebody else.
    pub fn again(&self) -> Log {
        Log { segments: self.segments.clone(), open: None }
    }

    pub fn files(&self) -> usize {
        self.segments.len()
    }

    /// Of the longest file.
    pub fn segment_len(&self) -> Option<u64> {
        self.segments.iter().map(|segment| segment.len).max()
    }

    /// Where the file with a place ends, or the last one.
    pub fn file_end(&self, physical: u64) -> u64 {
        let segment = self.number_of(physical).map(|number| &self.segments[number]).or(self.segments.last());
        segment.map_or(0, Segment::end)
    }

    pub fn begin(&self) -> u64 {
        self.segments.first().map_or(0, |first| first.start)
    }

    /// The file with a place of the log, and where it is in there.
    pub fn place(&self, physical: u64) -> Option<(&Path, u64)> {
        let segment = &self.segments[self.number_of(physical)?];
        Some((&segment.path, physical - segment.start))
    }

    fn number_of(&self, physical: u64) -> Option<usize> {
        let number = self.segments.partition_point(|segment| segment.start <= physical).checked_sub(1)?;
        (physical < self.segments[number].end()).then_some(number)
    }

    /// The record at a place; its body's CRC is not checked.
    pub fn record_at(&mut self, physical: u64) -> io::Result<Option<Record<'_>>> {
        let Some(number) = self.number_of(physical) else { return Ok(None) };
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.open = Some((number, Window::open(&self.segments[number].path, STEP_BRIEF)?));
        }
        let Some((_, window)) = &mut self.open else { return Ok(None) };
        record_in(window, physical - self.segments[number].start, physical)
    }

    /// Goes through all records, over damage, and hands on each that can be read, with whether its body is whole.
    pub fn walk(
        &self,
        known: DurableLog,
        report: &mut Report<'_>,
        visit: &mut dyn FnMut(&Record<'_>, bool, &mut Report<'_>),
    ) -> LogWalk {
        let mut walked = LogWalk { end: self.begin(), ..LogWalk::default() };
        let mut hole: Option<Hole> = None;
        let mut ended = false;
        for segment in &self.segments {
            if ended {
                break;
            }
            let mut window = match Window::open(&segment.path, STEP) {
                Ok(window) => window,
                Err(error) => {
                    report.fault(Part::Log, &segment.path, None, format_args!("cannot be opened: {error}"));
                    continue;
                }
            };
            let mut at = 0;
            while at < window.len() && !ended {
                let physical = segment.start + at;
                let step = match step_at(&mut window, at, physical, &mut |record| {
                    // Nobody vouches for what follows something torn: the next start ends the log there.
                    if let Some(hole) = &mut hole
                        && !known.covers(record)
                        && !known.reaches(self.file_end(hole.physical))
                    {
                        hole.why.get_or_insert_with(|| "zeros".to_owned());
                        ended = true;
                        return;
                    }
                    if let Some(hole) = hole.take() {
                        hole.tell(report, physical);
                    }
                    let whole = is_whole(record, at, known, report, &segment.path);
                    if !whole && !known.covers_whole(record) {
                        ended = true;
                        return;
                    }
                    walked.records += 1;
                    walked.newest_time = walked.newest_time.max(record.store_timestamp());
                    visit(record, whole, report);
                }) {
                    Ok(step) => step,
                    Err(error) => {
                        report.fault(Part::Log, &segment.path, at, format_args!("cannot be read: {error}"));
                        at += STEP as u64 - at % STEP as u64;
                        continue;
                    }
                };
                match step {
                    Step::Record(_) if ended => {}
                    Step::Record(len) => {
                        at += len;
                        walked.end = segment.start + at;
                    }
                    Step::Filler => {
                        if let Some(hole) = hole.take() {
                            hole.tell(report, physical);
                        }
                        walked.end = segment.end();
                        break;
                    }
                    Step::Rest => {
                        hole.get_or_insert_with(|| Hole { path: segment.path.clone(), at, physical, why: None });
                        break;
                    }
                    Step::Damage { len, why } => {
                        let hole =
                            hole.get_or_insert_with(|| Hole { path: segment.path.clone(), at, physical, why: None });
                        hole.why.get_or_insert(why);
                        at += len;
                    }
                }
            }
        }
        if let Some(hole) = hole {
            let segment_end = self.file_end(hole.physical);
            hole.tell_of_end(report, known, segment_end);
        }
        walked
    }
}

/// Whether nothing was ever put into a log.
pub fn is_unused(dirs: &[PathBuf]) -> Result<bool, CheckError> {
    for dir in dirs {
        if files::list_files(dir)?.iter().any(|path| !is_blank(path)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn start_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok().filter(|start| i64::try_from(*start).is_ok())
}

enum Step {
    /// A record of so many bytes.
    Record(u64),
    /// The segment's records end here.
    Filler,
    /// Nothing but zeros, to the segment's end.
    Rest,
    Damage {
        len: u64,
        why: String,
    },
}

/// Looks at what stands at `at` of a segment.
fn step_at(window: &mut Window, at: u64, physical: u64, visit: &mut dyn FnMut(&Record<'_>)) -> io::Result<Step> {
    if let Some(record) = record_in(window, at, physical)? {
        let len = record.record_len() as u64;
        visit(&record);
        return Ok(Step::Record(len));
    }
    if window.array::<BLANK_LEN>(at)?.is_none_or(|head| head == [0; BLANK_LEN]) {
        return Ok(match window.next_used(at)? {
            None => Step::Rest,
            // The length of a record begins with zeros.
            Some(used) => Step::Damage { len: used.saturating_sub(3).max(at + 1) - at, why: "zeros".to_owned() },
        });
    }
    let room = usize::try_from(window.len() - at).unwrap_or(usize::MAX);
    let bytes = window.bytes(at, STEP)?;
    Ok(match LogItem::at(bytes, physical, room) {
        LogItem::End => Step::Filler,
        LogItem::Damage { len, error } => Step::Damage { len: len as u64, why: error.to_string() },
        // What `record_in` did not take is none, whatever its head says.
        LogItem::Record(_) | LogItem::Part => Step::Damage {
            len: bytes.len().saturating_sub(RECORD_LEN_MIN).max(1) as u64,
            why: "the head of a record that is too long".to_owned(),
        },
    })
}

/// The record at `at` of a segment.
fn record_in(window: &mut Window, at: u64, physical: u64) -> io::Result<Option<Record<'_>>> {
    let head = window.bytes(at, RECORD_LEN_MIN)?;
    let Some(len) = stated_len(head, physical) else { return Ok(None) };
    Ok(match record_at(window.bytes(at, len)?, physical) {
        Ok(ParsedRecord::Record(record)) => Some(record),
        Ok(ParsedRecord::Blank { .. }) | Err(_) => None,
    })
}

/// Whether nothing of a record was lost, as far as that can be told.
fn is_whole(record: &Record<'_>, at: u64, known: DurableLog, report: &mut Report<'_>, path: &Path) -> bool {
    // A segment's length is a usize on any system that has one.
    let Some(what) = damage_of(record, usize::try_from(at).unwrap_or(0)) else { return true };
    report.tell(known.covers_whole(record), Part::Log, path, at, what);
    false
}

/// What was lost of the record at `at` of a segment, as far as that can be told.
pub fn damage_of(record: &Record<'_>, at: usize) -> Option<String> {
    let what = match record.check_crc() {
        Err(error) => error.to_string(),
        Ok(()) if has_lost_properties(record, at) => "a page of its properties is lost".to_owned(),
        Ok(()) => return None,
    };
    let (topic, queue, offset) = (record.topic(), record.queue_id(), record.queue_offset());
    Some(format!("message of {topic} queue {queue} offset {offset}: {what}"))
}
