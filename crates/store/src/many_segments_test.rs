//! A log of many segments: what it takes to open it, to have it open, and to let it go.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::*;
use crate::RetentionRules;
use crate::retention::Progress;
use crate::testing::*;

const SEGMENTS: usize = 500;
/// The one made ahead, and one that is begun meanwhile.
const AHEAD: usize = 2;

/// Open descriptors and mappings of files of the log.
fn held(site: &Site) -> [usize; 2] {
    let dir = std::fs::canonicalize(root(site).join("commitlog")).unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let files = open.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_log = maps.lines().filter(|line| line.contains(dir.to_str().unwrap()));
    [files.filter(|path| path.starts_with(&dir)).count(), of_log.count()]
}

/// One descriptor and one mapping for each; a start reads where the log ends, and a round lets all go that is to.
#[test]
fn a_log_of_500_segments() {
    let site = Site::new();
    let mut store = site.open();
    while store.segments.all().len() < SEGMENTS {
        put(&store, &[7; 1200]);
    }
    settle(&store);
    let is_each_held_once = || held(&site).iter().all(|count| (SEGMENTS..=SEGMENTS + AHEAD).contains(count));
    assert!(is_each_held_once(), "{:?}", held(&site));
    for killed in [false, true] {
        if killed {
            put(&store, b"since the checkpoint");
            settle(&store);
            drop(store);
        } else {
            store.close().unwrap();
            drop(store);
        }
        assert_eq!(held(&site), [0, 0]);
        let (reads, began) = (site.disk.reads.load(Ordering::SeqCst), Instant::now());
        store = site.open();
        let took = began.elapsed();
        let reads = site.disk.reads.load(Ordering::SeqCst) - reads;
        println!(
            "{SEGMENTS} segments, killed before: {killed}: open after {took:?}, {reads} reads, {:?} held",
            held(&site)
        );
        // The head of each, which says whose it is, and the end of the log.
        assert!(reads <= SEGMENTS as u64 + 20, "{reads}");
        assert!(is_each_held_once(), "{:?}", held(&site));
    }
    let last = status(&store, 0).1;
    assert!(last > 0);
    store.change_retention(RetentionRules {
        reserved_bytes: Some(4096),
        batch_max: 2 * SEGMENTS,
        interval: Duration::from_secs(3600),
        ..rules_by_hand()
    });
    let began = Instant::now();
    store.retention.go_round(&mut Progress::default());
    println!("a round of the retention: {:?}, {:?} held", began.elapsed(), held(&site));
    assert!(held(&site).iter().all(|count| *count <= 1 + AHEAD), "{:?}", held(&site));
    let put = put(&store, b"next");
    settle(&store);
    assert_eq!(read_bodies(&store, T, 0, put.queue_offset.0), [(put.queue_offset.0, b"next".to_vec())]);
}
