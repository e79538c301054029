//! Messages as bytes: the stored record, its property string, batch bodies, message ids, tag and key hashes.
//!
//! Everything here works on slices the caller already has; nothing is read, sent or timed. The same record bytes are
//! in the commit log and in pull, query and view answers. Layout: docs/format.md, Message record.

pub mod batch;
pub mod id;
pub mod properties;
pub mod record;
pub mod sys_flag;
pub mod tags;

pub use batch::{BatchError, BatchItem, BatchItems};
pub use id::{IdError, OffsetMessageId, UniqueKey, UniqueKeySource, millis_in_month};
pub use properties::{Properties, property};
pub use record::{NewMessage, ParsedRecord, Record, RecordError, Records, stamp_record};
pub use sys_flag::{Compression, SysFlag, TransactionKind};
