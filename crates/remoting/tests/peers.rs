//! What one peer may take of a server, and that another one does not notice when it asks for more.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ferromq_protocol::Reply;
use ferromq_remoting::{Outcome, PeerLimits, Peers, ReplySlot, Server, ServerConfig};
use parking_lot::Mutex;
use support::{Handler, PATIENCE, Raw, echo, frame, local};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

async fn serve(service: Arc<dyn ferromq_remoting::Service>, limits: PeerLimits) -> Server {
    Server::bind(ServerConfig { peers: Peers::new(limits), ..local() }, service).await.expect("port 0 can be bound")
}

/// Connects from another address than all others.
async fn from_elsewhere(server: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("all of 127/8 is ours");
    Raw::from_stream(socket.connect(server).await.expect("connects"))
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_have_theirs() {
    let handler = Handler::new(echo);
    let limits = PeerLimits { connections_per_address: 2, ..PeerLimits::default() };
    let server = serve(handler.clone(), limits).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = Raw::connect(server.local_addr()).await;
        peer.send(&frame(1, 1, b"x")).await;
        assert!(peer.next().await.is_some());
        peers.push(peer);
    }
    assert!(Raw::connect(server.local_addr()).await.next().await.is_none(), "the third is closed");
    let mut honest = from_elsewhere(server.local_addr()).await;
    honest.send(&frame(1, 1, b"x")).await;
    assert!(honest.next().await.is_some());
    // One goes, one comes.
    peers.pop();
    handler.closed(1).await;
    loop {
        // The count goes down a moment after the service was told.
        let mut peer = Raw::connect(server.local_addr()).await;
        let sent = peer.stream.write_all(&frame(1, 1, b"x")).await;
        if sent.is_ok() && peer.next().await.is_some() {
            break;
        }
    }
}

#[tokio::test]
async fn unfinished_frames_of_many_connections_cost_their_own_address_a_connection() {
    let limits = PeerLimits { partial_bytes_per_address: 300_000, partial_bytes: 1_000_000, ..PeerLimits::default() };
    let server = serve(Handler::new(echo), limits).await;
    // An honest peer is in the middle of a frame, and so is one beside the greedy connections that is done soon.
    let whole = frame(1, 7, &vec![7; 250_000]);
    let mut honest = from_elsewhere(server.local_addr()).await;
    honest.send(&whole[..200_000]).await;
    let mut greedy = JoinSet::new();
    for _ in 0..4 {
        let mut peer = Raw::connect(server.local_addr()).await;
        greedy.spawn(async move {
            // Most of a frame, and then nothing.
            let _ = peer.stream.write_all(&frame(1, 1, &vec![1; 200_000])[..100_000]).await;
            peer.next().await.is_none()
        });
    }
    assert!(greedy.join_next().await.expect("four").expect("no panic"), "one of them is closed");
    let mut beside = Raw::connect(server.local_addr()).await;
    beside.send(&frame(1, 8, b"short")).await;
    assert_eq!(beside.next().await.expect("a reply").opaque, 8);
    honest.send(&whole[200_000..]).await;
    assert_eq!(honest.next().await.expect("a reply").body.len(), 250_000);
    assert_eq!(greedy.len(), 3);
    greedy.abort_all();
    // What is over counts no more.
    for opaque in 0..5 {
        let mut peer = Raw::connect(server.local_addr()).await;
        peer.send(&frame(1, opaque, &vec![1; 250_000])).await;
        assert_eq!(peer.next().await.expect("a reply").opaque, opaque);
    }
}

/// A service that answers nothing by itself: the slots are in the test's hands.
#[derive(Default)]
struct Kept {
    slots: Mutex<Vec<ReplySlot>>,
    seen: AtomicUsize,
}

impl Kept {
    async fn seen(&self, count: usize) {
        tokio::time::timeout(PATIENCE, async {
            while self.seen.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("in time");
    }
}

#[tokio::test]
async fn requests_that_wait_stop_their_connection_and_no_other() {
    let kept = Arc::new(Kept::default());
    let keeps = kept.clone();
    // Code 2 is parked, code 3 answered at once.
    let handler = Handler::new(move |connection, request| {
        keeps.seen.fetch_add(1, Ordering::SeqCst);
        if request.code == 3 {
            return Outcome::Reply(Reply::ok());
        }
        let slot = connection.reply_slot(&request);
        keeps.slots.lock().push(if request.code == 2 { slot.parked() } else { slot });
        Outcome::Deferred
    });
    let limits = PeerLimits { waiting_per_connection: 3, waiting_per_address: 5, ..PeerLimits::default() };
    let server = serve(handler, limits).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    // Parked requests do not count.
    for opaque in 0..20 {
        peer.send(&frame(2, opaque, b"")).await;
    }
    kept.seen(20).await;
    for opaque in 20..30 {
        peer.send(&frame(1, opaque, b"")).await;
    }
    kept.seen(23).await;
    // Another connection of the address has what is left, and one from elsewhere has its own.
    let mut second = Raw::connect(server.local_addr()).await;
    for opaque in 0..10 {
        second.send(&frame(1, opaque, b"")).await;
    }
    kept.seen(25).await;
    let mut honest = from_elsewhere(server.local_addr()).await;
    for opaque in 0..10 {
        honest.send(&frame(3, opaque, b"")).await;
        assert_eq!(honest.next().await.expect("a reply").opaque, opaque);
    }
    assert_eq!(kept.seen.load(Ordering::SeqCst), 35, "nothing more was taken");
    // One after the other they are answered, and none is left behind.
    let mut answered = 0;
    while answered < 40 {
        let slots = std::mem::take(&mut *kept.slots.lock());
        answered += slots.len();
        slots.into_iter().for_each(|slot| slot.send(Reply::ok()));
        tokio::task::yield_now().await;
    }
    for _ in 0..30 {
        assert!(peer.next().await.is_some());
    }
    for _ in 0..10 {
        assert!(second.next().await.is_some());
    }
}
