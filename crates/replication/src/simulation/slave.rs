//! The slave's side: what the follower says is done, and what it has is held against its master's log.

use bytes::Bytes;
use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::encode_report;

use super::audit::common_end;
use super::network::End;
use super::node::Node;
use super::world::{Answer, Event, Mode, Question, World, tell};
use crate::model_log::SEGMENT_LEN;
use crate::{Attempt, Effect, Fence, FollowerState, Input, News, NotAppended, Notice, Probed};

impl World {
    /// Takes a step of the follower, and does what it says.
    pub fn step(&mut self, node: usize, input: Input<'_>) {
        let now = self.moment(node);
        let log = self.nodes[node].log.as_copy();
        let Some(slavery) = self.nodes[node].slavery() else { return };
        let was_fenced = matches!(slavery.follower.state(), FollowerState::Fenced(_));
        let conn = slavery.conn;
        let mut effects = slavery.follower.step(input, log, now);
        effects.reverse();
        while let Some(effect) = effects.pop() {
            let Some(news) = self.effect(node, effect) else { continue };
            let log = self.nodes[node].log.as_copy();
            let Some(slavery) = self.nodes[node].slavery() else { return };
            let input = Input::Of(slavery.attempt, news);
            effects.extend(slavery.follower.step(input, log, now).into_iter().rev());
        }
        let Some(slavery) = self.nodes[node].slavery() else { return };
        if let FollowerState::Fenced(fence) = slavery.follower.state()
            && !was_fenced
        {
            self.check_fence(node, conn, fence);
        }
        self.plan_wake(node);
    }

    pub fn effect(&mut self, node: usize, effect: Effect) -> Option<News<'static>> {
        let Mode { restarts_when_gone, cuts_parted, .. } = self.mode;
        match effect {
            Effect::Connect(attempt) => self.connect(node, attempt),
            Effect::Close => {
                if let Some(conn) = self.nodes[node].slavery().and_then(|slavery| slavery.conn.take()) {
                    self.close(conn, End::Slave);
                }
            }
            Effect::AskBounds => self.ask(node, Question::Bounds),
            Effect::AskRecords(probe) => self.ask(node, Question::Record(probe)),
            Effect::AskFirstRecord => self.ask(node, Question::First),
            Effect::RestartAt(at) => {
                let log = &mut self.nodes[node].log;
                let is_gone = log.end() <= at.0 && restarts_when_gone;
                assert!(log.first() == log.end() || is_gone, "node {node} throws its log away");
                self.counts[4] += u64::from(log.first() != log.end());
                self.audit.loses(node, log, 0);
                log.restart_at(at.0);
                (self.nodes[node].has_lost, self.nodes[node].sync) = (true, None);
                return Some(News::Changed);
            }
            Effect::CutTo(to) => {
                assert!(cuts_parted, "node {node} cuts its log, and nobody has said so");
                let conn = self.nodes[node].slavery().and_then(|slavery| slavery.conn);
                self.check_common(node, conn, Some(to.0));
                self.cut_log(node, Some(to.0));
                return Some(News::Changed);
            }
            Effect::Append { at, bytes } => return Some(self.append_copy(node, at.0, &bytes)),
            Effect::Flush => self.begin_sync(node),
            Effect::Report(end) => {
                if let Some(conn) = self.nodes[node].slavery().and_then(|slavery| slavery.conn) {
                    self.push(conn, End::Master, &encode_report(end));
                }
            }
            Effect::Tell(notice) => {
                tell!(self, "node {node}: {notice}");
                if let Notice::Follows { .. } = notice {
                    self.counts[2] += 1;
                    self.follows(node);
                }
            }
        }
        None
    }

    pub fn append_copy(&mut self, node: usize, at: u64, bytes: &[u8]) -> News<'static> {
        if self.nodes[node].is_full || self.nodes[node].is_poisoned {
            return News::NotAppended(NotAppended::NotNow);
        }
        let log = &mut self.nodes[node].log;
        let taken = match log.append_copy(at, bytes) {
            Ok(taken) => taken,
            Err(why) => return News::NotAppended(why),
        };
        self.check_copy(node, at);
        if !self.mode.sync_flush {
            self.audit.safe(node, &self.nodes[node].log, at, at + taken as u64);
            self.begin_sync(node);
        }
        self.note_caught_up(node);
        News::Appended(taken)
    }

    /// The master that a slave is connected to, if it is the one that it was connected to.
    pub fn master_of(&mut self, node: usize) -> Option<usize> {
        let conn = self.nodes[node].slavery()?.conn?;
        let conn = &self.conns[conn];
        let master = conn.nodes[1];
        (self.nodes[master].process == conn.processes[1]).then_some(master)
    }

    /// From `from` on a slave's log is its master's.
    pub fn check_copy(&mut self, node: usize, from: u64) {
        let Some(master) = self.master_of(node) else { return };
        let (ours, theirs) = (&self.nodes[node].log, &self.nodes[master].log);
        let from = from.max(ours.first()).max(theirs.first());
        if from >= ours.end() {
            return;
        }
        let safe = self.nodes[master].safe(self.mode.sync_flush);
        assert!(
            ours.end() <= safe,
            "node {node} has the log up to {}, and its master {master} up to {safe}",
            ours.end()
        );
        let len = (ours.end() - from) as usize;
        assert!(
            ours.read(from, len) == theirs.read(from, len),
            "node {node} has other bytes than its master {master} behind {from}"
        );
        let ends_whole = ours.record_at(*ours.starts().last().unwrap_or(&from)).is_none_or(|last| {
            let end = ours.starts().last().unwrap() + last.len() as u64;
            end == ours.end() || ours.end() % SEGMENT_LEN == 0
        });
        assert!(ends_whole, "node {node} has a part of a record");
    }

    pub fn follows(&mut self, node: usize) {
        let first = self.nodes[node].log.first();
        self.check_copy(node, first);
        if let Some(master) = self.master_of(node) {
            self.nodes[node].followed = self.nodes[master].epoch;
            self.note_caught_up(node);
        }
    }

    /// The operator sees that a slave lacks nothing.
    pub fn note_caught_up(&mut self, node: usize) {
        if let Some(master) = self.master_of(node) {
            let has_all = self.nodes[node].safe(self.mode.sync_flush) >= self.nodes[master].log.end();
            self.nodes[node].has_lost &= !has_all;
        }
    }

    pub fn check_fence(&mut self, node: usize, conn: Option<usize>, fence: Fence) {
        match fence {
            Fence::Parted { common, .. } => self.check_common(node, conn, common.map(|common| common.0)),
            Fence::Gone { .. } => self.counts[4] += 1,
            Fence::BadBytes { .. } | Fence::Damaged { .. } | Fence::OtherSegments { .. } => {}
        }
    }

    /// Where a follower says that its log and the master's part, they do.
    pub fn check_common(&mut self, node: usize, conn: Option<usize>, common: Option<u64>) {
        self.counts[3] += 1;
        let Some(conn) = conn.map(|conn| &self.conns[conn]) else { return };
        let master = conn.nodes[1];
        if self.nodes[master].process != conn.processes[1] {
            return;
        }
        let (ours, theirs) = (&self.nodes[node].log, &self.nodes[master].log);
        let real = common_end(ours, theirs);
        // The master's begin may have gone meanwhile.
        let is_gone = theirs.first() > ours.first() && common.is_none_or(|common| common <= theirs.first());
        assert!(common == real || is_gone, "node {node} parts from {master} at {real:?}, and says {common:?}");
    }

    /// What is behind `to` is kept elsewhere and cut off.
    pub fn cut_log(&mut self, node: usize, to: Option<u64>) {
        let to = to.unwrap_or(self.nodes[node].log.first());
        let log = &mut self.nodes[node].log;
        tell!(self, "node {node} cuts {to}..{}", log.end());
        self.audit.loses(node, log, to);
        log.cut(to);
        self.nodes[node].sync = None;
        self.nodes[node].confirmed = self.nodes[node].confirmed.min(to);
        self.nodes[node].has_lost = true;
    }

    pub fn ask(&mut self, node: usize, question: Question) {
        let process = self.nodes[node].process;
        let Some(slavery) = self.nodes[node].slavery() else { return };
        let (attempt, Some(to)) = (slavery.attempt, slavery.master) else { return };
        let ms = self.delay();
        self.at(ms, Event::Ask(node, process, attempt, to, question));
    }

    pub fn asked(&mut self, from: usize, process: u64, attempt: Attempt, to: usize, question: Question) {
        let Node { log, duty, .. } = &self.nodes[to];
        let is_reached = duty.is_some() && !self.cut[from][to] && !self.cut[to][from];
        let answer = is_reached.then(|| match question {
            Question::Bounds => Answer::Bounds(log.first(), log.end()),
            Question::Record(probe) => {
                let (at, _) = self.nodes[from].log.probe(probe);
                Answer::Record(probe, log.record_at(at).map(<[u8]>::to_vec))
            }
            Question::First => Answer::First(log.record_at(0).map(Bytes::copy_from_slice)),
        });
        // Who is not reached says nothing, and the client gives up.
        let ms = if is_reached { self.delay() } else { 3_000 };
        self.at(ms, Event::Answer(from, process, attempt, answer));
    }

    pub fn answered(&mut self, node: usize, process: u64, attempt: Attempt, answer: Option<Answer>) {
        if self.nodes[node].process != process {
            return;
        }
        let ours;
        let news = match &answer {
            None => News::Closed,
            Some(Answer::Bounds(first, end)) => {
                News::Bounds { first: PhysicalOffset(*first), end: PhysicalOffset(*end) }
            }
            Some(Answer::Record(probe, theirs)) => {
                let (at, record) = self.nodes[node].log.probe(*probe);
                ours = record.map(<[u8]>::to_vec);
                News::Probed(Probed { at: PhysicalOffset(at), ours: ours.as_deref(), theirs: theirs.as_deref() })
            }
            Some(Answer::First(record)) => News::FirstRecord(record.clone()),
        };
        self.step(node, Input::Of(attempt, news));
    }
}
