//! How much kill -9 takes of what the write pool had acknowledged with asynchronous flush: the figure of docs/durability.md, with the default
//! `commitIntervalCommitLog`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::audit::Dice;
use super::small_disk;
use super::wire::{Outgoing, Wire, placed, send};
use crate::cluster::{Broker, Nameserver};

const KILLS: usize = 20;
/// Of docs/durability.md.
const WINDOW: Duration = Duration::from_millis(2);
/// Between two commits.
const INTERVAL: Duration = Duration::from_millis(1);

/// Of a message that was acknowledged: its offset, and when that was.
type Acked = (u64, Instant);

/// Sends one message after the other until the broker is gone.
fn send_all(port: u16, count: &AtomicU64) -> Vec<Acked> {
    let (mut wire, mut acked) = (Wire::connect(port).expect("the broker is up"), Vec::new());
    let message = Outgoing {
        topic: "Plain",
        queue: 0,
        bodies: &[vec![7; 100]],
        keys: &["key".to_owned()],
        properties: "",
        sys_flag: 0,
    };
    while let Ok(answer) = wire.ask(send(&message)) {
        let reply = placed(&answer).unwrap_or_else(|(code, remark)| panic!("refused: {code}, {remark}"));
        acked.push((reply.queue_offset.0, Instant::now()));
        count.fetch_add(1, Ordering::SeqCst);
    }
    acked
}

/// Naps as the thread that commits does, as long as that is wanted, and notes when it woke up.
fn nap(woke: &Mutex<Instant>, goes_on: &AtomicBool) {
    while goes_on.load(Ordering::SeqCst) {
        std::thread::sleep(INTERVAL);
        *woke.lock().expect("nobody panics with it") = Instant::now();
    }
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// On a machine that is busy the thread that commits comes late, and so does another one that does nothing but nap as long. A window that is
/// ten times as wide is seen beside that.
#[test]
fn a_kill_takes_two_milliseconds_of_the_write_pool() {
    // A write to the disk comes on top.
    let home = small_disk::home();
    let nameserver = Nameserver::start(home.path());
    let settings = [
        "flushDiskType=ASYNC_FLUSH",
        "transientStorePoolEnable=true",
        "mappedFileSizeCommitLog=1048576",
        "mappedFileSizeConsumeQueue=4000",
        "maxHashSlotNum=1000",
        "maxIndexNum=4000",
    ];
    let mut broker = Broker::start(home.path(), "pool", &nameserver.addr(), &settings);
    let mut wire = Wire::connect(broker.port).expect("the broker is up");
    wire.make_topic("Plain", 1).expect("the broker is up");
    let mut dice = Dice(u64::from(broker.process.pid()));
    let (mut lost, mut late, mut lost_messages) = (Vec::new(), Vec::new(), 0);
    for _ in 0..KILLS {
        let (count, enough) = (AtomicU64::new(0), 200 + dice.below(500));
        let (woke, goes_on) = (Mutex::new(Instant::now()), AtomicBool::new(true));
        let (acked, killed) = std::thread::scope(|scope| {
            let (port, count, woke, goes_on) = (broker.port, &count, &woke, &goes_on);
            let sender = scope.spawn(move || send_all(port, count));
            scope.spawn(move || nap(woke, goes_on));
            while count.load(Ordering::SeqCst) < enough && !sender.is_finished() {
                std::thread::sleep(INTERVAL / 4);
            }
            let killed = Instant::now();
            late.push(killed - *woke.lock().expect("nobody panics with it"));
            broker.process.kill_hard();
            goes_on.store(false, Ordering::SeqCst);
            (sender.join().expect("it does not panic"), killed)
        });
        broker.start_again();
        let mut wire = Wire::connect(broker.port).expect("the broker is up");
        let end = wire.end_of("Plain", 0).expect("the broker is up");
        let first_lost = acked.iter().find(|(offset, _)| *offset >= end);
        lost_messages += acked.iter().filter(|(offset, _)| *offset >= end).count();
        lost.push(first_lost.map_or(Duration::ZERO, |(_, at)| killed.saturating_duration_since(*at)));
    }
    let told = format!("{lost_messages} messages by {KILLS} kills, the oldest of each {lost:?}; beside naps {late:?}");
    println!("{told}");
    let limit = WINDOW + 2 * middle(late);
    assert!(middle(lost) <= limit, "more than {limit:?} are lost: {told}");
}
