//! What the broker does for each request, one file per subject. `dispatch.rs` says which code leads where.
//!
//! A handler takes the parts it uses, the `Origin` of the request where it matters, and the request as typed values; the line of the table
//! decodes them. It gives back a reply, an `Answer` that comes later, or what it has stored (`Promise`); or a refusal. What needs many parts is a
//! method of a struct that holds them (`SendPath`). It runs on the connection's own task: what has to wait goes elsewhere
//! (`Answer::off_task`). With an `Effort` it may be called a second time, by a reader, when what it reads is not in memory.

pub(crate) mod clients;
pub(crate) mod config;
pub(crate) mod groups;
pub(crate) mod ha_status;
pub(crate) mod locks;
pub(crate) mod masters_only;
pub(crate) mod offsets;
pub(crate) mod pull;
pub(crate) mod query;
pub(crate) mod recall;
pub(crate) mod relay;
pub(crate) mod reply;
pub(crate) mod reset;
pub(crate) mod retention;
pub(crate) mod runtime_info;
pub(crate) mod send;
pub(crate) mod send_back;
mod send_properties;
pub(crate) mod slaves;
pub(crate) mod stats;
pub(crate) mod topics;
pub(crate) mod transactions;
