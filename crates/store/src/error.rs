//! What can go wrong, per operation.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ferromq_protocol::message::RecordError;
use ferromq_protocol::{PhysicalOffset, QueueId};

use crate::health::Writer;
use crate::looking::ReadError;

/// Why a store does not open. Every text names the path and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} is locked by another process: a broker already runs on this directory. Stop it, or give this one its own storePathRootDir (and storePathCommitLog)"
    )]
    Locked { path: PathBuf },
    #[error(
        "cannot write to {path}: {source}. Make the directory writable for this user, or set storePathRootDir (and storePathCommitLog) to one that is"
    )]
    NotWritable { path: PathBuf, source: io::Error },
    #[error(
        "{path} has {found} bytes, {expected} are configured. Set {key} to the size the files were made with; if this one alone has another length, give it the right one (`truncate -s {expected} {path}`)"
    )]
    FileLength { path: PathBuf, found: u64, expected: u64, key: &'static str },
    /// `known_by` says why it is expected, `if_lost` what to do when it will not come back.
    #[error(
        "segment {segment} of the commit log is missing: {known_by}. It was looked for in {}. Mount the disk that has it, or name its directory in storePathCommitLog or readOnlyCommitLogStorePaths; if it is lost for good, {if_lost}",
        listed(dirs)
    )]
    MissingSegment { segment: String, known_by: String, dirs: Vec<PathBuf>, if_lost: &'static str },
    #[error("{one} and {other} are the same segment of the commit log. Move the one away that does not belong to it")]
    DoubleSegment { one: PathBuf, other: PathBuf },
    #[error("readOnlyCommitLogStorePaths names {path}, which is not there. Mount its disk, or take it off the list")]
    MissingDir { path: PathBuf },
    #[error(
        "{path} begins with another part of the log, or another broker's: {stated}. Nothing was changed. Put the file back that belongs there; if it is lost for good, move this one away and make an empty one (`truncate -s {len} {path}`)"
    )]
    OtherFile { path: PathBuf, stated: String, len: u64 },
    #[error("{path} is no {expected}. Move it away, or put back what belongs there")]
    WrongKind { path: PathBuf, expected: &'static str },
    #[error("setting {key}: {reason}")]
    Config { key: &'static str, reason: String },
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The directory is as a kill would leave it.
    #[error("the store was told to stop before it was open")]
    Interrupted,
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

impl OpenError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::NotWritable { path, source }
            }
            _ => OpenError::Io { doing, path, source },
        }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Why a message was not appended. Nothing of it is in the log then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// The message breaks a limit. Java: MESSAGE_ILLEGAL, or PROPERTIES_SIZE_EXCEEDED.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Of the log, or of what the write pool can hold.
    #[error("record of {len} bytes is longer than what one append may take, {len_max} with what stands behind it")]
    LargerThanSegment { len: usize, len_max: u64 },
    #[error("batch is {len} bytes, limit {limit}")]
    BatchTooLarge { len: usize, limit: usize },
    #[error("topic {topic:?} cannot be the name of a directory")]
    TopicName { topic: String },
    #[error("a batch must hold messages of one topic and queue")]
    MixedBatch,
    /// Java: SERVICE_NOT_AVAILABLE.
    #[error("writes are refused until there is room for {path}: {reason}")]
    DiskFull { path: PathBuf, reason: String },
    /// This queue alone: what it was given before could not be entered yet. Java: SERVICE_NOT_AVAILABLE.
    #[error("queue {queue} of {topic} takes no messages until its entries can be written: {reason}")]
    QueueBehind { topic: String, queue: QueueId, reason: Arc<str> },
    /// The next segment is not there in time. Java: CREATE_MAPPED_FILE_FAILED.
    #[error("cannot extend the commit log: {reason}")]
    Extend { reason: String },
    /// An earlier write or sync failed; what the disk holds is unknown until the broker is started again.
    #[error("the store refuses writes until the broker is started again: {reason}")]
    Poisoned { reason: Arc<str> },
    /// Of a message that is to be stored again, in another place.
    #[error("the message to be stored again cannot be read now: {reason}")]
    CannotRead { reason: String },
    #[error("the store is closed")]
    Closed,
    /// Somebody else may extend the log, or nobody. Java: SERVICE_NOT_AVAILABLE, of a slave.
    #[error("{}", told_of(*writer))]
    NotTheWriter { writer: Writer },
}

fn told_of(writer: Writer) -> &'static str {
    match writer {
        Writer::Local => "the log is extended by this broker's own messages",
        Writer::Stream => "this broker's log is a copy of another's and takes no other messages",
        Writer::Nobody => "this broker's log takes no messages at present",
    }
}

impl AppendError {
    /// Whether this message can never be appended, whatever becomes of the store.
    pub fn is_of_the_message(&self) -> bool {
        matches!(
            self,
            AppendError::Record(_)
                | AppendError::LargerThanSegment { .. }
                | AppendError::BatchTooLarge { .. }
                | AppendError::TopicName { .. }
                | AppendError::MixedBatch
        )
    }
}

/// Why not all bytes of another broker's log were taken: what stands at `at` was not, nor what follows it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the copy of the log stops at {at}: {fault}")]
pub struct CopyError {
    pub at: PhysicalOffset,
    /// Bytes before that, which are in the log now.
    pub taken: usize,
    #[source]
    pub fault: CopyFault,
}

/// What is wrong with bytes of another broker's log, or with taking them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CopyFault {
    #[error("no whole record: {0}")]
    Record(RecordError),
    /// In the other log it cannot have stood there, if its segments are as long as these.
    #[error("{len} bytes of a record, and the segment has {room} left")]
    NoRoom { len: usize, room: usize },
    #[error("a filler of {stated} bytes, and the segment has {room} left: are its segments of another length?")]
    Filler { stated: usize, room: usize },
    #[error("the log ends at {end}")]
    NotAtEnd { end: PhysicalOffset },
    /// The bytes may be taken later.
    #[error(transparent)]
    Refused(AppendError),
}

impl CopyFault {
    /// Whether it is the bytes that are wrong, so that the same ones will never be taken there.
    pub fn is_of_the_bytes(&self) -> bool {
        matches!(self, CopyFault::Record(_) | CopyFault::NoRoom { .. } | CopyFault::Filler { .. })
    }
}

/// Why the log was not truncated. It is as it was before, unless the store takes no writes any more: then some of it had gone already, and
/// the next open finds where it ends.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    #[error("cannot truncate to {to}: the log goes from {min} to {end}")]
    OutOfRange { to: PhysicalOffset, min: PhysicalOffset, end: PhysicalOffset },
    #[error("{to} is inside a record or beyond the last one")]
    NotARecordEnd { to: PhysicalOffset },
    #[error("{path} would have to be cut, and is in a read-only directory")]
    ReadOnly { path: PathBuf },
    #[error("the store is closed")]
    Closed,
    #[error("the store refuses writes after an earlier failure: {reason}")]
    Poisoned { reason: Arc<str> },
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Why the log did not begin anew. It is as it was before, unless the store takes no writes any more: then it begins anew with the next open.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    #[error("no segment can begin at {begin}: each has {segment_len} bytes")]
    NotASegmentBorder { begin: PhysicalOffset, segment_len: u64 },
    #[error("the log is extended by this broker's own messages, and not given up")]
    IsTheWriter,
    #[error("{path} would have to go, and is in a read-only directory")]
    ReadOnly { path: PathBuf },
    #[error("the store is closed")]
    Closed,
    #[error("the store refuses writes after an earlier failure: {reason}")]
    Poisoned { reason: Arc<str> },
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// What a close could not finish. The store is closed all the same; `abort` stays, so the next open checks everything.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("the store had failed before: {0}")]
    Poisoned(Arc<str>),
    #[error("dispatch is {behind} bytes behind the log")]
    DispatchBehind { behind: u64 },
    #[error("cannot sync {path}: {source}")]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}
