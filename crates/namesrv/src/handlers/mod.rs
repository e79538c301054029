//! What is done for each request, by subject.

pub mod brokers;
pub mod config;
pub mod kv;
pub mod topics;

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{BLOCKING, Connection, Outcome};

use crate::refusal::Refusal;

/// Runs work that writes a file on a thread that may block, and answers when it is done; beyond the bound at once, that there is too much.
fn answer_off_task(
    connection: &Connection,
    request: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let Some(pass) = BLOCKING.enter(connection.peer_network()) else {
        let remark = "[OVERLOAD]system busy: too many requests wait for the disk";
        return Outcome::Reply(Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into_reply());
    };
    let slot = connection.reply_slot(request);
    tokio::task::spawn_blocking(move || {
        let reply = work().unwrap_or_else(Refusal::into_reply);
        drop(pass);
        slot.send(reply);
    });
    Outcome::Deferred
}

fn reply(reply: Reply) -> Result<Outcome, Refusal> {
    Ok(Outcome::Reply(reply))
}
