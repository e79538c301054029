//! A place to listen: taken first, listened on later, so that what takes long in between is not done for nothing.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel may hold before they are accepted. Java: `serverSocketBacklog`.
const BACKLOG: u32 = 1024;

/// The server could not start to listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {cause}")]
pub struct BindError {
    pub addr: SocketAddr,
    pub cause: io::Error,
}

/// A port that is taken, on which nobody can connect yet.
#[derive(Debug)]
pub struct BoundPort {
    socket: TcpSocket,
    addr: SocketAddr,
}

impl BoundPort {
    /// Port 0 lets the kernel choose. `0.0.0.0` and `::` both mean every address of this machine, of IPv4 and of IPv6, as with Java; where the
    /// kernel has no IPv6, `0.0.0.0` means those of IPv4, and `::` is an error.
    pub fn to(addr: SocketAddr) -> Result<BoundPort, BindError> {
        let bound = BoundPort::to_both(addr).and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
        let (port, socket) = bound.map_err(|cause| BindError { addr, cause })?;
        // As asked for, not as the socket of both stacks has it.
        Ok(BoundPort { socket, addr: SocketAddr::new(addr.ip(), port) })
    }

    /// With the port that was chosen.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on peers may connect. Inside a tokio runtime, by which they are accepted; buffers of its sockets in bytes, `None` leaves them
    /// to the kernel.
    pub fn listen(self, send_buffer: Option<u32>, receive_buffer: Option<u32>) -> Result<TcpListener, BindError> {
        let BoundPort { socket, addr } = self;
        let listen = || {
            if let Some(len) = send_buffer {
                socket.set_send_buffer_size(len)?;
            }
            if let Some(len) = receive_buffer {
                socket.set_recv_buffer_size(len)?;
            }
            socket.listen(BACKLOG)
        };
        listen().map_err(|cause| BindError { addr, cause })
    }

    fn to_both(addr: SocketAddr) -> io::Result<TcpSocket> {
        if addr.ip().is_unspecified() {
            match BoundPort::to_one(SocketAddr::from((Ipv6Addr::UNSPECIFIED, addr.port()))) {
                // A kernel without IPv6.
                Err(error) if addr.is_ipv4() && error.kind() != io::ErrorKind::AddrInUse => {}
                socket => return socket,
            }
        }
        BoundPort::to_one(addr)
    }

    fn to_one(addr: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        if addr.is_ipv6() && addr.ip().is_unspecified() {
            // Whatever `net.ipv6.bindv6only` says.
            rustix::net::sockopt::set_ipv6_v6only(&socket, false)?;
        }
        socket.bind(addr)?;
        Ok(socket)
    }
}
