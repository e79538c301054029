//! kill -9 again and again, while messages are sent, delivered, carried on and deleted.
//!
//! `FERROMQ_KILLS=1000` makes it more kills.

use std::time::{Duration, Instant};

use super::audit::{Dice, Ledger};
use super::load::{Crew, Refused, make_topics};
use super::wire::now_ms;
use super::{SETTINGS, of_env};
use crate::cluster::Cluster;

const KILLS: u64 = 30;

/// Bytes of log that stay: what is sent between two kills, about.
const KEPT: u64 = 8 << 20;

fn survives_kills(flush: &str) {
    let kills = of_env("FERROMQ_KILLS", KILLS);
    let kept = format!("fileReservedBytes={KEPT}");
    let own = [flush, &kept, "mappedFileSizeCommitLog=262144", "deleteFileBatchMax=1000"];
    let mut cluster = Cluster::start(&[&SETTINGS[..], &own].concat());
    let port = cluster.broker.port;
    make_topics(port);
    let mut ledger = Ledger::default();
    let mut dice = Dice(u64::from(cluster.broker.process.pid()));
    let mut crew = Crew::new(50);
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
