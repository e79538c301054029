//! What decides in native HA: master and slaves that hold one log, byte for byte.
//!
//! These are machines without a socket, a clock, a thread or a die: they are told what has happened, and when, and say what is to be done.
//! Whoever uses them (the broker, one task for each connection) has the sockets and timers, and the store has the log.
//!
//! | machine | of whom | is told | says |
//! |---|---|---|---|
//! | [`Feed`] | master, one for each slave | reports, time, how far the log goes | which range of the log to send, when to close |
//! | [`Copies`] | master, one | what feeds have found possible, how far the own log goes, time | which sends are answered, what consumers may see |
//! | [`Follower`] | slave, one | which master there is, what comes from it, what the store has taken, time | what to ask, append, flush, report |
//! | [`Comparing`] | slave, in its follower | records of both logs | where the two part |
//!
//! # The walk of one send with SYNC_MASTER and `inSyncReplicas=2`
//!
//! 1. The master's handler asks [`Copies::admits`], appends, and keeps a reply slot that waits for the end of its record.
//! 2. When the round's records are written (with synchronous flush: flushed) it tells [`Copies::grown`], and each slave's task asks its
//!    [`Feed::next`], which names the range that the slave lacks. The task writes the head ([`ferromq_protocol::ha::encode_packet_head`]) and
//!    the mapped bytes to the socket.
//! 3. The slave's task splits the packet off what it reads ([`ferromq_protocol::ha::decode_packet`]) and gives it to [`Follower::step`]. That
//!    it comes next is checked, what had come of a record is put in front, and the store is given all of it ([`Effect::Append`]): it checks
//!    each record and takes the whole ones.
//! 4. [`News::Appended`] (with synchronous flush, [`Input::Flushed`]) makes the follower report how far the slave holds the log.
//! 5. The master's task has the report checked by [`Feed::reported`], which closes the connection of a slave that claims more than it was
//!    sent, and tells [`Copies::reported`].
//! 6. [`Progress`] comes of it: `held` has passed the record's end, so the reply is SEND_OK; `confirmed` has too, so dispatch goes on to
//!    there and consumers see the message. Without a report in 3 s (`slaveTimeout`), `late` passes it, the reply is FLUSH_SLAVE_TIMEOUT,
//!    and consumers see it then.
//!
//! # What whoever uses them has to keep
//!
//! - Of one connection, [`Feed`] is one task's, and [`Follower`] is one task's. [`Copies`] is under one lock: feeds, who waits, and who keeps
//!   the time call it.
//! - A mastership ends in this order: no more appends; its `Copies` are dropped and whoever waits is told that it is not safe; then the
//!   connections of its feeds are closed. The other way round, the slaves that go would change what is asked of those that stay.
//! - Every feed's connection ends with the mastership. A follower takes a connection that lasts for the word that its master is one still.
//! - The follower's questions go to the broker whose HA address it has connected to, and its log does not change but by its effects.
//! - The retention takes nothing that is not confirmed: a slave that begins where the master's log does counts as holding what is before.
//! - A master that may have lost the end of its log (asynchronous flush, a power cut) goes on in a new epoch, or is none until the nameserver
//!   has told it who is. Its slaves may have more of the lost end than anybody has of what comes after, and would be taken for the ones to
//!   promote: the one to promote is the longest of those who followed the newest epoch and have written nothing themselves since. The
//!   simulation does both. The broker does neither yet: its role is that of its configuration, and its slaves then stand still ([`Fence::Parted`]).
//!
//! # What holds
//!
//! - A report counts only as a [`Report`], which only a feed makes: never beyond what the master holds, nor beyond what was sent.
//! - A slave follows only a log that it has compared with its own on the connection that it follows on.
//! - Nothing is appended but at the log's end, and only whole records that pass the store's checks.
//! - Nothing is cut, and no log begins anew, unless it is empty or the configuration says so. A slave that has what its master has not stands
//!   still and says so.
//! - Whatever a peer sends, a machine holds at most: one record and one packet (`Follower`), a number (`Feed`), [`FEEDS_MAX`] feeds and some
//!   3,000 past ends of the log (`Copies`).
//!
//! The simulation (`simulation/`, tests only) runs a master and its slaves through crashes, power cuts, partitions and promotions, from seeds.
#![forbid(unsafe_code)]

mod comparing;
mod copies;
mod feed;
mod follower;
mod history;
mod moment;
mod planted;

#[cfg(test)]
mod dice;
#[cfg(test)]
mod model_log;
#[cfg(test)]
mod simulation;

pub use comparing::{Comparing, Comparison, Probe, Probed};
pub use copies::{
    Copies, CopiesConfig, FEEDS_MAX, FeedId, NotEnoughInSync, OwnLog, Peer, Progress, Standing, TooManyFeeds,
};
pub use feed::{Feed, FeedConfig, FeedEnd, Outgoing, Readable, Report};
pub use follower::{
    Attempt, CopyLog, Effect, Fence, Follower, FollowerConfig, FollowerState, Input, News, NotAppended, Notice,
};
pub use moment::Moment;
