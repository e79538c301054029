//! What is done for each request, by subject.

pub mod brokers;
pub mod config;
pub mod kv;
pub mod topics;

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{Connection, Outcome, answer_off_task};

use crate::refusal::Refusal;

/// Runs work that writes a file on a thread that may block, and answers when it is done; beyond the bound at once, that there is too much.
fn off_task(
    connection: &Connection,
    request: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let busy = || {
        let remark = "[OVERLOAD]system busy: too many requests wait for the disk";
        Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into_reply()
    };
    answer_off_task(connection, request, busy, || work().unwrap_or_else(Refusal::into_reply))
}

fn reply(reply: Reply) -> Result<Outcome, Refusal> {
    Ok(Outcome::Reply(reply))
}
