//! What goes with old segments, what does not, and what is carried on.

use std::sync::atomic::Ordering;

use crate::error::AppendError;
use crate::health::Shortage;
use crate::testing::*;

#[test]
fn a_full_disk_takes_what_is_carried_on() {
    for shortage in [Shortage::Disk, Shortage::Dispatch] {
        let site = Site::new();
        let store = site.open();
        put(&store, b"old");
        store.health.disk_full(shortage, site.dir.path(), "full".to_owned());
        assert!(matches!(store.append_again(&message(T, 0, b"x", "")), Err(AppendError::DiskFull { .. })));
        let carried = store.append_carried(&message(T, 0, b"carried", "")).unwrap();
        settle(&store);
        assert_eq!((carried.queue_offset.0, status(&store, 1).1), (1, 2));
        // It was taken once: a limit that became lower since does not count.
        store.limit_message_len(1);
        store.append_carried(&message(T, 0, b"carried", "")).unwrap();
        // But not where the bytes are not there, or nobody knows what the disk holds.
        site.disk.full.store(true, Ordering::SeqCst);
        let refused = loop {
            if let Err(refused) = store.append_carried(&message(T, 0, &[0; 1000], "")) {
                break refused;
            }
        };
        assert!(matches!(refused, AppendError::DiskFull { .. }), "{refused:?}");
        site.disk.full.store(false, Ordering::SeqCst);
        store.health.poison("a sync failed".to_owned());
        let poisoned = store.append_carried(&message(T, 0, b"x", ""));
        assert!(matches!(poisoned, Err(AppendError::Poisoned { .. })), "{poisoned:?}");
    }
}
