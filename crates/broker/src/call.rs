//! A request of the wire on its way to a handler, and its answer on the way back.

use ferromq_protocol::{Command, DecodeFields, Reply, json};
use ferromq_remoting::{Connection, Outcome, ReplySlot};
use ferromq_store::{Effort, Round};
use serde::de::DeserializeOwned;

use crate::answer::Answer;
use crate::off_task::off_task;
use crate::peer::Origin;
use crate::refusal::Refusal;

/// Longest body of a request that is parsed, in bytes: some ten thousand topics or subscriptions. Java has no limit; here the other
/// connections of the event loop wait meanwhile.
const PARSED_LEN_MAX: usize = 4 * 1024 * 1024;

/// One request, without its [`Body`].
pub(crate) struct Call<'a> {
    pub round: &'a Round<'a>,
    pub connection: &'a Connection,
    pub request: &'a Command,
    pub effort: Effort,
    pub origin: Origin,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        round: &'a Round<'a>,
        connection: &'a Connection,
        request: &'a Command,
        effort: Effort,
    ) -> Call<'a> {
        Call { round, connection, request, effort, origin: Origin::of(connection, request) }
    }

    pub(crate) fn header<H: DecodeFields>(&self) -> Result<H, Refusal> {
        Ok(self.request.header()?)
    }

    /// For an answer that comes later.
    pub(crate) fn slot(&self) -> ReplySlot {
        self.connection.reply_slot(self.request)
    }

    pub(crate) fn reply(&self, reply: Reply) -> Result<Outcome, Refusal> {
        Ok(Outcome::Reply(reply))
    }

    /// Sees to an answer that need not be there yet.
    pub(crate) fn answer(&self, answer: Answer) -> Result<Outcome, Refusal> {
        match answer {
            Answer::Now(reply) => Ok(Outcome::Reply(reply)),
            Answer::OffTask(work) => Ok(off_task(self.connection, self.request, work)),
            Answer::Later(begin) => {
                let slot = self.slot();
                begin(Box::new(move |reply| slot.send(reply)));
                Ok(Outcome::Deferred)
            }
        }
    }
}

/// The body of a request.
pub(crate) struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    /// To be parsed.
    pub(crate) fn text(&self) -> Result<&'a [u8], Refusal> {
        match self.0.len() {
            len if len > PARSED_LEN_MAX => {
                Err(Refusal::system_error(format!("the body has {len} bytes, the limit is {PARSED_LEN_MAX}")))
            }
            _ => Ok(self.0),
        }
    }

    /// JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        json::from_slice(self.text()?)
            .map_err(|error| Refusal::system_error(format!("the body cannot be read: {error}")))
    }
}
