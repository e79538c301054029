//! Work that waits for the disk, on threads that may wait: at once, or beyond the bound (`BLOCKING`) not at all, with the answer "busy".

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{BLOCKING, Connection, Outcome};

use crate::refusal::Refusal;

/// Runs work that waits for the disk on a thread that may wait, and answers when it is done.
pub(super) fn answer_off_task(
    connection: &Connection,
    command: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let Some(pass) = BLOCKING.enter(connection.peer_network()) else {
        let remark = "[OVERLOAD]system busy, start flow control for a while: too many requests wait for the disk";
        return Outcome::Reply(Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into_reply());
    };
    let slot = connection.reply_slot(command);
    tokio::task::spawn_blocking(move || {
        let reply = work().unwrap_or_else(Refusal::into_reply);
        drop(pass);
        slot.send(reply);
    });
    Outcome::Deferred
}
