//! The master's side of one slave's stream: what to send it, and whether to go on with it. Java: DefaultHAConnection.
//!
//! A feed is silent until the first report, which says where it begins; from there it sends the log in order, once. It reads nothing and
//! writes nothing: [`Feed::next`] names a range, and whoever has the socket sends it. Our slaves and Java's are served alike.

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::PACKET_BODY_LEN_MAX;

use crate::moment::Moment;
use crate::planted::{Bug, planted};

/// Who is further behind than this, in bytes, catches up: with longer packets, and after those who are in sync.
const CATCH_UP_LEN: u64 = 1024 * 1024;

/// Body of a packet for one who catches up, in bytes.
const CATCH_UP_BATCH_LEN: u64 = 256 * 1024;

/// One who catches up and yields to others waits so long for the log to grow, in milliseconds: when it does not, there is nobody to yield to.
const YIELD_MS: u64 = 2;

/// How much a feed may send at a time, when it speaks, and how long it listens.
#[derive(Clone, Debug)]
pub struct FeedConfig {
    /// Bytes. No packet crosses the end of a segment. Key: `mappedFileSizeCommitLog`.
    pub segment_len: u64,
    /// Longest body of a packet, in bytes; [`PACKET_BODY_LEN_MAX`] at most counts. Key: `haTransferBatchSize`.
    pub batch_len_max: u64,
    /// An empty slave is given the last segment only, as Java does. Key: `syncFromLastFile`.
    pub from_last_segment: bool,
    /// A heartbeat after so many milliseconds without a packet. Key: `haSendHeartbeatInterval`.
    pub heartbeat_ms: u64,
    /// The end after so many milliseconds without a report. Key: `haHousekeepingInterval`.
    pub silence_ms_max: u64,
    /// Bytes in each second, heads included, if limited. Keys: `haFlowControlEnable`, `maxHaTransferByteInSecond`.
    pub bytes_per_second: Option<u64>,
}

impl Default for FeedConfig {
    fn default() -> FeedConfig {
        FeedConfig {
            segment_len: 1 << 30,
            batch_len_max: 32 * 1024,
            from_last_segment: false,
            heartbeat_ms: 5_000,
            silence_ms_max: 20_000,
            bytes_per_second: None,
        }
    }
}

/// What a feed may read of the log now.
#[derive(Clone, Copy, Debug)]
pub struct Readable {
    /// The first byte that the log still has; the begin of a segment.
    pub first: PhysicalOffset,
    /// Written, or with synchronous flush flushed: a slave never gets what a power cut could take from its master.
    pub end: PhysicalOffset,
    /// Another feed is in sync, and this one yields to it while it catches up.
    pub yields: bool,
}

/// What to write to the slave's socket, whole, before the feed is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// The head of a packet and `len` bytes of the log from `at` on.
    Packet { at: PhysicalOffset, len: usize },
    /// The head of a packet without body.
    Heartbeat { at: PhysicalOffset },
}

/// Why a feed ends: its connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedEnd {
    /// It has what this log does not have: it was another master's slave, or this one has lost its end. To be warned of.
    #[error("the slave says that it holds the log up to {reported}, but it ends at {end}")]
    BeyondEnd { reported: PhysicalOffset, end: PhysicalOffset },
    /// No slave says that.
    #[error("the slave says that it holds the log up to {reported}, but was sent no more than up to {sent}")]
    BeyondSent { reported: PhysicalOffset, sent: PhysicalOffset },
    /// It was away for longer than messages are kept, and has to begin anew, empty. To be warned of.
    #[error("the slave needs the log from {at} on, but it begins at {first}: empty the slave")]
    BeforeFirst { at: PhysicalOffset, first: PhysicalOffset },
    #[error("the slave has said nothing for {ms} ms")]
    Silent { ms: u64 },
}

/// A report that a feed has found possible. Nothing else counts among the [`crate::Copies`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report(PhysicalOffset);

impl Report {
    /// The slave holds the log up to here.
    pub fn end(self) -> PhysicalOffset {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn of(end: u64) -> Report {
        Report(PhysicalOffset(end))
    }
}

#[derive(Debug)]
pub struct Feed {
    config: FeedConfig,
    /// Where the next packet begins. `None` until the first report.
    sent: Option<PhysicalOffset>,
    heard_at: Moment,
    spoke_at: Moment,
    /// How far the log went when the last packet left.
    end_then: PhysicalOffset,
    /// The second that is running, and what was sent in it.
    second: (Moment, u64),
}

impl Feed {
    /// A slave has connected.
    pub fn new(config: FeedConfig, now: Moment) -> Feed {
        Feed { config, sent: None, heard_at: now, spoke_at: now, end_then: PhysicalOffset(0), second: (now, 0) }
    }

    /// The last report of a read. What it gives back is told to the [`crate::Copies`]; after an error it counts for nothing.
    pub fn reported(&mut self, end: PhysicalOffset, log: Readable, now: Moment) -> Result<Report, FeedEnd> {
        self.heard_at = now;
        if end > log.end && !planted(Bug::ReportBeyondEndCounted) {
            return Err(FeedEnd::BeyondEnd { reported: end, end: log.end });
        }
        match self.sent {
            Some(sent) if end > sent && !planted(Bug::ReportBeyondEndCounted) => {
                return Err(FeedEnd::BeyondSent { reported: end, sent });
            }
            Some(_) => {}
            None => self.begin(end, log, now)?,
        }
        Ok(Report(end))
    }

    fn begin(&mut self, end: PhysicalOffset, log: Readable, now: Moment) -> Result<(), FeedEnd> {
        let start = match end {
            PhysicalOffset(0) if self.config.from_last_segment => log.end.file_start(self.config.segment_len),
            // A Java slave that is empty begins with the segment that the first packet says, whichever that is.
            PhysicalOffset(0) => log.first,
            end => end,
        };
        if start < log.first {
            return Err(FeedEnd::BeforeFirst { at: start, first: log.first });
        }
        self.sent = Some(start);
        self.spoke_at = now;
        Ok(())
    }

    /// What to send now. `None`: nothing before a report, growth of the log, or [`Feed::due`].
    pub fn next(&mut self, log: Readable, now: Moment) -> Result<Option<Outgoing>, FeedEnd> {
        let ms = now.since(self.heard_at);
        if ms >= self.config.silence_ms_max && !planted(Bug::SilentSlaveKept) {
            return Err(FeedEnd::Silent { ms });
        }
        let Some(at) = self.sent else { return Ok(None) };
        if at < log.first {
            return Err(FeedEnd::BeforeFirst { at, first: log.first });
        }
        let len = self.allowed_len(at, log, now);
        if len > 0 {
            self.sent = Some(at + len);
            self.end_then = log.end;
            self.spoke(len, now);
            // Not more than a packet may have, which is a usize.
            return Ok(Some(Outgoing::Packet { at, len: len as usize }));
        }
        if now.since(self.spoke_at) >= self.config.heartbeat_ms {
            self.spoke(0, now);
            return Ok(Some(Outgoing::Heartbeat { at }));
        }
        Ok(None)
    }

    /// Bytes of the log that may leave now.
    fn allowed_len(&self, at: PhysicalOffset, log: Readable, now: Moment) -> u64 {
        let behind = log.end - at;
        let catches_up = behind > CATCH_UP_LEN;
        if catches_up && log.yields && log.end == self.end_then && now.since(self.spoke_at) < YIELD_MS {
            return 0;
        }
        let mut len_max = self.config.batch_len_max.clamp(1, PACKET_BODY_LEN_MAX as u64);
        if catches_up {
            len_max = len_max.max(CATCH_UP_BATCH_LEN);
        }
        if let Some(limit) = self.config.bytes_per_second {
            let spent = if now.since(self.second.0) < 1000 { self.second.1 } else { 0 };
            len_max = len_max.min(limit.saturating_sub(spent));
        }
        let segment_end = at.file_start(self.config.segment_len) + self.config.segment_len;
        behind.min(len_max).min(segment_end - at)
    }

    fn spoke(&mut self, len: u64, now: Moment) {
        self.spoke_at = now;
        if now.since(self.second.0) >= 1000 {
            self.second = (now, 0);
        }
        self.second.1 += len + ferromq_protocol::ha::PACKET_HEAD_LEN as u64;
    }

    /// How far the slave was sent the log; what follows is asked for with [`Feed::next`]. `None` before the first report.
    pub fn sent(&self) -> Option<PhysicalOffset> {
        self.sent
    }

    /// When the slave has been silent for too long. [`Feed::next`] is to be asked then even while the socket takes nothing.
    pub fn silent_at(&self) -> Moment {
        self.heard_at + self.config.silence_ms_max
    }

    /// When [`Feed::next`] is to be asked again although nothing has happened.
    pub fn due(&self, log: Readable) -> Moment {
        let silent = self.silent_at();
        let Some(at) = self.sent else { return silent };
        let mut due = silent.min(self.spoke_at + self.config.heartbeat_ms);
        if at < log.end {
            // Only those who are limited and those who yield have something to send and do not.
            let is_spent = self.config.bytes_per_second.is_some_and(|limit| self.second.1 >= limit);
            due = due.min(if is_spent { self.second.0 + 1000 } else { self.spoke_at + YIELD_MS });
        }
        due
    }
}

#[cfg(test)]
#[path = "feed_test.rs"]
mod tests;
