//! The slave's side: find the master, see that the two logs are one, follow. Java: DefaultHAClient.
//!
//! [`Follower::step`] takes what has happened and says what is to be done, in order; what is answered comes back as the next input. There is
//! one connection at a time. What belongs to one carries its [`Attempt`], so that what comes late from an older one is known as that.
//!
//! The connection comes first, then the comparison, then the first report, before which no master sends anything. Were the logs compared
//! before, the master could end, lose what it had not synced, and be longer again when the slave connects, and nobody would notice: a
//! connection that lasts says that it is the same process, and a process that goes on forgets nothing.

use bytes::{Bytes, BytesMut};
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::Packet;

use crate::comparing::{Comparing, Comparison, Probe, Probed};
use crate::moment::Moment;
use crate::planted::{Bug, planted};

/// Between tries, in milliseconds: doubled with each that comes to nothing.
const BACKOFF_MS: std::ops::RangeInclusive<u64> = 100..=5_000;

/// So often bytes that are no records come from one place before the master is given up.
const BAD_BYTES_MAX: u32 = 3;

/// A connection that is neither made, nor compared, in so many milliseconds is closed; a master closes one that says nothing after 20 s.
const PATIENCE_MS: u64 = 15_000;

#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// Bytes; the same as the master's. Key: `mappedFileSizeCommitLog`.
    pub segment_len: u64,
    /// What is reported is on the disk. Key: `flushDiskType`.
    pub sync_flush: bool,
    /// A record, or a filler, that states more bytes is none.
    pub record_len_max: usize,
    /// What only this log has is cut off, after the cut bytes are kept elsewhere, instead of waiting for somebody. Key: `haTruncateDiverged`.
    pub cuts_parted: bool,
    /// A log that the master's has moved on from begins anew instead of waiting for somebody. Key: `haRestartWhenGone`.
    pub restarts_when_gone: bool,
    /// A report after so many milliseconds without one. Key: `haSendHeartbeatInterval`.
    pub report_ms: u64,
    /// The connection is closed after so many milliseconds in which nothing came. Key: `haHousekeepingInterval`.
    pub silence_ms_max: u64,
}

impl Default for FollowerConfig {
    fn default() -> FollowerConfig {
        FollowerConfig {
            segment_len: 1 << 30,
            sync_flush: false,
            // No longer frame comes from a client, so no longer record is in a log.
            record_len_max: ferromq_protocol::FRAME_LEN_MAX,
            cuts_parted: false,
            restarts_when_gone: false,
            report_ms: 5_000,
            silence_ms_max: 20_000,
        }
    }
}

/// A try to connect, and all that comes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt(pub u64);

/// Our own log when a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyLog {
    /// The first byte that it still has.
    pub first: PhysicalOffset,
    /// How far it is written: the end of a record, or of a filler.
    pub end: PhysicalOffset,
    /// How far it is on the disk.
    pub flushed: PhysicalOffset,
}

impl CopyLog {
    fn is_empty(self) -> bool {
        self.first == self.end
    }
}

/// Something has happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The registrar, or the configuration, names a master, or another one than before; `false`: there is none. Whatever was kept against the
    /// one before is forgotten.
    Master {
        is_known: bool,
    },
    /// More of the log is on the disk.
    Flushed,
    /// Time has passed; see [`Follower::due`].
    Tick,
    /// Somebody has seen to what this follower is fenced for.
    Retry,
    Of(Attempt, News<'a>),
}

/// What comes of one connection.
#[derive(Debug)]
pub enum News<'a> {
    /// It is there.
    Connected,
    /// It is gone, or came to nothing, or a question could not be asked.
    Closed,
    /// What the master's log has, from which byte to which: the answer to [`Effect::AskBounds`]. Java says -1 for the begin of an empty log; that is 0.
    Bounds {
        first: PhysicalOffset,
        end: PhysicalOffset,
    },
    /// The answer to [`Effect::AskRecords`].
    Probed(Probed<'a>),
    /// The master's first record, if it can be had: the answer to [`Effect::AskFirstRecord`].
    FirstRecord(Option<Bytes>),
    /// [`Effect::RestartAt`] or [`Effect::CutTo`] is done.
    Changed,
    Packet(Packet),
    /// [`Effect::Append`] has taken so many bytes: whole records and fillers. The log goes that much further.
    Appended(usize),
    /// It has taken nothing; or what else was to be done to the log was not.
    NotAppended(NotAppended),
}

/// Why nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAppended {
    /// What begins there is no record of that place.
    Bad { at: PhysicalOffset },
    /// Not now: the disk is full, or the store takes no writes.
    NotNow,
}

/// To be done, in the order given.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Connect to the master's HA address. Answer: [`News::Connected`] or [`News::Closed`].
    Connect(Attempt),
    /// Close the connection, if it is there; nothing more of that attempt is told.
    Close,
    /// GET_BROKER_RUNTIME_INFO (28): `commitLogMinOffset` and `commitLogMaxOffset`. Answer: [`News::Bounds`].
    AskBounds,
    /// Our record, and VIEW_MESSAGE_BY_ID (33) for the same place. Answer: [`News::Probed`].
    AskRecords(Probe),
    /// VIEW_MESSAGE_BY_ID for offset 0. Answer: [`News::FirstRecord`].
    AskFirstRecord,
    /// Our log has nothing, or is given up as the configuration says, and is to begin there, where a segment does. Answer: [`News::Changed`] or
    /// [`News::NotAppended`].
    RestartAt(PhysicalOffset),
    /// Keep what is behind elsewhere, then cut the log. Answer: [`News::Changed`] or [`News::NotAppended`].
    CutTo(PhysicalOffset),
    /// Check and append whole records, or nothing. Answer: [`News::Appended`] or [`News::NotAppended`].
    Append { at: PhysicalOffset, bytes: Bytes },
    /// Begin a sync of the log. Later: [`Input::Flushed`].
    Flush,
    /// Send the master a report.
    Report(PhysicalOffset),
    /// Say so in the trace log; why it stands still, in what 28 answers too.
    Tell(Notice),
}

/// What somebody should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    #[error("follows the master from {at} on")]
    Follows { at: PhysicalOffset },
    #[error("the master sends what stands at {got}, and {wanted} comes next")]
    Elsewhere { wanted: PhysicalOffset, got: PhysicalOffset },
    #[error("what the master sends is no record at {at}, {times} times now")]
    BadBytes { at: PhysicalOffset, times: u32 },
    #[error("the master was silent for {ms} ms")]
    Silent { ms: u64 },
    #[error("the log takes nothing at present")]
    NotNow,
    #[error("the master has other bytes, or none, from {common} on: what is from there to {end} is cut off")]
    Cuts { common: PhysicalOffset, end: PhysicalOffset },
    #[error("fenced: {0}")]
    Fenced(Fence),
}

/// Why a follower stands still until somebody acts. Nothing is cut, and nothing is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fence {
    /// What is behind `common` may have been acknowledged: promote this broker, or cut its log there.
    #[error("the log goes to {end}, and the master has other bytes, or none, {}", place(common))]
    Parted { common: Option<PhysicalOffset>, end: PhysicalOffset },
    /// It was away for too long: let it begin anew.
    #[error("the log ends at {end}, and the master's begins at {first}")]
    Gone { end: PhysicalOffset, first: PhysicalOffset },
    /// `mappedFileSizeCommitLog` is to be the same everywhere.
    #[error("the master's log begins at {first}, where no segment of ours can begin: its segments have another length")]
    OtherSegments { first: PhysicalOffset },
    /// Where, the scrub and `storeCheck` say.
    #[error("the record at {at} is damaged, here or at the master")]
    Damaged { at: PhysicalOffset },
    #[error("three times the master has sent what is no record at {at}")]
    BadBytes { at: PhysicalOffset },
}

fn place(common: &Option<PhysicalOffset>) -> String {
    common.map_or_else(|| "from the begin on".into(), |common| format!("from {common} on"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerState {
    /// No master is known.
    Looking,
    /// Also between two tries.
    Connecting,
    Comparing,
    Following,
    Fenced(Fence),
}

#[derive(Debug)]
enum State {
    Looking,
    Waiting { until: Moment },
    Connecting,
    Comparing(Step),
    Following(Following),
    Fenced(Fence),
}

/// On the way from a connection to the first report.
#[derive(Debug)]
enum Step {
    Bounds,
    /// `first` is the first byte of the master's log when this began.
    Records {
        comparing: Comparing,
        first: PhysicalOffset,
    },
    /// The logs have parted; is what the master had there only gone since?
    BoundsAgain {
        common: Option<PhysicalOffset>,
        first: PhysicalOffset,
    },
    FirstRecord,
    /// The log is restarted or cut, or the first record is appended.
    Changing,
    /// What is reported first is to be on the disk.
    Flushing,
}

#[derive(Debug)]
struct Following {
    /// The begin of a record or filler whose rest has not come; goes on from the log's end.
    part: Bytes,
    heard_at: Moment,
    spoke_at: Moment,
    reported: PhysicalOffset,
}

#[derive(Debug)]
pub struct Follower {
    config: FollowerConfig,
    state: State,
    attempt: Attempt,
    /// When the attempt began.
    since: Moment,
    backoff_ms: u64,
    /// Where bytes were last no record, and how often in a row.
    bad: Option<(PhysicalOffset, u32)>,
    effects: Vec<Effect>,
}

impl Follower {
    pub fn new(config: FollowerConfig) -> Follower {
        Follower {
            config,
            state: State::Looking,
            attempt: Attempt(0),
            since: Moment(0),
            backoff_ms: *BACKOFF_MS.start(),
            bad: None,
            effects: Vec::new(),
        }
    }

    pub fn state(&self) -> FollowerState {
        match self.state {
            State::Looking => FollowerState::Looking,
            State::Waiting { .. } | State::Connecting => FollowerState::Connecting,
            State::Comparing(_) => FollowerState::Comparing,
            State::Following(_) => FollowerState::Following,
            State::Fenced(fence) => FollowerState::Fenced(fence),
        }
    }

    /// When an [`Input::Tick`] is to come, if nothing else does. `None`: time moves nothing.
    pub fn due(&self) -> Option<Moment> {
        match &self.state {
            State::Looking | State::Fenced(_) => None,
            State::Waiting { until } => Some(*until),
            State::Connecting | State::Comparing(_) => Some(self.since + PATIENCE_MS),
            State::Following(following) => {
                let silent = following.heard_at + self.config.silence_ms_max;
                Some(silent.min(following.spoke_at + self.config.report_ms))
            }
        }
    }

    /// Bytes of a record that wait for their rest.
    pub fn part_len(&self) -> usize {
        if let State::Following(following) = &self.state { following.part.len() } else { 0 }
    }

    /// What is to be done now that `input` has happened. `log` is our own log as it is, what was just appended included.
    pub fn step(&mut self, input: Input<'_>, log: CopyLog, now: Moment) -> Vec<Effect> {
        match input {
            Input::Master { is_known } => {
                self.leave();
                self.backoff_ms = *BACKOFF_MS.start();
                self.bad = None;
                self.state = State::Looking;
                if is_known {
                    self.connect(now);
                }
            }
            Input::Flushed => self.flushed(log, now),
            Input::Tick => self.tick(log, now),
            Input::Retry => {
                if let State::Fenced(_) = self.state {
                    self.bad = None;
                    self.connect(now);
                }
            }
            Input::Of(attempt, news) => {
                if attempt == self.attempt {
                    self.news(news, log, now);
                }
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn news(&mut self, news: News<'_>, log: CopyLog, now: Moment) {
        match (&mut self.state, news) {
            (State::Connecting | State::Comparing(_) | State::Following(_), News::Closed) => self.again(now),
            (State::Connecting, News::Connected) => self.connected(log, now),
            (State::Comparing(Step::Bounds), News::Bounds { first, end }) => self.bounds(first, end, log, now),
            (State::Comparing(Step::Records { comparing, .. }), News::Probed(probed)) => {
                comparing.answered(probed);
                self.compare(log, now);
            }
            (State::Comparing(Step::BoundsAgain { common, first: then }), News::Bounds { first, end }) => {
                let (common, then) = (*common, *then);
                // What had gone from the master's begin was no difference.
                let is_gone = first > then && common.is_none_or(|common| first > common);
                if is_gone { self.bounds(first, end, log, now) } else { self.parted(common, log) }
            }
            (State::Comparing(Step::FirstRecord), News::FirstRecord(record)) => match record {
                Some(bytes) => {
                    self.state = State::Comparing(Step::Changing);
                    self.effects.push(Effect::Append { at: log.end, bytes });
                }
                None => self.again(now),
            },
            (State::Comparing(Step::Changing), News::Changed) => {
                self.state = State::Comparing(Step::Bounds);
                self.effects.push(Effect::AskBounds);
            }
            (State::Comparing(Step::Changing), News::Appended(taken)) if taken > 0 => self.first_report(log, now),
            (State::Comparing(Step::Changing), News::Appended(_)) => self.bad_bytes(log.end, now),
            (State::Following(following), News::Packet(packet)) => {
                following.heard_at = now;
                self.packet(packet, log, now);
            }
            (State::Following(_), News::Appended(taken)) => self.appended(taken, log, now),
            (State::Comparing(_) | State::Following(_), News::NotAppended(NotAppended::Bad { at }))
                if !planted(Bug::BadBytesKept) =>
            {
                self.bad_bytes(at, now);
            }
            (State::Comparing(_) | State::Following(_), News::NotAppended(NotAppended::NotNow)) => {
                self.effects.push(Effect::Tell(Notice::NotNow));
                self.backoff_ms = *BACKOFF_MS.end();
                self.again(now);
            }
            // An answer that nobody waits for any more.
            _ => {}
        }
    }

    fn connect(&mut self, now: Moment) {
        self.attempt.0 += 1;
        self.since = now;
        self.state = State::Connecting;
        self.effects.push(Effect::Connect(self.attempt));
    }

    /// Closes what is open. What comes of it later belongs to an attempt that is over.
    fn leave(&mut self) {
        if matches!(self.state, State::Connecting | State::Comparing(_) | State::Following(_)) {
            self.effects.push(Effect::Close);
        }
        self.attempt.0 += 1;
    }

    /// Closes what is open, and tries again after a while. What had come of a record is forgotten.
    fn again(&mut self, now: Moment) {
        self.leave();
        self.state = State::Waiting { until: now + self.backoff_ms };
        self.backoff_ms = (self.backoff_ms * 2).min(*BACKOFF_MS.end());
    }

    fn fence(&mut self, fence: Fence) {
        self.leave();
        self.effects.push(Effect::Tell(Notice::Fenced(fence)));
        self.state = State::Fenced(fence);
    }

    fn connected(&mut self, log: CopyLog, now: Moment) {
        let is_another = self.attempt.0 > 2 && !log.is_empty();
        if planted(Bug::NotCompared) || planted(Bug::ComparedOnce) && is_another {
            return self.first_report(log, now);
        }
        self.state = State::Comparing(Step::Bounds);
        self.effects.push(Effect::AskBounds);
    }

    /// `first` and `end` are of the master's log.
    fn bounds(&mut self, first: PhysicalOffset, end: PhysicalOffset, log: CopyLog, now: Moment) {
        if first > end {
            self.again(now);
        } else if first.file_start(self.config.segment_len) != first {
            self.fence(Fence::OtherSegments { first });
        } else if log.is_empty() {
            self.begin(first, end, log, now);
        } else if log.end <= first {
            // Nothing of ours is there to be compared.
            if self.config.restarts_when_gone {
                self.restart_at(first);
            } else {
                self.fence(Fence::Gone { end: log.end, first });
            }
        } else {
            let comparing = Comparing::new(log.first.max(first), log.end, end, self.config.segment_len);
            self.state = State::Comparing(Step::Records { comparing, first });
            self.compare(log, now);
        }
    }

    /// A log with nothing in it begins where the master's does. Report 0 is to be avoided while there is anything in the master's: to Java
    /// it means the last segment.
    fn begin(&mut self, first: PhysicalOffset, end: PhysicalOffset, log: CopyLog, now: Moment) {
        if log.end != first {
            self.restart_at(first);
        } else if first == PhysicalOffset(0) && end > first {
            self.state = State::Comparing(Step::FirstRecord);
            self.effects.push(Effect::AskFirstRecord);
        } else {
            self.first_report(log, now);
        }
    }

    fn restart_at(&mut self, first: PhysicalOffset) {
        self.state = State::Comparing(Step::Changing);
        self.effects.push(Effect::RestartAt(first));
    }

    fn compare(&mut self, log: CopyLog, now: Moment) {
        let State::Comparing(Step::Records { comparing, first }) = &self.state else { return };
        match comparing.next() {
            Comparison::Ask(probe) => self.effects.push(Effect::AskRecords(probe)),
            Comparison::Equal => self.first_report(log, now),
            Comparison::Damaged { at } => self.fence(Fence::Damaged { at }),
            Comparison::Parted { common } => {
                self.state = State::Comparing(Step::BoundsAgain { common, first: *first });
                self.effects.push(Effect::AskBounds);
            }
        }
    }

    fn parted(&mut self, common: Option<PhysicalOffset>, log: CopyLog) {
        if planted(Bug::RestartedWhenParted) {
            return self.restart_at(log.first);
        }
        match common {
            Some(common) if self.config.cuts_parted => {
                self.effects.push(Effect::Tell(Notice::Cuts { common, end: log.end }));
                self.state = State::Comparing(Step::Changing);
                self.effects.push(Effect::CutTo(common));
            }
            _ => self.fence(Fence::Parted { common, end: log.end }),
        }
    }

    /// What is reported first is where the master goes on, so it is the log's end; and with synchronous flush it is on the disk.
    fn first_report(&mut self, log: CopyLog, now: Moment) {
        if self.config.sync_flush && log.flushed < log.end && !planted(Bug::FirstReportUnflushed) {
            self.state = State::Comparing(Step::Flushing);
            self.effects.push(Effect::Flush);
            return;
        }
        let following = Following { part: Bytes::new(), heard_at: now, spoke_at: now, reported: log.end };
        self.state = State::Following(following);
        self.effects.extend([Effect::Report(log.end), Effect::Tell(Notice::Follows { at: log.end })]);
    }

    fn packet(&mut self, packet: Packet, log: CopyLog, now: Moment) {
        let State::Following(following) = &mut self.state else { return };
        let wanted = log.end + following.part.len() as u64;
        if packet.at != wanted {
            self.effects.push(Effect::Tell(Notice::Elsewhere { wanted, got: packet.at }));
            return self.again(now);
        }
        self.backoff_ms = *BACKOFF_MS.start();
        if packet.body.is_empty() {
            return;
        }
        following.part = if following.part.is_empty() {
            packet.body
        } else {
            let mut joined = BytesMut::with_capacity(following.part.len() + packet.body.len());
            joined.extend_from_slice(&following.part);
            joined.extend_from_slice(&packet.body);
            joined.freeze()
        };
        let bytes = following.part.clone();
        self.effects.push(Effect::Append { at: log.end, bytes });
        if planted(Bug::ReportedBeforeAppend) {
            self.effects.push(Effect::Report(wanted));
        }
    }

    fn appended(&mut self, taken: usize, log: CopyLog, now: Moment) {
        let State::Following(following) = &mut self.state else { return };
        // No more than was given. A copy, because the packet behind it is longer.
        let rest = following.part.get(taken..).unwrap_or_default();
        let stated = rest.first_chunk().map_or(0, |len| u32::from_be_bytes(*len) as usize);
        if rest.len().max(stated) > self.config.record_len_max {
            return self.bad_bytes(log.end, now);
        }
        following.part = Bytes::copy_from_slice(rest);
        if taken > 0 && self.bad.is_some_and(|(at, _)| log.end > at) {
            self.bad = None;
        }
        if self.config.sync_flush && log.flushed < log.end {
            self.effects.push(Effect::Flush);
        }
        self.report_growth(log, now);
    }

    fn flushed(&mut self, log: CopyLog, now: Moment) {
        match self.state {
            State::Comparing(Step::Flushing) if log.flushed >= log.end => self.first_report(log, now),
            State::Following(_) => self.report_growth(log, now),
            _ => {}
        }
    }

    fn reportable(&self, log: CopyLog) -> PhysicalOffset {
        let sync_flush = self.config.sync_flush && !planted(Bug::WrittenReported);
        if sync_flush { log.flushed.min(log.end) } else { log.end }
    }

    fn report_growth(&mut self, log: CopyLog, now: Moment) {
        let end = self.reportable(log);
        if let State::Following(following) = &mut self.state
            && end > following.reported
        {
            (following.reported, following.spoke_at) = (end, now);
            self.effects.push(Effect::Report(end));
        }
    }

    /// Nothing of the packet is taken. When that is so again and again, another try is of no use.
    fn bad_bytes(&mut self, at: PhysicalOffset, now: Moment) {
        let times = 1 + self.bad.filter(|(place, _)| *place == at).map_or(0, |(_, times)| times);
        self.bad = Some((at, times));
        self.effects.push(Effect::Tell(Notice::BadBytes { at, times }));
        if times >= BAD_BYTES_MAX { self.fence(Fence::BadBytes { at }) } else { self.again(now) }
    }

    fn tick(&mut self, log: CopyLog, now: Moment) {
        let end = self.reportable(log);
        match &mut self.state {
            State::Looking | State::Fenced(_) => {}
            State::Waiting { until } => {
                if now >= *until {
                    self.connect(now);
                }
            }
            State::Connecting | State::Comparing(_) => {
                if now.since(self.since) >= PATIENCE_MS {
                    self.again(now);
                }
            }
            State::Following(following) => {
                let ms = now.since(following.heard_at);
                if ms >= self.config.silence_ms_max && !planted(Bug::SilentMasterKept) {
                    self.effects.push(Effect::Tell(Notice::Silent { ms }));
                    return self.again(now);
                }
                if now.since(following.spoke_at) >= self.config.report_ms {
                    let end = end.max(following.reported);
                    (following.reported, following.spoke_at) = (end, now);
                    self.effects.push(Effect::Report(end));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "follower_test.rs"]
mod tests;
