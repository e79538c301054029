//! A slave takes its master's tables: topics, groups, offsets, how far delays and timers are; and gives back what clients have committed
//! to it meanwhile.
//!
//! It asks with the requests that Java's slaves use, so the master may be either. A table is asked for every three seconds, and seldomer
//! the longer it is: each takes 100 KiB/s at most, and a minute (Java's period) goes by at most. Whether it has changed nobody can tell
//! without it: Java's masters have no such request, and offsets change all the time anyway. With equal versions nothing is applied.
//!
//! What says that messages were consumed or delivered counts here only once this log has on its disk what the master's log had when it was
//! asked: the copies of delayed messages are behind their offsets. Java's slaves believe it at once, and lose what was on its way.
//!
//! Tables are taken from whom the follower follows, for as long as it does: another log's would say things of other messages, and a master that
//! has begun anew, empty, has lost what may be needed here.
//!
//! Each item fails by itself: the log tells of the first failure in a row, and that it works again. Java: `SlaveSynchronize`.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferromq_protocol::body::{
    ConsumerOffsetTable, DelayOffsetTable, KvTable, SubscriptionGroupTable, TimerCheckPoint, TopicConfigTable,
};
use ferromq_protocol::header::{QueryOffsetReply, QueryOffsetRequest, UpdateOffsetRequest};
use ferromq_protocol::{
    Command, GroupName, HeaderError, NoFields, PhysicalOffset, RequestCode, ResponseCode, TopicName, json,
};
use ferromq_remoting::{Client, InvokeError};
use ferromq_store::{Store, Want};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::follower_status::FollowerStatus;
use super::own_commits::OwnCommit;
use crate::consumer_offsets::ConsumerOffsets;
use crate::groups::Groups;
use crate::master_duties::MasterDuties;
use crate::parts::Parts;
use crate::statistics::Statistics;
use crate::topics::{Full, Topics};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Offsets that are told to the master in one go: the others follow with the next.
const TOLD_AT_ONCE: usize = 1000;

/// How often is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// At most so often.
    pub period: Duration,
    pub bytes_per_second: u32,
    /// However long the table is.
    pub period_max: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { period: Duration::from_secs(3), bytes_per_second: 100 * 1024, period_max: Duration::from_secs(60) }
    }
}

impl Pace {
    /// From one answer of so many bytes to the next request.
    fn after(&self, len: usize) -> Duration {
        let time = Duration::from_secs_f64(len as f64 / f64::from(self.bytes_per_second));
        time.clamp(self.period, self.period_max)
    }
}

/// What a slave's tables come to, and the way to its master.
pub(crate) struct TableCopies {
    follower: Arc<FollowerStatus>,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    offsets: Arc<ConsumerOffsets>,
    statistics: Arc<Statistics>,
    master_duties: Arc<MasterDuties>,
    store: Arc<Store>,
    client: Client,
    pace: Pace,
}

/// Why an item is not here.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Invoke(#[from] InvokeError),
    #[error("the master refuses it with code {}: {remark}", .code.0)]
    Refused { code: ResponseCode, remark: String },
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
    #[error("the answer cannot be read: {0}")]
    Header(#[from] HeaderError),
    #[error("the master has more than this broker takes: {0}")]
    Full(#[from] Full),
    #[error("it cannot be saved: {0}")]
    Save(#[from] io::Error),
    #[error("the answer is empty, and no broker is without {0}")]
    Empty(Item),
    #[error("its thread failed: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Topics,
    Groups,
    Offsets,
    Delays,
    Timers,
    LogEnd,
    Progress,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Item::Topics => "topics",
            Item::Groups => "subscription groups",
            Item::Offsets => "consumer offsets",
            Item::Delays => "delay offsets",
            Item::Timers => "timers' checkpoint",
            Item::LogEnd => "end of the log",
            Item::Progress => "progress of delays and timers",
        })
    }
}

/// What the master says of progress, and where its log ended then.
struct Progress {
    offsets: Option<ConsumerOffsetTable>,
    delays: Option<DelayOffsetTable>,
    timers: Option<TimerCheckPoint>,
    log_end: PhysicalOffset,
}

/// One master, as long as it is followed over one connection.
struct Master {
    address: String,
    /// What failed the last time.
    failing: Vec<Item>,
    topics_due: Instant,
    groups_due: Instant,
    progress_due: Instant,
    progress: Option<Progress>,
    /// Counts offsets that it was to be told, so that none is passed over for ever.
    told: usize,
    /// What was taken last.
    delays: Option<DelayOffsetTable>,
    timers: Option<TimerCheckPoint>,
}

impl Master {
    fn new(address: String) -> Master {
        let now = Instant::now();
        Master {
            address,
            failing: Vec::new(),
            topics_due: now,
            groups_due: now,
            progress_due: now,
            progress: None,
            told: 0,
            delays: None,
            timers: None,
        }
    }

    /// Tells of the first failure in a row, and of its end. Gives what came of it.
    fn note<T>(&mut self, item: Item, outcome: Result<T, SyncError>) -> Option<T> {
        let master = &self.address;
        match outcome {
            Ok(value) => {
                if self.failing.contains(&item) {
                    self.failing.retain(|failing| *failing != item);
                    info!(master, "the master's {item} come again");
                }
                Some(value)
            }
            Err(error) => {
                if !self.failing.contains(&item) {
                    self.failing.push(item);
                    warn!(master, %error, "the master's {item} do not come; trying again");
                }
                None
            }
        }
    }
}

impl TableCopies {
    pub(crate) fn new(parts: &Parts, client: &Client) -> TableCopies {
        TableCopies {
            follower: Arc::clone(&parts.follower_status),
            topics: Arc::clone(&parts.topics),
            groups: Arc::clone(&parts.groups),
            offsets: Arc::clone(&parts.offsets),
            statistics: Arc::clone(&parts.statistics),
            master_duties: Arc::clone(&parts.master_duties),
            store: Arc::clone(&parts.store),
            client: client.clone(),
            pace: Pace::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn at_pace(self, pace: Pace) -> TableCopies {
        TableCopies { pace, ..self }
    }

    /// Asks while a master is followed, at once when one is. What is under way then counts for nothing once it is followed no more.
    pub(crate) async fn run(self) {
        let mut followed = self.follower.followed();
        loop {
            let master = followed.borrow_and_update().clone();
            let following = async {
                match master {
                    Some(address) => self.follow(Master::new(address)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = following => {}
                changed = followed.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Does not end by itself.
    async fn follow(&self, mut master: Master) {
        loop {
            if master.topics_due <= Instant::now() {
                let outcome = self.take_topics(&master.address).await;
                master.topics_due = self.next(master.note(Item::Topics, outcome));
            }
            if master.groups_due <= Instant::now() {
                let outcome = self.take_groups(&master.address).await;
                master.groups_due = self.next(master.note(Item::Groups, outcome));
            }
            if master.progress.is_none() && master.progress_due <= Instant::now() {
                let len = self.ask_progress(&mut master).await;
                master.progress_due = self.next(Some(len));
            }
            self.take_progress(&mut master).await;
            let mut due = master.topics_due.min(master.groups_due);
            // What waits for this log is looked at as often.
            due = due.min(if master.progress.is_some() {
                Instant::now() + self.pace.period
            } else {
                master.progress_due
            });
            sleep_until(due).await;
        }
    }

    /// When an item is due again after an answer of so many bytes, or none.
    fn next(&self, len: Option<usize>) -> Instant {
        Instant::now() + self.pace.after(len.unwrap_or(0))
    }

    async fn take_topics(&self, master: &str) -> Result<usize, SyncError> {
        let body = self.body(master, RequestCode::GET_ALL_TOPIC_CONFIG).await?;
        let len = body.len();
        let (topics, offsets, statistics) =
            (Arc::clone(&self.topics), Arc::clone(&self.offsets), Arc::clone(&self.statistics));
        spawn_blocking(move || {
            let table: TopicConfigTable = table(&body)?;
            if table.topic_config_table.is_empty() {
                return Err(SyncError::Empty(Item::Topics));
            }
            for gone in topics.take_over(table)? {
                // A new one of that name begins anew for everybody. Its queues stay: what the log says of them counts.
                offsets.remove_topic(&gone);
                statistics.remove_topic(&gone);
            }
            Ok(len)
        })
        .await?
    }

    async fn take_groups(&self, master: &str) -> Result<usize, SyncError> {
        let body = self.body(master, RequestCode::GET_ALL_SUBSCRIPTIONGROUP_CONFIG).await?;
        let len = body.len();
        let groups = Arc::clone(&self.groups);
        spawn_blocking(move || {
            let table: SubscriptionGroupTable = table(&body)?;
            if table.subscription_group_table.is_empty() {
                return Err(SyncError::Empty(Item::Groups));
            }
            groups.take_over(table)?;
            Ok(len)
        })
        .await?
    }

    /// Asks how far groups, delays and timers are, and then where the log ends. Gives the length of the longest answer.
    async fn ask_progress(&self, master: &mut Master) -> usize {
        let address = master.address.clone();
        let outcome = self.ask_offsets(&address, &mut master.told).await;
        let (offsets, len) = master.note(Item::Offsets, outcome).unzip();
        let delays = self.body(&address, RequestCode::GET_ALL_DELAY_OFFSET).await.and_then(|body| table(&body));
        let delays = master.note(Item::Delays, delays);
        let timers = self.ask_timers(&address).await;
        let timers = master.note(Item::Timers, timers).flatten();
        if offsets.is_some() || delays.is_some() || timers.is_some() {
            let log_end = self.ask_log_end(&address).await;
            if let Some(log_end) = master.note(Item::LogEnd, log_end) {
                master.progress = Some(Progress { offsets, delays, timers, log_end });
            }
        }
        len.unwrap_or_default()
    }

    /// First the master is told what was committed here, so that it is in the answer.
    async fn ask_offsets(&self, master: &str, told: &mut usize) -> Result<(ConsumerOffsetTable, usize), SyncError> {
        let mut own = self.offsets.own_commits();
        if !own.is_empty() {
            let first = *told % own.len();
            own.rotate_left(first);
            own.truncate(TOLD_AT_ONCE);
            *told = told.wrapping_add(own.len());
            let (table, _) = self.all_offsets(master).await?;
            // A reset makes a new version; what a master has lost in a crash makes an old one.
            let is_later = table.data_version.timestamp > self.offsets.data_version().timestamp;
            self.give_back(master, own, is_later).await?;
        }
        self.all_offsets(master).await
    }

    async fn all_offsets(&self, master: &str) -> Result<(ConsumerOffsetTable, usize), SyncError> {
        let body = self.body(master, RequestCode::GET_ALL_CONSUMER_OFFSET).await?;
        let len = body.len();
        Ok((spawn_blocking(move || table(&body)).await??, len))
    }

    /// Commits to the master what it is behind with. No offset of it goes back, and what it has reset stays so.
    async fn give_back(&self, master: &str, own: Vec<OwnCommit>, is_later: bool) -> Result<(), SyncError> {
        let mut unknown: Option<OwnCommit> = None;
        for commit in own {
            if unknown.as_ref().is_some_and(|unknown| unknown.topic == commit.topic && unknown.group == commit.group) {
                continue;
            }
            let masters = self.master_offset(master, &commit).await?;
            let is_reset = match (masters, commit.base) {
                (Some(now), Some(base)) => now < base && is_later,
                // The topic or the group is another one by now.
                (None, Some(base)) => base >= 0,
                (_, None) => false,
            };
            if is_reset || masters.is_some_and(|now| now >= commit.offset) {
                self.offsets.give_up(&commit);
                continue;
            }
            let header = UpdateOffsetRequest {
                consumer_group: GroupName::from(commit.group.clone()),
                topic: TopicName::from(commit.topic.clone()),
                queue_id: Some(commit.queue),
                commit_offset: Some(commit.offset),
            };
            let request = Command::request(RequestCode::UPDATE_CONSUMER_OFFSET, &header);
            let reply = self.client.invoke(master, request, PATIENCE).await?;
            match reply.response_code() {
                ResponseCode::SUCCESS => {
                    let OwnCommit { topic, group, queue, offset, .. } = &commit;
                    info!(%topic, %group, %queue, offset, "an offset that was committed here is the master's");
                    self.offsets.returned(&commit);
                }
                ResponseCode::TOPIC_NOT_EXIST => self.offsets.give_up(&commit),
                // A new group: the master knows it once one of its members is there.
                ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST => unknown = Some(commit),
                // It takes none of the group now; others do not wait for that.
                code => {
                    let OwnCommit { topic, group, queue, offset, .. } = &commit;
                    debug!(master, code = code.0, %topic, %group, %queue, offset, "the master does not take an offset that was committed here");
                    unknown = Some(commit);
                }
            }
        }
        Ok(())
    }

    /// What the master has of the queue.
    async fn master_offset(&self, master: &str, commit: &OwnCommit) -> Result<Option<i64>, SyncError> {
        let header = QueryOffsetRequest {
            consumer_group: GroupName::from(commit.group.clone()),
            topic: TopicName::from(commit.topic.clone()),
            queue_id: commit.queue,
            set_zero_if_not_found: Some(false),
        };
        let request = Command::request(RequestCode::QUERY_CONSUMER_OFFSET, &header);
        let reply = self.client.invoke(master, request, PATIENCE).await?;
        match reply.response_code() {
            ResponseCode::SUCCESS => Ok(Some(reply.header::<QueryOffsetReply>()?.offset.as_i64())),
            ResponseCode::QUERY_NOT_FOUND => Ok(None),
            _ => Err(refused(&reply)),
        }
    }

    /// `None` from a master that knows no timers.
    async fn ask_timers(&self, master: &str) -> Result<Option<TimerCheckPoint>, SyncError> {
        let body = match self.body(master, RequestCode::GET_TIMER_CHECK_POINT).await {
            Err(SyncError::Refused { code: ResponseCode::REQUEST_CODE_NOT_SUPPORTED, .. }) => return Ok(None),
            body => body?,
        };
        let told = TimerCheckPoint::decode(&body);
        told.map(Some).ok_or_else(|| SyncError::Unreadable(format!("it has {} bytes", body.len())))
    }

    async fn ask_log_end(&self, master: &str) -> Result<PhysicalOffset, SyncError> {
        let figures: KvTable = table(&self.body(master, RequestCode::GET_BROKER_RUNTIME_INFO).await?)?;
        let end = figures.table.get("commitLogMaxOffset").and_then(|end| end.parse::<u64>().ok());
        end.map(PhysicalOffset).ok_or_else(|| SyncError::Unreadable("it does not say commitLogMaxOffset".into()))
    }

    /// Once this log has on its disk what the master's had.
    async fn take_progress(&self, master: &mut Master) {
        let Some(Progress { log_end, .. }) = &master.progress else { return };
        if !self.has_on_disk(*log_end).await {
            return;
        }
        let Some(Progress { offsets, delays, timers, .. }) = master.progress.take() else { return };
        let (delays, timers) = (
            delays.filter(|told| master.delays.as_ref() != Some(told)),
            timers.filter(|told| master.timers.as_ref() != Some(told)),
        );
        let (table, master_duties) = (Arc::clone(&self.offsets), Arc::clone(&self.master_duties));
        let taken = spawn_blocking(move || {
            if let Some(offsets) = offsets {
                table.take_over(offsets);
            }
            if delays.is_some() || timers.is_some() {
                master_duties.take_over(delays.as_ref(), timers.as_ref())?;
            }
            Ok((delays, timers))
        });
        let taken = taken.await.map_err(SyncError::from).and_then(|taken: io::Result<_>| Ok(taken?));
        if let Some((delays, timers)) = master.note(Item::Progress, taken) {
            master.delays = delays.or(master.delays.take());
            master.timers = timers.or(master.timers.take());
        }
    }

    async fn has_on_disk(&self, end: PhysicalOffset) -> bool {
        if self.store.watermarks().written < end {
            return false;
        }
        let (done, flushed) = oneshot::channel();
        // Nobody waits for it any more when another master is named.
        self.store.when_safe(end, Want::Disk, move |safe| _ = done.send(safe.is_ok()));
        flushed.await.unwrap_or(false)
    }

    async fn body(&self, master: &str, code: RequestCode) -> Result<Bytes, SyncError> {
        let reply = self.client.invoke(master, Command::request(code, &NoFields), PATIENCE).await?;
        if reply.response_code() == ResponseCode::SUCCESS { Ok(reply.body) } else { Err(refused(&reply)) }
    }
}

fn refused(reply: &Command) -> SyncError {
    let remark = reply.remark.as_deref().unwrap_or_default().to_owned();
    SyncError::Refused { code: reply.response_code(), remark }
}

/// As from a file: it may have grown to any length.
fn table<T: DeserializeOwned + Serialize + Default>(body: &[u8]) -> Result<T, SyncError> {
    json::from_file(body).map_err(SyncError::Unreadable)
}

#[cfg(test)]
#[path = "tables_test.rs"]
mod tests;
