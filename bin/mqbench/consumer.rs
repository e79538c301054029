//! `mqbench consumer`: pulls from all queues, one request per queue outstanding, and measures from birth to arrival.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::BytesMut;
use clap::{Args, ValueEnum};
use ferromq_protocol::header::PullReply;
use ferromq_protocol::message::Record;
use ferromq_protocol::{Command, FRAME_LEN_MAX, RequestCode, ResponseCode, decode_frame};

use crate::producer::connect;
use crate::refuse;
use crate::report::{Watch, Work};
use crate::run::{Plan, Run, Tally, epoch_ns};
use crate::send_frames::STAMP_MARK;
use crate::target::{Control, Place, check_name, failure_text};

/// Nothing new and no long poll: how long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(1);

/// How often a waiting connection looks whether the run is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Room of one read, in bytes.
const READ_LEN: usize = 256 * 1024;

#[derive(Args, Debug)]
pub struct Options {
    #[command(flatten)]
    place: Place,
    /// Topic to pull from
    #[arg(long, short, default_value = "BenchmarkTest")]
    topic: String,
    /// Consumer group
    #[arg(long, default_value = "mqbench")]
    group: String,
    /// Consumer groups NAME-0, NAME-1, ..., each of which pulls everything, with connections of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    groups: u32,
    /// Connections per broker and group; the queues are spread over them
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    connections: u32,
    /// Messages per pull at most
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: u32,
    /// Queues of the topic when no route tells
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65536))]
    queues: u32,
    /// Where to begin
    #[arg(long, value_enum, default_value_t = Begin::Latest)]
    from: Begin,
    /// How long a broker may hold a pull that finds nothing
    #[arg(long, value_parser = crate::parse_duration, default_value = "1s")]
    suspend: Duration,
    /// Ask again instead of letting the broker hold a pull that finds nothing
    #[arg(long)]
    no_long_poll: bool,
    /// Length of the measured part [default: 10s]
    #[arg(long, short, value_parser = crate::parse_duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// Stop after this many messages instead
    #[arg(long)]
    count: Option<u64>,
    /// Pull this long before measuring [default: 0s]
    #[arg(long, value_parser = crate::parse_duration, default_value = "0s")]
    warmup: Duration,
    /// Process id of the broker: report its CPU time per message and its memory
    #[arg(long)]
    pid: Option<u32>,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Begin {
    /// With the oldest message there is
    Earliest,
    /// With the next message that is sent
    Latest,
}

pub fn run(options: Options) -> Result<()> {
    check_name("topic", &options.topic)?;
    check_name("group", &options.group)?;
    if options.count == Some(0) {
        return refuse("--count must be at least 1");
    }
    let control = Control::new()?;
    let run = Run::new();
    let wanted = Arc::new(WantedMessages { count: options.count, taken: Default::default() });
    let mut pullers = Vec::new();
    for target in control.targets(&options.place, &options.topic, options.queues)? {
        let connections = options.connections.min(target.read_queues.max(1));
        for number in 0..connections * options.groups {
            let (group, number) = (number / connections, number % connections);
            let mut queues = Vec::new();
            for id in (0..target.read_queues).filter(|id| id % connections == number) {
                queues.push(Queue { id, offset: begin(&control, &target.addr, &options, id)? });
            }
            let stream = connect(&target.addr)?;
            stream.set_read_timeout(Some(LOOK_EVERY))?;
            pullers.push(Puller {
                stream,
                addr: target.addr.clone(),
                topic: options.topic.clone(),
                group: match options.groups {
                    1 => options.group.clone(),
                    _ => format!("{}-{group}", options.group),
                },
                batch: options.batch,
                suspend_ms: (!options.no_long_poll).then_some(options.suspend.as_millis()),
                queues,
                run: run.clone(),
                tally: Tally::new(),
                wanted: wanted.clone(),
                outgoing: BytesMut::new(),
                latencies: Vec::new(),
            });
        }
    }
    let plan = Plan {
        warmup: options.warmup,
        duration: match (options.duration, options.count) {
            (None, Some(_)) => None,
            (duration, _) => Some(duration.unwrap_or(Duration::from_secs(10))),
        },
    };
    let tallies = pullers.iter().map(|puller| puller.tally.clone()).collect();
    let workers = pullers.into_iter().map(|puller| Box::new(move || puller.work()) as Work).collect();
    Watch { run, tallies, workers, plan, pid: options.pid, json: options.json, verb: "received", body_len: None }
        .watch()
}

/// The first offset to pull from a queue.
fn begin(control: &Control, addr: &str, options: &Options, queue: u32) -> Result<i64> {
    let code = match options.from {
        Begin::Earliest => RequestCode::GET_MIN_OFFSET,
        Begin::Latest => RequestCode::GET_MAX_OFFSET,
    };
    let request = Command::request(code, &[("topic", options.topic.as_str()), ("queueId", &queue.to_string())]);
    let reply = control.ask(addr, request)?;
    if reply.response_code() != ResponseCode::SUCCESS {
        bail!("broker {addr} does not tell the offsets of queue {queue}: {}", failure_text(&reply));
    }
    let offset = reply.field("offset").with_context(|| format!("no offset in the answer of {addr}"))?;
    offset.parse().with_context(|| format!("offset `{offset}` from {addr}"))
}

/// How many messages the whole run wants.
struct WantedMessages {
    count: Option<u64>,
    taken: std::sync::atomic::AtomicU64,
}

impl WantedMessages {
    /// Adds to what was taken. True: that is all.
    fn add(&self, messages: u64) -> bool {
        let before = self.taken.fetch_add(messages, std::sync::atomic::Ordering::Relaxed);
        self.count.is_some_and(|count| before + messages >= count)
    }
}

struct Queue {
    id: u32,
    offset: i64,
}

struct Puller {
    stream: TcpStream,
    addr: String,
    topic: String,
    group: String,
    batch: u32,
    /// `None`: no long poll.
    suspend_ms: Option<u128>,
    queues: Vec<Queue>,
    run: Arc<Run>,
    tally: Arc<Tally>,
    wanted: Arc<WantedMessages>,
    outgoing: BytesMut,
    latencies: Vec<u64>,
}

impl Puller {
    fn work(mut self) -> Result<()> {
        let outcome = self.pull();
        if outcome.is_err() {
            self.run.stop();
        }
        outcome
    }

    fn pull(&mut self) -> Result<()> {
        let mut room = vec![0; READ_LEN];
        let mut incoming = BytesMut::new();
        for index in 0..self.queues.len() {
            self.request(index)?;
        }
        while !self.run.is_stopped() {
            if !self.outgoing.is_empty() {
                (&self.stream)
                    .write_all(&self.outgoing)
                    .with_context(|| format!("connection to broker {} lost", self.addr))?;
                self.outgoing.clear();
            }
            match self.stream.read(&mut room) {
                Ok(0) => bail!("broker {} closed the connection", self.addr),
                Ok(count) => incoming.extend_from_slice(&room[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
                {
                    continue;
                }
                Err(error) => return Err(anyhow!(error).context(format!("connection to broker {} lost", self.addr))),
            }
            let mut found = false;
            while let Some(reply) = decode_frame(&mut incoming, FRAME_LEN_MAX)? {
                found |= self.take(&reply)?;
            }
            if !found && self.suspend_ms.is_none() {
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Queues the next pull of a queue. Its opaque is the queue's index.
    fn request(&mut self, index: usize) -> Result<()> {
        let queue = &self.queues[index];
        // Bits: 2 hold the pull when nothing is there, 4 the subscription comes along.
        let (sys_flag, suspend) = self.suspend_ms.map_or(("4", 0), |suspend| ("6", suspend));
        let mut request = Command::request(
            RequestCode::PULL_MESSAGE,
            &[
                ("consumerGroup", self.group.as_str()),
                ("topic", &self.topic),
                ("queueId", &queue.id.to_string()),
                ("queueOffset", &queue.offset.to_string()),
                ("maxMsgNums", &self.batch.to_string()),
                ("sysFlag", sys_flag),
                ("commitOffset", "0"),
                ("suspendTimeoutMillis", &suspend.to_string()),
                ("subscription", "*"),
                ("subVersion", "0"),
                ("expressionType", "TAG"),
            ],
        );
        request.opaque = i32::try_from(index)?;
        request.encode_head(&mut self.outgoing)?;
        Ok(())
    }

    /// Counts one reply and asks for what comes next. True: it brought messages.
    fn take(&mut self, reply: &Command) -> Result<bool> {
        if !reply.flags.is_response() {
            return Ok(false);
        }
        let index = usize::try_from(reply.opaque).ok().filter(|index| *index < self.queues.len());
        let index = index.with_context(|| format!("broker {} answered a pull that was not sent", self.addr))?;
        let mut found = false;
        match reply.response_code() {
            ResponseCode::SUCCESS => {
                self.count(&reply.body)?;
                found = true;
            }
            ResponseCode::PULL_NOT_FOUND | ResponseCode::PULL_RETRY_IMMEDIATELY | ResponseCode::PULL_OFFSET_MOVED => {}
            _ => bail!("broker {} refuses a pull with {}", self.addr, failure_text(reply)),
        }
        let header: PullReply = reply.header().with_context(|| format!("pull answer of {}", self.addr))?;
        self.queues[index].offset = i64::try_from(header.next_begin_offset.0)?;
        self.request(index)?;
        Ok(found)
    }

    fn count(&mut self, mut records: &[u8]) -> Result<()> {
        let now_ns = epoch_ns();
        self.latencies.clear();
        while !records.is_empty() {
            let record = Record::parse(records).map_err(|error| {
                anyhow!("broker {} answers a pull with bytes that are no messages: {error}", self.addr)
            })?;
            // Clocks of two machines may differ; a message is never older than its birth.
            self.latencies.push(now_ns.saturating_sub(born_ns(&record)));
            records = &records[record.record_len()..];
        }
        let messages = self.latencies.len() as u64;
        self.tally.add(messages, 0, &self.latencies);
        if self.wanted.add(messages) {
            self.run.stop();
        }
        Ok(())
    }
}

/// When a message was due, in nanoseconds since 1970: our own producer says it in the body, others to the millisecond.
fn born_ns(record: &Record<'_>) -> u64 {
    match record.body().split_first_chunk::<8>() {
        Some((mark, rest)) if *mark == STAMP_MARK && rest.len() >= 8 => {
            rest.first_chunk().map_or(0, |stamp| u64::from_be_bytes(*stamp))
        }
        _ => u64::try_from(record.born_timestamp()).unwrap_or(0).saturating_mul(1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ferromq_protocol::QueueId;
    use ferromq_protocol::message::{NewMessage, SysFlag};

    fn born_ns_of(host: &str, body: &[u8]) -> u64 {
        let host = host.parse().expect("an address");
        let mut bytes = Vec::new();
        let message = NewMessage {
            topic: "T",
            queue_id: QueueId(0),
            flag: 0,
            sys_flag: SysFlag::default(),
            born_timestamp: 1_700_000_000_123,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: "",
        };
        message.encode(&mut bytes).expect("a record");
        born_ns(&Record::parse(&bytes).expect("the record"))
    }

    #[test]
    fn a_marked_body_says_when_it_was_due_whatever_the_hosts() {
        let marked = [STAMP_MARK, 1_700_000_000_456_789_012_u64.to_be_bytes(), [b'm'; 8]].concat();
        for host in ["127.0.0.1:1", "[::1]:1"] {
            assert_eq!(born_ns_of(host, &marked), 1_700_000_000_456_789_012);
            assert_eq!(born_ns_of(host, &marked[..15]), 1_700_000_000_123_000_000);
            assert_eq!(born_ns_of(host, b"from another producer"), 1_700_000_000_123_000_000);
        }
    }
}
