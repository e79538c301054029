//! Why a request to a nameserver or broker did not give what was asked for.

use std::time::Duration;

use ferromq_protocol::{Command, HeaderError, ResponseCode};
use ferromq_remoting::{ConnectError, InvokeError};

/// One error for all requests; a caller can tell "unreachable", "refused" and "not understood" apart.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("no nameserver is known: give its address with -n or NAMESRV_ADDR")]
    NoNameserver,
    #[error("cannot connect to {addr}")]
    Connect {
        addr: String,
        #[source]
        source: ConnectError,
    },
    #[error("no answer from {addr} within {} ms", timeout.as_millis())]
    Timeout { addr: String, timeout: Duration },
    #[error("the connection to {addr} broke before the answer came")]
    Send {
        addr: String,
        #[source]
        source: InvokeError,
    },
    /// The peer answered with a code that is not success.
    #[error("{code:?}: {remark}")]
    Refused {
        code: ResponseCode,
        remark: String,
        /// The broker that refused, where Java reports it as well.
        broker: Option<String>,
    },
    /// The answer's header or body is not what the request's answer looks like.
    #[error("the answer of {addr} cannot be read: {reason}")]
    Malformed { addr: String, reason: String },
}

impl AdminError {
    pub(crate) fn from_invoke(addr: &str, timeout: Duration, error: InvokeError) -> AdminError {
        let addr = addr.to_owned();
        match error {
            InvokeError::Connect(source) => AdminError::Connect { addr, source },
            InvokeError::TimedOut { .. } => AdminError::Timeout { addr, timeout },
            source => AdminError::Send { addr, source },
        }
    }

    /// A refusal, not yet saying who refused.
    pub(crate) fn refused(reply: &Command) -> AdminError {
        let remark = reply.remark.as_ref().map_or_else(|| "null".to_owned(), ToString::to_string);
        AdminError::Refused { code: reply.response_code(), remark, broker: None }
    }

    pub(crate) fn malformed(addr: &str, reason: impl std::fmt::Display) -> AdminError {
        AdminError::Malformed { addr: addr.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn header(addr: &str) -> impl Fn(HeaderError) -> AdminError + '_ {
        move |error| AdminError::malformed(addr, error)
    }

    /// The response code of a refusal.
    pub fn code(&self) -> Option<ResponseCode> {
        match self {
            AdminError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
