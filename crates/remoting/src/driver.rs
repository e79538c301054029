//! The task of one connection: it alone reads, decodes, calls the service, and writes.
//!
//! Works in rounds: handle the whole frames that are here, take what other threads queued, write everything with vectored writes (one,
//! unless the socket takes less or the pieces are many), read once more. tokio forgets readiness after a short read or write, so a steady
//! wake-up costs one read and one write. Rounds per wake-up are bounded; what is left waits for the other tasks to have their turn.

use std::future::Future;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ferromq_protocol::{Command, Reply, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tracing::{debug, error, info, warn};

use crate::connection::{Connection, Signals, WakeConditions};
use crate::inbound::{Inbound, MalformedInput};
use crate::outbound::{Outbound, SLICES_MAX};
use crate::peers::{Guest, Resource};
use crate::service::{Handle, Outcome, RequestSource, Requests, Service, panic_text};

/// Frames handled in one go before the replies are written.
const FRAMES_PER_ROUND: usize = 256;

/// Rounds (read, handle, write) in one wake-up before other tasks have their turn.
const ROUNDS_PER_WAKE: usize = 8;

/// They have it too when one connection has kept the thread so long; looked at after so many frames.
const TURN: Duration = Duration::from_millis(4);
const FRAMES_PER_LOOK: usize = 16;

/// A connection that neither read nor wrote for this long gives its buffers back.
const SHRINK_AFTER: Duration = Duration::from_secs(5);

/// How long a drained connection waits for the peer to close its side. Closing at once, with unread bytes here, would make the
/// kernel send a reset that can overtake the last replies.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// What bounds one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) idle_max: Duration,
    pub(crate) stall_max: Duration,
    pub(crate) frame_len_max: usize,
    pub(crate) outbound_bytes_max: usize,
}

pub(crate) struct Driver {
    stream: TcpStream,
    connection: Connection,
    service: Option<Arc<dyn Service>>,
    limits: Limits,
    /// Its part of what peers take together; `None` for a peer that we chose.
    guest: Option<Guest>,
    inbound: Inbound,
    outbound: Outbound,
    timer: Pin<Box<Sleep>>,
    /// When the last bytes came or went.
    active: Instant,
    /// When others have their turn; known once the clock was read in this wake-up.
    turn_ends: Option<Instant>,
    /// That was so when the clock was last read.
    turn_over: bool,
    /// Since when the socket takes nothing of what is queued.
    stalled: Option<Instant>,
    /// The buffers were given back and not needed since.
    shrunk: bool,
    /// Whole frames may still be in the read buffer.
    frames_left: bool,
    /// Everything is answered and our side is shut down; what still comes is thrown away until then.
    lingering: Option<Instant>,
    opened: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum EndReason {
    #[error("closed by the peer")]
    Peer,
    #[error("closed by this side")]
    Local,
    #[error("drained")]
    Drained,
    #[error("idle")]
    Idle,
    #[error("the peer reads nothing while replies wait for it")]
    Stalled,
    #[error("too many deferred replies wait for the peer to read")]
    Overflow,
    #[error(transparent)]
    Malformed(#[from] MalformedInput),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Driver {
    pub(crate) fn new(
        stream: TcpStream,
        connection: Connection,
        service: Option<Arc<dyn Service>>,
        limits: Limits,
        guest: Option<Guest>,
    ) -> Self {
        Self {
            stream,
            connection,
            service,
            limits,
            guest,
            inbound: Inbound::new(limits.frame_len_max),
            outbound: Outbound::default(),
            timer: Box::pin(sleep(limits.idle_max.min(SHRINK_AFTER))),
            active: Instant::now(),
            turn_ends: None,
            turn_over: false,
            stalled: None,
            shrunk: false,
            frames_left: false,
            lingering: None,
            opened: false,
        }
    }

    /// One pass over all work there is. `Ok(true)`: there is more; `Ok(false)`: sleep, the waker is registered everywhere.
    fn round(&mut self, context: &mut Context<'_>) -> Result<bool, EndReason> {
        let service = if self.frames_left { self.service.clone() } else { None };
        let mut frames = Frames {
            driver: self,
            waker: context.waker(),
            handled: Ok(()),
            signals: Signals::default(),
            written: None,
        };
        // By way of `Service::serve` and `Requests::each` back to `handle_frames` and `Driver::handle` here.
        match service {
            Some(service) => {
                // Also when the peer is gone: what it sent is handled.
                let served = catch_unwind(AssertUnwindSafe(|| service.serve(&mut Requests::of(&mut frames))));
                frames.driver.log_panic("while it served a round", served);
            }
            None => frames.each(&mut |_, request| Outcome::Reply(not_supported(request.code))),
        }
        frames.reply();
        let Frames { handled, signals, written, .. } = frames;
        written.unwrap_or(Ok(()))?;
        handled?;
        if signals.overflow {
            return Err(EndReason::Overflow);
        }
        if signals.close {
            return Err(EndReason::Local);
        }
        let too_many_wait = self.connection.room() == 0;
        let has_room = self.outbound.len() <= self.limits.outbound_bytes_max && !too_many_wait;
        if self.frames_left && has_room {
            return Ok(true);
        }
        if signals.drain {
            self.drained(context)?;
        }
        if has_room && (!signals.drain || self.lingering.is_some()) && self.read(context)? {
            return Ok(true);
        }
        self.check_time(context)?;
        let awaits = WakeConditions {
            slots: signals.drain && self.lingering.is_none() && self.outbound.is_empty(),
            room: too_many_wait,
        };
        Ok(!self.connection.sleep(context.waker(), self.outbound.len(), signals, awaits))
    }

    /// Decodes and handles the frames that are here, up to the bounds of a round.
    fn handle_frames(&mut self, handle: &mut Handle<'_>) -> Result<(), MalformedInput> {
        if !self.frames_left {
            return Ok(());
        }
        for handled in 0..FRAMES_PER_ROUND.min(self.connection.room()) {
            if handled > 0 && handled.is_multiple_of(FRAMES_PER_LOOK) {
                self.look_at_the_clock();
            }
            if self.turn_over || self.outbound.len() > self.limits.outbound_bytes_max {
                return Ok(());
            }
            match self.inbound.next_frame()? {
                Some(command) => self.handle(command, handle),
                None => {
                    self.frames_left = false;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The time, which also tells whether the turn is over. The first look in a wake-up begins the turn: whoever reads and writes looks anyway, so
    /// short work costs no look of its own.
    fn look_at_the_clock(&mut self) -> Instant {
        let now = Instant::now();
        self.turn_over = now >= *self.turn_ends.get_or_insert(now + TURN);
        now
    }

    fn handle(&mut self, command: Command, handle: &mut Handle<'_>) {
        if command.flags.is_response() {
            let opaque = command.opaque;
            if !self.connection.resolve(command) {
                debug!(peer = %self.connection.peer_addr(), opaque, "reply that nobody waits for");
            }
            return;
        }
        let id = command.id();
        let code = command.code;
        let oneway = command.flags.is_oneway();
        let connection = &self.connection;
        let outcome = Outcome::of(connection.peer_addr(), code, || handle(connection, command));
        let reply = match outcome {
            Outcome::Reply(reply) => reply,
            Outcome::Deferred => return,
        };
        if !oneway {
            self.outbound.push_reply(id, reply);
        }
    }

    /// Writes until all is gone or the socket takes no more.
    fn write(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.outbound.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = self.outbound.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let written = match &slices[..used] {
                [one] => stream.poll_write(context, one),
                many => stream.poll_write_vectored(context, many),
            };
            match written {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.outbound.written(count);
                    self.active = self.look_at_the_clock();
                    self.shrunk = false;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    if self.stalled.is_none() {
                        let now = Instant::now();
                        self.stalled = Some(now);
                        self.wake_by(now + self.limits.stall_max);
                    }
                    break;
                }
            }
        }
        if let Some(guest) = &mut self.guest {
            // Nothing, where the peer reads.
            guest.keeps(Resource::UnreadAnswers, self.outbound.owned(), &self.connection);
        }
        Ok(())
    }

    /// Reads once. True: something came. What comes while lingering is thrown away.
    fn read(&mut self, context: &mut Context<'_>) -> Result<bool, EndReason> {
        if let Some(guest) = &mut self.guest {
            // All whole frames are handled: what is here is the beginning of one.
            guest.keeps(Resource::UnfinishedFrames, self.inbound.buffer.len(), &self.connection);
        }
        let room = self.inbound.make_room();
        let read = pin!(self.stream.read_buf(&mut self.inbound.buffer)).poll(context);
        match read {
            Poll::Ready(Ok(0)) => Err(EndReason::Peer),
            Poll::Ready(Ok(count)) => {
                if self.lingering.is_some() {
                    self.inbound.buffer.clear();
                    return Ok(true);
                }
                self.inbound.arrived(count, room);
                self.active = self.look_at_the_clock();
                self.shrunk = false;
                self.frames_left = true;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error.into()),
            Poll::Pending => Ok(false),
        }
    }

    /// Draining: once every request is answered and written, says so to the peer and waits for it to close.
    fn drained(&mut self, context: &mut Context<'_>) -> Result<(), EndReason> {
        if self.lingering.is_some() || !self.outbound.is_empty() || self.connection.open_slots() > 0 {
            return Ok(());
        }
        // The last slot queues its reply before it is counted off: look once more.
        self.connection.collect(&mut self.outbound);
        self.write(context)?;
        if !self.outbound.is_empty() {
            return Ok(());
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_shutdown(context) {
            return Err(error.into());
        }
        let until = Instant::now() + LINGER_MAX;
        self.lingering = Some(until);
        self.wake_by(until);
        Ok(())
    }

    /// Ends a connection that is idle, stalled or has lingered long enough; gives the memory of a quiet one back.
    fn check_time(&mut self, context: &mut Context<'_>) -> Result<(), EndReason> {
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            let idle_at = self.active + self.limits.idle_max;
            if now >= idle_at {
                return Err(EndReason::Idle);
            }
            let mut next = idle_at;
            if let Some(since) = self.stalled {
                let stalled_at = since + self.limits.stall_max;
                if now >= stalled_at {
                    return Err(EndReason::Stalled);
                }
                next = next.min(stalled_at);
            }
            if let Some(until) = self.lingering {
                if now >= until {
                    return Err(EndReason::Drained);
                }
                next = next.min(until);
            }
            if !self.shrunk {
                let shrink_at = self.active + SHRINK_AFTER;
                if now >= shrink_at {
                    self.inbound.shrink();
                    self.outbound.shrink();
                    self.connection.shrink();
                    self.shrunk = true;
                } else {
                    next = next.min(shrink_at);
                }
            }
            self.timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// Makes sure that [`Self::check_time`] looks at `at`.
    fn wake_by(&mut self, at: Instant) {
        if self.timer.deadline() > at {
            self.timer.as_mut().reset(at);
        }
    }

    /// Whatever panicked costs what it was about to do, but no connection.
    fn log_panic(&self, when: &str, outcome: std::thread::Result<()>) {
        if let Err(panic) = outcome {
            error!(peer = %self.connection.peer_addr(), cause = panic_text(panic.as_ref()), "the service panicked {when}");
        }
    }

    fn log_end(&self, ended: &EndReason) {
        let peer = self.connection.peer_addr();
        match ended {
            EndReason::Peer | EndReason::Local | EndReason::Drained => {
                debug!(%peer, reason = %ended, "connection closed")
            }
            EndReason::Io(error) => debug!(%peer, %error, "connection lost"),
            EndReason::Idle => {
                info!(%peer, idle_ms = self.limits.idle_max.as_millis() as u64, "connection closed: idle")
            }
            EndReason::Malformed(cause) => warn!(%peer, %cause, "connection closed: malformed input"),
            EndReason::Stalled | EndReason::Overflow => {
                warn!(%peer, unsent_bytes = self.outbound.len(), reason = %ended, "connection closed");
            }
        }
    }
}

/// One pass over the frames that are here, up to its bounds.
struct Frames<'a> {
    driver: &'a mut Driver,
    waker: &'a Waker,
    handled: Result<(), MalformedInput>,
    signals: Signals,
    /// What became of writing the replies, once they have been.
    written: Option<io::Result<()>>,
}

impl RequestSource for Frames<'_> {
    fn each(&mut self, handle: &mut Handle<'_>) {
        if self.handled.is_ok() {
            self.handled = self.driver.handle_frames(handle);
        }
    }

    fn reply(&mut self) {
        if self.written.is_none() {
            self.signals = self.driver.connection.collect(&mut self.driver.outbound);
            self.written = Some(self.driver.write(&mut Context::from_waker(self.waker)));
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        if !driver.opened {
            driver.opened = true;
            if let Some(service) = &driver.service {
                let opened = catch_unwind(AssertUnwindSafe(|| service.opened(&driver.connection)));
                driver.log_panic("as the connection opened", opened);
            }
        }
        (driver.turn_ends, driver.turn_over) = (None, false);
        for _ in 0..ROUNDS_PER_WAKE {
            match driver.round(context) {
                Ok(true) if driver.turn_over => break,
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(ended) => {
                    driver.log_end(&ended);
                    return Poll::Ready(());
                }
            }
        }
        // Others have their turn before this goes on, those too whose sockets have something by now: a task that wakes itself would have
        // sixty turns before the sockets are looked at.
        pin!(tokio::task::yield_now()).poll(context)
    }
}

impl Drop for Driver {
    /// However the task ends (also when it is aborted), waiting callers and the service learn it.
    fn drop(&mut self) {
        self.connection.mark_closed();
        if let (true, Some(service)) = (self.opened, &self.service) {
            // A second panic while the first one unwinds would end the process.
            let closed = catch_unwind(AssertUnwindSafe(|| service.closed(&self.connection)));
            self.log_panic("as the connection closed", closed);
        }
    }
}

/// The answer of a side that serves no requests. Java: `NettyRemotingAbstract.processRequestCommand`.
fn not_supported(code: i32) -> Reply {
    Reply::error(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, format!(" request type {code} not supported"))
}
