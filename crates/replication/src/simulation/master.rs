//! The master's side: sends, what comes of them, and the feeds of its slaves. It is what the broker does in the task of a connection, and where
//! sends wait.

use ferromq_protocol::ha::{PACKET_HEAD_LEN, decode_reports, encode_packet_head};
use ferromq_protocol::message::Record;

use super::audit::Seen;
use super::network::End;
use super::node::{Duty, Node};
use super::world::{Event, PIECES_MAX, World, tell};
use crate::{Outgoing, Progress};

impl World {
    pub fn send(&mut self) {
        if self.is_quiet {
            return;
        }
        let rests = self.dice.one_in(10);
        let ms = 1 + self.dice.below(if rests || self.is_healing { 600 } else { 100 });
        self.at(ms, Event::Send);
        let node =
            if self.dice.one_in(4) { self.dice.below(self.nodes.len() as u64) as usize } else { self.registered.1 };
        if self.nodes[node].is_full || self.nodes[node].is_poisoned || self.paused_ms(node).is_some() {
            return;
        }
        let count = if self.dice.one_in(8) { self.dice.below(12) } else { 1 };
        let now = self.moment(node);
        for _ in 0..count {
            let body_len = if self.dice.one_in(10) { self.dice.below(1500) } else { 8 + self.dice.below(100) };
            let id = self.audit.messages.len() as u64;
            let Node { duty, log, process, .. } = &mut self.nodes[node];
            let Some(Duty::Master(mastership)) = duty else { return };
            if mastership.copies.admits(now).is_err() {
                return;
            }
            let before = log.end();
            let end = log.append(id, body_len as usize);
            let at = *log.starts().last().unwrap();
            mastership.waiting.push_back((end, id));
            self.audit.appended(at, end, (now.0, *process));
            self.last_sent = Some(id);
            if !self.mode.sync_flush {
                self.audit.safe(node, &self.nodes[node].log, before, end);
            }
        }
        self.begin_sync(node);
        self.grown(node);
    }

    pub fn grown(&mut self, node: usize) {
        let (now, own) = (self.moment(node), self.nodes[node].own(self.mode.sync_flush));
        if let Some(mastership) = self.nodes[node].mastership() {
            mastership.copies.grown(own, now);
            self.settle(node);
            self.pump_all(node);
            self.plan_wake(node);
        }
    }

    /// Sends are answered, and then consumers see more.
    pub fn settle(&mut self, node: usize) {
        let now = self.moment(node);
        let (safe, sync_flush) = (self.nodes[node].safe(self.mode.sync_flush), self.mode.sync_flush);
        let Some(mastership) = self.nodes[node].mastership() else { return };
        let Progress { held, late, confirmed } = mastership.copies.progress();
        let mut answered = Vec::new();
        while let Some((end, id)) = mastership.waiting.front().copied().filter(|(end, _)| *end <= held.max(late).0) {
            mastership.waiting.pop_front();
            answered.push((end, id));
        }
        let (from, since) = (mastership.shown, mastership.since);
        let is_early = mastership.waiting.front().is_some_and(|(end, _)| *end <= confirmed.0);
        assert!(!is_early, "node {node} shows the log up to {confirmed}, and has not answered what is there");
        assert!(confirmed.0 >= from, "confirmed goes back from {from} to {confirmed}");
        assert!(
            confirmed.0 <= safe,
            "node {node} shows the log up to {confirmed}, and is safe up to {safe}, sync: {sync_flush}"
        );
        mastership.shown = confirmed.0;
        for (end, id) in answered {
            if end <= held.0 {
                self.counts[0] += 1;
                self.audit.acknowledged(id, node, &self.nodes, &self.mode, self.epoch);
            } else {
                self.counts[1] += 1;
            }
        }
        let seen = Seen { from, to: confirmed.0, now: now.0, since };
        self.audit.shown(node, &self.nodes, seen, &self.mode, self.epoch);
    }

    pub fn pump_all(&mut self, node: usize) {
        let Some(mastership) = self.nodes[node].mastership() else { return };
        let conns: Vec<usize> = mastership.feeds.keys().copied().collect();
        for conn in conns {
            self.pump(node, conn);
        }
    }

    /// Sends a slave what it lacks, as far as the socket takes it.
    pub fn pump(&mut self, node: usize, conn: usize) {
        let (now, readable) = (self.moment(node), self.nodes[node].readable(self.mode.sync_flush));
        loop {
            let is_full = self.conns[conn].pieces[End::Slave as usize].len() >= PIECES_MAX;
            let Some(fed) = self.nodes[node].mastership().and_then(|mastership| mastership.feeds.get_mut(&conn)) else {
                return;
            };
            if is_full && now < fed.feed.silent_at() {
                return;
            }
            match fed.feed.next(readable, now) {
                Ok(None) => return,
                Ok(Some(Outgoing::Heartbeat { at })) => self.push(conn, End::Slave, &encode_packet_head(at, 0)),
                Ok(Some(Outgoing::Packet { at, len })) => {
                    let mut packet = encode_packet_head(at, len).to_vec();
                    packet.extend_from_slice(&self.nodes[node].log.read(at.0, len));
                    self.damage(node, at.0, &mut packet);
                    self.push(conn, End::Slave, &packet);
                }
                Err(why) => {
                    tell!(self, "node {node} ends the feed of {}: {why}", self.conns[conn].nodes[0]);
                    return self.close(conn, End::Master);
                }
            }
        }
    }

    /// A byte that a check covers is another one when it arrives.
    pub fn damage(&mut self, node: usize, at: u64, packet: &mut [u8]) {
        if !self.damage.is_some_and(|one_in| self.dice.one_in(one_in)) {
            return;
        }
        let (log, end) = (&self.nodes[node].log, at + (packet.len() - PACKET_HEAD_LEN) as u64);
        let starts: Vec<u64> = log.starts().iter().copied().filter(|start| *start >= at && *start < end).collect();
        let Some(start) = self.dice.pick(&starts) else { return };
        let body_len = Record::parse(log.record_at(start).unwrap()).unwrap().body().len() as u64;
        // Length, magic and CRC; its place; the body.
        let byte = match self.dice.below(3) {
            0 => self.dice.below(12),
            1 => 28 + self.dice.below(8),
            _ => 88 + self.dice.below(body_len),
        };
        let place = (start - at + byte) as usize + PACKET_HEAD_LEN;
        if place < packet.len() {
            self.counts[5] += 1;
            packet[place] ^= 1 << self.dice.below(8);
        }
    }

    pub fn reported(&mut self, node: usize, conn: usize, bytes: &[u8]) {
        let (now, readable) = (self.moment(node), self.nodes[node].readable(self.mode.sync_flush));
        let Some(mastership) = self.nodes[node].mastership() else { return };
        let Some(fed) = mastership.feeds.get_mut(&conn) else { return };
        fed.incoming.extend_from_slice(bytes);
        let Ok(end) = decode_reports(&mut fed.incoming) else { return self.close(conn, End::Master) };
        let Some(end) = end else { return };
        match fed.feed.reported(end, readable, now) {
            Ok(report) => {
                mastership.copies.reported(fed.id, report, now);
                self.settle(node);
                self.pump(node, conn);
            }
            Err(why) => {
                tell!(self, "node {node} ends the feed of {}: {why}", self.conns[conn].nodes[0]);
                self.close(conn, End::Master);
            }
        }
        self.plan_wake(node);
    }
}
