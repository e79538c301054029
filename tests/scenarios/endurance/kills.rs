//! kill -9 again and again, while messages are sent, delivered, carried on and deleted.
//!
//! `FERROMQ_KILLS=1000` makes it more kills.

use std::time::{Duration, Instant};

use super::audit::{Dice, Ledger};
use super::load::{Crew, Refused, make_topics};
use super::wire::now_ms;
use super::{SETTINGS, of_env};
use crate::cluster::Cluster;

const ASYNC: &str = "flushDiskType=ASYNC_FLUSH";
const SYNC: &str = "flushDiskType=SYNC_FLUSH";
const KILLS: u64 = 30;

/// Bytes of a file of the log, and of a buffer of the write pool then.
const SEGMENT_LEN: u64 = 256 << 10;
/// Bytes of log that stay: what is sent between two kills, about.
const KEPT: u64 = 8 << 20;

/// Messages are plain ones where some may be lost: what comes of one that waits cannot be told from outside then.
fn survives_kills(flush: &str, pool: bool) {
    let kills = of_env("FERROMQ_KILLS", KILLS);
    let kept = format!("fileReservedBytes={KEPT}");
    let segment = format!("mappedFileSizeCommitLog={SEGMENT_LEN}");
    let pool_enabled = format!("transientStorePoolEnable={pool}");
    let own = [flush, &kept, &segment, &pool_enabled, "deleteFileBatchMax=1000"];
    let may_lose = pool && flush == ASYNC;
    let mut cluster = Cluster::start(&[&SETTINGS[..], &own].concat());
    let port = cluster.broker.port;
    make_topics(port);
    let mut ledger = Ledger::default();
    ledger.loses_at_most = if may_lose { 5 * SEGMENT_LEN } else { 0 };
    let mut dice = Dice(u64::from(cluster.broker.process.pid()));
    let mut crew = Crew::new(if may_lose { u64::MAX } else { 50 });
    let started = Instant::now();
    let mut unfinished_starts = 0;
    for kill in 0..=kills {
        let enough = 200 + dice.below(6000);
        crew.work(port, &mut ledger, |progress, ledger| {
            progress.await_more(&format!("messages before kill {kill}"), &progress.acked, enough);
            assert!(!cluster.broker.process.has_ended(), "the broker ended by itself before kill {kill}");
            if kill < kills {
                cluster.broker.process.kill_hard();
                ledger.killed(now_ms());
            }
        });
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

    crew.await_all(port, &mut ledger);
    assert!(cluster.broker.process.terminate().success());
    // A stop in order takes nothing.
    ledger.loses_at_most = 0;
    cluster.broker.assert_store_is_whole();
    cluster.broker.start_again();
    ledger.audit(port);
    ledger.sum_up();
    let per_kill = started.elapsed().as_secs_f64() / kills.max(1) as f64;
    println!(
        "{flush}, with the write pool: {pool}: {kills} kills and {unfinished_starts} in the middle of a start, {per_kill:.2} s each: {:?}",
        ledger.figures
    );
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_with_async_flush() {
    survives_kills(ASYNC, false);
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_with_sync_flush() {
    survives_kills(SYNC, false);
}

#[test]
fn kills_take_the_end_of_the_write_pool_and_nothing_that_was_shown_with_async_flush() {
    survives_kills(ASYNC, true);
}

#[test]
fn nothing_acknowledged_is_lost_by_kills_with_the_write_pool_and_sync_flush() {
    survives_kills(SYNC, true);
}
