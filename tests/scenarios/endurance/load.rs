//! Who sends and who reads while something happens to the broker. Each ends when its connection does, or when it is told to, and gives back what
//! it knows: the audit is made of that.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ferromq_protocol::header::SendReply;

use super::audit::{Dice, Id, Ledger, QUEUES, body};
use super::wire::{Outgoing, Wire, end_transaction, first_physical, now_ms, placed, send};
use crate::process::HANG_GUARD;

/// Bytes that senders may be ahead of the reader: less than what the retention leaves, so that nothing goes unread.
const LEAD_MAX: u64 = 1 << 20;
/// A transaction is open while so many others are.
const OPEN_HALVES: usize = 40;

/// Makes the topics of [`QUEUES`].
pub fn make_topics(port: u16) {
    let mut wire = Wire::connect(port).expect("the broker is up");
    let mut counts = BTreeMap::<_, u32>::new();
    for (topic, _) in QUEUES {
        *counts.entry(topic).or_default() += 1;
    }
    for (topic, count) in counts {
        wire.make_topic(topic, count).expect("the broker is up");
    }
}

/// What those at work share.
#[derive(Default)]
pub struct Progress {
    stop: AtomicBool,
    /// Messages that were accepted.
    pub acked: AtomicU64,
    /// And those that were not.
    pub refused: AtomicU64,
    sent_bytes: AtomicU64,
    read_bytes: AtomicU64,
}

impl Progress {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    /// Waits for the reader. False: it is time to stop.
    fn wait_for_reader(&self) -> bool {
        let ahead = || self.sent_bytes.load(Ordering::SeqCst).saturating_sub(self.read_bytes.load(Ordering::SeqCst));
        self.wait_while(|| ahead() > LEAD_MAX)
    }

    fn wait_while(&self, condition: impl Fn() -> bool) -> bool {
        while self.goes_on() && condition() {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.goes_on()
    }

    /// Returns when a counter has gone up by so many.
    pub fn await_more(&self, what: &str, counter: &AtomicU64, more: u64) {
        let (begun, enough) = (Instant::now(), counter.load(Ordering::SeqCst) + more);
        let goes_on = self.wait_while(|| {
            assert!(begun.elapsed() < HANG_GUARD, "still waiting for {what}");
            counter.load(Ordering::SeqCst) < enough
        });
        assert!(goes_on, "somebody lost the connection or panicked while {what} were awaited");
    }
}

/// Stops all who are at work when one of them is done, whatever the reason, or who watches them: else the others would never end.
struct StopsAll<'a>(&'a Progress);

impl Drop for StopsAll<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// All who work with one broker.
pub struct Crew {
    pub senders: [Sender; 2],
    pub waiter: Waiter,
    reader: Reader,
}

impl Crew {
    /// Some of each kind that waits go with `every` plain messages; none with `u64::MAX`.
    pub fn new(every: u64) -> Crew {
        Crew {
            senders: [Sender::new(1, 32, 1500), Sender::new(2, 1, 3000)],
            waiter: Waiter::new(3, every, 3000),
            reader: Reader { next: [0; QUEUES.len()] },
        }
    }

    /// Everybody works while `play` goes on, which is given what can be awaited. Gives how many ends of transactions were refused.
    pub fn work(&mut self, port: u16, ledger: &mut Ledger, play: impl FnOnce(&Progress, &mut Ledger)) -> usize {
        let progress = &Progress::default();
        let Crew { senders: [first, second], waiter, reader } = self;
        let (sights, ends_refused) = std::thread::scope(|scope| {
            let stops_all = || StopsAll(progress);
            let sending = [first, second].map(|sender| {
                scope.spawn(move || {
                    let _stops_all = stops_all();
                    sender.run(port, progress)
                })
            });
            let waiting = scope.spawn(move || {
                let _stops_all = stops_all();
                waiter.run(port, progress)
            });
            let reading = scope.spawn(move || {
                let _stops_all = stops_all();
                reader.run(port, progress)
            });
            {
                let _stops_all = stops_all();
                play(progress, ledger);
            }
            for sender in sending {
                let report = sender.join().expect("it does not panic");
                ledger.accepted(report.acks);
                ledger.refused(report.refused);
            }
            let report = waiting.join().expect("it does not panic");
            ledger.fates(report.fates);
            ledger.refused(report.refused);
            (reading.join().expect("it does not panic"), report.ends_refused)
        });
        for sender in &self.senders {
            ledger.has_sent(sender.id, sender.next);
        }
        ledger.saw(sights);
        ends_refused
    }

    /// Ends what is open, and returns when all that waits has come, and nothing of it twice.
    pub fn await_all(&mut self, port: u16, ledger: &mut Ledger) {
        ledger.fates(self.waiter.end_all(port).fates);
        let begun = Instant::now();
        while ledger.missing() > 0 {
            assert!(begun.elapsed() < HANG_GUARD, "{} that waited do not come", ledger.missing());
            ledger.audit(port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A message that was accepted, and where.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub id: Id,
    /// Index into [`QUEUES`].
    pub queue: usize,
    pub offset: u64,
    /// Where the first message of its request stands in the log.
    pub physical: u64,
}

/// A message that was not accepted.
#[derive(Clone, Debug)]
pub struct Refused {
    pub id: Id,
    pub code: i32,
    pub remark: String,
}

/// Sends plain messages and batches to the queues of the first topic, in turns.
pub struct Sender {
    pub id: u32,
    /// Number of the next message: those below it were sent.
    pub next: u64,
    /// Requests on their way at a time.
    window: usize,
    body_len_max: usize,
    /// Bytes of the bodies that were accepted.
    pub bytes: u64,
    dice: Dice,
}

#[derive(Default)]
pub struct SenderReport {
    pub acks: Vec<Ack>,
    pub refused: Vec<Refused>,
}

impl Sender {
    pub fn new(id: u32, window: usize, body_len_max: usize) -> Sender {
        Sender {
            id,
            next: 0,
            window,
            body_len_max,
            bytes: 0,
            dice: Dice(u64::from(id) << 32 | u64::from(std::process::id())),
        }
    }

    pub fn run(&mut self, port: u16, progress: &Progress) -> SenderReport {
        let mut report = SenderReport::default();
        // Its end is what it waits for.
        let _: io::Result<()> = (|| {
            let mut wire = Wire::connect(port)?;
            while progress.wait_for_reader() {
                let refused = report.refused.len();
                self.one_window(&mut wire, progress, &mut report)?;
                if report.refused.len() > refused {
                    // Refusals at full speed take the core that the broker needs to get out of them.
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        })();
        report
    }

    fn one_window(&mut self, wire: &mut Wire, progress: &Progress, report: &mut SenderReport) -> io::Result<()> {
        let mut requests = Vec::with_capacity(self.window);
        let mut sent = Vec::with_capacity(self.window);
        for _ in 0..self.window {
            let count = if self.dice.one_in(8) { 2 + self.dice.below(4) } else { 1 };
            let ids: Vec<_> = (self.next..self.next + count).map(|number| Id { sender: self.id, number }).collect();
            self.next += count;
            let bodies: Vec<_> =
                ids.iter().map(|id| body(*id, self.dice.below(self.body_len_max as u64) as usize)).collect();
            let keys: Vec<_> = ids.iter().map(Id::key).collect();
            let queue = (ids[0].number % 4) as usize;
            let (topic, queue_id) = QUEUES[queue];
            let len: usize = bodies.iter().map(Vec::len).sum();
            progress.sent_bytes.fetch_add(len as u64, Ordering::SeqCst);
            requests.push(send(&Outgoing {
                topic,
                queue: queue_id,
                bodies: &bodies,
                keys: &keys,
                properties: "",
                sys_flag: 0,
            }));
            sent.push((queue, ids, len));
        }
        for ((queue, ids, len), answer) in sent.into_iter().zip(wire.ask_all(requests)?) {
            match placed(&answer) {
                Ok(reply) => {
                    assert_eq!(reply.queue_id.0, QUEUES[queue].1, "another queue: {answer:?}");
                    progress.acked.fetch_add(ids.len() as u64, Ordering::SeqCst);
                    self.bytes += len as u64;
                    let offsets = reply.queue_offset.0..;
                    let physical = first_physical(&reply);
                    report.acks.extend(offsets.zip(ids).map(|(offset, id)| Ack { id, queue, offset, physical }));
                }
                Err((code, remark)) => {
                    progress.refused.fetch_add(ids.len() as u64, Ordering::SeqCst);
                    // Nobody will read it.
                    progress.read_bytes.fetch_add(len as u64, Ordering::SeqCst);
                    report.refused.extend(ids.into_iter().map(|id| Refused { id, code, remark: remark.clone() }));
                }
            }
        }
        Ok(())
    }
}

/// What becomes of a message that waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Accepted: it comes, not before this time in ms.
    Due(i64),
    /// Perhaps accepted: it may come, not before this time.
    Perhaps(i64),
    /// Rolled back, or refused: it must not come.
    Never,
    /// A transaction whose end was not told yet, or was not answered: see what follows.
    Open,
}

/// Sends what waits: messages for a given time, of a delay level, and transactions, which are ended some time later.
pub struct Waiter {
    id: u32,
    pub next: u64,
    dice: Dice,
    open: VecDeque<Half>,
    /// Plain messages between two windows of these.
    every: u64,
    /// Longest time that one waits, in ms.
    longest: u64,
}

struct Half {
    id: Id,
    reply: SendReply,
    commits: bool,
}

#[derive(Default)]
pub struct WaiterReport {
    /// With the time before it was sent, in ms.
    pub fates: Vec<(Id, i64, Fate)>,
    pub refused: Vec<Refused>,
    /// Ends of transactions that were not accepted, and are told again.
    pub ends_refused: usize,
}

impl Waiter {
    pub fn new(id: u32, every: u64, longest: u64) -> Waiter {
        Waiter { id, next: 0, dice: Dice(u64::from(std::process::id())), open: VecDeque::new(), every, longest }
    }

    pub fn run(&mut self, port: u16, progress: &Progress) -> WaiterReport {
        let mut report = WaiterReport::default();
        let _: io::Result<()> = (|| {
            let mut wire = Wire::connect(port)?;
            let mut at = if self.every == u64::MAX { u64::MAX } else { 0 };
            while progress.wait_while(|| progress.acked.load(Ordering::SeqCst) < at) {
                self.one_window(&mut wire, &mut report)?;
                while self.open.len() > OPEN_HALVES && self.end_oldest(&mut wire, &mut report)? {}
                at = progress.acked.load(Ordering::SeqCst) + self.every;
            }
            Ok(())
        })();
        report
    }

    /// Some for one and the same time, in ms.
    pub fn send_timers(&mut self, port: u16, count: u64, due: i64) -> WaiterReport {
        let mut wire = Wire::connect(port).expect("the broker is up");
        let mut report = WaiterReport::default();
        let (topic, queue) = QUEUES[4];
        for _ in 0..count {
            let id = Id { sender: self.id, number: self.next };
            self.next += 1;
            let message = Outgoing {
                topic,
                queue,
                bodies: &[body(id, 10)],
                keys: &[id.key()],
                properties: &format!("TIMER_DELIVER_MS\u{1}{due}\u{2}"),
                sys_flag: 0,
            };
            let sent_ms = now_ms();
            let answer = wire.ask(send(&message)).expect("the broker is up");
            placed(&answer).unwrap_or_else(|(code, remark)| panic!("refused: {code}, {remark}"));
            report.fates.push((id, sent_ms, Fate::Due(due)));
        }
        report
    }

    fn one_window(&mut self, wire: &mut Wire, report: &mut WaiterReport) -> io::Result<()> {
        let (mut requests, mut sent) = (Vec::new(), Vec::new());
        for (kind, (topic, queue)) in QUEUES.into_iter().enumerate().skip(4) {
            let id = Id { sender: self.id, number: self.next };
            self.next += 1;
            let now = now_ms();
            let due = now + 1 + self.dice.below(self.longest) as i64;
            let (properties, sys_flag, fate) = match kind {
                4 => (format!("TIMER_DELIVER_MS\u{1}{due}\u{2}"), 0, Fate::Due(due)),
                5 => ("DELAY\u{1}1\u{2}".to_owned(), 0, Fate::Due(now + 1000)),
                _ => ("TRAN_MSG\u{1}true\u{2}PGROUP\u{1}endurance\u{2}".to_owned(), 4, Fate::Open),
            };
            let len = self.dice.below(80) as usize;
            let message = Outgoing {
                topic,
                queue,
                bodies: &[body(id, len)],
                keys: &[id.key()],
                properties: &properties,
                sys_flag,
            };
            requests.push(send(&message));
            let unanswered = match fate {
                Fate::Due(due) => Fate::Perhaps(due),
                _ => Fate::Never,
            };
            report.fates.push((id, now, unanswered));
            sent.push((id, now, fate));
        }
        for ((id, now, fate), answer) in sent.into_iter().zip(wire.ask_all(requests)?) {
            match placed(&answer) {
                Ok(reply) => {
                    report.fates.push((id, now, fate));
                    if fate == Fate::Open {
                        self.open.push_back(Half { id, reply, commits: !self.dice.one_in(4) });
                    }
                }
                Err((code, remark)) => {
                    report.fates.push((id, now, Fate::Never));
                    report.refused.push(Refused { id, code, remark });
                }
            }
        }
        Ok(())
    }

    /// False: it was refused, and stays open.
    fn end_oldest(&mut self, wire: &mut Wire, report: &mut WaiterReport) -> io::Result<bool> {
        let Some(half) = self.open.pop_front() else { return Ok(false) };
        // From here on it may be committed, answered or not.
        report.fates.push((half.id, now_ms(), if half.commits { Fate::Perhaps(0) } else { Fate::Never }));
        let answer = wire.ask(end_transaction(&half.reply, &half.id.key(), half.commits))?;
        let accepted = answer.code == 0;
        if !accepted {
            report.ends_refused += 1;
            self.open.push_front(half);
        } else if half.commits {
            report.fates.push((half.id, now_ms(), Fate::Due(0)));
        }
        Ok(accepted)
    }

    /// Ends nothing of what is open now: the halves may be lost.
    pub fn forget_open(&mut self) {
        self.open.clear();
    }

    /// Ends all that is open.
    fn end_all(&mut self, port: u16) -> WaiterReport {
        let mut report = WaiterReport::default();
        let mut wire = Wire::connect(port).expect("the broker is up");
        while !self.open.is_empty() {
            assert!(
                self.end_oldest(&mut wire, &mut report).expect("the broker is up"),
                "the end of a transaction was refused"
            );
        }
        report
    }
}

/// Something that a reader saw, in the order in which it saw it.
pub enum Sight {
    Message(usize, super::wire::Found),
    /// The queue's beginning passed the reader.
    MovedTo(usize, u64),
}

/// Reads all queues at their ends.
struct Reader {
    /// Of each queue, what is read next.
    next: [u64; QUEUES.len()],
}

impl Reader {
    fn run(&mut self, port: u16, progress: &Progress) -> Vec<Sight> {
        let mut sights = Vec::new();
        let _: io::Result<()> = (|| {
            let mut wire = Wire::connect(port)?;
            while progress.goes_on() {
                let before = sights.len();
                self.one_round(&mut wire, progress, &mut sights)?;
                if sights.len() == before {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(())
        })();
        sights
    }

    fn one_round(&mut self, wire: &mut Wire, progress: &Progress, sights: &mut Vec<Sight>) -> io::Result<()> {
        for (queue, (topic, id)) in QUEUES.into_iter().enumerate() {
            let stretch = wire.pull(topic, id, self.next[queue])?;
            sights.extend(stretch.moved_to.map(|begin| Sight::MovedTo(queue, begin)));
            for found in stretch.messages {
                if queue < 4 {
                    progress.read_bytes.fetch_add(found.record().body().len() as u64, Ordering::SeqCst);
                }
                sights.push(Sight::Message(queue, found));
            }
            self.next[queue] = stretch.next;
        }
        Ok(())
    }
}
