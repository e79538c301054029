//! A connection to a broker, and the requests that these tests need: one thread, no retries, each error is the caller's.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use ferromq_protocol::header::{
    CreateTopicRequest, EndTransactionRequest, MinOffsetRequest, OffsetReply, PullReply, PullRequest,
    QueryMessageRequest, QueryOffsetRequest, SendReply, SendRequest, UpdateOffsetRequest,
};
use ferromq_protocol::message::{OffsetMessageId, Record, Records};
use ferromq_protocol::{Command, QueueId, RequestCode, ResponseCode, decode_frame};

use crate::process::{HANG_GUARD, await_condition};

pub const GROUP: &str = "endurance";

pub struct Wire {
    stream: TcpStream,
    received: BytesMut,
    next_opaque: i32,
}

/// What a message is sent with.
pub struct Outgoing<'a> {
    pub topic: &'a str,
    pub queue: u32,
    /// One, or the messages of a batch.
    pub bodies: &'a [Vec<u8>],
    /// Of each of them.
    pub keys: &'a [String],
    /// Beside the key, as `name\u{1}value\u{2}`.
    pub properties: &'a str,
    pub sys_flag: i32,
}

/// One message out of a queue.
#[derive(Clone, Debug)]
pub struct Found {
    record: Bytes,
}

impl Found {
    pub fn record(&self) -> Record<'_> {
        Record::parse(&self.record).expect("it was parsed when it came")
    }
}

/// What a queue has from an offset on.
pub struct Stretch {
    /// Where it begins now, when the offset is not in the queue.
    pub moved_to: Option<u64>,
    pub messages: Vec<Found>,
    pub next: u64,
}

impl Wire {
    pub fn connect(port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANG_GUARD))?;
        Ok(Wire { stream, received: BytesMut::new(), next_opaque: 1 })
    }

    /// Sends all requests in one piece. The answers are in the order of the requests, whatever order they came in.
    pub fn ask_all(&mut self, requests: Vec<Command>) -> io::Result<Vec<Command>> {
        let (first, count) = (self.next_opaque, requests.len());
        let mut out = BytesMut::new();
        for mut request in requests {
            request.opaque = self.next_opaque;
            self.next_opaque += 1;
            request.encode_head(&mut out).map_err(io::Error::other)?;
            out.extend_from_slice(&request.body);
        }
        self.stream.write_all(&out)?;
        let mut answers: Vec<Option<Command>> = vec![None; count];
        for _ in 0..count {
            let answer = self.next_frame()?;
            let at = usize::try_from(answer.opaque - first).ok().filter(|at| *at < count);
            let slot = at.map(|at| &mut answers[at]).filter(|slot| slot.is_none());
            let Some(slot) = slot else { panic!("an answer to nothing: {answer:?}") };
            *slot = Some(answer);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    pub fn ask(&mut self, request: Command) -> io::Result<Command> {
        Ok(self.ask_all(vec![request])?.remove(0))
    }

    fn next_frame(&mut self) -> io::Result<Command> {
        loop {
            if let Some(frame) = decode_frame(&mut self.received, 1 << 26).map_err(io::Error::other)? {
                return Ok(frame);
            }
            let mut piece = [0; 65536];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.received.extend_from_slice(&piece[..len]),
            }
        }
    }

    pub fn make_topic(&mut self, topic: &str, queues: u32) -> io::Result<()> {
        let header = CreateTopicRequest {
            topic: topic.into(),
            default_topic: Some("TBW102".into()),
            read_queue_nums: queues as i32,
            write_queue_nums: queues as i32,
            perm: 6,
            topic_filter_type: "SINGLE_TAG".into(),
            ..CreateTopicRequest::default()
        };
        let answer = self.ask(Command::request(RequestCode::UPDATE_AND_CREATE_TOPIC, &header))?;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
        Ok(())
    }

    /// What a queue has at `offset` and behind it, as much as one answer takes.
    pub fn pull(&mut self, topic: &str, queue: u32, offset: u64) -> io::Result<Stretch> {
        let answer = self.ask(pull(topic, queue, offset))?;
        let code = answer.response_code();
        let fields: PullReply = answer.header().unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        let (min, max) = (fields.min_offset.0, fields.max_offset.0);
        let (mut moved_to, mut is_gone) = (None, false);
        match code {
            ResponseCode::SUCCESS | ResponseCode::PULL_NOT_FOUND => {}
            ResponseCode::PULL_OFFSET_MOVED if offset < min => moved_to = Some(min),
            ResponseCode::PULL_OFFSET_MOVED if offset == max => {}
            ResponseCode::PULL_RETRY_IMMEDIATELY => is_gone = true,
            _ => panic!("pulling {topic}/{queue} at {offset} gave {answer:?}"),
        }
        let records = Records::new(&answer.body);
        let mut messages: Vec<_> = records
            .map(|record| {
                let record = record.unwrap_or_else(|error| panic!("{topic}/{queue} at {offset}: {error}"));
                record.check_crc().unwrap_or_else(|error| panic!("{topic}/{queue} at {offset}: {error}"));
                Found { record: answer.body.slice_ref(record.bytes()) }
            })
            .collect();
        let offset_of = |found: &Found| found.record().queue_offset().0;
        let ends_at = messages.iter().zip(offset..).position(|(found, expected)| offset_of(found) != expected);
        messages.truncate(ends_at.unwrap_or(usize::MAX));
        if is_gone || ends_at == Some(0) {
            // The message has gone with its segment, and the queue begins behind it, now or in a moment.
            let begin = await_condition(&format!("{topic}/{queue} to begin behind {offset}, which it lacks"), || {
                self.begin_of(topic, queue)
                    .map_or_else(|error| Some(Err(error)), |begin| (begin > offset).then_some(Ok(begin)))
            });
            moved_to = Some(begin?);
        }
        let next = messages.last().map_or(moved_to.unwrap_or(offset), |last| last.record().queue_offset().0 + 1);
        Ok(Stretch { moved_to, messages, next })
    }

    /// [`Wire::pull`] where anything may be missing: goes on where the broker says.
    pub fn try_pull(&mut self, topic: &str, queue: u32, offset: u64) -> Result<Stretch, String> {
        let answer = self.ask(pull(topic, queue, offset)).map_err(|error| error.to_string())?;
        let fields: PullReply = answer.header().map_err(|error| format!("{error}: {answer:?}"))?;
        let goes_on = matches!(
            answer.response_code(),
            ResponseCode::SUCCESS
                | ResponseCode::PULL_NOT_FOUND
                | ResponseCode::PULL_RETRY_IMMEDIATELY
                | ResponseCode::PULL_OFFSET_MOVED
        );
        if !goes_on {
            return Err(format!("{answer:?}"));
        }
        let mut messages = Vec::new();
        for record in Records::new(&answer.body) {
            let record = record.map_err(|error| format!("at {offset}: {error}"))?;
            messages.push(Found { record: answer.body.slice_ref(record.bytes()) });
        }
        Ok(Stretch { moved_to: None, messages, next: fields.next_begin_offset.0 })
    }

    pub fn commit(&mut self, topic: &str, queue: u32, offset: u64) -> io::Result<()> {
        let header = UpdateOffsetRequest {
            consumer_group: GROUP.into(),
            topic: topic.into(),
            queue_id: Some(QueueId(queue)),
            commit_offset: i64::try_from(offset).ok(),
        };
        let answer = self.ask(Command::request(RequestCode::UPDATE_CONSUMER_OFFSET, &header))?;
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
        Ok(())
    }

    /// What the group has committed.
    pub fn consumed(&mut self, topic: &str, queue: u32) -> io::Result<Option<u64>> {
        let header = QueryOffsetRequest {
            consumer_group: GROUP.into(),
            topic: topic.into(),
            queue_id: QueueId(queue),
            set_zero_if_not_found: Some(false),
        };
        let answer = self.ask(Command::request(RequestCode::QUERY_CONSUMER_OFFSET, &header))?;
        Ok(answer.header::<OffsetReply>().ok().map(|reply| reply.offset.0))
    }

    /// The first offset of a queue.
    pub fn begin_of(&mut self, topic: &str, queue: u32) -> io::Result<u64> {
        let header = MinOffsetRequest { topic: topic.into(), queue_id: QueueId(queue) };
        let answer = self.ask(Command::request(RequestCode::GET_MIN_OFFSET, &header))?;
        let reply: OffsetReply = answer.header().unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        Ok(reply.offset.0)
    }

    /// The offset that the next message of a queue is shown with.
    pub fn end_of(&mut self, topic: &str, queue: u32) -> io::Result<u64> {
        let answer = self.ask(pull(topic, queue, 0))?;
        let fields: PullReply = answer.header().unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        Ok(fields.max_offset.0)
    }

    /// Where a message with this unique key is: queue and offset of each.
    pub fn places_of_key(&mut self, topic: &str, key: &str) -> io::Result<Vec<(u32, u64)>> {
        let header = QueryMessageRequest {
            topic: topic.into(),
            key: key.into(),
            max_num: 32,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
        };
        let request = Command::request(RequestCode::QUERY_MESSAGE, &header).with_field("_UNIQUE_KEY_QUERY", "true");
        let answer = self.ask(request)?;
        if answer.response_code() == ResponseCode::QUERY_NOT_FOUND {
            return Ok(Vec::new());
        }
        assert_eq!(answer.response_code(), ResponseCode::SUCCESS, "{answer:?}");
        Ok(Records::new(&answer.body)
            .map(|record| record.unwrap_or_else(|error| panic!("{topic}, key {key}: {error}")))
            .map(|record| (record.queue_id().0, record.queue_offset().0))
            .collect())
    }
}

/// Where an accepted message went, or the code and remark of a refusal.
pub fn placed(answer: &Command) -> Result<SendReply, (i32, String)> {
    let remark = || answer.remark.as_ref().map(ToString::to_string).unwrap_or_default();
    if answer.response_code() != ResponseCode::SUCCESS {
        return Err((answer.code, remark()));
    }
    Ok(answer.header().unwrap_or_else(|error| panic!("{error}: {answer:?}")))
}

/// Where an accepted message stands in the log.
pub fn physical(reply: &SendReply) -> u64 {
    let id: OffsetMessageId = reply.msg_id.parse().unwrap_or_else(|error| panic!("{}: {error}", reply.msg_id));
    id.physical_offset.0
}

/// Where the first message of a batch stands in the log.
pub fn first_physical(reply: &SendReply) -> u64 {
    let first = reply.msg_id.split(',').next().expect("a piece");
    let id: OffsetMessageId = first.parse().unwrap_or_else(|error| panic!("{}: {error}", reply.msg_id));
    id.physical_offset.0
}

pub fn send(message: &Outgoing<'_>) -> Command {
    let is_batch = message.bodies.len() > 1;
    let properties = |key: &str| format!("UNIQ_KEY\u{1}{key}\u{2}{}", message.properties);
    let body = if is_batch {
        let mut body = Vec::new();
        for (item, key) in message.bodies.iter().zip(message.keys) {
            let properties = properties(key);
            let int = |value: usize| u32::try_from(value).expect("short").to_be_bytes();
            body.extend(int(22 + item.len() + properties.len()));
            body.extend([0; 12]);
            body.extend(int(item.len()));
            body.extend(item);
            body.extend(u16::try_from(properties.len()).expect("short").to_be_bytes());
            body.extend(properties.as_bytes());
        }
        body
    } else {
        message.bodies[0].clone()
    };
    let header = SendRequest {
        producer_group: GROUP.into(),
        topic: message.topic.into(),
        default_topic: "TBW102".into(),
        default_topic_queue_nums: 4,
        queue_id: message.queue as i32,
        sys_flag: message.sys_flag,
        born_timestamp: now_ms(),
        properties: (!is_batch).then(|| properties(&message.keys[0]).into()),
        batch: is_batch,
        ..SendRequest::default()
    };
    let code = if is_batch { RequestCode::SEND_BATCH_MESSAGE } else { RequestCode::SEND_MESSAGE_V2 };
    Command::request(code, &header.short_names()).with_body(body)
}

pub fn pull(topic: &str, queue: u32, offset: u64) -> Command {
    let header = PullRequest {
        consumer_group: GROUP.into(),
        topic: topic.into(),
        queue_id: queue as i32,
        queue_offset: i64::try_from(offset).expect("no queue is so long"),
        max_msg_nums: 1000,
        // The subscription is in the request, and nobody waits.
        sys_flag: 4,
        subscription: Some("*".into()),
        expression_type: Some("TAG".into()),
        ..PullRequest::default()
    };
    Command::request(RequestCode::PULL_MESSAGE, &header)
}

/// The end of a transaction whose half was accepted as `half`.
pub fn end_transaction(half: &SendReply, key: &str, commits: bool) -> Command {
    let header = EndTransactionRequest {
        topic: None,
        producer_group: GROUP.into(),
        tran_state_table_offset: half.queue_offset.as_i64(),
        commit_log_offset: i64::try_from(physical(half)).expect("no log is so long"),
        commit_or_rollback: if commits { 8 } else { 12 },
        from_transaction_check: false,
        msg_id: key.into(),
        transaction_id: Some(key.into()),
    };
    Command::request(RequestCode::END_TRANSACTION, &header)
}

pub fn now_ms() -> i64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970");
    i64::try_from(age.as_millis()).expect("it is before the year 292 million")
}
