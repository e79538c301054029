//! Why a handler says no: response code, remark, and the reply fields that Java sends with it. In this crate
//! mapped to a [`Reply`] here and nowhere else.

use std::borrow::Cow;
use std::fmt;

use ferromq_protocol::{EncodeFields, HeaderError, Reply, ResponseCode};
use ferromq_store::ReadError;
use tracing::error;

use crate::master_duties::NotAtWork;
use crate::persistence::SaveError;
use crate::readers::Busy;
use crate::topics::{DeletionUnderway, Full, NotMade};

/// Suffix of many remarks. Java: `FAQUrl.suggestTodo`.
const FAQ: &str = "See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details.";

/// A refused request; `dispatch` turns it into the reply.
pub struct Refusal {
    pub code: ResponseCode,
    pub remark: Cow<'static, str>,
    /// `None` leaves `extFields` out of the reply, as Java does when an exception escaped or the code has no reply header class.
    pub header: Option<Box<dyn EncodeFields + Send + Sync>>,
    /// Not answered: the request is done again where it may wait for the disk.
    pub needs_time: bool,
}

impl Refusal {
    pub fn new(code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal { code, remark: remark.into(), header: None, needs_time: false }
    }

    /// SYSTEM_ERROR (1).
    pub fn system_error(remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    }

    /// INVALID_PARAMETER (29).
    pub fn invalid_parameter(remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(ResponseCode::INVALID_PARAMETER, remark)
    }

    /// NO_PERMISSION (16).
    pub fn no_permission(remark: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(ResponseCode::NO_PERMISSION, remark)
    }

    /// TOPIC_NOT_EXIST (17) in the words of the send path.
    pub fn topic_not_exist(topic: &str) -> Refusal {
        Refusal::new(ResponseCode::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist, apply first please!\n{FAQ}"))
    }

    /// SUBSCRIPTION_GROUP_NOT_EXIST (26) in the words of the pull path.
    pub fn group_not_exist(group: &str) -> Refusal {
        Refusal::new(
            ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
            format!("subscription group [{group}] does not exist, \n{FAQ}"),
        )
    }

    /// SYSTEM_BUSY (2): a table of names takes no more.
    pub fn full(full: Full) -> Refusal {
        Refusal::new(ResponseCode::SYSTEM_BUSY, full.to_string())
    }

    /// Any code with Java's FAQ pointer on a second line.
    pub fn with_faq(code: ResponseCode, remark: &str) -> Refusal {
        Refusal::new(code, format!("{remark}\n{FAQ}"))
    }

    /// Reply fields to send along (`NoFields` for an empty `extFields`).
    #[must_use]
    pub fn header(mut self, header: impl EncodeFields + Send + Sync + 'static) -> Refusal {
        self.header = Some(Box::new(header));
        self
    }

    pub fn into_reply(self) -> Reply {
        let mut reply = Reply::error(self.code, self.remark);
        reply.header = self.header;
        reply
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.remark)
    }
}

/// Stored messages that the disk does not give. A consumer stands still there until somebody moves it on.
impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        let needs_time = matches!(error, ReadError::NeedsTime);
        if !needs_time {
            error!(%error, "a request fails");
        }
        Refusal { needs_time, ..Refusal::system_error(error.to_string()) }
    }
}

/// SYSTEM_BUSY (2).
impl From<Busy> for Refusal {
    fn from(busy: Busy) -> Refusal {
        Refusal::new(ResponseCode::SYSTEM_BUSY, busy.to_string())
    }
}

/// SYSTEM_BUSY (2), or SERVICE_NOT_AVAILABLE (14) from a slave.
impl From<NotMade> for Refusal {
    fn from(why: NotMade) -> Refusal {
        let code = match why {
            NotMade::OnSlave(_) => ResponseCode::SERVICE_NOT_AVAILABLE,
            NotMade::Full(_) | NotMade::BeingDeleted(_) => ResponseCode::SYSTEM_BUSY,
        };
        Refusal::new(code, why.to_string())
    }
}

/// SYSTEM_BUSY (2).
impl From<DeletionUnderway> for Refusal {
    fn from(busy: DeletionUnderway) -> Refusal {
        Refusal::new(ResponseCode::SYSTEM_BUSY, busy.to_string())
    }
}

/// SERVICE_NOT_AVAILABLE (14): producers go to another broker with it.
impl From<NotAtWork> for Refusal {
    fn from(not_at_work: NotAtWork) -> Refusal {
        Refusal::new(ResponseCode::SERVICE_NOT_AVAILABLE, not_at_work.to_string())
    }
}

/// A change that is in force but not on disk: who asked for it must not count on it, and can ask again.
impl From<SaveError> for Refusal {
    fn from(error: SaveError) -> Refusal {
        Refusal::system_error(format!("the change is not on disk yet and is tried again: {error}"))
    }
}

/// A header that does not decode: SYSTEM_ERROR without ext fields.
impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Refusal {
        Refusal::system_error(error.to_string())
    }
}
