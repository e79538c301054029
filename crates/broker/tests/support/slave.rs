//! A raw socket in the place of a slave.

use std::io::ErrorKind;
use std::net::SocketAddr;

use bytes::BytesMut;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::{Packet, decode_packet, encode_report};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{House, PATIENCE};

pub struct Slave {
    pub stream: TcpStream,
    read: BytesMut,
}

impl Slave {
    pub async fn connect(house: &House) -> Slave {
        let addr = format!("127.0.0.1:{}", house.broker.ha_addr().port());
        Slave { stream: TcpStream::connect(addr).await.unwrap(), read: BytesMut::new() }
    }

    /// One for whom the kernel keeps little.
    pub async fn connect_narrow(house: &House) -> Slave {
        let addr = SocketAddr::from(([127, 0, 0, 1], house.broker.ha_addr().port()));
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Slave { stream: socket.connect(addr).await.unwrap(), read: BytesMut::new() }
    }

    pub async fn report(&mut self, end: u64) {
        self.stream.write_all(&encode_report(PhysicalOffset(end))).await.unwrap();
    }

    /// `None` when the master has closed.
    pub async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = decode_packet(&mut self.read).unwrap() {
                return Some(packet);
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("the master says nothing") {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Gives how many bytes came before.
    pub async fn closed(mut self) -> usize {
        let mut len = 0;
        while let Some(packet) = self.packet().await {
            len += packet.body.len();
        }
        len
    }
}
