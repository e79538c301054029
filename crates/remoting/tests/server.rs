//! The listening side through real sockets: order, bounds, malformed input, endings.

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferromq_protocol::{Command, Reply, ResponseCode};
use ferromq_remoting::{BoundPort, Connection, Outcome, ReplySlot, Server, ServerConfig, Workers};
use parking_lot::Mutex;
use support::{Handler, PATIENCE, Raw, echo, frame, has_ipv6, local, request, serve};

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = serve(Handler::new(echo)).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    let mut bytes = Vec::new();
    for opaque in 0..1000 {
        bytes.extend(frame(1, opaque, format!("body {opaque}").as_bytes()));
    }
    peer.send(&bytes).await;
    for opaque in 0..1000 {
        let reply = peer.next().await.expect("a reply");
        assert!(reply.flags.is_response());
        assert_eq!(reply.opaque, opaque);
        assert_eq!(reply.body, format!("body {opaque}"));
    }
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn frames_may_arrive_byte_by_byte_and_be_large() {
    let server = serve(Handler::new(echo)).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    for byte in frame(1, 1, b"slow") {
        peer.send(&[byte]).await;
    }
    assert_eq!(peer.next().await.expect("a reply").body, "slow");
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| n as u8).collect();
    let bytes = frame(1, 2, &large);
    let (mut reader, mut writer) = peer.stream.into_split();
    let sent = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut writer, &bytes).await.expect("written");
        writer
    });
    let mut received = vec![0; large.len()];
    let mut head = [0; 8];
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut head).await.expect("head");
    let header_len = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut vec![0; header_len]).await.expect("header");
    tokio::io::AsyncReadExt::read_exact(&mut reader, &mut received).await.expect("body");
    assert!(received == large);
    drop(sent.await.expect("no panic"));
}

#[tokio::test]
async fn one_way_requests_get_no_reply_even_when_the_service_gives_one() {
    let server = serve(Handler::new(echo)).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    let mut oneway = request(1, b"quiet").oneway();
    oneway.opaque = 7;
    let mut bytes = bytes::BytesMut::new();
    oneway.encode_head(&mut bytes).expect("encodes");
    bytes.extend_from_slice(b"quiet");
    peer.send(&bytes).await;
    peer.send(&frame(1, 8, b"loud")).await;
    assert_eq!(peer.next().await.expect("a reply").opaque, 8);
}

#[tokio::test]
async fn deferred_replies_leave_in_the_order_they_are_sent_from_any_thread() {
    let slots = Arc::new(Mutex::new(Vec::<ReplySlot>::new()));
    let kept = slots.clone();
    let handler = Handler::new(move |connection, request| {
        kept.lock().push(connection.reply_slot(&request));
        if request.code == 2 {
            let mut slots = std::mem::take(&mut *kept.lock());
            std::thread::spawn(move || {
                while let Some(slot) = slots.pop() {
                    slot.send(Reply::ok());
                }
            });
        }
        Outcome::Deferred
    });
    let server = serve(handler).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    for opaque in 0..10 {
        peer.send(&frame(if opaque == 9 { 2 } else { 1 }, opaque, b"")).await;
    }
    for opaque in (0..10).rev() {
        assert_eq!(peer.next().await.expect("a reply").opaque, opaque);
    }
    drop(server);
}

/// Hex of captured frames: what Java 5.3.3 closes the connection for.
const MALFORMED: [(&str, &str); 9] = [
    ("total -1", "ffffffff000000617b22636f6465223a3230362c22666c6167223a307d"),
    ("total 16777213", "00fffffd0000000000000000000000000000000000000000"),
    ("header longer than the frame", "00000010000013887b22636f6465223a3230367d"),
    ("unknown serialization 7", "00000010070000097b22636f6465223a3230367d"),
    ("not JSON", "0000000d000000097b626164206a736f6e"),
    ("header length 0", "0000000400000000"),
    ("total 0", "0000000000000000"),
    ("JSON array", "00000006000000025b5d"),
    ("HTTP", "474554202f20485454502f312e310d0a486f73743a20780d0a0d0a"),
];

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

#[tokio::test]
async fn malformed_first_frames_close_the_connection_without_an_answer() {
    let handler = Handler::new(echo);
    let server = serve(handler.clone()).await;
    for (number, (name, hex)) in MALFORMED.into_iter().enumerate() {
        let mut peer = Raw::connect(server.local_addr()).await;
        peer.send(&unhex(hex)).await;
        assert!(peer.next().await.is_none(), "{name}");
        handler.closed(number + 1).await;
    }
}

#[tokio::test]
async fn malformed_later_frames_close_too_but_earlier_requests_are_answered() {
    let server = serve(Handler::new(echo)).await;
    for (name, hex) in MALFORMED {
        let mut peer = Raw::connect(server.local_addr()).await;
        peer.send(&frame(1, 1, b"good")).await;
        assert_eq!(peer.next().await.expect(name).body, "good");
        peer.send(&unhex(hex)).await;
        assert!(peer.next().await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn an_incomplete_frame_of_the_largest_size_waits() {
    let server = serve(Handler::new(echo)).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    peer.send(&unhex("00fffffc0000000000000000000000000000000000000000")).await;
    // Others are served meanwhile, and the connection stays open.
    let mut other = Raw::connect(server.local_addr()).await;
    other.send(&frame(1, 1, b"x")).await;
    assert!(other.next().await.is_some());
    let mut byte = [0];
    assert!(matches!(peer.stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn replies_that_nobody_waits_for_are_ignored() {
    let server = serve(Handler::new(echo)).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    let mut stray = request(0, b"");
    stray.flags.0 |= 1;
    stray.opaque = 4711;
    let mut bytes = bytes::BytesMut::new();
    stray.encode_head(&mut bytes).expect("encodes");
    peer.send(&bytes).await;
    peer.send(&frame(1, 5, b"still here")).await;
    assert_eq!(peer.next().await.expect("a reply").opaque, 5);
}

#[tokio::test]
async fn a_panicking_handler_answers_code_1_and_the_connection_lives_on() {
    let server = serve(Handler::new(|connection, request| {
        assert!(request.code != 666, "a bug");
        echo(connection, request)
    }))
    .await;
    let mut peer = Raw::connect(server.local_addr()).await;
    peer.send(&frame(666, 1, b"")).await;
    peer.send(&frame(1, 2, b"fine")).await;
    let reply = peer.next().await.expect("a reply");
    assert_eq!(reply.response_code(), ResponseCode::SYSTEM_ERROR);
    assert!(reply.remark.expect("a remark").contains("a bug"));
    assert_eq!(peer.next().await.expect("a reply").body, "fine");
}

#[tokio::test]
async fn a_panic_around_the_replies_costs_neither_them_nor_the_connection() {
    let server = serve(Handler::clumsy(echo)).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    for opaque in [1, 2] {
        peer.send(&frame(1, opaque, b"fine")).await;
        assert_eq!(peer.next().await.expect("a reply").opaque, opaque);
    }
}

/// What comes after the replies makes visible what was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_is_seen_to_also_when_its_peer_is_gone() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let (gone, is_gone) = std::sync::mpsc::channel::<()>();
    let is_gone = Mutex::new(is_gone);
    let handler = Handler::new(move |connection, request| {
        if request.code == 2 {
            asked.send(()).expect("the test listens");
            is_gone.lock().recv().expect("the test says so");
        }
        echo(connection, request)
    });
    let server = serve(handler.clone()).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    peer.send(&frame(1, 1, b"first")).await;
    peer.stream.readable().await.expect("an answer");
    peer.send(&frame(2, 2, b"last")).await;
    was_asked.recv().await.expect("a request");
    // With an answer unread the kernel resets the connection, and the next one cannot be written.
    drop(peer);
    gone.send(()).expect("the handler waits");
    handler.closed(1).await;
    assert_eq!(handler.rounds.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_not_read_from_and_is_closed_at_last() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let handler = Handler::new(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Outcome::Reply(Reply::ok().body(vec![0; 100_000]))
    });
    let config = ServerConfig {
        outbound_bytes_max: 500_000,
        stall_max: Duration::from_millis(300),
        send_buffer_len: Some(64 * 1024),
        ..local()
    };
    let server = Server::bind(config, handler.clone()).await.expect("binds");
    let mut peer = Raw::connect(server.local_addr()).await;
    let requests: Vec<u8> = (0..1000).flat_map(|opaque| frame(1, opaque, b"")).collect();
    // A slow peer may be closed before it has written all of them.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &requests).await;
    handler.closed(1).await;
    // 100 MB were asked for; what was produced is bounded by the limit and what the kernel's buffers swallowed.
    assert!(handled.load(Ordering::SeqCst) < 400, "{} requests were handled", handled.load(Ordering::SeqCst));
}

#[tokio::test]
async fn deferred_replies_that_pile_up_close_the_connection() {
    let slots = Mutex::new(Vec::<ReplySlot>::new());
    let handler = Handler::new(move |connection, request| {
        let mut slots = slots.lock();
        slots.push(connection.reply_slot(&request));
        if slots.len() == 200 {
            slots.drain(..).for_each(|slot| slot.send(Reply::ok().body(vec![0; 100_000])));
        }
        Outcome::Deferred
    });
    let config = ServerConfig { outbound_bytes_max: 500_000, send_buffer_len: Some(64 * 1024), ..local() };
    let server = Server::bind(config, handler.clone()).await.expect("binds");
    let mut peer = Raw::connect(server.local_addr()).await;
    let mut requests = Vec::new();
    for opaque in 0..200 {
        requests.extend(frame(1, opaque, b""));
    }
    peer.send(&requests).await;
    handler.closed(1).await;
}

#[tokio::test]
async fn a_slow_reader_gets_everything() {
    let handler =
        Handler::new(|_, _| Outcome::Reply(Reply::ok().body_chunks(vec![vec![1; 50_000].into(), vec![2; 50].into()])));
    let config = ServerConfig { outbound_bytes_max: 100_000, ..local() };
    let server = Server::bind(config, handler).await.expect("binds");
    let mut peer = Raw::connect(server.local_addr()).await;
    for opaque in 0..500 {
        peer.send(&frame(1, opaque, b"")).await;
    }
    for opaque in 0..500 {
        let reply = peer.next().await.expect("a reply");
        assert_eq!(reply.opaque, opaque);
        assert_eq!(reply.body.len(), 50_050);
    }
    drop(server);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let handler = Handler::new(echo);
    let config = ServerConfig { idle_max: Duration::from_millis(50), ..local() };
    let server = Server::bind(config, handler.clone()).await.expect("binds");
    for tries in 1.. {
        let mut peer = Raw::connect(server.local_addr()).await;
        let written = tokio::io::AsyncWriteExt::write_all(&mut peer.stream, &frame(1, 1, b"x")).await;
        let served = peer.next().await.is_some();
        assert!(!served || peer.next().await.is_none());
        handler.closed(tries).await;
        assert_eq!(handler.opened.load(Ordering::SeqCst), tries);
        // Otherwise this machine was so slow that the connection was idle before it spoke.
        if written.is_ok() && served {
            break;
        }
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let config = ServerConfig { connections_max: 1, ..local() };
    let handler = Handler::new(echo);
    let server = Server::bind(config, handler.clone()).await.expect("binds");
    let mut first = Raw::connect(server.local_addr()).await;
    first.send(&frame(1, 1, b"x")).await;
    assert!(first.next().await.is_some());
    let mut second = Raw::connect(server.local_addr()).await;
    assert!(second.next().await.is_none());
    drop(first);
    handler.closed(1).await;
    // The accept task may learn of it a little later than the service.
    loop {
        let mut third = Raw::connect(server.local_addr()).await;
        if tokio::io::AsyncWriteExt::write_all(&mut third.stream, &frame(1, 1, b"x")).await.is_ok()
            && third.next().await.is_some()
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_used_port_is_named() {
    let server = serve(Handler::new(echo)).await;
    let addr = server.local_addr();
    let error = Server::bind(ServerConfig { listen: addr, ..local() }, Handler::new(echo)).await.expect_err("in use");
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    assert_eq!(error.cause.kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn shutdown_answers_what_was_read_and_takes_nothing_new() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let handler = Handler::new(move |connection, request| {
        asked.send(connection.reply_slot(&request)).expect("the test listens");
        Outcome::Deferred
    });
    let server = serve(handler.clone()).await;
    let addr = server.local_addr();
    let mut peer = Raw::connect(addr).await;
    let mut bytes = Vec::new();
    for opaque in 0..50 {
        bytes.extend(frame(1, opaque, b""));
    }
    peer.send(&bytes).await;
    let mut slots = Vec::new();
    for _ in 0..50 {
        slots.push(was_asked.recv().await.expect("a request"));
    }
    let stopping = tokio::spawn(server.shutdown(PATIENCE));
    // The listening socket goes first, and with it the certainty that the shutdown has begun.
    while tokio::net::TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
    std::thread::spawn(move || {
        for slot in slots {
            slot.send(Reply::ok().body(vec![7; 3000]));
        }
    });
    for opaque in 0..50 {
        assert_eq!(peer.next().await.expect("a reply").opaque, opaque);
    }
    assert!(peer.next().await.is_none());
    drop(peer);
    stopping.await.expect("no panic");
    handler.closed(1).await;
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_told() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let handler = Handler::new(move |connection, request| {
        asked.send(connection.reply_slot(&request)).expect("the test listens");
        Outcome::Deferred
    });
    let server = serve(handler).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    peer.send(&frame(1, 1, b"")).await;
    let slot = was_asked.recv().await.expect("a request");
    server.shutdown(Duration::from_millis(20)).await;
    assert!(slot.is_closed());
    slot.send(Reply::ok());
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn all_addresses_are_those_of_both_stacks_and_each_peer_has_its_own() {
    let peer_of =
        |connection: &Connection, _: Command| Outcome::Reply(Reply::ok().body(connection.peer_addr().to_string()));
    for any in ["0.0.0.0:0", "[::]:0"] {
        let any: SocketAddr = any.parse().unwrap();
        if any.is_ipv6() && !has_ipv6() {
            continue;
        }
        let server =
            Server::bind(ServerConfig { listen: any, ..ServerConfig::default() }, Handler::new(peer_of)).await.unwrap();
        assert_eq!(server.local_addr().ip(), any.ip());
        for host in ["127.0.0.1", "::1"] {
            let host: IpAddr = host.parse().unwrap();
            if host.is_ipv6() && !has_ipv6() {
                continue;
            }
            let mut peer = Raw::connect(SocketAddr::new(host, server.local_addr().port())).await;
            let own = peer.stream.local_addr().unwrap();
            peer.send(&frame(1, 1, b"")).await;
            assert_eq!(peer.next().await.expect("a reply").body, own.to_string());
        }
        server.shutdown(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_port_that_was_taken_stays_taken_until_it_is_listened_on() {
    let bound = BoundPort::to(local().listen).unwrap();
    let addr = bound.addr();
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens yet");
    // Whoever lets the kernel choose is given others.
    let others: Vec<_> = (0..50).map(|_| BoundPort::to(local().listen).unwrap()).collect();
    assert!(others.iter().all(|other| other.addr().port() != addr.port()));
    let server = Server::start(bound, local(), Handler::new(echo)).await.unwrap();
    assert_eq!(server.local_addr(), addr);
    for taken in [addr, SocketAddr::from(([0, 0, 0, 0], addr.port()))] {
        assert!(BoundPort::to(taken).unwrap_err().to_string().contains(&format!("cannot listen on {taken}")));
    }
    let mut peer = Raw::connect(addr).await;
    peer.send(&frame(1, 1, b"x")).await;
    assert!(peer.next().await.is_some());
    server.shutdown(PATIENCE).await;
}

#[tokio::test]
async fn an_answer_that_fits_no_frame_is_an_error_that_says_so() {
    let service = Handler::new(|_: &Connection, request: Command| {
        Outcome::Reply(Reply::ok().body(vec![b'x'; usize::try_from(request.code).unwrap()]))
    });
    let server = serve(service).await;
    let mut peer = Raw::connect(server.local_addr()).await;
    peer.send(&frame(16_777_216, 1, b"")).await;
    let reply = peer.next().await.expect("an answer, and the connection lives");
    assert_eq!(reply.code, 1);
    let remark = reply.remark.expect("a reason").to_string();
    assert!(
        remark.starts_with("the reply cannot be sent: a frame of 16777") && remark.ends_with("limit 16777216"),
        "{remark}"
    );
    peer.send(&frame(1000, 2, b"")).await;
    assert_eq!(peer.next().await.expect("a reply").body.len(), 1000);
    server.shutdown(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_much_to_do_gives_others_their_turn() {
    const MUCH: i32 = 300;
    let order = Arc::new(Mutex::new(Vec::new()));
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let (gone, notes) = (Mutex::new(gone), Arc::clone(&order));
    let service = Handler::new(move |_, request: Command| {
        if request.code == 7 {
            if request.opaque == 0 {
                // The other one's request is here before the first one of many is done.
                gone.lock().recv_timeout(PATIENCE).unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        notes.lock().push((request.code, request.opaque));
        Outcome::Reply(Reply::ok())
    });
    let config = ServerConfig { workers: Some(Workers::start(1).unwrap()), ..local() };
    let server = Server::bind(config, service).await.unwrap();
    let mut greedy = Raw::connect(server.local_addr()).await;
    let mut honest = Raw::connect(server.local_addr()).await;
    honest.send(&frame(1, 1, b"")).await;
    assert!(honest.next().await.is_some());
    let all: Vec<u8> = (0..MUCH).flat_map(|opaque| frame(7, opaque, b"")).collect();
    greedy.send(&all).await;
    honest.send(&frame(1, 2, b"")).await;
    go.send(()).unwrap();
    assert!(honest.next().await.is_some());
    for _ in 0..MUCH {
        assert!(greedy.next().await.is_some());
    }
    server.shutdown(PATIENCE).await;
    let order = order.lock();
    let place = |wanted| order.iter().position(|seen| *seen == wanted).unwrap();
    assert!(place((1, 2)) < place((7, MUCH - 1)), "the other one was served first, all of it");
}
