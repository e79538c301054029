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
    let comes = async {
        loop {
            // The count goes down a moment after the service was told.
            let mut peer = Raw::connect(server.local_addr()).await;
            let sent = peer.stream.write_all(&frame(1, 1, b"x")).await;
            if sent.is_ok() && peer.next().await.is_some() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, comes).await.expect("in time");
}

#[tokio::test]
async fn unfinished_frames_of_many_connections_cost_their_own_address_a_connection() {
    let limits = PeerLimits {
        unfinished_frame_bytes_per_address: 300_000,
        unfinished_frame_bytes: 1_000_000,
        ..PeerLimits::default()
    };
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
    // Code 2 is held, code 3 answered at once.
    let handler = Handler::new(move |connection, request| {
        keeps.seen.fetch_add(1, Ordering::SeqCst);
        if request.code == 3 {
            return Outcome::Reply(Reply::ok());
        }
        let held = request.code == 2;
        let slot = if held { connection.held_slot(&request) } else { connection.reply_slot(&request) };
        keeps.slots.lock().push(slot);
        Outcome::Deferred
    });
    let limits = PeerLimits { waiting_per_connection: 40, waiting_per_address: 48, ..PeerLimits::default() };
    let server = serve(handler, limits).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    // Held requests do not count.
    for opaque in 0..50 {
        peer.send(&frame(2, opaque, b"")).await;
    }
    kept.seen(50).await;
    for opaque in 50..100 {
        peer.send(&frame(1, opaque, b"")).await;
    }
    kept.seen(90).await;
    // The address has 32 of these and room for 16 more, which another connection takes; one from elsewhere has its own.
    let mut second = Raw::connect(server.local_addr()).await;
    for opaque in 0..30 {
        second.send(&frame(1, opaque, b"")).await;
    }
    kept.seen(106).await;
    let mut honest = from_elsewhere(server.local_addr()).await;
    for opaque in 0..10 {
        honest.send(&frame(3, opaque, b"")).await;
        assert_eq!(honest.next().await.expect("a reply").opaque, opaque);
    }
    assert_eq!(kept.seen.load(Ordering::SeqCst), 116, "nothing more was taken");
    // One after the other they are answered, and none is left behind.
    tokio::time::timeout(PATIENCE, async {
        let mut answered = 0;
        while answered < 130 {
            let slots = std::mem::take(&mut *kept.slots.lock());
            answered += slots.len();
            slots.into_iter().for_each(|slot| slot.send(Reply::ok()));
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time");
    for _ in 0..100 {
        assert!(peer.next().await.is_some());
    }
    for _ in 0..30 {
        assert!(second.next().await.is_some());
    }
}

/// Asks for two answers of so many bytes, which neither side's socket takes, and reads nothing.
async fn leave_unread(server: SocketAddr, from: [u8; 4], answer_len: i32) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(64 * 1024).expect("a small buffer");
    socket.bind(SocketAddr::from((from, 0))).expect("all of 127/8 is ours");
    let mut peer = Raw::from_stream(socket.connect(server).await.expect("connects"));
    let both: Vec<u8> = (0..2).flat_map(|opaque| frame(answer_len, opaque, b"")).collect();
    peer.send(&both).await;
    peer
}

#[tokio::test]
async fn answers_that_nobody_reads_cost_their_own_address_a_connection() {
    const LEN: i32 = 4_000_000;
    let handler = Handler::new(|_, request| Outcome::Reply(Reply::ok().body(vec![1; request.code as usize])));
    // Room for two connections of an address with what they leave unread.
    let limits = PeerLimits {
        unread_answer_bytes: 40_000_000,
        unread_answer_bytes_per_address: 17_000_000,
        ..PeerLimits::default()
    };
    // Nobody is closed here for reading nothing.
    let config = ServerConfig {
        peers: Peers::new(limits),
        send_buffer_len: Some(64 * 1024),
        stall_max: PATIENCE,
        idle_max: PATIENCE,
        ..local()
    };
    let server = Server::bind(config, handler.clone()).await.expect("binds");
    let mut honest = leave_unread(server.local_addr(), [127, 0, 0, 2], LEN).await;
    let mut greedy = Vec::new();
    for _ in 0..5 {
        greedy.push(leave_unread(server.local_addr(), [127, 0, 0, 1], LEN).await);
    }
    handler.closed(3).await;
    let mut whole = 0;
    for peer in greedy.iter_mut().chain([&mut honest]) {
        for opaque in 0..2 {
            let Some(reply) = peer.next().await else { break };
            assert_eq!((reply.opaque, reply.body.len()), (opaque, LEN as usize));
            whole += 1;
        }
    }
    assert_eq!(whole, 6, "two of the address, and the one from elsewhere");
    // What is over counts no more.
    for _ in 0..5 {
        let mut peer = leave_unread(server.local_addr(), [127, 0, 0, 1], LEN).await;
        assert!(peer.next().await.is_some() && peer.next().await.is_some());
    }
    server.shutdown(PATIENCE).await;
}
