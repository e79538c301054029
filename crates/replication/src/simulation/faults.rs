//! Disasters, and the operator who sees to them.

use ferromq_protocol::PhysicalOffset;
use ferromq_protocol::ha::encode_report;

use super::network::{Conn, End, Piece};
use super::node::{Duty, Role};
use super::world::{Event, STRANGER, World, tell};
use crate::planted::{Bug, planted};
use crate::{Attempt, Fence, FollowerState, Input};

impl World {
    /// The next disaster, and when another one comes.
    pub fn fault(&mut self) {
        if self.is_healing {
            return;
        }
        let calm = if self.dice.one_in(4) { 6_000 } else { 1_200 };
        let ms = 50 + self.dice.below(calm);
        self.at(ms, Event::Fault);
        let count = self.nodes.len() as u64;
        let node = self.dice.below(count) as usize;
        let master = self.registered.1;
        let for_ms = if self.dice.one_in(4) { 5_000 + self.dice.below(25_000) } else { 20 + self.dice.below(3_000) };
        match self.dice.below(41) {
            0..4 => self.stop(node, for_ms, false),
            4..7 => self.stop(master, for_ms, false),
            7..9 => self.stop(node, for_ms, true),
            9..11 => self.stop(master, for_ms, true),
            11 => (0..count as usize).for_each(|node| {
                let (for_ms, is_power) = (self.dice.below(3_000), self.dice.one_in(2));
                self.stop(node, for_ms, is_power);
            }),
            12..14 => {
                tell!(self, "node {node} pauses for {for_ms} ms");
                self.nodes[node].paused_until = self.now + for_ms;
            }
            14..18 => {
                let other = self.dice.below(count) as usize;
                let both = self.dice.one_in(2);
                self.cut_off(node, other, for_ms, both);
            }
            18 => {
                for other in 0..count as usize {
                    self.cut_off(node, other, for_ms, true);
                }
            }
            19..21 => self.lose_connection(),
            21 => {
                self.delay_ms = if self.dice.one_in(2) { 3 } else { 5 + self.dice.below(300) };
                tell!(self, "what is sent takes up to {} ms", self.delay_ms);
            }
            22 => {
                self.nodes[node].is_full = !self.nodes[node].is_full;
                tell!(self, "the disk of {node} is full: {}", self.nodes[node].is_full);
            }
            23 => {
                self.nodes[node].sync_ms = if self.dice.one_in(2) { 1 } else { 50 + self.dice.below(4_000) };
                tell!(self, "a sync of {node} takes {} ms", self.nodes[node].sync_ms);
            }
            24 => {
                let far = if self.dice.one_in(2) { 3_600_000 } else { 10_000 };
                let ahead = 1 + self.dice.below(far);
                tell!(self, "the clock of {node} jumps by {ahead} ms");
                self.nodes[node].clock_ahead += ahead;
            }
            25 => self.nodes[node].without_nameserver = !self.nodes[node].without_nameserver,
            26..30 => self.promote(),
            30..33 => self.see_to(node),
            33 => self.empty(node),
            34 => self.replace(node),
            35 => self.damage = if self.damage.is_some() { None } else { Some(1 + self.dice.below(20)) },
            36 => self.stranger(),
            37..39 => self.retain(master),
            39 => {
                tell!(self, "a sync of {node} fails");
                (self.nodes[node].is_poisoned, self.nodes[node].sync) = (true, None);
            }
            _ => self.second_master(node),
        }
    }

    /// Its process, or its machine, and for how long.
    fn stop(&mut self, node: usize, for_ms: u64, is_power: bool) {
        if !self.nodes[node].is_up() {
            return;
        }
        tell!(self, "node {node} stops for {for_ms} ms, by a power cut: {is_power}");
        if is_power {
            self.cut_power(node)
        } else {
            self.kill(node)
        }
        self.nodes[node].paused_until = 0;
        let event = Event::Start(node, self.nodes[node].process);
        self.at(for_ms, event);
    }

    fn cut_off(&mut self, from: usize, to: usize, for_ms: u64, both: bool) {
        if from == to {
            return;
        }
        tell!(self, "nothing goes from {from} to {to} for {for_ms} ms, nor back: {both}");
        self.cut[from][to] = true;
        self.at(for_ms, Event::Uncut(from, to));
        if both {
            self.cut[to][from] = true;
            self.at(for_ms, Event::Uncut(to, from));
        }
    }

    /// Both ends are told, each when what was on its way has come; or neither is.
    fn lose_connection(&mut self) {
        let open: Vec<usize> = (0..self.conns.len()).filter(|conn| self.conns[*conn].is_open == [true; 2]).collect();
        let Some(conn) = self.dice.pick(&open) else { return };
        let is_forgotten = self.dice.one_in(3);
        let [slave, master] = self.conns[conn].nodes;
        tell!(self, "the connection of {slave} to {master} is lost, and nobody told: {is_forgotten}");
        self.conns[conn].is_forgotten = is_forgotten;
        for end in [End::Slave, End::Master] {
            let late = if self.dice.one_in(3) { 3_000 } else { 10 };
            self.conns[conn].due[end as usize] = self.now + self.dice.below(late);
            self.send_piece(conn, end, Piece::Fin);
        }
    }

    /// Somebody connects, and says that he holds more than there is, or nothing at all.
    fn stranger(&mut self) {
        let master = self.registered.1;
        let end = self.nodes[master].log.end();
        let claims = if self.dice.one_in(3) { i64::MAX.unsigned_abs() } else { end + 1_000_000 };
        let slave = (master + 1) % self.nodes.len();
        let speaks = self.dice.one_in(2);
        tell!(self, "a stranger tells {master} that he holds up to {claims}: {speaks}");
        let conn = self.conns.len();
        self.conns.push(Conn::new((slave, STRANGER), (master, 0), Attempt(0)));
        self.syn(conn);
        if speaks {
            self.send_piece(conn, End::Master, Piece::Bytes(encode_report(PhysicalOffset(claims)).to_vec()));
        }
    }

    /// What is old goes, as far as it is confirmed.
    fn retain(&mut self, node: usize) {
        let Some(shown) = self.nodes[node].mastership().map(|mastership| mastership.shown) else { return };
        let log = &mut self.nodes[node].log;
        let first = log.first() + self.dice.below(shown.saturating_sub(log.first()) + 1);
        log.drop_before(first);
        tell!(self, "the log of {node} begins at {}", self.nodes[node].log.first());
    }

    /// A slave that is started as master, by mistake.
    fn second_master(&mut self, node: usize) {
        if node == self.registered.1 || self.nodes[node].epoch >= self.epoch || self.nodes[node].role == Role::Master {
            return;
        }
        tell!(self, "node {node} is made a second master");
        self.kill(node);
        // What it writes now is no part of any epoch, however long it gets.
        (self.nodes[node].role, self.nodes[node].followed) = (Role::Master, 0);
        self.start(node);
    }

    fn is_idle_slave(&self, node: usize) -> bool {
        node != self.registered.1 && self.nodes[node].role == Role::Slave
    }

    fn empty(&mut self, node: usize) {
        if self.is_idle_slave(node) {
            tell!(self, "node {node} is emptied");
            self.kill(node);
            self.throw_away(node);
            self.start(node);
        }
    }

    fn throw_away(&mut self, node: usize) {
        self.audit.loses(node, &self.nodes[node].log, 0);
        self.nodes[node].log.restart_at(0);
        self.nodes[node].sync = None;
        (self.nodes[node].has_lost, self.nodes[node].confirmed) = (true, 0);
    }

    /// Another broker's directory is put in its place.
    fn replace(&mut self, node: usize) {
        if !self.is_idle_slave(node) {
            return;
        }
        tell!(self, "node {node} gets another log");
        self.kill(node);
        self.throw_away(node);
        for _ in 0..1 + self.dice.below(60) {
            let (id, body_len) = (self.audit.messages.len() as u64, 8 + self.dice.below(300) as usize);
            let end = self.nodes[node].log.append(id, body_len);
            let at = *self.nodes[node].log.starts().last().unwrap();
            self.audit.appended(at, end, (0, 0));
        }
        self.start(node);
    }

    /// The slave with the longest log becomes the master, if enough of those can be asked who have followed the newest one: among them is
    /// one who holds whatever was acknowledged. The old master may live, and need not know.
    fn promote(&mut self) {
        let (epoch, count) = (self.epoch, self.nodes.len());
        let mut candidates = Vec::new();
        for node in 0..count {
            let is_sound = self.nodes[node].followed == epoch && !self.nodes[node].has_lost;
            let is_away = self.nodes[node].paused_until > self.now || self.nodes[node].without_nameserver;
            let Some(slavery) = self.nodes[node].slavery() else { continue };
            if is_sound && !is_away && !matches!(slavery.follower.state(), FollowerState::Fenced(_)) {
                candidates.push(node);
            }
        }
        let enough = if self.mode.copies == 1 { 1 } else { count - self.mode.copies + 1 };
        let Some(best) = candidates.iter().copied().max_by_key(|node| self.nodes[*node].log.end()) else { return };
        if candidates.len() < enough {
            return;
        }
        // What was written and not synced is synced: it is the log now.
        self.epoch += u64::from(!planted(Bug::EpochKept));
        tell!(self, "node {best} is promoted to epoch {}", self.epoch);
        self.nodes[best].epoch = self.epoch;
        self.nodes[best].knows = self.epoch;
        self.nodes[best].role = Role::Master;
        self.registered = (self.epoch, best);
        let log = &mut self.nodes[best].log;
        log.flush(u64::MAX);
        self.audit.safe(best, &self.nodes[best].log, 0, u64::MAX);
        self.begin_mastership(best);
    }

    /// What waits for somebody is done.
    pub fn see_to(&mut self, node: usize) {
        if self.nodes[node].is_poisoned && self.nodes[node].is_up() {
            self.stop(node, 100, false);
        }
        let is_master = node == self.registered.1;
        match &self.nodes[node].duty {
            Some(Duty::Fenced) if !is_master => {
                tell!(self, "node {node} is made a slave");
                self.nodes[node].role = Role::Slave;
                self.begin_slavery(node);
            }
            Some(Duty::Slave(slavery)) => {
                let FollowerState::Fenced(fence) = slavery.follower.state() else { return };
                match fence {
                    Fence::Parted { common: Some(common), .. } => self.cut_log(node, Some(common.0)),
                    Fence::Parted { common: None, .. } | Fence::Gone { .. } => self.throw_away(node),
                    Fence::BadBytes { .. } | Fence::Damaged { .. } | Fence::OtherSegments { .. } => {}
                }
                self.step(node, Input::Retry);
            }
            _ => {}
        }
    }

    /// No more disasters; everybody is started.
    pub fn heal(&mut self) {
        tell!(self, "everything heals");
        self.is_healing = true;
        (self.cut, self.delay_ms, self.damage) = ([[false; 4]; 4], 3, None);
        for node in 0..self.nodes.len() {
            let process = self.nodes[node].process;
            let paused = &mut self.nodes[node];
            (paused.is_full, paused.sync_ms, paused.without_nameserver, paused.paused_until) = (false, 1, false, 0);
            self.at(10, Event::Start(node, process));
        }
        self.at(500, Event::Operate);
    }

    pub fn operate(&mut self) {
        for node in 0..self.nodes.len() {
            self.see_to(node);
        }
        self.at(500, Event::Operate);
    }
}
