//! What a handler gives back when its reply may come later.

use ferromq_protocol::Reply;

use crate::persistence::SaveError;
use crate::refusal::Refusal;

type Work = Box<dyn FnOnce() -> Result<Reply, Refusal> + Send>;
type Respond = Box<dyn FnOnce(Reply) + Send>;

/// The answer to a request.
pub(crate) enum Answer {
    Now(Reply),
    /// What comes of work that waits for the disk, which is not done on the thread that serves the connection.
    OffTask(Work),
    /// It comes from another thread or task, through what that is given here.
    Later(Box<dyn FnOnce(Respond) + Send>),
}

impl Answer {
    pub(crate) fn off_task(work: impl FnOnce() -> Result<Reply, Refusal> + Send + 'static) -> Answer {
        Answer::OffTask(Box::new(work))
    }

    pub(crate) fn later(begin: impl FnOnce(Respond) + Send + 'static) -> Answer {
        Answer::Later(Box::new(begin))
    }

    /// The reply, or why there is none, once a change of a table is on disk: `wait` is to call back then.
    pub(crate) fn when_saved(
        reply: Reply,
        wait: impl FnOnce(Box<dyn FnOnce(Result<(), SaveError>) + Send>) + Send + 'static,
    ) -> Answer {
        Answer::later(move |respond| {
            wait(Box::new(move |saved| {
                respond(saved.map_or_else(|error| Refusal::from(error).into_reply(), |()| reply));
            }));
        })
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer::Now(reply)
    }
}
