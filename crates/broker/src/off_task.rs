//! Work that waits for the disk, in the words of this broker when there is too much of it.

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{Connection, Outcome, answer_off_task};

use crate::refusal::Refusal;

/// Runs work that waits for the disk on a thread that may wait, and answers when it is done.
pub(crate) fn off_task(
    connection: &Connection,
    command: &Command,
    work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static,
) -> Outcome {
    let busy = || {
        let remark = "[OVERLOAD]system busy, start flow control for a while: too many requests wait for the disk";
        Refusal::new(ResponseCode::SYSTEM_BUSY, remark).into_reply()
    };
    answer_off_task(connection, command, busy, || work().unwrap_or_else(Refusal::into_reply))
}
