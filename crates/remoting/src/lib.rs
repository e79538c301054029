//! The transport: remoting frames over TCP, either direction, on tokio.
//!
//! Knows `ferromq-protocol` and nothing of topics, stores or routes. A server hands every request to one [`Service`] and
//! pairs replies with the requests it sent itself; a client does the same on connections that it opened. One task per connection
//! does all of its work (`driver`): read what is there, decode whole frames, call the service, write all replies with one
//! vectored write. Nothing is handed to a worker pool.
//!
//! Bounds, stated in [`ServerConfig`] and [`PeerLimits`]: connections, also per address, bytes waiting to be written per connection, frame
//! length, unfinished frames and unread answers over all connections and per address, requests that wait for their answers, idle time and the
//! time a peer may refuse to read.

pub mod address;
mod client;
mod connection;
mod driver;
mod error;
mod gate;
mod inbound;
mod ledger;
mod listen;
mod off_task;
mod outbound;
mod peers;
mod server;
mod service;
mod waiting;
mod workers;

pub use client::{Client, ClientConfig};
pub use connection::{Connection, ConnectionId, ReplySlot};
pub use error::{ConnectError, InvokeError};
pub use listen::{BindError, BoundPort};
pub use off_task::answer_off_task;
pub use peers::{PeerLimits, Peers};
pub use server::{Server, ServerConfig};
pub use service::{Outcome, Requests, Service};
pub use workers::Workers;

/// Raises this process's limit of open files, one of which every connection takes, to what the system lets it have; a warning
/// if it cannot. The Java virtual machine does the same (`MaxFDLimit`), so services are often left with a low soft limit.
pub fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays low");
    }
}
