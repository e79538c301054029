//! What a slave asks its master over the port for clients: how far its log goes, and what it has at a place (28, 33, 26).
//!
//! A connection of its own, one question at a time. The master may be anything that listens there, so answers are held against what a broker
//! answers, and are bounded in length and time.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ferromq_config::{decode_text, parse_properties};
use ferromq_protocol::body::KvTable;
use ferromq_protocol::header::ViewMessageRequest;
use ferromq_protocol::{
    Command, FRAME_LEN_MAX, FrameError, NoFields, PhysicalOffset, RequestCode, ResponseCode, decode_frame, json,
};
use ferromq_remoting::address::host_and_port;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// For a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// From which byte to which a log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub first: PhysicalOffset,
    pub end: PhysicalOffset,
}

/// What a broker says of itself.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub ha_port: Option<String>,
    pub role: Option<String>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum QuestionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in {} s", PATIENCE.as_secs())]
    Late,
    #[error("what is there is no broker: {0}")]
    Frame(#[from] FrameError),
    #[error("it answers {code:?}: {remark}")]
    Refused { code: ResponseCode, remark: String },
    #[error("its answer says nothing: {0}")]
    Nonsense(Cow<'static, str>),
}

/// Asks one broker.
pub(super) struct Questions {
    address: String,
    stream: Option<Stream>,
    opaque: i32,
}

struct Stream {
    socket: TcpStream,
    read: BytesMut,
}

impl Questions {
    /// Connects with the first question.
    pub(super) fn to(address: &str) -> Questions {
        Questions { address: address.to_owned(), stream: None, opaque: 0 }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// GET_BROKER_RUNTIME_INFO.
    pub(super) async fn bounds(&mut self) -> Result<Bounds, QuestionError> {
        let answer = self.ask(&Command::request(RequestCode::GET_BROKER_RUNTIME_INFO, &NoFields)).await?;
        let info: KvTable = json::from_slice(&succeeded(answer)?.body)
            .map_err(|error| QuestionError::Nonsense(error.to_string().into()))?;
        let offset = |key: &str| {
            let stated = info.table.get(key).and_then(|text| text.trim().parse::<i64>().ok());
            // Java's begin of an empty log is -1.
            let stated = stated.map(|offset| if offset == -1 { 0 } else { offset });
            let offset = stated.and_then(|offset| PhysicalOffset::try_from(offset).ok());
            offset.ok_or_else(|| QuestionError::Nonsense(format!("{key} is no offset there").into()))
        };
        Ok(Bounds { first: offset("commitLogMinOffset")?, end: offset("commitLogMaxOffset")? })
    }

    /// VIEW_MESSAGE_BY_ID: what it gives for a record at that place, if anything. Java does not look whether one begins there: it gives as many
    /// bytes as the first four say, which may be any number.
    pub(super) async fn record_at(&mut self, at: PhysicalOffset) -> Result<Option<Bytes>, QuestionError> {
        let header = ViewMessageRequest { topic: None, offset: at.as_i64() };
        let answer = match self.ask(&Command::request(RequestCode::VIEW_MESSAGE_BY_ID, &header)).await {
            // No record is so long.
            Err(QuestionError::Frame(FrameError::TooLong { .. })) => return Ok(None),
            answer => answer?,
        };
        if answer.response_code() == ResponseCode::SYSTEM_ERROR
            && answer.remark.as_deref().is_some_and(|remark| NO_RECORD.iter().any(|begin| remark.starts_with(begin)))
        {
            return Ok(None);
        }
        Ok(Some(succeeded(answer)?.body))
    }

    /// GET_BROKER_CONFIG.
    pub(super) async fn settings(&mut self) -> Result<Settings, QuestionError> {
        let answer = self.ask(&Command::request(RequestCode::GET_BROKER_CONFIG, &NoFields)).await?;
        let body = succeeded(answer)?.body;
        let entries =
            parse_properties(&decode_text(&body)).map_err(|error| QuestionError::Nonsense(error.to_string().into()))?;
        let value = |key: &str| entries.iter().rfind(|entry| entry.key == key).map(|entry| entry.value.clone());
        Ok(Settings { ha_port: value("haListenPort"), role: value("brokerRole") })
    }

    /// After anything but an answer the connection is closed, and the next question makes another.
    async fn ask(&mut self, request: &Command) -> Result<Command, QuestionError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => Stream { socket: connect(&self.address).await?, read: BytesMut::new() },
        };
        self.opaque = self.opaque.wrapping_add(1);
        let request = Command { opaque: self.opaque, ..request.clone() };
        let answer = timeout(PATIENCE, stream.exchange(&request)).await.map_err(|_| QuestionError::Late)??;
        self.stream = Some(stream);
        Ok(answer)
    }
}

/// The begin of what is said where there is no record: that of both, and of Java where the first four bytes are a negative number.
const NO_RECORD: [&str; 2] = ["can not find message by the offset", "java.lang.IllegalArgumentException"];

fn succeeded(answer: Command) -> Result<Command, QuestionError> {
    if answer.response_code() == ResponseCode::SUCCESS {
        return Ok(answer);
    }
    let remark = answer.remark.as_deref().unwrap_or_default().to_owned();
    Err(QuestionError::Refused { code: answer.response_code(), remark })
}

impl Stream {
    async fn exchange(&mut self, request: &Command) -> Result<Command, QuestionError> {
        let mut bytes = BytesMut::new();
        request.encode_head(&mut bytes)?;
        self.socket.write_all(&bytes).await?;
        loop {
            while let Some(frame) = decode_frame(&mut self.read, FRAME_LEN_MAX)? {
                // Anything else is not for this connection.
                if frame.flags.is_response() && frame.opaque == request.opaque {
                    return Ok(frame);
                }
            }
            self.read.reserve(16 << 10);
            if self.socket.read_buf(&mut self.read).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// A connection to `host:port` that sends at once.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    let target = host_and_port(address)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("`{address}` is not host:port")))?;
    let socket = timeout(PATIENCE, TcpStream::connect(target)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    socket.set_nodelay(true)?;
    Ok(socket)
}
