//! What an answer waits for: what it says is stored has to survive what this broker promises to survive.
//!
//! Handlers say what they have stored ([`Promise`]) and how their answer reads; when it may be given is decided here alone.

use std::sync::Arc;

use ferromq_protocol::{PhysicalOffset, Reply};
use ferromq_remoting::{Outcome, ReplySlot};
use ferromq_store::{NotSafe, Round, Want};

use crate::admission::Admission;
use crate::ha::{MasterCopies, NotHeld};
use crate::persistence::SaveError;
use crate::topics::{Topic, Topics};

/// An answer, and what it promises.
pub(crate) struct Promise<A> {
    pub answer: A,
    /// The end of what was stored in the log; `None` for who does not want to wait for it.
    pub end: Option<PhysicalOffset>,
    /// The topic that it is for, which a restart has to know.
    pub topic: Option<Arc<Topic>>,
}

/// Why a promise is not kept in time. What was stored is there, and may be safe later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenPromise {
    #[error(transparent)]
    Log(#[from] NotSafe),
    #[error(transparent)]
    Copies(#[from] NotHeld),
    #[error("the topic is not on disk: {0}")]
    Topic(#[from] SaveError),
}

/// How an answer reads, in the words of its request.
pub(crate) trait Acknowledgement: Send + 'static {
    fn reply(self, kept: Result<(), BrokenPromise>) -> Reply;
}

/// Decides when answers go.
pub(crate) struct Acknowledgements {
    pub topics: Arc<Topics>,
    pub admission: Arc<Admission>,
    /// If answers wait for other brokers.
    pub copies: Option<Arc<MasterCopies>>,
}

impl Acknowledgements {
    /// Gives the answer now, or through a slot when its promise is kept or cannot be.
    pub(crate) fn acknowledge<A: Acknowledgement>(
        &self,
        round: &Round<'_>,
        promise: Promise<A>,
        slot: impl FnOnce() -> ReplySlot,
    ) -> Outcome {
        let Promise { answer, end, topic } = promise;
        let end = end.filter(|end| self.copies.is_some() || !round.is_safe(*end, Want::Acknowledged));
        let unsaved = topic.filter(|topic| !self.topics.is_saved(topic)).map(|topic| (topic, Arc::clone(&self.topics)));
        if end.is_none() && unsaved.is_none() {
            return Outcome::Reply(answer.reply(Ok(())));
        }
        let slot = slot();
        let when_safe = move |safe: Result<(), BrokenPromise>| match (safe, unsaved) {
            (Ok(()), Some((topic, topics))) => {
                topics.when_saved(&topic, move |saved| slot.send(answer.reply(saved.map_err(BrokenPromise::from))));
            }
            (safe, _) => slot.send(answer.reply(safe)),
        };
        match end {
            Some(end) => {
                let (admission, copies) = (Arc::clone(&self.admission), self.copies.clone());
                admission.waits();
                let done = move |safe| {
                    admission.waits_no_more();
                    when_safe(safe);
                };
                // The other brokers get it when this one's disk has it, where that is waited for.
                round.when_safe(end, Want::Acknowledged, move |safe| match (safe, copies) {
                    (Ok(()), Some(copies)) => copies.when_held(end, |held| done(held.map_err(BrokenPromise::from))),
                    (safe, _) => done(safe.map_err(BrokenPromise::from)),
                });
            }
            None => when_safe(Ok(())),
        }
        Outcome::Deferred
    }
}
