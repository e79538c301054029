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
    let (slot, code) = (connection.reply_slot(request), request.code);
    tokio::task::spawn_blocking(move || {
        slot.answer(code, move || {
            // Free again before the answer, which may bring the next request.
            let _pass = pass;
            Outcome::Reply(work().unwrap_or_else(Refusal::into_reply))
        });
    });
    Outcome::Deferred
}

fn reply(reply: Reply) -> Result<Outcome, Refusal> {
    Ok(Outcome::Reply(reply))
}
