//! What the transport tests share: a service made of a closure, raw frames by hand, a socket that speaks them.
#![allow(dead_code, reason = "every test program uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use ferromq_protocol::{Command, FRAME_LEN_MAX, NoFields, Reply, RequestCode, decode_frame};
use ferromq_remoting::{Connection, Outcome, Requests, Server, ServerConfig, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Long enough for anything that is going to happen; only a broken build waits this long.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Handler<F> {
    handle: F,
    pub opened: AtomicUsize,
    /// Rounds that were seen to after their replies.
    pub rounds: AtomicUsize,
    /// Whether it panics before and after the replies.
    pub clumsy: bool,
    pub closed: tokio::sync::watch::Sender<usize>,
}

impl<F> Handler<F>
where
    F: Fn(&Connection, Command) -> Outcome + Send + Sync + 'static,
{
    pub fn new(handle: F) -> Arc<Self> {
        Arc::new(Self::made(handle, false))
    }

    pub fn clumsy(handle: F) -> Arc<Self> {
        Arc::new(Self::made(handle, true))
    }

    fn made(handle: F, clumsy: bool) -> Self {
        Self {
            handle,
            opened: AtomicUsize::new(0),
            rounds: AtomicUsize::new(0),
            clumsy,
            closed: tokio::sync::watch::channel(0).0,
        }
    }

    /// Waits until `count` connections were reported as closed.
    pub async fn closed(&self, count: usize) {
        let mut closed = self.closed.subscribe();
        tokio::time::timeout(PATIENCE, closed.wait_for(|now| *now >= count))
            .await
            .expect("closed in time")
            .expect("alive");
    }
}

impl<F> Service for Handler<F>
where
    F: Fn(&Connection, Command) -> Outcome + Send + Sync + 'static,
{
    fn serve(&self, requests: &mut Requests<'_>) {
        requests.each(&self.handle);
        assert!(!self.clumsy, "before the replies");
        requests.reply();
        self.rounds.fetch_add(1, Ordering::SeqCst);
    }

    fn opened(&self, _: &Connection) {
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn closed(&self, connection: &Connection) {
        assert!(connection.is_closed());
        self.closed.send_modify(|count| *count += 1);
    }
}

/// Answers with the body it was sent.
pub fn echo(_: &Connection, request: Command) -> Outcome {
    Outcome::Reply(Reply::ok().body(request.body))
}

pub fn local() -> ServerConfig {
    ServerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerConfig::default() }
}

pub async fn serve(service: Arc<dyn Service>) -> Server {
    Server::bind(local(), service).await.expect("port 0 can be bound")
}

pub fn request(code: i32, body: &[u8]) -> Command {
    Command::request(RequestCode(code), &NoFields).with_body(body.to_vec())
}

/// A request as bytes, with this opaque.
pub fn frame(code: i32, opaque: i32, body: &[u8]) -> Vec<u8> {
    let mut command = request(code, body);
    command.opaque = opaque;
    let mut out = BytesMut::new();
    command.encode_head(&mut out).expect("encodes");
    out.extend_from_slice(body);
    out.to_vec()
}

/// One raw client socket.
pub struct Raw {
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Raw {
    pub async fn connect(addr: SocketAddr) -> Raw {
        Raw { stream: TcpStream::connect(addr).await.expect("connects"), buffer: BytesMut::new() }
    }

    pub fn from_stream(stream: TcpStream) -> Raw {
        Raw { stream, buffer: BytesMut::new() }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("written");
    }

    /// The next frame, or `None` when the peer closed.
    pub async fn next(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = decode_frame(&mut self.buffer, FRAME_LEN_MAX).expect("a good frame") {
                return Some(command);
            }
            let read =
                tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("something comes");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// Whether this machine has IPv6, if only on its loopback.
pub fn has_ipv6() -> bool {
    std::net::TcpListener::bind("[::1]:0").is_ok()
}
