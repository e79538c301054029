//! What the broker does for each request, one file per subject. `dispatch.rs` says which code leads where.
//!
//! A handler takes the parts it uses, the connection and the command, and returns an outcome or a refusal; what needs many parts is a
//! method of a struct that holds them (`SendPath`). It runs on the connection's own task: what has to wait goes elsewhere, such as
//! through `answer_off_task`. With an `Effort` it may be called a second time, by a reader, when what it reads is not in memory.

pub(crate) mod clients;
pub(crate) mod config;
pub(crate) mod groups;
pub(crate) mod locks;
mod off_task;
pub(crate) mod offsets;
pub(crate) mod pull;
pub(crate) mod query;
pub(crate) mod recall;
pub(crate) mod reply;
pub(crate) mod reset;
pub(crate) mod send;
pub(crate) mod send_back;
mod send_properties;
pub(crate) mod stats;
pub(crate) mod topics;
pub(crate) mod transactions;

use ferromq_protocol::{Command, Reply, json};
use ferromq_remoting::Connection;
use serde::de::DeserializeOwned;

use crate::persistence::SaveError;
use crate::refusal::Refusal;
use off_task::answer_off_task;

/// Longest body of a request that is parsed, in bytes: some ten thousand topics or subscriptions. Java has no limit; here the other
/// connections of the event loop wait meanwhile.
const PARSED_LEN_MAX: usize = 4 * 1024 * 1024;

/// What answers a change of a table once it is known whether that is on disk.
fn answer_when_saved(
    connection: &Connection,
    command: &Command,
    reply: Reply,
) -> impl FnOnce(Result<(), SaveError>) + Send + 'static {
    let slot = connection.reply_slot(command);
    move |saved| slot.send(saved.map_or_else(|error| Refusal::from(error).into_reply(), |()| reply))
}

/// The request's body, which is JSON.
fn json_body<T: DeserializeOwned>(command: &Command) -> Result<T, Refusal> {
    json::from_slice(parsed_body(command)?)
        .map_err(|error| Refusal::system_error(format!("the body cannot be read: {error}")))
}

/// The body of a request that is parsed here.
fn parsed_body(command: &Command) -> Result<&[u8], Refusal> {
    match command.body.len() {
        len if len > PARSED_LEN_MAX => {
            Err(Refusal::system_error(format!("the body has {len} bytes, the limit is {PARSED_LEN_MAX}")))
        }
        _ => Ok(&command.body),
    }
}
