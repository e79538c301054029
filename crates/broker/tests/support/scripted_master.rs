//! A master that does as it is told: a log in memory, a port for slaves and one for questions, next to each other as a broker has them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::BytesMut;
use ferromq_protocol::body::KvTable;
use ferromq_protocol::ha::{decode_reports, encode_packet_head};
use ferromq_protocol::header::ViewMessageRequest;
use ferromq_protocol::message::record::blank;
use ferromq_protocol::message::{NewMessage, SysFlag, stamp_record};
use ferromq_protocol::{
    Command, FRAME_LEN_MAX, Flags, NoFields, PhysicalOffset, QueueId, QueueOffset, RequestCode, decode_frame, json,
};

pub const SEGMENT_LEN: u64 = 65_536;

/// Records of one queue, from `first` on.
#[derive(Clone, Default)]
pub struct Log {
    pub first: u64,
    pub bytes: Vec<u8>,
    pub starts: Vec<u64>,
    next: u64,
}

impl Log {
    /// With nothing in it, beginning there.
    pub fn at(first: u64) -> Log {
        Log { first, ..Log::default() }
    }

    pub fn end(&self) -> u64 {
        self.first + self.bytes.len() as u64
    }

    /// Appends records with bodies of so many bytes, each of them `byte`.
    pub fn add(&mut self, count: usize, len: usize, byte: u8) {
        let host = ([127, 0, 0, 1], 10_911).into();
        for _ in 0..count {
            let message = NewMessage {
                topic: "TopicA",
                queue_id: QueueId(0),
                flag: 0,
                sys_flag: SysFlag(0),
                born_timestamp: 1,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: &vec![byte; len],
                properties: "",
            };
            let room = SEGMENT_LEN - self.end() % SEGMENT_LEN;
            if (message.record_len() + 8) as u64 > room {
                self.bytes.extend_from_slice(&blank(room as u32));
                self.bytes.resize(self.bytes.len() + room as usize - 8, 0);
            }
            let (at, from) = (self.end(), self.bytes.len());
            message.encode(&mut self.bytes).unwrap();
            stamp_record(&mut self.bytes[from..], QueueOffset(self.next), PhysicalOffset(at), 1_700_000_000_000);
            self.next += 1;
            self.starts.push(at);
        }
    }

    /// What stands there.
    pub fn range(&self, from: u64, to: u64) -> &[u8] {
        &self.bytes[(from - self.first) as usize..(to - self.first) as usize]
    }

    fn record_at(&self, at: u64) -> Option<&[u8]> {
        let from = self.starts.binary_search(&at).ok().map(|index| self.starts[index])?;
        let from = (from - self.first) as usize;
        let len = u32::from_be_bytes(self.bytes[from..from + 4].try_into().unwrap()) as usize;
        Some(&self.bytes[from..from + len])
    }
}

/// What a connection to the port for slaves meets.
pub type Act = Box<dyn Fn(&Shared, usize, TcpStream) + Send + Sync>;

pub struct Shared {
    log: Mutex<Log>,
    ha_port: u16,
    /// What it says of its `haListenPort`.
    pub stated_port: AtomicU16,
    /// It says that it is a slave.
    pub is_slave: AtomicBool,
    /// Asked for a record where none begins, it answers as Java does.
    pub is_java: AtomicBool,
    /// Instead of answers to questions, if there is anything.
    pub says: Mutex<Option<&'static [u8]>>,
    act: Act,
    connections: AtomicUsize,
    asked: AtomicUsize,
    is_over: AtomicBool,
}

impl Shared {
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// How many have connected to the port for slaves.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many questions have come.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Sends the whole log from the first report on, in packets that end anywhere, and then a heartbeat now and then.
    pub fn serve(&self, stream: TcpStream) {
        if let Some(from) = first_report(&stream) {
            self.serve_from(stream, from, u64::MAX);
        }
    }

    /// The same, up to `to`, and silent from there on.
    pub fn serve_from(&self, mut stream: TcpStream, from: u64, to: u64) {
        let mut at = from;
        loop {
            let packet = {
                let log = self.log();
                let end = log.end().min(to).min(at + 777).min(at - at % SEGMENT_LEN + SEGMENT_LEN);
                if at < log.first || at >= end { Vec::new() } else { log.range(at, end).to_vec() }
            };
            if packet.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
                if at == to {
                    wait_closed(&mut stream);
                    return;
                }
            }
            let mut bytes = encode_packet_head(PhysicalOffset(at), packet.len()).to_vec();
            bytes.extend_from_slice(&packet);
            if self.is_over.load(Ordering::SeqCst) || stream.write_all(&bytes).is_err() {
                return;
            }
            at += packet.len() as u64;
        }
    }
}

fn wait_closed(stream: &mut TcpStream) {
    let mut rest = [0; 64];
    while stream.read(&mut rest).is_ok_and(|read| read > 0) {}
}

/// Where the slave wants to go on.
pub fn first_report(mut stream: &TcpStream) -> Option<u64> {
    let mut report = [0; 8];
    stream.read_exact(&mut report).ok()?;
    decode_reports(&mut BytesMut::from(&report[..])).unwrap().map(|end| end.0)
}

/// The ports, until it is dropped.
pub struct ScriptedMaster {
    pub shared: Arc<Shared>,
    ports: [TcpListener; 2],
}

impl ScriptedMaster {
    pub fn start(log: Log, act: Act) -> ScriptedMaster {
        let (questions, slaves) = neighbours();
        let ha_port = slaves.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            log: Mutex::new(log),
            ha_port,
            stated_port: AtomicU16::new(ha_port),
            is_slave: AtomicBool::new(false),
            is_java: AtomicBool::new(false),
            says: Mutex::default(),
            act,
            connections: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        for (port, is_for_slaves) in [(&slaves, true), (&questions, false)] {
            let (listener, shared) = (port.try_clone().unwrap(), Arc::clone(&shared));
            std::thread::spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if shared.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    std::thread::spawn(move || {
                        if is_for_slaves {
                            let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                            (shared.act)(&shared, number, stream);
                        } else {
                            answer(&shared, stream);
                        }
                    });
                }
            });
        }
        ScriptedMaster { shared, ports: [questions, slaves] }
    }

    /// A master as it should be.
    pub fn honest(log: Log) -> ScriptedMaster {
        ScriptedMaster::start(log, Box::new(|shared, _, stream| shared.serve(stream)))
    }

    /// The lines of a configuration that make a broker its slave.
    pub fn slave_lines(&self) -> String {
        format!(
            "brokerRole=SLAVE\nbrokerId=1\nslaveReadEnable=true\nhaMasterAddress=127.0.0.1:{}\nmappedFileSizeCommitLog={SEGMENT_LEN}\n",
            self.shared.ha_port
        )
    }
}

impl Drop for ScriptedMaster {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        for port in &self.ports {
            // Wakes who accepts.
            let _ = TcpStream::connect(port.local_addr().unwrap());
        }
    }
}

/// Two ports next to each other; the second is for slaves.
fn neighbours() -> (TcpListener, TcpListener) {
    loop {
        let low = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = low.local_addr().unwrap().port();
        if let Some(Ok(high)) = port.checked_add(1).map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port))) {
            return (low, high);
        }
    }
}

fn answer(shared: &Shared, mut stream: TcpStream) {
    let mut buffer = BytesMut::new();
    let mut chunk = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut chunk) {
        buffer.extend_from_slice(&chunk[..len]);
        while let Some(request) = decode_frame(&mut buffer, FRAME_LEN_MAX).unwrap() {
            shared.asked.fetch_add(1, Ordering::SeqCst);
            if let Some(nonsense) = *shared.says.lock().unwrap() {
                let _ = stream.write_all(nonsense);
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            let (code, remark, body) = answer_to(shared, &request);
            if body.len() > FRAME_LEN_MAX {
                // As much as a peer reads of it.
                let _ = stream.write_all(&(body.len() as u32).to_be_bytes());
                return;
            }
            let mut reply = Command::request(RequestCode(code), &NoFields).with_body(body);
            (reply.opaque, reply.flags) = (request.opaque, Flags::RESPONSE);
            reply.remark = remark.map(Into::into);
            let mut bytes = BytesMut::new();
            reply.encode_head(&mut bytes).unwrap();
            bytes.extend_from_slice(&reply.body);
            if stream.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

fn answer_to(shared: &Shared, request: &Command) -> (i32, Option<String>, Vec<u8>) {
    match request.request_code() {
        RequestCode::GET_BROKER_RUNTIME_INFO => {
            let log = shared.log();
            let mut info = KvTable::default();
            info.table.insert("commitLogMinOffset".into(), log.first.to_string());
            info.table.insert("commitLogMaxOffset".into(), log.end().to_string());
            (0, None, json::to_vec(&info))
        }
        RequestCode::VIEW_MESSAGE_BY_ID => {
            let offset = request.header::<ViewMessageRequest>().unwrap().offset;
            let log = shared.log();
            match log.record_at(offset.unsigned_abs()) {
                Some(record) => (0, None, record.to_vec()),
                None if shared.is_java.load(Ordering::SeqCst) => as_java(&log, offset.unsigned_abs()),
                None => (1, Some(format!("can not find message by the offset, {offset}")), Vec::new()),
            }
        }
        RequestCode::GET_BROKER_CONFIG => {
            let role = if shared.is_slave.load(Ordering::SeqCst) { "SLAVE" } else { "ASYNC_MASTER" };
            let port = shared.stated_port.load(Ordering::SeqCst);
            (0, None, format!("brokerRole={role}\nhaListenPort={port}\n").into_bytes())
        }
        // It has no tables.
        code => (3, Some(format!("{code:?} is not supported")), Vec::new()),
    }
}

/// It takes the four bytes there for a length, whatever they are, and gives so much if that is in the segment, which is as long as the
/// answer is taken to be here.
fn as_java(log: &Log, at: u64) -> (i32, Option<String>, Vec<u8>) {
    let from = (at - log.first) as usize;
    let Some(stated) = log.bytes.get(from..from + 4) else {
        return (1, Some(format!("can not find message by the offset, {at}")), Vec::new());
    };
    let stated = i32::from_be_bytes(stated.try_into().unwrap());
    match usize::try_from(stated) {
        Ok(len) => (0, None, vec![0; len]),
        Err(_) => (1, Some(format!("java.lang.IllegalArgumentException: newLimit < 0: ({stated} < 0)")), Vec::new()),
    }
}
