//! The slave's side of the stream: the thread that finds the master, copies its log, and says how far it is.
//!
//! [`Follower`] decides; here is what it says done, one effect after the other, and what comes of it told. All of it is one thread's, which has an
//! event loop of its own: the store may keep it waiting, and keeps nobody else. Whatever the peer is or does, what it costs is this connection,
//! and a line in the trace log.

use std::future::pending;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::{HaStreamError, decode_packet, encode_report};
use ferromq_replication::{
    Attempt, CopyLog, Effect, Fence, Follower, FollowerConfig, FollowerState, Input, News, Notice, Probe, Probed,
};
use ferromq_store::{Keeper, Store, Want};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, error, info, warn};

use super::follower_status::FollowerStatus;
use super::master_keeps::MasterKeeps;
use super::master_place::MasterPlace;
use super::questions::{Bounds, QuestionError, Questions, connect};
use super::seldom::Seldom;
use super::slave_log::SlaveLog;
use super::{OwnRuntime, moment};
use crate::config::{BrokerConfig, FlushDiskType};
use crate::standing::MasterAddress;

/// How often a slave that follows asks where its master's log begins.
const ASK_BEGIN: Duration = Duration::from_secs(10);
/// A report is eight bytes: a peer that has no room for them has not read for long.
const WRITE_PATIENCE: Duration = Duration::from_secs(3);
/// Read at once from the stream, at most.
const READ_LEN: usize = 256 << 10;

/// What the thread is made of.
pub(crate) struct FollowerTaskParts {
    pub store: Arc<Store>,
    pub masters: watch::Receiver<Option<MasterAddress>>,
    /// `host:port` of this broker, for clients.
    pub own_address: String,
    pub status: Arc<FollowerStatus>,
}

/// The thread. Dropped, it is stopped.
pub(crate) struct FollowerTask {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    /// The store asks it for as long as this is there.
    keeps: Arc<MasterKeeps>,
}

impl FollowerTask {
    /// Begins to follow, and from now on keeps what the master has.
    pub(crate) fn start(config: &BrokerConfig, parts: FollowerTaskParts) -> io::Result<FollowerTask> {
        let keeps = Arc::new(MasterKeeps::default());
        parts.store.add_keeper(Arc::clone(&keeps) as Arc<dyn Keeper>);
        let (stop, stopped) = watch::channel(false);
        let status = Arc::clone(&parts.status);
        let task = Task::new(config, parts, Arc::clone(&keeps));
        let runtime = OwnRuntime::new()?;
        let run = move || {
            let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(task.run_until(stopped))));
            status.follows_nobody();
            if ended.is_err() {
                error!("the thread that follows the master panicked; nothing is copied any more until the next start");
            }
        };
        let thread = std::thread::Builder::new().name("ha-follower".into()).spawn(run)?;
        Ok(FollowerTask { stop, thread: Some(thread), keeps })
    }

    /// Ends the thread, and waits for it: for the disk, too, if it is at work there. What it keeps stays for as long as somebody has what this
    /// gives.
    pub(crate) fn stop(mut self) -> Arc<dyn Keeper> {
        self.end();
        Arc::clone(&self.keeps) as Arc<dyn Keeper>
    }

    fn end(&mut self) {
        self.stop.send_replace(true);
        // It has told of a panic itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for FollowerTask {
    fn drop(&mut self) {
        self.end();
    }
}

struct Task {
    follower: Follower,
    log: SlaveLog,
    keeps: Arc<MasterKeeps>,
    /// `haMasterAddress`.
    pinned: Option<String>,
    masters: watch::Receiver<Option<MasterAddress>>,
    own_address: String,
    status: Arc<FollowerStatus>,
    place: Option<MasterPlace>,
    attempt: Attempt,
    stream: Option<TcpStream>,
    read: BytesMut,
    questions: Option<Questions>,
    /// Where the master's log was last said to begin, in this attempt.
    master_first: Option<PhysicalOffset>,
    flush: Arc<Flush>,
    seldom: Seldom,
}

/// One flush that is waited for at a time.
#[derive(Debug, Default)]
struct Flush {
    is_awaited: AtomicBool,
    has_failed: AtomicBool,
    done: Notify,
}

/// What comes of an effect.
enum Outcome {
    News(News<'static>),
    Probed { at: PhysicalOffset, ours: Option<Bytes>, theirs: Option<Bytes> },
}

/// What ended a connection.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the master has closed the connection")]
    ByPeer,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("what came is no stream of a log: {0}")]
    Stream(#[from] HaStreamError),
}

impl Task {
    fn new(config: &BrokerConfig, parts: FollowerTaskParts, keeps: Arc<MasterKeeps>) -> Task {
        let FollowerTaskParts { store, masters, own_address, status } = parts;
        let follower = Follower::new(FollowerConfig {
            segment_len: config.mapped_file_size_commit_log,
            sync_flush: config.flush_disk_type == FlushDiskType::SyncFlush,
            cuts_parted: config.ha_truncate_diverged,
            restarts_when_gone: config.ha_restart_when_gone,
            report_ms: config.ha_send_heartbeat_interval,
            silence_ms_max: config.ha_housekeeping_interval,
            ..FollowerConfig::default()
        });
        let root: PathBuf = config.store_path_root_dir.clone();
        Task {
            follower,
            log: SlaveLog { store, root, segment_len: config.mapped_file_size_commit_log },
            keeps,
            pinned: config.pinned_master().map(str::to_owned),
            masters,
            own_address,
            status,
            place: None,
            attempt: Attempt::default(),
            stream: None,
            read: BytesMut::new(),
            questions: None,
            master_first: None,
            flush: Arc::default(),
            seldom: Seldom::default(),
        }
    }

    /// Between two steps, or in the middle of one while the peer is waited for, it may end.
    async fn run_until(self, mut stopped: watch::Receiver<bool>) {
        let begin = ask_begin(self.status.followed(), Arc::clone(&self.keeps), Arc::clone(&self.log.store));
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => {}
            () = self.run() => {}
            () = begin => {}
        }
    }

    async fn run(mut self) {
        self.look_for_master().await;
        if self.place.is_none() {
            info!("no master is known yet: nameservers are to name it, or haMasterAddress");
        }
        loop {
            // A connection that lasts is kept, whoever nameservers name meanwhile: while they disagree, it would be given up with every answer.
            if self.follower.state() != FollowerState::Following {
                self.look_for_master().await;
            }
            let due = self.follower.due().map(|due| Duration::from_millis(due.since(moment())));
            let flush = Arc::clone(&self.flush);
            tokio::select! {
                // An error: nobody names masters any more.
                Ok(()) = self.masters.changed() => {}
                () = flush.done.notified() => self.flushed().await,
                () = wait(due) => self.take(Input::Tick).await,
                read = read(self.stream.as_mut(), &mut self.read) => match read {
                    Ok(()) => {
                        self.status.has_read();
                        self.packets().await;
                    }
                    Err(ended) => self.ended(&ended).await,
                },
            }
        }
    }

    /// Goes by what nameservers and the configuration say of the master.
    async fn look_for_master(&mut self) {
        let named = self.masters.borrow_and_update().clone();
        let named = named.filter(|named| {
            let is_other = named.address != self.own_address;
            if !is_other && self.seldom.is_due("named itself", Instant::now()) {
                warn!(address = named.address, "a nameserver names this slave as its own master: it is not followed");
            }
            is_other
        });
        let place = MasterPlace::of(self.pinned.as_deref(), named.as_ref());
        if place == self.place {
            return;
        }
        match &place {
            Some(MasterPlace { ha, client, is_guess: false }) => info!(ha, client, "the master to follow"),
            Some(MasterPlace { ha, client, is_guess: true }) => info!(
                ha,
                client,
                "the master of haMasterAddress is asked one port below its HA port, because no nameserver names one with that HA address"
            ),
            None => {}
        }
        self.place = place;
        self.seldom.forget();
        self.status.goes_on();
        self.take(Input::Master { is_known: self.place.is_some() }).await;
    }

    /// Takes a step, and does what it says, and what comes of that.
    async fn take(&mut self, input: Input<'_>) {
        let mut effects = self.follower.step(input, self.log.marks(), moment());
        effects.reverse();
        while let Some(effect) = effects.pop() {
            let Some(outcome) = self.perform(effect).await else { continue };
            let (log, now) = (self.log.marks(), moment());
            let next = match outcome {
                Outcome::News(news) => self.follower.step(Input::Of(self.attempt, news), log, now),
                Outcome::Probed { at, ours, theirs } => {
                    let probed = Probed { at, ours: ours.as_deref(), theirs: theirs.as_deref() };
                    self.follower.step(Input::Of(self.attempt, News::Probed(probed)), log, now)
                }
            };
            effects.extend(next.into_iter().rev());
        }
        if self.follower.state() != FollowerState::Following {
            self.status.follows_nobody();
        }
    }

    async fn perform(&mut self, effect: Effect) -> Option<Outcome> {
        let news = match effect {
            Effect::Connect(attempt) => {
                self.attempt = attempt;
                self.connect().await
            }
            Effect::Close => {
                self.close();
                return None;
            }
            Effect::AskBounds => self.ask_bounds().await,
            Effect::AskRecords(probe) => return Some(self.ask_records(probe).await),
            Effect::AskFirstRecord => match self.ask_record(PhysicalOffset(0)).await {
                Ok(record) => News::FirstRecord(record),
                Err(news) => news,
            },
            Effect::RestartAt(_) | Effect::CutTo(_) if !self.is_connected().await => News::Closed,
            Effect::RestartAt(begin) => self.log.restart_at(begin),
            Effect::CutTo(to) => self.log.cut_to(to),
            Effect::Append { at, bytes } => self.log.append(at, &bytes),
            Effect::Flush => {
                self.flush();
                return None;
            }
            Effect::Report(end) => return self.report(end).await.map(Outcome::News),
            Effect::Tell(notice) => {
                self.tell(notice);
                return None;
            }
        };
        Some(Outcome::News(news))
    }

    async fn connect(&mut self) -> News<'static> {
        self.close();
        // None is connected to without being known.
        let Some(place) = self.place.clone() else { return News::Closed };
        self.master_first = None;
        match connect(&place.ha).await {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => {
                self.trouble("cannot connect to the master's HA port", &error);
                return News::Closed;
            }
        }
        let mut questions = Questions::to(&place.client);
        let stated = match questions.settings().await {
            Ok(stated) => stated,
            Err(error) => {
                self.trouble(&format!("the master does not answer at {} what it is", place.client), &error);
                return News::Closed;
            }
        };
        let stated_port = stated.ha_port.as_deref().unwrap_or("unknown");
        if place.is_guess && !is_port(stated_port, &place) {
            let what = "the master of haMasterAddress cannot be asked one port below that; have its nameservers name it, or set its \
                        haListenPort to its listenPort + 1";
            self.trouble(what, &format_args!("its haListenPort is {stated_port}"));
            return News::Closed;
        }
        // It closes the connection, and answers questions like a master.
        if stated.role.as_deref() == Some("SLAVE") {
            self.trouble(
                "the broker to follow is no master",
                &format_args!("its brokerRole at {} is SLAVE", place.client),
            );
            return News::Closed;
        }
        self.questions = Some(questions);
        News::Connected
    }

    /// Whether the connection lasts, which says that its other end is the master still: what was compared is not to be acted upon otherwise.
    async fn is_connected(&mut self) -> bool {
        // Lets the event loop see what has come.
        tokio::task::yield_now().await;
        let Some(stream) = &self.stream else { return false };
        let ended = match stream.try_read_buf(&mut self.read) {
            Ok(0) => Ended::ByPeer,
            Ok(_) => return true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) => error.into(),
        };
        self.trouble("the connection to the master has ended while the logs were compared", &ended);
        false
    }

    fn close(&mut self) {
        (self.stream, self.questions) = (None, None);
        self.read.clear();
    }

    async fn ask_bounds(&mut self) -> News<'static> {
        let Some(questions) = &mut self.questions else { return News::Closed };
        match questions.bounds().await {
            Ok(Bounds { first, end }) => {
                self.master_first = Some(first);
                News::Bounds { first, end }
            }
            Err(error) => self.not_answered(&error),
        }
    }

    async fn ask_records(&mut self, probe: Probe) -> Outcome {
        let (at, ours) = match self.log.probe(probe) {
            Ok(found) => found,
            Err(error) => {
                self.trouble("this slave's own log cannot be read, to be compared with the master's", &error);
                return Outcome::News(News::Closed);
            }
        };
        match self.ask_record(at).await {
            Ok(theirs) => Outcome::Probed { at, ours, theirs },
            Err(news) => Outcome::News(news),
        }
    }

    async fn ask_record(&mut self, at: PhysicalOffset) -> Result<Option<Bytes>, News<'static>> {
        let Some(questions) = &mut self.questions else { return Err(News::Closed) };
        match questions.record_at(at).await {
            Ok(record) => Ok(record),
            Err(error) => Err(self.not_answered(&error)),
        }
    }

    fn not_answered(&mut self, error: &QuestionError) -> News<'static> {
        let address = self.questions.as_ref().map(|questions| questions.address().to_owned()).unwrap_or_default();
        self.trouble(&format!("the master does not answer at {address} what its log has"), error);
        News::Closed
    }

    async fn report(&mut self, end: PhysicalOffset) -> Option<News<'static>> {
        let stream = self.stream.as_mut()?;
        let written = timeout(WRITE_PATIENCE, stream.write_all(&encode_report(end))).await;
        let error = match written {
            Ok(Ok(())) => {
                self.status.has_reported();
                return None;
            }
            Ok(Err(error)) => error,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        self.trouble("cannot report to the master", &error);
        Some(News::Closed)
    }

    /// What comes meanwhile is flushed behind it.
    fn flush(&self) {
        if self.flush.is_awaited.swap(true, Ordering::SeqCst) {
            return;
        }
        let (flush, end) = (Arc::clone(&self.flush), self.log.marks().end);
        self.log.store.when_safe(end, Want::Disk, move |safe| {
            flush.has_failed.store(safe.is_err(), Ordering::SeqCst);
            flush.is_awaited.store(false, Ordering::SeqCst);
            flush.done.notify_one();
        });
    }

    async fn flushed(&mut self) {
        if self.flush.has_failed.load(Ordering::SeqCst) {
            // Nothing is reported that is not on the disk; what comes next tries again.
            self.trouble("what was copied", &"is not on the disk in time");
            return;
        }
        self.take(Input::Flushed).await;
        let CopyLog { end, flushed, .. } = self.log.marks();
        if flushed < end {
            self.flush();
        }
    }

    async fn packets(&mut self) {
        loop {
            match decode_packet(&mut self.read) {
                Ok(Some(packet)) => self.take(Input::Of(self.attempt, News::Packet(packet))).await,
                Ok(None) => return,
                Err(error) => return self.ended(&error.into()).await,
            }
        }
    }

    async fn ended(&mut self, ended: &Ended) {
        self.trouble("the connection to the master has ended", ended);
        self.close();
        self.take(Input::Of(self.attempt, News::Closed)).await;
    }

    /// Something that is tried again: said once in a while.
    fn trouble(&mut self, what: &str, error: &dyn std::fmt::Display) {
        let is_due = self.seldom.is_due(&format!("{what}: {error}"), Instant::now());
        let (end, master) = (self.log.marks().end, self.master());
        if is_due {
            warn!(master, %end, %error, "{what}; it is tried again");
        } else {
            debug!(master, %end, %error, "{what}");
        }
    }

    fn master(&self) -> &str {
        self.place.as_ref().map_or("", |place| &place.ha)
    }

    fn tell(&mut self, notice: Notice) {
        let end = self.log.marks().end;
        match notice {
            Notice::Follows { at } => {
                // The report may not have come to the master.
                if self.stream.is_none() {
                    return;
                }
                if self.seldom.is_due(&notice.to_string(), Instant::now()) {
                    info!(master = self.master(), %at, "follows the master");
                }
                if let Some(first) = self.master_first
                    && self.keeps.told(first)
                {
                    self.log.store.go_on_with_retention();
                }
                if let Some(place) = &self.place {
                    self.status.follows(place.client.clone());
                }
            }
            Notice::Fenced(fence) => {
                let why = format!("{fence}. {}", remedy(fence));
                error!(master = self.master(), %end, "this slave copies nothing any more: {why}");
                self.status.stands_still(why);
            }
            Notice::Cuts { .. } => warn!(master = self.master(), %end, "{notice}, because haTruncateDiverged is set"),
            Notice::Elsewhere { .. } | Notice::BadBytes { .. } | Notice::Silent { .. } | Notice::NotNow => {
                if self.seldom.is_due(&notice.to_string(), Instant::now()) {
                    warn!(master = self.master(), %end, "{notice}; the connection is closed and made anew");
                }
            }
        }
    }
}

/// What somebody has to do.
fn remedy(fence: Fence) -> &'static str {
    match fence {
        Fence::Parted { common: None, .. } => {
            "The two logs have nothing in common. See that it follows the right master; if it does, and what this broker has does not count, \
             empty its store, and start it again"
        }
        Fence::Parted { common: Some(_), .. } => {
            "What only this broker has may have been acknowledged. If it counts, make this broker the master; if not, set \
             haTruncateDiverged=true, which keeps it in diverged/ before it is cut off, and start this slave again"
        }
        Fence::Gone { .. } => {
            "It was away for longer than its master keeps messages. Set haRestartWhenGone=true, or empty its store, and start it again: \
             it then begins anew where the master's log does"
        }
        Fence::OtherSegments { .. } => {
            "Set mappedFileSizeCommitLog to the master's value, empty this slave's store, and start it again"
        }
        Fence::Damaged { .. } => {
            "Look with `mqadmin storeCheck` at both stores for the damage. If it is here, empty this slave's store; if it is there, make a \
             slave the master that has the record; then start this slave again"
        }
        Fence::BadBytes { .. } => {
            "See that mappedFileSizeCommitLog is the master's. If it is, look with `mqadmin storeCheck` at the master's store for damage at that \
             place; when it is put right, start this slave again"
        }
    }
}

fn is_port(stated: &str, place: &MasterPlace) -> bool {
    stated.trim().parse().is_ok_and(|port: u16| Some(port) == place.ha_port())
}

async fn wait(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => pending().await,
    }
}

/// Waits for bytes; for ever where there is no stream.
async fn read(stream: Option<&mut TcpStream>, buffer: &mut BytesMut) -> Result<(), Ended> {
    let Some(stream) = stream else { return pending().await };
    buffer.reserve(READ_LEN);
    if stream.read_buf(buffer).await? == 0 { Err(Ended::ByPeer) } else { Ok(()) }
}

/// Asks again and again where the log begins of whom this slave follows: what has gone there may go here.
async fn ask_begin(mut followed: watch::Receiver<Option<String>>, keeps: Arc<MasterKeeps>, store: Arc<Store>) {
    loop {
        let address = followed.borrow_and_update().clone();
        // Also in the middle of a question: what one master says counts for nothing once another is followed.
        let changed = tokio::select! {
            changed = followed.changed() => changed,
            () = ask_on(address.as_deref(), &keeps, &store) => return,
        };
        if changed.is_err() {
            return pending().await;
        }
    }
}

/// Never ends.
async fn ask_on(address: Option<&str>, keeps: &MasterKeeps, store: &Store) {
    let Some(address) = address else { return pending().await };
    let mut questions = Questions::to(address);
    loop {
        sleep(ASK_BEGIN).await;
        match questions.bounds().await {
            Ok(Bounds { first, .. }) => {
                if keeps.told(first) {
                    store.go_on_with_retention();
                }
            }
            Err(error) => {
                debug!(address, %error, "the master does not say where its log begins; all that it had is kept");
            }
        }
    }
}
