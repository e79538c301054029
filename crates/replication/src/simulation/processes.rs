//! Processes: how they start and end, what they are due to do, what they tell the nameserver, and their disks.

use std::collections::{BTreeMap, VecDeque};

use ferromq_protocol::PhysicalOffset;

use super::network::End;
use super::node::{Duty, Mastership, Node, Role, Slavery};
use super::world::{Event, PIECES_MAX, SLAVE_TIMEOUT_MS, STRANGER, World, tell};
use crate::model_log::SEGMENT_LEN;
use crate::planted::{Bug, planted};
use crate::{Attempt, Copies, CopiesConfig, Follower, FollowerConfig, Input};

impl World {
    pub fn start(&mut self, node: usize) {
        tell!(
            self,
            "node {node} starts as {:?} with {}..{}",
            self.nodes[node].role,
            self.nodes[node].log.first(),
            self.nodes[node].log.end()
        );
        self.nodes[node].is_poisoned = false;
        self.nodes[node].knows = self.nodes[node].epoch;
        // An open brings to the disk what it finds.
        let log = &mut self.nodes[node].log;
        log.flush(u64::MAX);
        let log = &self.nodes[node].log;
        self.audit.safe(node, log, log.first(), log.end());
        match self.nodes[node].role {
            Role::Master if self.nodes[node].has_forgotten => {
                self.change_duty(node, Some(Duty::Fenced));
                self.begin_new_epoch(node);
            }
            Role::Master => self.begin_mastership(node),
            Role::Slave => self.begin_slavery(node),
        }
    }

    /// A master that may have lost the end of its log goes on in an epoch of its own, so that nobody takes what its slaves have of the lost end
    /// for more of the same log. Whether it is the master still, the nameserver knows; without it, it waits, and for another one it is fenced.
    fn begin_new_epoch(&mut self, node: usize) {
        if self.registered == (self.nodes[node].epoch, node) && !self.nodes[node].without_nameserver {
            self.epoch += 1;
            (self.nodes[node].epoch, self.nodes[node].knows) = (self.epoch, self.epoch);
            self.nodes[node].has_forgotten = false;
            self.registered = (self.epoch, node);
            self.begin_mastership(node);
        }
    }

    /// Those who are connected are told. First the duty ends: what follows from that answers nobody any more.
    pub fn change_duty(&mut self, node: usize, duty: Option<Duty>) {
        self.replace_duty(node, duty);
        for conn in 0..self.conns.len() {
            for end in [End::Slave, End::Master] {
                let ends = &self.conns[conn];
                if ends.is_open[end as usize]
                    && ends.nodes[end as usize] == node
                    && ends.processes[end as usize] != STRANGER
                {
                    self.close(conn, end);
                }
            }
        }
    }

    /// Without a word to those who are connected.
    pub fn replace_duty(&mut self, node: usize, duty: Option<Duty>) {
        let process = self.next_process;
        self.next_process += 1;
        let node = &mut self.nodes[node];
        (node.duty, node.process, node.sync, node.syncs_again, node.wakes_at) = (duty, process, None, false, u64::MAX);
    }

    pub fn begin_mastership(&mut self, node: usize) {
        let now = self.moment(node);
        let config = CopiesConfig {
            copies: self.mode.copies,
            all_in_sync: self.mode.all_in_sync,
            slave_timeout_ms: SLAVE_TIMEOUT_MS,
            ..CopiesConfig::default()
        };
        let own = self.nodes[node].own(self.mode.sync_flush);
        let confirmed = self.nodes[node].confirmed.min(self.nodes[node].log.end());
        let seen = if planted(Bug::ShownAtOpen) { own.end } else { PhysicalOffset(confirmed) };
        let copies = Copies::new(config, own, seen, now);
        let mastership =
            Mastership { copies, feeds: BTreeMap::new(), waiting: VecDeque::new(), shown: confirmed, since: now.0 };
        self.change_duty(node, Some(Duty::Master(mastership)));
        if self.nodes[node].epoch == self.epoch {
            // Who does not run cannot be asked.
            let away = (0..self.nodes.len())
                .filter(|other| !self.nodes[*other].is_up())
                .fold(0, |away, other| away | 1 << other);
            let is_same = self.nodes[node].followed == self.epoch;
            self.nodes[node].followed = self.epoch;
            if !is_same {
                self.audit.mastered_by(node, &self.nodes, &self.mode, away);
            }
        }
        self.settle(node);
        self.plan_wake(node);
    }

    pub fn begin_slavery(&mut self, node: usize) {
        let config = FollowerConfig {
            segment_len: SEGMENT_LEN,
            sync_flush: self.mode.sync_flush,
            cuts_parted: self.mode.cuts_parted,
            restarts_when_gone: self.mode.restarts_when_gone,
            ..FollowerConfig::default()
        };
        let slavery = Slavery { follower: Follower::new(config), master: None, attempt: Attempt(0), conn: None };
        self.nodes[node].has_forgotten = false;
        self.change_duty(node, Some(Duty::Slave(slavery)));
    }

    /// Its process ends; what it had in memory of the log is left with the machine.
    pub fn kill(&mut self, node: usize) {
        self.change_duty(node, None);
    }

    /// Its machine stops: nobody is told, and what was not synced is gone, in part.
    pub fn cut_power(&mut self, node: usize) {
        self.replace_duty(node, None);
        let Node { log, confirmed, .. } = &mut self.nodes[node];
        let to = log.record_end_by(log.flushed() + self.dice.below(log.end() - log.flushed() + 1)).max(log.flushed());
        tell!(self, "node {node} loses {to}..{}", log.end());
        if to < log.end() {
            self.audit.loses(node, log, to);
            log.cut(to);
            *confirmed = (*confirmed).min(to);
            (self.nodes[node].has_lost, self.nodes[node].has_forgotten) = (true, !self.mode.sync_flush);
        }
    }

    pub fn wake(&mut self, node: usize, process: u64) {
        if self.nodes[node].process != process {
            return;
        }
        self.nodes[node].wakes_at = u64::MAX;
        let now = self.moment(node);
        if let Some(mastership) = self.nodes[node].mastership() {
            mastership.copies.tick(now);
            self.settle(node);
            self.pump_all(node);
            self.plan_wake(node);
        } else {
            self.step(node, Input::Tick);
        }
    }

    /// When the machines of a node are to be asked although nothing has happened.
    pub fn plan_wake(&mut self, node: usize) {
        let readable = self.nodes[node].readable(self.mode.sync_flush);
        let due = match &self.nodes[node].duty {
            Some(Duty::Master(mastership)) => {
                let feeds = mastership.feeds.iter().map(|(conn, fed)| {
                    let is_full = self.conns[*conn].pieces[End::Slave as usize].len() >= PIECES_MAX;
                    if is_full { fed.feed.silent_at() } else { fed.feed.due(readable) }
                });
                feeds.chain(mastership.copies.due()).min()
            }
            Some(Duty::Slave(slavery)) => slavery.follower.due(),
            _ => None,
        };
        let Some(due) = due else { return };
        let ms = due.since(self.moment(node)).max(1);
        let Node { wakes_at, process, .. } = &mut self.nodes[node];
        if self.now + ms < *wakes_at {
            *wakes_at = self.now + ms;
            let event = Event::Wake(node, *process);
            self.at(ms, event);
        }
    }

    /// Every second or so a broker tells the nameserver of itself, and hears who is master.
    pub fn register(&mut self, node: usize) {
        let ms = 500 + self.dice.below(1_000);
        self.at(ms, Event::Register(node));
        if self.nodes[node].without_nameserver {
            return;
        }
        let (epoch, master) = self.registered;
        let Node { duty, epoch: own, knows, confirmed, has_forgotten, .. } = &mut self.nodes[node];
        *knows = (*knows).max(epoch);
        match duty {
            Some(Duty::Master(mastership)) => {
                *confirmed = (*confirmed).max(mastership.shown);
                if *own >= epoch {
                    self.registered = (*own, node);
                } else if !planted(Bug::FencedMasterWrites) {
                    tell!(self, "node {node} is fenced: {master} has epoch {epoch}");
                    self.change_duty(node, Some(Duty::Fenced));
                }
            }
            Some(Duty::Fenced) if *has_forgotten => self.begin_new_epoch(node),
            Some(Duty::Slave(slavery)) if slavery.master != Some(master) && master != node => {
                slavery.master = Some(master);
                self.step(node, Input::Master { is_known: true });
            }
            _ => {}
        }
    }

    pub fn begin_sync(&mut self, node: usize) {
        let ms = if self.mode.sync_flush {
            self.nodes[node].sync_ms + self.dice.below(3)
        } else {
            300 + self.dice.below(400)
        };
        let Node { sync, syncs_again, log, is_poisoned, .. } = &mut self.nodes[node];
        if *is_poisoned {
            return;
        }
        if sync.is_some() {
            *syncs_again = true;
            return;
        }
        let (number, end) = (self.next_process, log.end());
        self.next_process += 1;
        *sync = Some(number);
        self.at(ms, Event::Synced(node, number, end));
    }

    pub fn synced(&mut self, node: usize, number: u64, to: u64) {
        let Node { sync, log, process, .. } = &mut self.nodes[node];
        if *sync != Some(number) {
            return;
        }
        let process = *process;
        *sync = None;
        let before = log.flushed();
        log.flush(to);
        let flushed = log.flushed();
        if self.mode.sync_flush {
            self.audit.safe(node, &self.nodes[node].log, before, flushed);
            self.note_caught_up(node);
            self.grown(node);
            self.step(node, Input::Flushed);
        }
        if std::mem::take(&mut self.nodes[node].syncs_again) && self.nodes[node].process == process {
            self.begin_sync(node);
        }
    }
}
