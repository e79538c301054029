//! kill -9 again and again, while messages are sent, delivered, carried on and deleted.
//!
//! `FERROMQ_KILLS=1000` makes it more kills.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::audit::{Dice, Ledger, QUEUES};
use super::load::{Progress, Reader, Refused, Sender, Waiter, make_topics};
use super::of_env;
use super::wire::now_ms;
use crate::cluster::Cluster;
use crate::process::HANG_GUARD;

const KILLS: u64 = 30;

/// Bytes of log that stay: what is sent between two kills, about.
const KEPT: u64 = 8 << 20;

fn survives_kills(flush: &str) {
    let kills = of_env("FERROMQ_KILLS", KILLS);
    let kept = format!("fileReservedBytes={KEPT}");
    let mut cluster = Cluster::start(&[
        flush,
        &kept,
        "mappedFileSizeCommitLog=262144",
        "mappedFileSizeConsumeQueue=4000",
        "maxHashSlotNum=1000",
        "maxIndexNum=4000",
        "cleanResourceInterval=10",
        "deleteCommitLogFilesInterval=0",
        "deleteFileBatchMax=1000",
        "messageDelayLevel=1s 2s",
        "maxTransferCountOnMessageInMemory=1000",
        "maxTransferBytesOnMessageInMemory=1000000",
        "maxTransferCountOnMessageInDisk=1000",
        "maxTransferBytesOnMessageInDisk=1000000",
    ]);
    let port = cluster.broker.port;
    make_topics(port);
    let mut ledger = Ledger::default();
    let mut dice = Dice(u64::from(cluster.broker.process.pid()));
    let mut senders = [Sender::new(1, 32, 1500), Sender::new(2, 1, 3000)];
    let mut waiter = Waiter::new(3, 50, 3000);
    let mut reader = Reader { next: [0; QUEUES.len()] };
    let started = Instant::now();
    let mut unfinished_starts = 0;
    for kill in 0..=kills {
        let progress = Progress::default();
        let enough = 200 + dice.below(6000);
        let [first, second] = &mut senders;
        let sights = std::thread::scope(|scope| {
            let sending = [scope.spawn(|| first.run(port, &progress)), scope.spawn(|| second.run(port, &progress))];
            let waiting = scope.spawn(|| waiter.run(port, &progress));
            let reading = scope.spawn(|| reader.run(port, &progress));
            let begun = Instant::now();
            while progress.acked.load(Ordering::SeqCst) < enough && !reading.is_finished() {
                assert!(begun.elapsed() < HANG_GUARD, "the load stands still before kill {kill}");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!cluster.broker.process.has_ended(), "the broker ended by itself before kill {kill}");
            if kill < kills {
                cluster.broker.process.kill_hard();
                ledger.killed(now_ms());
            }
            progress.stop.store(true, Ordering::SeqCst);
            for sender in sending {
                let report = sender.join().expect("it does not panic");
                ledger.accepted(report.acks);
                ledger.refused(report.refused);
            }
            let report = waiting.join().expect("it does not panic");
            ledger.refused(report.refused);
            ledger.fates(report.fates);
            reading.join().expect("it does not panic")
        });
        for sender in &senders {
            ledger.has_sent(sender.id, sender.next);
        }
        ledger.saw(sights);
        if let Some(Refused { id, code, remark }) = ledger.refusals().next() {
            panic!("{id:?} was refused before kill {kill}: {code}, {remark}");
        }
        if kill < kills {
            // Also in the middle of a start.
            while dice.one_in(5) {
                cluster.broker.start_and_kill_within(Duration::from_millis(dice.below(60)));
                ledger.killed(now_ms());
                unfinished_starts += 1;
            }
            cluster.broker.assert_store_is_whole();
            cluster.broker.start_again();
        }
        let newest = ledger.newest(6);
        ledger.audit(port);
        ledger.check_keys(port, &newest);
    }

    // All that waits comes, and nothing of it twice.
    ledger.fates(waiter.end_all(port).fates);
    let begun = Instant::now();
    while ledger.missing() > 0 {
        assert!(begun.elapsed() < HANG_GUARD, "{} that waited do not come", ledger.missing());
        ledger.audit(port);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(cluster.broker.process.terminate().success());
    cluster.broker.assert_store_is_whole();
    cluster.broker.start_again();
    ledger.audit(port);
    ledger.sum_up();
    let per_kill = started.elapsed().as_secs_f64() / kills.max(1) as f64;
    println!(
        "{flush}: {kills} kills and {unfinished_starts} in the middle of a start, {per_kill:.2} s each: {:?}",
        ledger.figures
    );
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_with_async_flush() {
    survives_kills("flushDiskType=ASYNC_FLUSH");
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_with_sync_flush() {
    survives_kills("flushDiskType=SYNC_FLUSH");
}
