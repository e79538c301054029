//! Why a peer could not be asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ferromq_protocol::FrameError;

/// No connection to a peer could be made. Shared by all callers who waited for the same attempt.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, unknown host, not an address, …
    #[error("cannot connect to {addr}: {cause}")]
    Io { addr: String, cause: Arc<io::Error> },
    #[error("cannot connect to {addr} within {} ms", timeout.as_millis())]
    TimedOut { addr: String, timeout: Duration },
    #[error("cannot connect to {addr}: this client is shut down")]
    ShutDown { addr: String },
}

/// Why a request could not be sent or got no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum InvokeError {
    /// No connection could be made; the request was not sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended before the answer came. The peer may or may not have handled the request.
    #[error("the connection to {peer} is closed")]
    Closed { peer: SocketAddr },
    /// No answer in time. The peer may or may not have handled the request.
    #[error("no answer from {peer} within {} ms", timeout.as_millis())]
    TimedOut { peer: SocketAddr, timeout: Duration },
    /// The peer reads too slowly: what waits for it is at the limit. The request was not sent.
    #[error("too much is waiting to be sent to {peer}")]
    OutboundFull { peer: SocketAddr },
    /// The request makes no legal frame (too long, mostly); it was not sent.
    #[error("the request cannot be encoded: {cause}")]
    Unencodable { cause: FrameError },
}
