//! One decoded frame, either direction. Java: `RemotingCommand`.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::fields::{DecodeFields, EncodeFields, Fields, HeaderError};
use crate::frame;
use crate::frame_error::FrameError;
use crate::head::{Flags, HeadParts, RequestId};
use crate::language::Language;
use crate::serialization::Serialization;
use crate::version::VERSION;
use crate::{RequestCode, ResponseCode};

/// One frame, a request or a response. Cheap to clone: everything is a slice of the frame's buffer.
#[derive(Clone, Debug)]
pub struct Command {
    /// [`Command::request_code`] and [`Command::response_code`] give the newtypes.
    pub code: i32,
    pub language: Language,
    /// The peer's release, see [`crate::version_name`]. 0 when it did not say.
    pub version: i32,
    /// Chosen by who asks, repeated by who answers. 0 when the frame had none.
    pub opaque: i32,
    pub flags: Flags,
    /// For people, never for decisions. An empty text in JSON stays `Some("")`.
    pub remark: Option<ByteString>,
    /// The typed header, still encoded.
    pub fields: Fields,
    /// Empty and absent are the same on the wire.
    pub body: Bytes,
    /// How the frame came, and how its answer leaves.
    pub serialization: Serialization,
}

impl Command {
    /// A request from us: JSON, language JAVA (some servers and listings know no other), version 5.3.3. The connection
    /// chooses `opaque` when it sends. Without any field (`&NoFields`) there is no `extFields` member, as Java's heartbeats.
    pub fn request(code: RequestCode, header: &dyn EncodeFields) -> Self {
        let fields = Fields::from_header(header);
        Self {
            code: code.0,
            language: Language::JAVA,
            version: VERSION,
            opaque: 0,
            flags: Flags::default(),
            remark: None,
            fields: if fields.is_empty() { Fields::default() } else { fields },
            body: Bytes::new(),
            serialization: Serialization::Json,
        }
    }

    /// With a body, raw.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With a body that is JSON, compact as Java writes it.
    #[must_use]
    pub fn with_json_body<T: serde::Serialize>(self, body: &T) -> Self {
        self.with_body(crate::json::to_vec(body))
    }

    /// With one more free ext field, written after those already there.
    #[must_use]
    pub fn with_field(mut self, name: &str, value: &str) -> Self {
        self.fields = Fields::from_header(&(&self.fields, [(name, value)]));
        self
    }

    /// Marked so that the peer never answers.
    #[must_use]
    pub fn oneway(mut self) -> Self {
        self.flags.0 |= Flags::ONEWAY.0;
        self
    }

    pub fn request_code(&self) -> RequestCode {
        RequestCode(self.code)
    }

    pub fn response_code(&self) -> ResponseCode {
        ResponseCode(self.code)
    }

    /// What an answer to this request needs.
    pub fn id(&self) -> RequestId {
        RequestId { opaque: self.opaque, serialization: self.serialization }
    }

    /// The typed header, read from the frame's bytes in one walk.
    pub fn header<H: DecodeFields>(&self) -> Result<H, HeaderError> {
        H::decode_for(self.code, &self.fields)
    }

    /// One free ext field; the last one when the name repeats.
    pub fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        self.fields.text(name)
    }

    /// Writes length word, header word and header; the body is to be written right after it.
    ///
    /// Errors: the frame is longer than [`crate::FRAME_LEN_MAX`], or the header does not fit the binary form. Then `out` is as
    /// it was.
    pub fn encode_head(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let head = HeadParts {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flags: self.flags,
            remark: self.remark.as_deref(),
        };
        let fields = self.fields.is_present().then_some(&self.fields as &dyn EncodeFields);
        frame::encode_head(out, self.serialization, &head, fields, self.body.len())
    }
}

/// Splits one whole frame off the front of `buffer`, without copying. `None`: more bytes are needed.
///
/// `frame_len_max` counts the length word in. A length over it is an error as soon as the length word is there.
/// After an error the buffer's content is of no use and the connection must be closed.
pub fn decode_frame(buffer: &mut BytesMut, frame_len_max: usize) -> Result<Option<Command>, FrameError> {
    let Some((head, serialization, body)) = frame::split(buffer, frame_len_max)? else { return Ok(None) };
    Ok(Some(Command {
        code: head.code,
        language: head.language,
        version: head.version,
        opaque: head.opaque,
        flags: head.flags,
        remark: head.remark,
        fields: head.fields,
        body,
        serialization,
    }))
}
