//! What a handler answers.

use std::borrow::Cow;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::fields::EncodeFields;
use crate::frame;
use crate::frame_error::FrameError;
use crate::head::{Flags, HeadParts, RequestId};
use crate::language::Language;
use crate::version::VERSION;
use crate::{NoFields, ResponseCode};

/// An answer, not yet bound to a request. It leaves in the form the request came in, language JAVA, version 5.3.3.
pub struct Reply {
    pub code: ResponseCode,
    pub remark: Option<Cow<'static, str>>,
    /// `None`: no `extFields` member at all. `Some(Box::new(NoFields))`: an empty one.
    pub header: Option<Box<dyn EncodeFields + Send + Sync>>,
    /// Written in order right after the header, never copied together.
    pub body: Vec<Bytes>,
    /// The body's pieces are slices of mapped files, or copies that nothing else refers to.
    pub of_files: bool,
}

impl Reply {
    /// Success, nothing more.
    pub fn ok() -> Self {
        Self::new(ResponseCode::SUCCESS)
    }

    /// A code and nothing more.
    pub fn new(code: ResponseCode) -> Self {
        Self { code, remark: None, header: None, body: Vec::new(), of_files: false }
    }

    /// A code that is not success, and why.
    pub fn error(code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code).remark(remark)
    }

    /// With text for people.
    #[must_use]
    pub fn remark(mut self, remark: impl Into<Cow<'static, str>>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// With a typed header, or any list of fields.
    #[must_use]
    pub fn header(mut self, header: impl EncodeFields + Send + Sync + 'static) -> Self {
        self.header = Some(Box::new(header));
        self
    }

    /// With `"extFields":{}`, which Java writes for requests that have a reply header class even when nothing is in it.
    #[must_use]
    pub fn empty_header(self) -> Self {
        self.header(NoFields)
    }

    /// With a body in one piece.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = vec![body.into()];
        self
    }

    /// With a body of slices of the commit log, copied or as they are mapped.
    #[must_use]
    pub fn body_chunks(mut self, chunks: Vec<Bytes>) -> Self {
        self.body = chunks;
        self.of_files = true;
        self
    }

    /// With a body that is JSON, compact as Java writes it.
    #[must_use]
    pub fn json_body<T: serde::Serialize + ?Sized>(self, body: &T) -> Self {
        self.body(crate::json::to_vec(body))
    }

    /// Length of the body in bytes.
    pub fn body_len(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }

    /// Writes everything before the body; the chunks of [`Reply::body`] are to be written right after it.
    ///
    /// Errors: the frame is longer than [`crate::FRAME_LEN_MAX`], or a field does not fit the binary form. Then `out` is as it was.
    pub fn encode_head(&self, to: RequestId, out: &mut BytesMut) -> Result<(), FrameError> {
        let head = HeadParts {
            code: self.code.0,
            language: Language::JAVA,
            version: VERSION,
            opaque: to.opaque,
            flags: Flags::RESPONSE,
            remark: self.remark.as_deref(),
        };
        let fields = self.header.as_deref().map(|header| header as &dyn EncodeFields);
        frame::encode_head(out, to.serialization, &head, fields, self.body_len())
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("code", &self.code)
            .field("remark", &self.remark)
            .field("has_header", &self.header.is_some())
            .field("body_len", &self.body_len())
            .finish()
    }
}
