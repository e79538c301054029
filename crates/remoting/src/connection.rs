//! One live connection as the rest of a process sees it: a handle to talk to the peer, from any thread.
//!
//! The handle shares a small locked state with the connection's task ([`crate::driver`]): frames waiting to be taken over for
//! writing, requests waiting for their replies, and what was asked of the task. Whoever adds to it wakes the task, at most
//! once until the task has looked.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use ferromq_protocol::{Command, Reply, RequestId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::address::network;
use crate::error::InvokeError;
use crate::outbound::Outbound;
use crate::waiting::WaitingRequests;

/// Requests of ours that may wait for replies on one connection.
const PENDING_MAX: usize = 65_536;

/// Deferred replies may go beyond `outbound_bytes_max` by this factor (they cannot be refused); then the connection is closed.
const OVERFLOW_FACTOR: usize = 8;

/// Names a connection for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// One live connection, opened by either side. Cheap to clone; the connection does not live longer for being referred to.
/// Java: `ChannelHandlerContext`.
#[derive(Clone)]
pub struct Connection {
    shared: Arc<ConnectionState>,
}

struct ConnectionState {
    id: ConnectionId,
    peer_addr: SocketAddr,
    local_addr: SocketAddr,
    outbound_bytes_max: usize,
    next_opaque: AtomicI32,
    /// Reply slots handed out and neither used nor dropped.
    waiting: WaitingRequests,
    /// Changes once, under the lock of the state.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Added by handles, taken by the task.
    outbound: Outbound,
    /// Bytes the task had taken and not yet written when it last looked.
    unsent: usize,
    pending: HashMap<i32, oneshot::Sender<Command>>,
    /// The task, while it sleeps and nobody woke it.
    sleeper: Option<Waker>,
    signals: Signals,
}

/// What handles ask of the task.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) struct Signals {
    pub(crate) close: bool,
    /// Take no new requests, answer the ones there are, then close.
    pub(crate) drain: bool,
    /// Deferred replies piled up beyond every bound.
    pub(crate) overflow: bool,
}

/// What a sleeping task wants to be woken by besides bytes and signals.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WakeConditions {
    /// The last open slot is gone.
    pub(crate) slots: bool,
    /// A request may be taken again.
    pub(crate) room: bool,
}

impl Connection {
    pub(crate) fn new(
        peer_addr: SocketAddr,
        local_addr: SocketAddr,
        outbound_bytes_max: usize,
        waiting: WaitingRequests,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        Self {
            shared: Arc::new(ConnectionState {
                id: ConnectionId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
                peer_addr,
                local_addr,
                outbound_bytes_max,
                next_opaque: AtomicI32::new(1),
                waiting,
                closed: AtomicBool::new(false),
                state: Mutex::default(),
            }),
        }
    }

    /// Unique in this process, never used again.
    pub fn id(&self) -> ConnectionId {
        self.shared.id
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.peer_addr
    }

    /// Whose share the peer takes from: its address, or the network that one host is given with IPv6.
    pub fn peer_network(&self) -> IpAddr {
        network(self.shared.peer_addr.ip())
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local_addr
    }

    /// True once the connection's task has ended; it stays true.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// Sends a request and waits for its reply, whatever its code. The opaque is assigned here. Dropping the future forgets the
    /// reply; the request is sent all the same.
    pub async fn invoke(&self, mut request: Command, timeout: Duration) -> Result<Command, InvokeError> {
        let (sender, receiver) = oneshot::channel();
        let opaque = self.shared.next_opaque.fetch_add(1, Ordering::Relaxed);
        request.opaque = opaque;
        self.enqueue(|state| {
            if state.pending.len() >= PENDING_MAX {
                return Err(InvokeError::OutboundFull { peer: self.peer_addr() });
            }
            state.outbound.push_command(&request).map_err(|cause| InvokeError::Unencodable { cause })?;
            state.pending.insert(opaque, sender);
            Ok(())
        })?;
        drop(request);
        let _forget = ForgetOnDrop { shared: &self.shared, opaque };
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(InvokeError::Closed { peer: self.peer_addr() }),
            Err(_) => Err(InvokeError::TimedOut { peer: self.peer_addr(), timeout }),
        }
    }

    /// Queues a request that wants no reply. Never blocks; `Ok` says that it is queued, not that it arrived.
    pub fn oneway(&self, request: Command) -> Result<(), InvokeError> {
        let mut request = request.oneway();
        request.opaque = self.shared.next_opaque.fetch_add(1, Ordering::Relaxed);
        self.enqueue(|state| state.outbound.push_command(&request).map_err(|cause| InvokeError::Unencodable { cause }))
    }

    /// Takes the right to answer `request` later, from any thread. Pair it with [`Outcome::Deferred`](crate::Outcome::Deferred).
    pub fn reply_slot(&self, request: &Command) -> ReplySlot {
        self.shared.waiting.begin();
        self.slot(request, false)
    }

    /// The same for a request that is not being worked on but waits for an event, where whoever keeps it sees to it that not too many do: it does
    /// not count among those that stop their connection from being read.
    pub fn held_slot(&self, request: &Command) -> ReplySlot {
        self.shared.waiting.begin_held();
        self.slot(request, true)
    }

    /// Of what has begun to be counted.
    fn slot(&self, request: &Command, held: bool) -> ReplySlot {
        ReplySlot { shared: self.shared.clone(), to: request.id(), oneway: request.flags.is_oneway(), held }
    }

    /// Ends the connection soon: what is queued is written as far as the socket takes it at once.
    pub fn close(&self) {
        self.signal(|signals| signals.close = true);
    }

    pub(crate) fn drain(&self) {
        self.signal(|signals| signals.drain = true);
    }

    fn signal(&self, change: impl FnOnce(&mut Signals)) {
        let sleeper = {
            let mut state = self.shared.state.lock();
            change(&mut state.signals);
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    /// Adds to the outbound queue unless the connection is closed or full.
    fn enqueue(&self, add: impl FnOnce(&mut State) -> Result<(), InvokeError>) -> Result<(), InvokeError> {
        let sleeper = {
            let mut state = self.shared.state.lock();
            if self.is_closed() {
                return Err(InvokeError::Closed { peer: self.peer_addr() });
            }
            if state.outbound.len() + state.unsent > self.shared.outbound_bytes_max {
                return Err(InvokeError::OutboundFull { peer: self.peer_addr() });
            }
            add(&mut state)?;
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Ok(())
    }

    // ---- the task's side

    /// Moves what handles queued into `outbound` and tells what they asked for.
    pub(crate) fn collect(&self, outbound: &mut Outbound) -> Signals {
        let mut state = self.shared.state.lock();
        outbound.append(&mut state.outbound);
        state.unsent = outbound.len();
        state.signals
    }

    /// Goes to sleep unless something was queued or asked since `seen`, or the slots that it awaits are all gone, or there is the room for
    /// requests that it awaits. False: look again.
    pub(crate) fn sleep(&self, waker: &Waker, unsent: usize, seen: Signals, awaits: WakeConditions) -> bool {
        let mut state = self.shared.state.lock();
        if !state.outbound.is_empty() || state.signals != seen {
            return false;
        }
        if awaits.slots || awaits.room {
            // Before the look: whoever ends after it sees this.
            self.shared.waiting.watch();
            if (awaits.slots && self.open_slots() == 0) || (awaits.room && self.room() > 0) {
                self.shared.waiting.unwatch();
                return false;
            }
        }
        state.unsent = unsent;
        match &state.sleeper {
            Some(sleeper) if sleeper.will_wake(waker) => {}
            _ => state.sleeper = Some(waker.clone()),
        }
        true
    }

    /// Hands a reply to whoever waits for it. False: nobody does.
    pub(crate) fn resolve(&self, reply: Command) -> bool {
        let waiting = self.shared.state.lock().pending.remove(&reply.opaque);
        match waiting {
            Some(sender) => sender.send(reply).is_ok(),
            None => false,
        }
    }

    /// How many more requests may be taken before too many wait for their answers.
    pub(crate) fn room(&self) -> usize {
        self.shared.waiting.room()
    }

    /// Slots that may still bring replies.
    pub(crate) fn open_slots(&self) -> usize {
        self.shared.waiting.open()
    }

    /// Gives back the memory of the queue that handles fill.
    pub(crate) fn shrink(&self) {
        let mut state = self.shared.state.lock();
        state.outbound.shrink();
        if state.pending.is_empty() {
            state.pending = HashMap::new();
        }
    }

    /// The task has ended: whoever waits for a reply learns it now.
    pub(crate) fn mark_closed(&self) {
        let pending = {
            let mut state = self.shared.state.lock();
            self.shared.closed.store(true, Ordering::Release);
            state.sleeper = None;
            state.outbound = Outbound::default();
            std::mem::take(&mut state.pending)
        };
        drop(pending);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Connection({} {})", self.shared.id, self.shared.peer_addr)
    }
}

/// Takes the waiting entry away when the one who waited gave up.
struct ForgetOnDrop<'a> {
    shared: &'a ConnectionState,
    opaque: i32,
}

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        let entry = self.shared.state.lock().pending.remove(&self.opaque);
        drop(entry);
    }
}

/// The right to answer one request later. Dropped unsent, nothing is written and the peer runs into its own timeout.
pub struct ReplySlot {
    shared: Arc<ConnectionState>,
    to: RequestId,
    oneway: bool,
    held: bool,
}

impl ReplySlot {
    /// Queues the reply; from any thread, never blocks. Nothing happens for a one-way request or a closed connection.
    pub fn send(self, reply: Reply) {
        if self.oneway {
            return;
        }
        let sleeper = {
            let mut state = self.shared.state.lock();
            if self.is_closed() {
                return;
            }
            state.outbound.push_reply(self.to, reply);
            if state.outbound.len() + state.unsent > self.shared.outbound_bytes_max.saturating_mul(OVERFLOW_FACTOR) {
                state.signals.overflow = true;
            }
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.shared.peer_addr
    }

    /// The connection that the request came over is gone: nobody would read the reply.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }
}

impl ConnectionState {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Fewer requests wait for their answers, and the task asked to be told.
    fn wake_watcher(&self) {
        let sleeper = {
            let mut state = self.state.lock();
            self.waiting.unwatch();
            state.sleeper.take()
        };
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl Drop for ReplySlot {
    fn drop(&mut self) {
        let watched = if self.held { self.shared.waiting.end_held() } else { self.shared.waiting.end() };
        if watched {
            self.shared.wake_watcher();
        }
    }
}
