//! One slave's connection, on the master: reads its reports, and writes it the log as its [`Feed`] says. Java: DefaultHAConnection.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::buf::Chain;
use bytes::{Buf as _, Bytes, BytesMut};
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::{HaStreamError, decode_reports, encode_packet_head};
use ferromq_replication::{Feed, FeedConfig, FeedEnd, Outgoing, Readable};
use ferromq_store::{ReadError, Store};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::copies::FeedPlace;
use super::moment;
use crate::config::BrokerConfig;

/// Reports are read so many bytes at a time; of each read one counts.
const READ_LEN: usize = 4096;

/// Head and bytes of the log, as far as they are not written yet.
type Packet = Chain<Bytes, Bytes>;

/// Why a slave is fed no more.
#[derive(Debug, thiserror::Error)]
enum FeedOver {
    #[error("the slave has closed the connection")]
    Closed,
    #[error("the connection is lost: {0}")]
    Connection(#[from] io::Error),
    #[error(transparent)]
    Feed(#[from] FeedEnd),
    #[error("what came is no report of a slave: {0}")]
    Stream(#[from] HaStreamError),
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("{len} bytes of the log at {at} are gone, while they were to be sent")]
    Gone { at: PhysicalOffset, len: usize },
    #[error("this broker is the master no more, or stops")]
    NoMaster,
}

impl FeedOver {
    /// What comes of it by itself is no reason to look.
    fn is_expected(&self) -> bool {
        matches!(self, FeedOver::Closed | FeedOver::Connection(_) | FeedOver::NoMaster)
    }
}

pub(super) fn feed_config(config: &BrokerConfig, segment_len: u64) -> FeedConfig {
    FeedConfig {
        segment_len,
        batch_len_max: config.ha_transfer_batch_size,
        from_last_segment: config.sync_from_last_file,
        heartbeat_ms: config.ha_send_heartbeat_interval,
        silence_ms_max: config.ha_housekeeping_interval,
        bytes_per_second: config.ha_flow_control_enable.then_some(config.max_ha_transfer_byte_in_second),
    }
}

pub(super) struct FeedTask {
    pub stream: TcpStream,
    pub slave: SocketAddr,
    pub local: SocketAddr,
    pub store: Arc<Store>,
    pub place: FeedPlace,
    pub feed: Feed,
    /// Ends when the mastership does.
    pub mastership: watch::Receiver<()>,
}

impl FeedTask {
    /// Feeds the slave for as long as both want it.
    pub(super) async fn run(mut self) {
        let Err(over) = self.feed().await;
        let (slave, local, end) = (self.slave, self.local, self.store.feed_end());
        let sent = self.feed.sent().map_or_else(|| "nothing".to_owned(), |sent| sent.to_string());
        if over.is_expected() {
            info!(%slave, %local, sent, log_end = %end, "a slave is fed no more: {over}");
        } else {
            warn!(%slave, %local, sent, log_end = %end, "the connection of a slave is closed: {over}");
        }
    }

    async fn feed(&mut self) -> Result<Infallible, FeedOver> {
        let grows = Arc::new(Notify::new());
        let _listening = self.store.on_growth({
            let grows = Arc::clone(&grows);
            move |_| grows.notify_one()
        });
        let mut reports = BytesMut::new();
        let mut packet: Option<Packet> = None;
        loop {
            self.place.grown();
            let (now, log) = (moment(), readable(&self.store, &self.place));
            // A packet goes out whole before the feed is asked again, unless the slave has been silent for too long.
            if (packet.is_none() || now >= self.feed.silent_at())
                && let Some(outgoing) = self.feed.next(log, now)?
            {
                packet = Some(load(&self.store, outgoing).await?);
            }
            let due = if packet.is_some() { self.feed.silent_at() } else { self.feed.due(log) };
            reports.reserve(READ_LEN);
            let (mut from_slave, mut to_slave) = self.stream.split();
            tokio::select! {
                read = from_slave.read_buf(&mut reports) => {
                    if read? == 0 {
                        return Err(FeedOver::Closed);
                    }
                    if let Some(end) = decode_reports(&mut reports)? {
                        self.reported(end)?;
                    }
                }
                written = write(&mut to_slave, &mut packet) => {
                    if let (bytes, Some(to)) = (written?, self.feed.sent()) {
                        self.place.sent(to, bytes);
                    }
                }
                () = grows.notified(), if packet.is_none() => {}
                () = tokio::time::sleep(Duration::from_millis(due.since(now))) => {}
                _ = self.mastership.changed() => return Err(FeedOver::NoMaster),
            }
        }
    }

    fn reported(&mut self, end: PhysicalOffset) -> Result<(), FeedOver> {
        let begins = self.feed.sent().is_none();
        let log = readable(&self.store, &self.place);
        let report = self.feed.reported(end, log, moment())?;
        self.place.reported(report);
        if begins && let Some(from) = self.feed.sent() {
            let (slave, local) = (self.slave, self.local);
            info!(%slave, %local, holds = %end, %from, log_begin = %log.first, log_end = %log.end, "a slave is fed");
        }
        Ok(())
    }
}

fn readable(store: &Store, place: &FeedPlace) -> Readable {
    Readable { first: store.watermarks().min, end: store.feed_end(), yields: place.yields() }
}

/// What the feed wants sent, as it goes into the socket. The thread may have slaves to serve that are in sync: it waits for no disk.
async fn load(store: &Arc<Store>, outgoing: Outgoing) -> Result<Packet, FeedOver> {
    let (at, len) = match outgoing {
        Outgoing::Heartbeat { at } => (at, 0),
        Outgoing::Packet { at, len } => (at, len),
    };
    let head = Bytes::copy_from_slice(&encode_packet_head(at, len));
    if len == 0 {
        return Ok(head.chain(Bytes::new()));
    }
    let bytes = match store.raw_at_once(at, len) {
        Err(ReadError::NeedsTime) => {
            let store = Arc::clone(store);
            let read = tokio::task::spawn_blocking(move || store.raw_from(at, len));
            read.await.map_err(io::Error::from)?
        }
        bytes => bytes,
    };
    match bytes? {
        Some(bytes) if bytes.len() == len => Ok(head.chain(bytes)),
        _ => Err(FeedOver::Gone { at, len }),
    }
}

/// Writes some of the packet, and says how much; never ends while there is none.
async fn write(to_slave: &mut (impl AsyncWrite + Unpin), packet: &mut Option<Packet>) -> io::Result<usize> {
    let Some(left) = packet else { return std::future::pending().await };
    let written = to_slave.write_buf(left).await?;
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    if !left.has_remaining() {
        *packet = None;
    }
    Ok(written)
}
