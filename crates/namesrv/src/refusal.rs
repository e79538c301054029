//! Why a request is refused, and the one place that makes a reply of it.

use std::borrow::Cow;

use ferromq_protocol::{HeaderError, NoFields, Reply, ResponseCode};

/// A refused request. Handlers return `Result<Outcome, Refusal>`.
pub struct Refusal {
    code: ResponseCode,
    remark: Cow<'static, str>,
    /// Java's reply has a header class: `"extFields":{}`.
    empty_header: bool,
}

impl Refusal {
    pub fn new(code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, remark: remark.into(), empty_header: false }
    }

    pub fn system_error(remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    }

    #[must_use]
    pub fn empty_header(self) -> Refusal {
        Refusal { empty_header: true, ..self }
    }

    pub fn into_reply(self) -> Reply {
        let reply = Reply::error(self.code, self.remark);
        if self.empty_header { reply.header(NoFields) } else { reply }
    }
}

/// A header that does not decode: SYSTEM_ERROR.
impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Refusal {
        Refusal::system_error(error.to_string())
    }
}
