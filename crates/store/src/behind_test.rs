//! What cannot be written for a while: for want of room, or of descriptors.

use std::sync::atomic::Ordering;

use ferromq_protocol::QueueOffset;

use super::*;
use crate::testing::*;
use crate::{AppendError, CloseError};

#[test]
fn what_cannot_be_written_holds_up_nobody_else() {
    let site = Site::new();
    let store = site.open();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&arrivals);
    store.on_arrival(move |arrival| seen.lock().push((arrival.topic.to_owned(), arrival.queue_offset.0)));
    let dir = site.dir.path().join("store");
    put(&store, b"first");
    settle(&store);
    // No directory can be made where a file is.
    let (of_queue, of_index) = (dir.join("consumequeue/Bad"), dir.join("index"));
    std::fs::write(&of_queue, b"").unwrap();
    std::fs::remove_dir(&of_index).unwrap();
    std::fs::write(&of_index, b"").unwrap();
    let bad = |body: &[u8]| store.append(&message("Bad", 0, body, "KEYS\u{1}k\u{2}"));
    // Together: after the first that could not be entered no more are taken.
    let together = |store: &Store, bodies: [&[u8]; 3]| {
        let batch = bodies.map(|body| message("Bad", 0, body, "KEYS\u{1}k\u{2}"));
        store.round().append_batch(&batch).unwrap();
    };
    together(&store, [&[0], &[1], &[2]]);
    for n in 0..60_u8 {
        site.advance(1000);
        store.append(&message(T, 0, &[n], "KEYS\u{1}k\u{2}")).unwrap();
    }
    wait_until(|| store.queue_bounds(T, Q).is_some_and(|bounds| bounds.max.0 == 61));
    assert!(read_bodies(&store, "Bad", 0, 0).is_empty());
    assert!(store.watermarks().projected < store.watermarks().written);
    let refused = bad(b"one too many");
    assert!(matches!(&refused, Err(AppendError::QueueBehind { topic, .. }) if topic == "Bad"), "{refused:?}");
    store.append(&message("Bad", 1, b"another queue, as bad", "")).unwrap();
    store.check_writable().unwrap();
    // The clean end must not claim what is not there.
    let closed = store.close();
    assert!(matches!(closed, Err(CloseError::DispatchBehind { .. })), "{closed:?}");
    drop(store);
    std::fs::remove_file(&of_queue).unwrap();
    std::fs::remove_file(&of_index).unwrap();
    let bodies = |store: &Store| read_bodies(store, "Bad", 0, 0).into_iter().map(|(_, body)| body).collect::<Vec<_>>();
    let store = site.open();
    assert_eq!((bodies(&store), query_bodies(&store, "Bad", "k").len()), (vec![vec![0], vec![1], vec![2]], 3));
    drop(store);

    // Once it can be written again, all of it is made up for, in order, and told.
    std::fs::remove_dir_all(&of_queue).unwrap();
    std::fs::remove_dir_all(&of_index).unwrap();
    let store = site.open();
    store.delete_topic("Bad").unwrap();
    std::fs::write(&of_queue, b"").unwrap();
    let seen = Arc::clone(&arrivals);
    arrivals.lock().clear();
    store.on_arrival(move |arrival| seen.lock().push((arrival.topic.to_owned(), arrival.queue_offset.0)));
    together(&store, [&[10], &[11], &[12]]);
    for n in 0..3 {
        put(&store, &[n]);
    }
    wait_until(|| store.queue_bounds(T, Q).is_some_and(|bounds| bounds.max.0 == 64));
    std::fs::remove_file(&of_queue).unwrap();
    settle(&store);
    assert_eq!(bodies(&store), [[10], [11], [12]]);
    let told: Vec<_> = arrivals.lock().iter().filter(|(topic, _)| topic == "Bad").map(|(_, offset)| *offset).collect();
    assert_eq!(told, [0, 1, 2]);
    assert_eq!(store.append(&message("Bad", 0, b"as before", "")).unwrap().queue_offset, QueueOffset(3));
    store.close().unwrap();
}

/// Only what a sync itself says is for good.
#[test]
fn a_moment_without_descriptors_passes() {
    let site = Site::new();
    let store = site.open();
    put(&store, b"before");
    settle(&store);
    site.disk.no_descriptors.store(true, Ordering::SeqCst);
    // Queues, and an index file, that have to be made; a directory to be synced; a new segment, after a while.
    let new = |queue, n: u8| store.append(&message("New", queue, &[n; 500], "KEYS\u{1}k\u{2}"));
    // The first is taken, because nobody knows yet.
    let taken = (0..5).filter(|n| new(0, *n).is_ok()).count();
    let mut refused = 0;
    for n in 0..20_u8 {
        refused += u8::from(store.append(&message(T, 0, &[n; 500], "")).is_err());
    }
    assert!(refused > 0, "no segment can be made");
    // Long enough for a thorough flush.
    let give_up = Instant::now() + Duration::from_millis(200);
    wait_until(|| Instant::now() > give_up);
    assert_eq!(store.health.poison_reason(), None);
    site.disk.no_descriptors.store(false, Ordering::SeqCst);
    wait_until(|| new(0, 9).is_ok());
    put(&store, b"after");
    settle(&store);
    assert_eq!(read_bodies(&store, "New", 0, 0).len(), taken + 1);
    assert_eq!(query_bodies(&store, "New", "k").len(), taken + 1);
    store.close().unwrap();
}

#[test]
fn a_full_disk_is_an_error_and_passes() {
    let site = Site::new();
    let store = site.open();
    put(&store, &[0; 100]);
    settle(&store);
    site.disk.full.store(true, Ordering::SeqCst);
    let mut refused = None;
    for _ in 0..20 {
        if let Err(error) = store.append(&message(T, 0, &[1; 1000], "")) {
            refused = Some(error);
            break;
        }
    }
    assert!(matches!(refused, Some(AppendError::DiskFull { .. })), "{refused:?}");
    settle(&store);
    let stored = store.queue_bounds(T, Q).unwrap().max;
    site.disk.full.store(false, Ordering::SeqCst);
    wait_until(|| store.append(&message(T, 0, &[1; 1000], "")).is_ok());
    settle(&store);
    assert_eq!(store.queue_bounds(T, Q).unwrap().max, stored.next());
    store.close().unwrap();
    assert_eq!(read_bodies(&site.open(), T, 0, 0).len() as u64, stored.0 + 1);
}

#[test]
fn a_refusal_for_want_of_room_for_queues_and_index_names_the_file() {
    for (properties, says) in [("", "queue 7 of TopicT: "), ("KEYS\u{1}k\u{2}", "index: ")] {
        let site = Site::new();
        let store = site.open();
        put(&store, b"first");
        settle(&store);
        site.disk.full.store(true, Ordering::SeqCst);
        // A queue, or an index file, that has to be made.
        let queue = if properties.is_empty() { 7 } else { 0 };
        store.append(&message(T, queue, b"", properties)).unwrap();
        wait_until(|| store.check_writable().is_err());
        let error = store.append(&message(T, 0, b"", "")).unwrap_err();
        let told = matches!(&error, AppendError::DiskFull { reason, .. } if reason.contains(says) && reason.contains(" bytes for /"));
        assert!(told, "{error}");
        site.disk.full.store(false, Ordering::SeqCst);
        wait_until(|| store.check_writable().is_ok());
    }
}
