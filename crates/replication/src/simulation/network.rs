//! Connections: bytes in order, each way by itself, late, in other pieces than they were written in, and cut off.

use std::collections::VecDeque;

use bytes::BytesMut;
use ferromq_protocol::ha::decode_packet;

use super::node::Fed;
use super::world::{Event, STRANGER, World};
use crate::model_log::SEGMENT_LEN;
use crate::{Attempt, Feed, FeedConfig, Input, News, Peer};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Slave = 0,
    Master = 1,
}

impl End {
    pub fn other(self) -> End {
        if self == End::Slave { End::Master } else { End::Slave }
    }
}

#[derive(Clone, Debug)]
pub enum Piece {
    Bytes(Vec<u8>),
    /// The other end has closed.
    Fin,
}

pub struct Conn {
    /// Of each end: the node, and its process when the connection was made.
    pub nodes: [usize; 2],
    pub processes: [u64; 2],
    pub is_open: [bool; 2],
    /// What is on its way to each end, and when the last of it is due.
    pub pieces: [VecDeque<Piece>; 2],
    pub due: [u64; 2],
    /// The slave's try, and what it has read and not split into packets.
    pub attempt: Attempt,
    pub incoming: BytesMut,
    /// Something in between has forgotten it: nothing arrives any more, and nobody is told.
    pub is_forgotten: bool,
    /// The slave has closed it, and what it had read already is about to be heard late.
    pub is_late: bool,
}

impl Conn {
    pub fn new(slave: (usize, u64), master: (usize, u64), attempt: Attempt) -> Conn {
        Conn {
            nodes: [slave.0, master.0],
            processes: [slave.1, master.1],
            is_open: [true, false],
            pieces: [VecDeque::new(), VecDeque::new()],
            due: [0; 2],
            attempt,
            incoming: BytesMut::new(),
            is_forgotten: false,
            is_late: false,
        }
    }
}

impl World {
    pub fn connect(&mut self, node: usize, attempt: Attempt) {
        let process = self.nodes[node].process;
        let Some(slavery) = self.nodes[node].slavery() else { return };
        let Some(master) = slavery.master else { return };
        let conn = self.conns.len();
        (slavery.attempt, slavery.conn) = (attempt, Some(conn));
        self.conns.push(Conn::new((node, process), (master, 0), attempt));
        let ms = self.delay();
        self.at(ms, Event::Syn(conn));
    }

    pub fn syn(&mut self, conn: usize) {
        let [slave, node] = self.conns[conn].nodes;
        if !self.conns[conn].is_open[0] {
            return;
        }
        if self.cut[slave][node] || self.cut[node][slave] {
            return self.at(300, Event::Syn(conn));
        }
        let now = self.moment(node);
        // A stranger has an address of its own.
        let peer = if self.conns[conn].processes[0] == STRANGER { 100 + conn as u64 } else { slave as u64 };
        let config = FeedConfig { segment_len: SEGMENT_LEN, batch_len_max: 700, ..FeedConfig::default() };
        let process = self.nodes[node].process;
        let Some(mastership) = self.nodes[node].mastership() else {
            // A machine without power refuses nothing.
            if self.nodes[node].is_up() {
                self.send_piece(conn, End::Slave, Piece::Fin);
            }
            return;
        };
        let Ok(id) = mastership.copies.open(Peer(peer)) else { return self.send_piece(conn, End::Slave, Piece::Fin) };
        mastership.feeds.insert(conn, Fed { feed: Feed::new(config, now), id, incoming: BytesMut::new() });
        (self.conns[conn].is_open[1], self.conns[conn].processes[1]) = (true, process);
        let ms = self.delay();
        self.at(ms, Event::Connected(conn));
        self.plan_wake(node);
    }

    pub fn connected(&mut self, conn: usize) {
        let Conn { nodes, processes, is_open, attempt, .. } = &self.conns[conn];
        let (node, attempt) = (nodes[0], *attempt);
        if is_open[0] && self.nodes[node].process == processes[0] {
            self.step(node, Input::Of(attempt, News::Connected));
        }
    }

    /// That end closes it.
    pub fn close(&mut self, conn: usize, end: End) {
        if !std::mem::replace(&mut self.conns[conn].is_open[end as usize], false) {
            return;
        }
        let node = self.conns[conn].nodes[end as usize];
        self.forget(node, conn);
        self.send_piece(conn, end.other(), Piece::Fin);
    }

    pub fn forget(&mut self, node: usize, conn: usize) {
        let now = self.moment(node);
        if let Some(mastership) = self.nodes[node].mastership()
            && let Some(fed) = mastership.feeds.remove(&conn)
        {
            mastership.copies.closed(fed.id, now);
            self.settle(node);
        }
    }

    /// In pieces of any length.
    pub fn push(&mut self, conn: usize, to: End, bytes: &[u8]) {
        let cut = if self.dice.one_in(3) { self.dice.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        for part in [&bytes[..cut], &bytes[cut..]] {
            if !part.is_empty() {
                self.send_piece(conn, to, Piece::Bytes(part.to_vec()));
            }
        }
    }

    pub fn send_piece(&mut self, conn: usize, to: End, piece: Piece) {
        let due = (self.now + self.delay()).max(self.conns[conn].due[to as usize]);
        self.conns[conn].due[to as usize] = due;
        self.conns[conn].pieces[to as usize].push_back(piece);
        self.at(due - self.now, Event::Deliver(conn, to));
    }

    pub fn deliver(&mut self, conn: usize, end: End) {
        let (node, from) = (self.conns[conn].nodes[end as usize], self.conns[conn].nodes[end.other() as usize]);
        if self.cut[from][node] {
            let ms = 20 + self.dice.below(100);
            return self.at(ms, Event::Deliver(conn, end));
        }
        let ends = &mut self.conns[conn];
        let is_same = ends.processes[end as usize] == self.nodes[node].process;
        // A slave may have read some of it already when it closes, and hear of that later.
        let is_late = end == End::Slave && is_same && !ends.is_open[0];
        if is_late && !ends.is_late {
            ends.is_late = true;
            let ms_max = if self.dice.one_in(2) { 3_000 } else { 100 };
            let ms = self.dice.below(ms_max);
            return self.at(ms, Event::Deliver(conn, end));
        }
        let Some(piece) = ends.pieces[end as usize].pop_front() else { return };
        if ends.is_forgotten {
            return;
        }
        let is_heard = is_same && ends.is_open[end as usize];
        if let (true, Piece::Bytes(bytes)) = (is_late, &piece) {
            return self.received(node, conn, bytes);
        }
        match piece {
            // Nobody is there, and the machine says so.
            Piece::Bytes(_) if !is_heard => {
                let waits = self.conns[conn].is_open[end.other() as usize];
                if waits && self.nodes[node].is_up() {
                    self.send_piece(conn, end.other(), Piece::Fin);
                }
            }
            Piece::Fin => {
                self.conns[conn].is_open[end as usize] = false;
                if is_heard {
                    self.closed(conn, node, end);
                }
            }
            Piece::Bytes(bytes) => match end {
                End::Master => self.reported(node, conn, &bytes),
                End::Slave => self.received(node, conn, &bytes),
            },
        }
        if end == End::Slave
            && self.nodes[from].process == self.conns[conn].processes[1]
            && self.paused_ms(from).is_none()
        {
            self.pump(from, conn);
        }
    }

    pub fn closed(&mut self, conn: usize, node: usize, end: End) {
        if end == End::Master {
            self.forget(node, conn);
        } else {
            let attempt = self.conns[conn].attempt;
            self.step(node, Input::Of(attempt, News::Closed));
        }
    }

    pub fn received(&mut self, node: usize, conn: usize, bytes: &[u8]) {
        let attempt = self.conns[conn].attempt;
        self.conns[conn].incoming.extend_from_slice(bytes);
        loop {
            match decode_packet(&mut self.conns[conn].incoming) {
                Ok(None) => return,
                Ok(Some(packet)) => self.step(node, Input::Of(attempt, News::Packet(packet))),
                Err(_) => return self.step(node, Input::Of(attempt, News::Closed)),
            }
        }
    }
}
