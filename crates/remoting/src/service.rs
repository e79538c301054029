//! The seam between the transport and what a process does with requests.

use ferromq_protocol::{Command, Reply};

use crate::connection::Connection;

/// What came of one request.
pub enum Outcome {
    /// Write this now. The transport drops it when the request was one-way.
    Reply(Reply),
    /// The handler kept a [`ReplySlot`](crate::ReplySlot), or nothing is to be answered.
    Deferred,
}

/// What a process does with the requests of its peers. Java: `NettyRequestProcessor`, all of them behind one table.
///
/// All of them are called on the connection's own task, never two at a time for one connection; `handle` must not block for longer than
/// an append to the store takes, because the other requests on the connection wait meanwhile. A panic is caught and logged, and
/// in `handle` answered with code 1.
pub trait Service: Send + Sync + 'static {
    /// Handles one request. The command's names and body share the connection's read buffer: what is kept beyond this call should be
    /// copied out, or the whole buffer stays in memory with it.
    fn handle(&self, connection: &Connection, request: Command) -> Outcome;

    /// All requests that were here have been handled: the time for what is done once for all of them, such as a sync of the disk.
    fn before_replies(&self) {}

    /// Their replies are written, as far as the socket took them: the time for work that no reply waits for.
    fn after_replies(&self) {}

    /// The connection is up; nothing was read from it yet.
    fn opened(&self, _connection: &Connection) {}

    /// The connection is gone, for whatever reason. Called exactly once, after the last `handle`.
    fn closed(&self, _connection: &Connection) {}
}
