//! What is done for each request, by subject.

pub mod brokers;
pub mod config;
pub mod kv;
pub mod topics;

use ferromq_protocol::{Command, Reply};
use ferromq_remoting::{Connection, Outcome};

use crate::refusal::Refusal;

/// Runs work that writes a file on a thread that may block, and answers when it is done.
fn answer_off_task(
    connection: &Connection,
    request: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let slot = connection.reply_slot(request);
    tokio::task::spawn_blocking(move || slot.send(work().unwrap_or_else(Refusal::into_reply)));
    Outcome::Deferred
}

fn reply(reply: Reply) -> Result<Outcome, Refusal> {
    Ok(Outcome::Reply(reply))
}
