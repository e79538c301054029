//! What a check tells.

use std::fmt;
use std::path::{Path, PathBuf};

/// What of a store a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Log,
    Queues,
    Index,
    Timers,
    Checkpoint,
    Config,
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Part::Log => "log",
            Part::Queues => "queues",
            Part::Index => "index",
            Part::Timers => "timers",
            Part::Checkpoint => "checkpoint",
            Part::Config => "config",
        }
    }
}

/// Something that is not as it should be, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Otherwise only worth knowing: nothing is wrong, or the next start mends it as it does after every crash.
    pub is_fault: bool,
    pub part: Part,
    pub path: PathBuf,
    /// Byte of the file.
    pub at: Option<u64>,
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_fault {
            f.write_str("note: ")?;
        }
        write!(f, "{}", self.path.display())?;
        if let Some(at) = self.at {
            write!(f, ":{at}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Hands findings on, one at a time, and counts them.
pub struct Report<'a> {
    sink: &'a mut dyn FnMut(&Finding),
    pub faults: u64,
    pub notes: u64,
}

impl<'a> Report<'a> {
    pub fn new(sink: &'a mut dyn FnMut(&Finding)) -> Report<'a> {
        Report { sink, faults: 0, notes: 0 }
    }

    pub fn fault(&mut self, part: Part, path: &Path, at: impl Into<Option<u64>>, what: impl fmt::Display) {
        self.tell(true, part, path, at, what);
    }

    pub fn note(&mut self, part: Part, path: &Path, at: impl Into<Option<u64>>, what: impl fmt::Display) {
        self.tell(false, part, path, at, what);
    }

    pub fn tell(
        &mut self,
        is_fault: bool,
        part: Part,
        path: &Path,
        at: impl Into<Option<u64>>,
        what: impl fmt::Display,
    ) {
        *(if is_fault { &mut self.faults } else { &mut self.notes }) += 1;
        let finding = Finding { is_fault, part, path: path.to_owned(), at: at.into(), what: what.to_string() };
        (self.sink)(&finding);
    }
}

/// So many findings of one kind are told for one file; the others are counted.
pub const TOLD_MAX: u64 = 100;

/// Of one kind, in one file.
#[derive(Debug, Default)]
pub struct FindingCount(u64);

impl FindingCount {
    /// Whether one more is to be told.
    pub fn one_more(&mut self) -> bool {
        self.0 += 1;
        self.0 <= TOLD_MAX
    }

    pub fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// Says how many were not.
    pub fn finish(&self, report: &mut Report<'_>, part: Part, path: &Path) {
        if self.0 > TOLD_MAX {
            report.note(part, path, None, format_args!("and {} more of these", self.0 - TOLD_MAX));
        }
    }
}
