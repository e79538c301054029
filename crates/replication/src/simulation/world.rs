//! The world: what happens next, and what comes of it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::audit::Audit;
use super::network::{Conn, End};
use super::node::{Node, Role};
use crate::dice::Dice;
use crate::{Attempt, FollowerState, Moment, Probe};

pub const SLAVE_TIMEOUT_MS: u64 = 3_000;

/// So long faults come, at most; then everything heals.
const FAULTS_MS: u64 = 40_000;
/// Then clients send for so long, and for so long there is quiet.
const HEALING_MS: u64 = 30_000;
const QUIET_MS: u64 = 10_000;

/// The process of somebody who only connects and says something.
pub const STRANGER: u64 = u64::MAX;

/// Pieces on their way on a connection, at most: the socket's buffer.
pub const PIECES_MAX: usize = 16;

pub struct Mode {
    pub copies: usize,
    pub all_in_sync: bool,
    pub sync_flush: bool,
    pub cuts_parted: bool,
    pub restarts_when_gone: bool,
}

pub enum Event {
    /// Something is due at a node, by its own clock.
    Wake(usize, u64),
    /// A connection is asked for; it is there for the slave.
    Syn(usize),
    Connected(usize),
    /// The next piece of a connection comes to that end.
    Deliver(usize, End),
    /// The node with that process, on that try, has asked the other one.
    Ask(usize, u64, Attempt, usize, Question),
    Answer(usize, u64, Attempt, Option<Answer>),
    /// The sync of that number is done: up to there.
    Synced(usize, u64, u64),
    Register(usize),
    Start(usize, u64),
    Send,
    Fault,
    Uncut(usize, usize),
    Heal,
    Operate,
    Quiet,
}

#[derive(Clone, Copy)]
pub enum Question {
    Bounds,
    Record(Probe),
    First,
}

pub enum Answer {
    Bounds(u64, u64),
    Record(Probe, Option<Vec<u8>>),
    First(Option<Bytes>),
}

pub struct World {
    pub dice: Dice,
    pub mode: Mode,
    pub now: u64,
    next: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub nodes: Vec<Node>,
    pub conns: Vec<Conn>,
    /// What goes from one node to another does not arrive.
    pub cut: [[bool; 4]; 4],
    pub delay_ms: u64,
    /// Packets are damaged on their way, one in so many.
    pub damage: Option<u64>,
    /// The nameserver: the newest epoch, and who has it.
    pub registered: (u64, usize),
    /// The newest epoch that there is.
    pub epoch: u64,
    pub audit: Audit,
    pub next_process: u64,
    pub is_healing: bool,
    pub is_quiet: bool,
    ends_at: u64,
    pub tells: bool,
    pub counts: [u64; 6],
    pub last_sent: Option<u64>,
}

macro_rules! tell {
    ($world:expr, $($arg:tt)*) => {
        if $world.tells {
            eprintln!("{:>6} {}", $world.now, format_args!($($arg)*));
        }
    };
}
pub(super) use tell;

impl World {
    pub fn new(seed: u64, tells: bool) -> World {
        let mut dice = Dice::new(seed);
        let slaves = 1 + dice.below(3) as usize;
        let mode = Mode {
            copies: 1 + dice.below(slaves as u64 + 1).max(dice.below(2)) as usize,
            all_in_sync: dice.one_in(5),
            sync_flush: dice.one_in(2),
            cuts_parted: dice.one_in(4),
            restarts_when_gone: dice.one_in(4),
        };
        let nodes = (0..=slaves).map(|node| Node::new(if node == 0 { Role::Master } else { Role::Slave })).collect();
        let faults_ms = 5_000 + dice.below(FAULTS_MS - 5_000);
        let mut world = World {
            dice,
            mode,
            now: 0,
            next: 0,
            events: BTreeMap::new(),
            nodes,
            conns: Vec::new(),
            cut: [[false; 4]; 4],
            delay_ms: 3,
            damage: None,
            registered: (1, 0),
            epoch: 1,
            audit: Audit::default(),
            next_process: 1,
            is_healing: false,
            is_quiet: false,
            ends_at: faults_ms + HEALING_MS + QUIET_MS,
            tells,
            counts: [0; 6],
            last_sent: None,
        };
        let Mode { copies, all_in_sync, sync_flush, .. } = world.mode;
        tell!(world, "{} nodes, {copies} copies, all in sync: {all_in_sync}, sync flush: {sync_flush}", slaves + 1);
        for node in 0..=slaves {
            world.start(node);
            world.at(1 + node as u64, Event::Register(node));
        }
        world.at(10, Event::Send);
        world.at(1_000, Event::Fault);
        world.at(faults_ms, Event::Heal);
        world.at(faults_ms + HEALING_MS, Event::Quiet);
        world
    }

    /// Until its end; panics when something does not hold.
    pub fn run(&mut self) {
        while self.now < self.ends_at
            && let Some(((at, _), event)) = self.events.pop_first()
        {
            self.now = at;
            self.happens(event);
        }
        self.check_the_end();
    }

    /// Acknowledged, answered late, followed, parted, gone, bad packets.
    pub fn counts(&self) -> [u64; 6] {
        self.counts
    }

    /// In so many milliseconds.
    pub fn at(&mut self, ms: u64, event: Event) {
        self.next += 1;
        self.events.insert((self.now + ms, self.next), event);
    }

    /// Now and then something takes much longer than the rest.
    pub fn delay(&mut self) -> u64 {
        let ms_max = if self.dice.one_in(40) { 10 * self.delay_ms } else { self.delay_ms };
        1 + self.dice.below(ms_max)
    }

    pub fn moment(&self, node: usize) -> Moment {
        Moment(self.now + self.nodes[node].clock_ahead)
    }

    /// How long a node stands still from now on.
    pub fn paused_ms(&self, node: usize) -> Option<u64> {
        self.nodes[node].paused_until.checked_sub(self.now).filter(|ms| *ms > 0)
    }

    fn happens(&mut self, event: Event) {
        let node = match &event {
            Event::Wake(node, _) | Event::Synced(node, ..) | Event::Register(node) | Event::Answer(node, ..) => {
                Some(*node)
            }
            Event::Ask(.., to, _) => Some(*to),
            Event::Syn(conn) => Some(self.conns[*conn].nodes[1]),
            Event::Connected(conn) => Some(self.conns[*conn].nodes[0]),
            Event::Deliver(conn, end) => Some(self.conns[*conn].nodes[*end as usize]),
            _ => None,
        };
        if let Some(ms) = node.and_then(|node| self.paused_ms(node)) {
            // It may be started again before that.
            return self.at(ms.min(200), event);
        }
        match event {
            Event::Wake(node, process) => self.wake(node, process),
            Event::Syn(conn) => self.syn(conn),
            Event::Connected(conn) => self.connected(conn),
            Event::Deliver(conn, end) => self.deliver(conn, end),
            Event::Ask(from, process, attempt, to, question) => self.asked(from, process, attempt, to, question),
            Event::Answer(node, process, attempt, answer) => self.answered(node, process, attempt, answer),
            Event::Synced(node, process, to) => self.synced(node, process, to),
            Event::Register(node) => self.register(node),
            Event::Start(node, process) => {
                if self.nodes[node].process == process && !self.nodes[node].is_up() {
                    self.start(node);
                }
            }
            Event::Send => self.send(),
            Event::Fault => self.fault(),
            Event::Uncut(from, to) => self.cut[from][to] = false,
            Event::Heal => self.heal(),
            Event::Operate => self.operate(),
            Event::Quiet => self.is_quiet = true,
        }
    }

    fn check_the_end(&mut self) {
        let (epoch, master) = self.registered;
        let now = self.moment(master);
        let end = self.nodes[master].log.end();
        assert_eq!(epoch, self.epoch, "the nameserver has not heard of the newest epoch");
        let count = self.nodes.len();
        let mastership = self.nodes[master].mastership().expect("nobody is master");
        assert_eq!(mastership.waiting.len(), 0, "sends wait");
        assert_eq!(mastership.shown, end, "consumers do not see all");
        assert_eq!(mastership.copies.in_sync(now), count, "not all are in sync");
        assert_eq!(mastership.feeds.len(), count - 1, "feeds are left over");
        for node in (0..count).filter(|node| *node != master) {
            let log = &self.nodes[node].log;
            assert_eq!(log.end(), end, "node {node} has not all of the log");
            let first = log.first();
            let slavery = self.nodes[node].slavery().expect("two are master");
            assert_eq!(slavery.follower.state(), FollowerState::Following, "node {node}");
            assert_eq!(self.master_of(node), Some(master), "node {node} follows another one");
            self.check_copy(node, first);
        }
        self.audit.mastered_by(master, &self.nodes, &self.mode, 0);
        let last = self.last_sent.expect("nothing was sent") as usize;
        assert!(self.audit.messages[last].is_promised, "the last message is not acknowledged");
    }
}
