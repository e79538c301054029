//! `mqbench producer`: sends as fast as the broker answers, or at a fixed rate.
//!
//! One thread and one plain socket per connection: read what came, note the latencies, patch as many frames as there are free
//! places, write them all at once. At a fixed rate a message's latency counts from when it was due, not from when there was
//! a place for it, so a broker that stalls cannot hide it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::BytesMut;
use clap::Args;
use ferromq_protocol::{ResponseCode, decode_frame};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::refuse;
use ferromq_remoting::address::host_and_port;

use crate::replies::ReplyScanner;
use crate::report::{Watch, Work};
use crate::run::{Plan, Run, Tally, epoch_ns};
use crate::send_frames::{FrameRing, OPAQUE_BASE, Shape};
use crate::target::{Control, Place, check_name, failure_text};

/// A broker that answers nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Memory for prepared frames, all connections together, in bytes.
const FRAMES_LEN_MAX: usize = 2 * 1024 * 1024 * 1024;

/// Longest body a broker takes by default, in bytes.
const BODY_LEN_MAX: usize = 16 * 1024 * 1024 - 4096;

/// Connections beyond this many share counters with others: a histogram takes 200 KB, and all are read once a second.
const TALLIES_MAX: u32 = 64;

/// How often a connection that waits for its next due message looks whether the run is over. Thousands wait at a time.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Read buffer of one connection, in bytes.
const READ_LEN: usize = 256 * 1024;

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Topic to send to; created by the first send when it does not exist
    #[arg(long, short, default_value = "BenchmarkTest")]
    topic: String,
    /// Producer group
    #[arg(long, default_value = "mqbench")]
    group: String,
    /// Connections, spread over the brokers
    #[arg(long, short, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=8192))]
    connections: u32,
    /// Connections beside them that stay idle
    #[arg(long, default_value_t = 0)]
    idle_connections: u32,
    /// Requests without an answer yet, per connection
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65536))]
    in_flight: u32,
    /// Bytes per message
    #[arg(long, short = 's', default_value_t = 1024)]
    body_size: usize,
    /// Messages per second over all connections; 0 = as fast as it goes
    #[arg(long, short, default_value_t = 0)]
    rate: u64,
    /// Messages per request
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Queues of the topic when no route tells, and those wished for when it is created
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65536))]
    queues: u32,
    /// Length of the measured part [default: 10s]
    #[arg(long, short, value_parser = crate::parse_duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Stop after this many messages instead, rounded up to whole requests. Those of the warm-up are included, the one
    /// request that each broker is tried with before is not
    #[arg(long)]
    count: Option<u64>,
    /// Send this long before measuring [default: 2s, with --count 0s]
    #[arg(long, value_parser = crate::parse_duration)]
    warmup: Option<Duration>,
    /// Process id of the broker: report its CPU time per message and its memory
    #[arg(long)]
    pid: Option<u32>,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(options: Options) -> Result<()> {
    check_name("topic", &options.topic)?;
    check_name("group", &options.group)?;
    let batch = options.batch as usize;
    if options.body_size == 0 || options.body_size.saturating_mul(batch) > BODY_LEN_MAX {
        return refuse(format!("--body-size times --batch must be between 1 and {BODY_LEN_MAX} bytes"));
    }
    let control = Control::new()?;
    let targets = control.targets(&options.place, &options.topic, options.queues)?;

    let shape = |queues: u32, key_prefix: u64| Shape {
        topic: &options.topic,
        group: &options.group,
        queues_wished: options.queues,
        queues,
        body_len: options.body_size,
        batch,
        key_prefix,
    };
    let rings_len =
        FrameRing::frame_len(&shape(options.queues, 0)) * options.in_flight as usize * options.connections as usize;
    if rings_len > FRAMES_LEN_MAX {
        return refuse(format!(
            "{rings_len} bytes of messages in flight are more than {FRAMES_LEN_MAX}; lower --in-flight or --connections"
        ));
    }
    for target in &targets {
        if target.write_queues == 0 {
            bail!("topic {} has no write queues on {}", options.topic, target.addr);
        }
        first_send(&control, &target.addr, &shape(1, 0))?;
    }

    let idle = (0..options.idle_connections)
        .map(|number| connect(&targets[number as usize % targets.len()].addr))
        .collect::<Result<Vec<_>>>()?;
    let run = Run::new();
    let requests = options.count.map(|count| count.div_ceil(u64::from(options.batch)));
    let tallies: Vec<_> = (0..options.connections.min(TALLIES_MAX)).map(|_| Tally::new()).collect();
    let mut senders = Vec::new();
    for number in 0..options.connections {
        let target = &targets[number as usize % targets.len()];
        let key_prefix = u64::from(std::process::id()) << 32 | u64::from(number);
        let share = |all: u64| {
            all / u64::from(options.connections) + u64::from(u64::from(number) < all % u64::from(options.connections))
        };
        let pace = (options.rate > 0)
            .then(|| Pace::new(options.rate, options.batch, options.connections, number, run.now_ns()));
        senders.push(Sender {
            stream: connect(&target.addr)?,
            addr: target.addr.clone(),
            run: run.clone(),
            tally: tallies[number as usize % tallies.len()].clone(),
            ring: FrameRing::new(&shape(target.write_queues, key_prefix), options.in_flight as usize),
            places: (0..options.in_flight).map(|_| None).collect(),
            free: (0..options.in_flight).rev().collect(),
            left: requests.map(share),
            pace,
            per_request: u64::from(options.batch),
            batch_latencies: Vec::new(),
            late: Vec::new(),
            place_since: 0,
        });
    }
    let plan = Plan {
        warmup: options.warmup.unwrap_or(if options.count.is_some() { Duration::ZERO } else { Duration::from_secs(2) }),
        duration: match (options.duration, options.count) {
            (None, Some(_)) => None,
            (duration, _) => Some(duration.unwrap_or(Duration::from_secs(10))),
        },
    };
    let workers = senders.into_iter().map(|sender| Box::new(move || sender.work()) as Work).collect();
    let outcome = Watch {
        run,
        tallies,
        workers,
        plan,
        pid: options.pid,
        json: options.json,
        verb: "sent",
        body_len: Some(options.body_size),
    }
    .watch();
    drop(idle);
    outcome
}

/// Sends one message and insists on success: creates the topic, and tells early what is wrong.
fn first_send(control: &Control, addr: &str, shape: &Shape<'_>) -> Result<()> {
    let mut ring = FrameRing::new(shape, 1);
    ring.prepare(OPAQUE_BASE, epoch_ns());
    let mut bytes = BytesMut::from(ring.take().0);
    let Some(request) = decode_frame(&mut bytes, ferromq_protocol::FRAME_LEN_MAX)? else {
        bail!("a message of {} bytes makes no frame", shape.body_len);
    };
    let reply = control.ask(addr, request)?;
    if reply.response_code() != ResponseCode::SUCCESS {
        bail!("broker {addr} refuses the first message with {}", failure_text(&reply));
    }
    Ok(())
}

/// A blocking socket, small writes at once, given up when silent.
pub fn connect(addr: &str) -> Result<TcpStream> {
    let target = host_and_port(addr).with_context(|| format!("{addr} is not host:port"))?;
    let mut outcome = None;
    // A name may stand for addresses of both stacks.
    for resolved in target.to_socket_addrs().with_context(|| format!("cannot resolve {addr}"))? {
        let attempt = TcpStream::connect_timeout(&resolved, Duration::from_secs(3));
        let connected = attempt.is_ok();
        outcome = Some(attempt);
        if connected {
            break;
        }
    }
    let stream = outcome.with_context(|| format!("{addr} has no address"))?;
    let stream = stream.with_context(|| format!("cannot connect to {addr}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    Ok(stream)
}

/// When the messages of one connection are due.
struct Pace {
    interval_ns: f64,
    first_ns: f64,
    sent: u64,
}

impl Pace {
    /// The connections take turns: the n-th begins n messages later.
    fn new(rate: u64, batch: u32, connections: u32, number: u32, now_ns: u64) -> Self {
        let turn_ns = 1e9 * f64::from(batch) / rate as f64;
        Self {
            interval_ns: turn_ns * f64::from(connections),
            first_ns: now_ns as f64 + turn_ns * f64::from(number),
            sent: 0,
        }
    }

    fn due_ns(&self) -> u64 {
        (self.first_ns + self.interval_ns * self.sent as f64) as u64
    }
}

struct Sender {
    stream: TcpStream,
    addr: String,
    run: Arc<Run>,
    tally: Arc<Tally>,
    ring: FrameRing,
    /// Per place in flight: since when its request counts. The place's number is its opaque.
    places: Vec<Option<u64>>,
    free: Vec<u32>,
    /// Requests still to be sent; `None` = until stopped.
    left: Option<u64>,
    pace: Option<Pace>,
    per_request: u64,
    batch_latencies: Vec<u64>,
    /// How late the messages of one write were.
    late: Vec<u64>,
    /// When an answer last made a place after there was none: what was due before then waited for the broker.
    place_since: u64,
}

impl Sender {
    fn work(mut self) -> Result<()> {
        let outcome = self.send_and_receive();
        if outcome.is_err() {
            self.run.stop();
        }
        outcome
    }

    fn send_and_receive(&mut self) -> Result<()> {
        let mut scanner = ReplyScanner::default();
        let mut buffer = vec![0; READ_LEN];
        let mut filled = 0;
        loop {
            let wants_more = !self.run.is_stopped() && self.left != Some(0);
            if wants_more {
                self.fill();
            }
            self.write()?;
            let in_flight = self.places.len() - self.free.len();
            if in_flight == 0 && !wants_more {
                return Ok(());
            }
            if !self.wait(wants_more)? {
                continue;
            }
            let count = match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => bail!("broker {} closed the connection, {in_flight} requests unanswered", self.addr),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    bail!(
                        "broker {} has not answered for {} s, {in_flight} requests unanswered",
                        self.addr,
                        SILENCE_MAX.as_secs()
                    )
                }
                Err(error) => return Err(anyhow!(error).context(format!("connection to broker {} lost", self.addr))),
            };
            filled += count;
            let used = self.take_replies(&mut scanner, &buffer[..filled])?;
            buffer.copy_within(used..filled, 0);
            filled -= used;
            if filled == buffer.len() {
                bail!("broker {} answers a send with more than {READ_LEN} bytes", self.addr);
            }
        }
    }

    /// Readies frames for all free places, or for those that are due.
    fn fill(&mut self) {
        let now = self.run.now_ns();
        while self.left != Some(0) {
            let since = match &mut self.pace {
                None => now,
                Some(pace) => {
                    let due = pace.due_ns();
                    if due > now || self.free.is_empty() {
                        return;
                    }
                    pace.sent += 1;
                    self.late.push(now.saturating_sub(due.max(self.place_since)));
                    due
                }
            };
            let Some(place) = self.free.pop() else { return };
            self.places[place as usize] = Some(since);
            self.ring.prepare(OPAQUE_BASE + place, self.run.epoch_ns(since));
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
        }
    }

    fn write(&mut self) -> Result<()> {
        if !self.late.is_empty() {
            self.run.note_lateness(&self.late);
            self.late.clear();
        }
        let (first, second) = self.ring.take();
        for bytes in [first, second] {
            if !bytes.is_empty() {
                (&self.stream)
                    .write_all(bytes)
                    .with_context(|| format!("connection to broker {} lost while sending", self.addr))?;
            }
        }
        Ok(())
    }

    /// At a fixed rate: sleeps until an answer is here or the next message is due. True: there is something to read.
    fn wait(&self, wants_more: bool) -> Result<bool> {
        let Some(pace) = &self.pace else { return Ok(true) };
        let until_due = pace.due_ns().saturating_sub(self.run.now_ns());
        let nap = match wants_more && !self.free.is_empty() {
            true => Duration::from_nanos(until_due).min(LOOK_EVERY),
            false => LOOK_EVERY,
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(nap.subsec_nanos()) };
        let mut sockets = [PollFd::from_borrowed_fd(self.stream.as_fd(), PollFlags::IN)];
        match poll(&mut sockets, Some(&timeout)) {
            Ok(ready) => Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Counts the whole replies in `bytes`; how many bytes they take.
    fn take_replies(&mut self, scanner: &mut ReplyScanner, bytes: &[u8]) -> Result<usize> {
        let now = self.run.now_ns();
        let mut used = 0;
        let mut failures = 0;
        self.batch_latencies.clear();
        while let Some((reply, len)) =
            scanner.next(&bytes[used..]).map_err(|wrong| anyhow!("broker {} sent {}", self.addr, wrong.0))?
        {
            let place = u32::try_from(reply.opaque).ok().and_then(|opaque| opaque.checked_sub(OPAQUE_BASE));
            let since = place.and_then(|place| self.places.get_mut(place as usize)?.take());
            let (Some(place), Some(since)) = (place, since) else {
                bail!("broker {} answered a request that was not sent (opaque {})", self.addr, reply.opaque);
            };
            if self.free.is_empty() {
                self.place_since = now;
            }
            self.free.push(place);
            if reply.code == ResponseCode::SUCCESS.0 {
                self.batch_latencies.push(now.saturating_sub(since));
            } else {
                failures += self.per_request;
                self.run.note_failure(|| remark_of(&bytes[used..used + len]));
            }
            used += len;
        }
        if used > 0 {
            self.tally.add(self.batch_latencies.len() as u64 * self.per_request, failures, &self.batch_latencies);
        }
        Ok(used)
    }
}

fn remark_of(frame: &[u8]) -> String {
    match decode_frame(&mut BytesMut::from(frame), ferromq_protocol::FRAME_LEN_MAX) {
        Ok(Some(reply)) => failure_text(&reply),
        Ok(None) => "an incomplete reply".to_owned(),
        Err(error) => format!("an unreadable reply: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_in_turns_at_the_rate_asked_for() {
        let mut first = Pace::new(1000, 1, 2, 0, 5);
        let second = Pace::new(1000, 1, 2, 1, 5);
        assert_eq!(first.due_ns(), 5);
        assert_eq!(second.due_ns(), 1_000_005);
        first.sent = 1000;
        assert_eq!(first.due_ns(), 2_000_000_005);
    }
}
