//! Requests to nameservers and brokers, as functions: what `mqadmin` and tests are built on.
//!
//! [`NameServers`] chooses among nameservers and fails over. [`Admin`] asks brokers: one method per request, grouped by subject.
//! [`Producer`] sends single messages. The producer and consumers of a full SDK (retries, rebalance, background pulling) are not here yet.

mod admin;
mod brokers;
mod error;
mod groups;
mod message;
mod messages;
mod name_servers;
mod offsets;
mod producer;
mod topics;

pub use admin::{Admin, AdminConfig};
pub use error::AdminError;
pub use message::FoundMessage;
pub use messages::{PullResult, PullStatus};
pub use name_servers::NameServers;
pub use offsets::ResetOffset;
pub use producer::{OutgoingMessage, Producer, Sent};
pub use topics::Queue;
