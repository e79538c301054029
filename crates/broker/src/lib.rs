//! FerroMQ's broker: what it does with each request, its background duties, and how it is put together.
//!
//! [`Broker`] is started and stopped in `broker.rs`, composed in `parts.rs` from parts that each own one piece of state; `dispatch.rs` has one line per request code;
//! `handlers/` holds the functions behind those lines. The message data itself belongs to `ferromq_store`.

mod acknowledge;
mod admission;
mod answer;
mod broker;
mod call;
mod carrying;
pub mod clients;
mod clock;
pub mod config;
pub mod consumer_offsets;
pub mod delay;
mod delivery;
mod destination;
mod dispatch;
mod duties;
pub mod groups;
mod ha;
mod handlers;
mod held_pulls;
mod live_config;
mod local_time;
mod master_duties;
mod missing;
mod missing_tables;
mod off_task;
mod parts;
mod peer;
pub mod persistence;
mod places;
pub mod queue_locks;
mod readers;
mod recall_handle;
mod refusal;
mod registrar;
mod save_after_flush;
mod scrubbing;
mod stamps;
mod standing;
mod start_error;
pub mod statistics;
mod subscription;
#[cfg(test)]
mod tables_test;
#[cfg(test)]
mod testing;
mod this_host;
mod timers;
mod topic_attributes;
pub mod topics;
mod transactions;
mod worker;

pub use broker::Broker;
pub use config::BrokerConfig;
pub use dispatch::{Action, Touches, touches};
pub use refusal::Refusal;
pub use start_error::StartError;
