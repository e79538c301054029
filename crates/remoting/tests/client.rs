//! The connecting side through real sockets: pairing, sharing, failing, being asked by the server.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferromq_protocol::{Reply, ResponseCode};
use ferromq_remoting::{Client, ClientConfig, ConnectError, InvokeError, Outcome};
use ferromq_remoting::{Server, ServerConfig};
use support::{Handler, PATIENCE, Raw, echo, frame, has_ipv6, request, serve};
use tokio::net::TcpListener;

fn client() -> Client {
    Client::new(ClientConfig::default(), None)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_one_connection_and_get_their_own_replies() {
    let handler = Handler::new(echo);
    let server = serve(handler.clone()).await;
    let client = client();
    let addr = server.local_addr().to_string();
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let (client, addr) = (client.clone(), addr.clone());
            tokio::spawn(async move {
                let body = format!("caller {number}");
                let reply = client.invoke(&addr, request(1, body.as_bytes()), PATIENCE).await.expect("a reply");
                assert_eq!(reply.body, body);
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("no panic");
    }
    assert_eq!(handler.opened.load(Ordering::SeqCst), 1);
    client.shutdown().await;
    handler.closed(1).await;
}

#[tokio::test]
async fn replies_may_come_in_any_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("bound").to_string();
    let server = tokio::spawn(async move {
        let mut peer = Raw::from_stream(listener.accept().await.expect("accepts").0);
        let mut requests = Vec::new();
        for _ in 0..3 {
            requests.push(peer.next().await.expect("a request"));
        }
        for request in requests.into_iter().rev() {
            let reply = Reply::ok().body(request.body.clone());
            let mut bytes = bytes::BytesMut::new();
            reply.encode_head(request.id(), &mut bytes).expect("encodes");
            bytes.extend_from_slice(&request.body);
            peer.send(&bytes).await;
        }
        peer
    });
    let client = client();
    let (a, b, c) = tokio::join!(
        client.invoke(&addr, request(1, b"a"), PATIENCE),
        client.invoke(&addr, request(1, b"b"), PATIENCE),
        client.invoke(&addr, request(1, b"c"), PATIENCE),
    );
    assert_eq!(a.expect("a reply").body, "a");
    assert_eq!(b.expect("a reply").body, "b");
    assert_eq!(c.expect("a reply").body, "c");
    server.await.expect("no panic");
}

#[tokio::test]
async fn a_lost_connection_fails_waiting_requests_at_once_and_is_made_anew() {
    let handler = Handler::new(|connection, request| {
        if request.code == 13 {
            connection.close();
            return Outcome::Deferred;
        }
        echo(connection, request)
    });
    let server = serve(handler.clone()).await;
    let addr = server.local_addr().to_string();
    let client = client();
    let lost = client.invoke(&addr, request(13, b""), Duration::from_secs(3600)).await;
    assert!(matches!(lost, Err(InvokeError::Closed { .. })), "{lost:?}");
    handler.closed(1).await;
    let reply = client.invoke(&addr, request(1, b"again"), PATIENCE).await.expect("a reply");
    assert_eq!(reply.body, "again");
    assert_eq!(handler.opened.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn no_answer_in_time_is_an_error_and_a_late_answer_is_ignored() {
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let handler = Handler::new(move |connection, request| {
        if request.code == 1 {
            asked.send(connection.reply_slot(&request)).expect("the test listens");
            return Outcome::Deferred;
        }
        echo(connection, request)
    });
    let server = serve(handler).await;
    let addr = server.local_addr().to_string();
    let client = client();
    let late = client.invoke(&addr, request(1, b""), Duration::from_millis(10)).await;
    assert!(matches!(late, Err(InvokeError::TimedOut { .. })), "{late:?}");
    was_asked.recv().await.expect("a slot").send(Reply::ok());
    assert_eq!(client.invoke(&addr, request(2, b"x"), PATIENCE).await.expect("a reply").body, "x");
}

#[tokio::test]
async fn nobody_listening_is_an_error_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("bound").to_string();
    drop(listener);
    let client = client();
    let (first, second) = tokio::join!(client.connect(&addr), client.connect(&addr));
    for outcome in [first, second] {
        let error = outcome.expect_err("nobody listens");
        assert!(matches!(error, ConnectError::Io { .. }));
        assert!(error.to_string().contains(&addr), "{error}");
    }
    let error = client.invoke("no port here", request(1, b""), PATIENCE).await.expect_err("no address");
    assert!(error.to_string().contains("no port here"), "{error}");
}

#[tokio::test]
async fn the_server_may_ask_the_client_over_the_same_connection() {
    let handler = Handler::new(|connection, request| {
        let slot = connection.reply_slot(&request);
        let connection = connection.clone();
        tokio::spawn(async move {
            let answer = connection.invoke(support::request(40, b"who are you"), PATIENCE).await.expect("an answer");
            connection.oneway(support::request(41, b"thanks")).expect("queued");
            slot.send(Reply::ok().body(answer.body));
        });
        Outcome::Deferred
    });
    let server = serve(handler).await;
    let (thanks, mut thanked) = tokio::sync::mpsc::unbounded_channel();
    let service = Handler::new(move |_, request| {
        if request.code == 41 {
            assert!(request.flags.is_oneway());
            thanks.send(request.body).expect("the test listens");
            return Outcome::Deferred;
        }
        assert_eq!(request.body, "who are you");
        Outcome::Reply(Reply::ok().body("the client"))
    });
    let client = Client::new(ClientConfig::default(), Some(service));
    let reply = client.invoke(&server.local_addr().to_string(), request(1, b""), PATIENCE).await.expect("a reply");
    assert_eq!(reply.body, "the client");
    assert_eq!(thanked.recv().await.expect("a one-way request"), "thanks");
}

#[tokio::test]
async fn a_client_without_a_service_says_so() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let handler = Handler::new(move |connection, request| {
        let slot = connection.reply_slot(&request);
        let (connection, count) = (connection.clone(), count.clone());
        tokio::spawn(async move {
            let answer = connection.invoke(support::request(40, b""), PATIENCE).await.expect("an answer");
            assert_eq!(answer.response_code(), ResponseCode::REQUEST_CODE_NOT_SUPPORTED);
            count.fetch_add(1, Ordering::SeqCst);
            slot.send(Reply::ok());
        });
        Outcome::Deferred
    });
    let server = serve(handler).await;
    client().invoke(&server.local_addr().to_string(), request(1, b""), PATIENCE).await.expect("a reply");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn too_much_unsent_is_refused_and_too_long_a_request_too() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let addr = listener.local_addr().expect("bound").to_string();
    let config = ClientConfig { outbound_bytes_max: 1_000_000, ..ClientConfig::default() };
    let client = Client::new(config, None);
    let connection = client.connect(&addr).await.expect("the kernel accepts");
    let body = vec![0; 100_000];
    let full = loop {
        if let Err(error) = connection.oneway(request(1, &body)) {
            break error;
        }
        tokio::task::yield_now().await;
    };
    assert!(matches!(full, InvokeError::OutboundFull { .. }), "{full:?}");

    let other = client.connect(&serve(Handler::new(echo)).await.local_addr().to_string()).await.expect("connects");
    let long = other.oneway(request(1, &vec![0; 16_777_216])).expect_err("too long");
    assert!(matches!(long, InvokeError::Unencodable { .. }), "{long:?}");
}

#[tokio::test]
async fn a_client_that_is_shut_down_connects_no_more() {
    let server = serve(Handler::new(echo)).await;
    let addr = server.local_addr().to_string();
    let client = client();
    let connection = client.connect(&addr).await.expect("connects");
    client.clone().shutdown().await;
    assert!(connection.is_closed());
    assert!(matches!(client.connect(&addr).await, Err(ConnectError::ShutDown { .. })));
    assert!(matches!(connection.oneway(request(1, b"")), Err(InvokeError::Closed { .. })));
    // A raw frame still works: the server did not notice anything but a closed connection.
    let mut peer = Raw::connect(server.local_addr()).await;
    peer.send(&frame(1, 1, b"x")).await;
    assert!(peer.next().await.is_some());
}

#[tokio::test]
async fn an_ipv6_peer_is_one_however_it_is_written() {
    if !has_ipv6() {
        return;
    }
    let handler = Handler::new(echo);
    let listen = "[::1]:0".parse().unwrap();
    let server = Server::bind(ServerConfig { listen, ..ServerConfig::default() }, handler.clone()).await.unwrap();
    let port = server.local_addr().port();
    let client = client();
    for addr in [format!("[::1]:{port}"), format!("::1:{port}")] {
        assert_eq!(client.invoke(&addr, request(1, b"x"), PATIENCE).await.expect("a reply").body, "x", "{addr}");
    }
    assert_eq!(handler.opened.load(Ordering::SeqCst), 1);
    let error = client.invoke("::1", request(1, b""), PATIENCE).await.unwrap_err().to_string();
    assert_eq!(error, "cannot connect to ::1: it is not host:port");
    client.shutdown().await;
}
