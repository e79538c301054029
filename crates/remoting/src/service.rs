//! The seam between the transport and what a process does with requests.

use std::any::Any;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ferromq_protocol::{Command, Reply, ResponseCode};
use tracing::error;

use crate::connection::{Connection, ReplySlot};

/// What came of one request.
pub enum Outcome {
    /// Write this now. The transport drops it when the request was one-way.
    Reply(Reply),
    /// The handler kept a [`ReplySlot`](crate::ReplySlot), or nothing is to be answered.
    Deferred,
}

impl Outcome {
    /// What `work` makes of a request with that code; a panic is logged, and answered with code 1.
    pub(crate) fn of(peer: SocketAddr, code: i32, work: impl FnOnce() -> Outcome) -> Outcome {
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let cause = panic_text(panic.as_ref());
            error!(%peer, code, cause, "the handler of a request panicked");
            let remark = format!("internal error in request {code}: {cause}");
            Outcome::Reply(Reply::error(ResponseCode::SYSTEM_ERROR, remark))
        })
    }
}

impl ReplySlot {
    /// Answers a request of that code with what comes of `work`, done here and now, on any thread: a panic is answered as one of
    /// [`Service::serve`] is.
    pub fn answer(self, code: i32, work: impl FnOnce() -> Outcome) {
        match Outcome::of(self.peer_addr(), code, work) {
            Outcome::Reply(reply) => self.send(reply),
            Outcome::Deferred => {}
        }
    }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "panic without a message"
    }
}

/// The whole requests of one peer that are here: one round of them.
pub struct Requests<'a>(&'a mut dyn RequestSource);

pub(crate) type Handle<'a> = dyn FnMut(&Connection, Command) -> Outcome + 'a;

/// Where they come from.
pub(crate) trait RequestSource {
    fn each(&mut self, handle: &mut Handle<'_>);
    fn reply(&mut self);
}

impl<'a> Requests<'a> {
    pub(crate) fn of(source: &'a mut dyn RequestSource) -> Requests<'a> {
        Requests(source)
    }

    /// Handles each. The commands' names and bodies share the connection's read buffer: what is kept beyond this call should be
    /// copied out, or the whole buffer stays in memory with it.
    pub fn each(&mut self, mut handle: impl FnMut(&Connection, Command) -> Outcome) {
        self.0.each(&mut handle);
    }

    /// Writes the replies, as far as the socket takes them. Done at the end of the round if nobody does it before.
    pub fn reply(&mut self) {
        self.0.reply();
    }
}

/// What a process does with the requests of its peers. Java: `NettyRequestProcessor`, all of them behind one table.
///
/// All of them are called on the connection's own task, never two at a time for one connection; none may block for longer than
/// an append to the store, or one fast sync of the disk, takes, because the other requests on the connection wait meanwhile. A panic is caught and logged, and
/// while a request is handled answered with code 1.
pub trait Service: Send + Sync + 'static {
    /// Serves one round: all whole requests that are here. What is done once for all of them has its place before or after
    /// [`Requests::reply`].
    fn serve(&self, requests: &mut Requests<'_>);

    /// The connection is up; nothing was read from it yet.
    fn opened(&self, _connection: &Connection) {}

    /// The connection is gone, for whatever reason. Called exactly once, after the last `serve`.
    fn closed(&self, _connection: &Connection) {}
}
