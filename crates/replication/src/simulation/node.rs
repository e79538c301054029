//! A broker: what is on its disk, and what its process does at present.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use ferromq_protocol::PhysicalOffset;

use crate::model_log::ModelLog;
use crate::planted::{Bug, planted};
use crate::{Attempt, Copies, Feed, FeedId, Follower, OwnLog, Readable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Slave,
}

/// One machine.
pub struct Node {
    // On its disk.
    pub log: ModelLog,
    pub role: Role,
    pub epoch: u64,
    pub confirmed: u64,
    /// A power cut may have taken the end of the log, and the process does not know yet.
    pub has_forgotten: bool,
    /// What it does; `None`: its process does not run.
    pub duty: Option<Duty>,
    /// Which process, or which duty of it: what comes for another one comes too late.
    pub process: u64,
    /// The newest epoch that it has heard of.
    pub knows: u64,
    /// Which sync runs, and whether another one is to follow. A log that is cut waits for none: what it was for is gone.
    pub sync: Option<u64>,
    pub syncs_again: bool,
    pub wakes_at: u64,
    // Its troubles.
    pub clock_ahead: u64,
    pub paused_until: u64,
    pub is_full: bool,
    /// A sync has failed: the store takes nothing until it is started again.
    pub is_poisoned: bool,
    pub sync_ms: u64,
    pub without_nameserver: bool,
    // What the operator knows of it: whose epoch it has followed last, and that it lacks something of that.
    pub followed: u64,
    pub has_lost: bool,
}

pub enum Duty {
    Master(Mastership),
    Slave(Slavery),
    Fenced,
}

pub struct Mastership {
    pub copies: Copies,
    /// By connection.
    pub feeds: BTreeMap<usize, Fed>,
    /// Sends that are not answered: where they end, and their messages.
    pub waiting: VecDeque<(u64, u64)>,
    /// Consumers have seen the log up to here.
    pub shown: u64,
    pub since: u64,
}

pub struct Fed {
    pub feed: Feed,
    pub id: FeedId,
    pub incoming: BytesMut,
}

pub struct Slavery {
    pub follower: Follower,
    /// Its master's number.
    pub master: Option<usize>,
    pub attempt: Attempt,
    pub conn: Option<usize>,
}

impl Node {
    pub fn new(role: Role) -> Node {
        Node {
            log: ModelLog::default(),
            role,
            epoch: u64::from(role == Role::Master),
            confirmed: 0,
            has_forgotten: false,
            duty: None,
            process: 0,
            knows: 1,
            sync: None,
            syncs_again: false,
            wakes_at: u64::MAX,
            clock_ahead: 0,
            paused_until: 0,
            is_full: false,
            is_poisoned: false,
            sync_ms: 1,
            without_nameserver: false,
            followed: 0,
            has_lost: true,
        }
    }

    pub fn is_up(&self) -> bool {
        self.duty.is_some()
    }

    pub fn mastership(&mut self) -> Option<&mut Mastership> {
        if let Some(Duty::Master(mastership)) = &mut self.duty { Some(mastership) } else { None }
    }

    pub fn slavery(&mut self) -> Option<&mut Slavery> {
        if let Some(Duty::Slave(slavery)) = &mut self.duty { Some(slavery) } else { None }
    }

    /// How far the log holds what the mode promises of one copy.
    pub fn safe(&self, sync_flush: bool) -> u64 {
        if sync_flush { self.log.flushed() } else { self.log.end() }
    }

    pub fn own(&self, sync_flush: bool) -> OwnLog {
        OwnLog { end: PhysicalOffset(self.log.end()), safe: PhysicalOffset(self.safe(sync_flush)) }
    }

    pub fn readable(&self, sync_flush: bool) -> Readable {
        let end = self.safe(sync_flush && !planted(Bug::UnflushedSent));
        Readable { first: PhysicalOffset(self.log.first()), end: PhysicalOffset(end), yields: false }
    }
}
