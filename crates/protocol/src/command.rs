//! One decoded frame, either direction. Java: `RemotingCommand`.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;

use crate::fields::{DecodeFields, EncodeFields, Fields, HeaderError};
use crate::frame::{self, FrameError};
use crate::language::Language;
use crate::version::VERSION;
use crate::{RequestCode, ResponseCode};

/// How a header is written. Java: `SerializeType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serialization {
    #[default]
    Json,
    /// Java calls it `ROCKETMQ`.
    Binary,
}

impl Serialization {
    /// The top byte of the header word.
    pub(crate) fn type_byte(self) -> u32 {
        match self {
            Serialization::Json => 0,
            Serialization::Binary => 1,
        }
    }
}

/// The flag word: bit 0 response, bit 1 one-way. Other bits are kept and mean nothing.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags(pub i32);

impl Flags {
    pub const RESPONSE: Self = Self(1);
    pub const ONEWAY: Self = Self(2);

    /// An answer; only then does `opaque` belong to one of our requests.
    pub fn is_response(self) -> bool {
        self.0 & Self::RESPONSE.0 != 0
    }

    /// Nobody waits for an answer; none may be written, not even on error.
    pub fn is_oneway(self) -> bool {
        self.0 & Self::ONEWAY.0 != 0
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({:#b})", self.0)
    }
}

/// What a reply needs from its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    pub opaque: i32,
    pub serialization: Serialization,
}

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
        H::decode_command(self)
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

/// What a header decoder found.
pub(crate) struct Head {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flags: Flags,
    pub remark: Option<ByteString>,
    pub fields: Fields,
}

impl Head {
    pub(crate) fn into_command(self, serialization: Serialization, body: Bytes) -> Command {
        Command {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flags: self.flags,
            remark: self.remark,
            fields: self.fields,
            body,
            serialization,
        }
    }

    #[cfg(test)]
    pub(crate) fn parts(&self) -> HeadParts<'_> {
        HeadParts {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flags: self.flags,
            remark: self.remark.as_deref(),
        }
    }
}

/// What the header encoders write besides the ext fields.
pub(crate) struct HeadParts<'a> {
    pub code: i32,
    pub language: Language,
    pub version: i32,
    pub opaque: i32,
    pub flags: Flags,
    pub remark: Option<&'a str>,
}
