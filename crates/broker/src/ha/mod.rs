//! Native HA over sockets: brokers of one name that hold one log, the master's.
//!
//! What decides is in `ferromq_replication`, machines that are only told; here is who has the sockets, the timers and the tasks, and does what
//! the machines say. Nothing here decides by itself how far a log counts.
//!
//! Of a slave: [`follower_task`] is the thread that copies the log, [`questions`] what it asks the master over the port for clients,
//! [`master_place`] where both are, [`slave_log`] its own log, [`master_keeps`] what of that must stay, [`follower_status`] what can be asked about
//! it; [`tables`] takes the master's tables and gives it back what [`own_commits`] notes.
//!
//! Of a master: [`feeds`] is the port and its thread, [`feed_task`] one slave's connection, [`copies`] who waits for how many copies.

mod copies;
mod feed_task;
mod feeds;
mod follower_status;
mod follower_task;
mod master_keeps;
mod master_place;
mod own_commits;
mod questions;
mod seldom;
mod slave_log;
mod tables;

pub(crate) use copies::{MasterCopies, NotHeld, SlaveStanding, keeps_copies};
pub(crate) use feeds::Feeds;
pub(crate) use follower_status::FollowerStatus;
pub(crate) use follower_task::{FollowerTask, FollowerTaskParts};
pub(crate) use own_commits::{OwnCommit, OwnCommits};
pub(crate) use tables::TableCopies;

use std::io;

use ferromq_replication::Moment;
use tokio::runtime::{Builder, Runtime};

/// The time as the machines are told it.
fn moment() -> Moment {
    Moment(crate::clock::elapsed_ms())
}

/// The event loop of a thread here. Whoever drops it does not wait for what it has left to other threads: a name that nobody resolves, or a
/// disk that hangs.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn new() -> io::Result<OwnRuntime> {
        Ok(OwnRuntime(Some(Builder::new_current_thread().enable_all().build()?)))
    }
}

impl std::ops::Deref for OwnRuntime {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        // Until it is dropped.
        self.0.as_ref().expect("it is taken by drop alone")
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
