//! What the store's steps cost by themselves: an append, making 64 messages visible, a read of 32 with and without a filter.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use ferromq_protocol::message::tags::tags_code;
use ferromq_protocol::message::{NewMessage, SysFlag};
use ferromq_protocol::{QueueId, QueueOffset};
use ferromq_store::{AllMessages, Effort, MessageFilter, ReadLimits, Round, Store, StoreConfig};

const QUEUES: u32 = 4;

/// Properties of so many messages, made before anything is timed.
const PROPERTIES: u32 = 8192;

fn properties(number: u32) -> String {
    // Every eighth message of a queue has the tag.
    let tags = if (number / QUEUES).is_multiple_of(8) { "TagA" } else { "TagB" };
    format!("UNIQ_KEY\u{1}7F000001A5B418B4AAC20D6D{number:08X}\u{2}TAGS\u{1}{tags}\u{2}")
}

fn append(round: &Round<'_>, properties: &[String], number: u32) {
    let message = NewMessage {
        topic: "Orders",
        queue_id: QueueId(number % QUEUES),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 1_795_220_483_790,
        born_host: ([127, 0, 0, 1], 50_000).into(),
        store_host: ([127, 0, 0, 1], 10_911).into(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: &[7; 500],
        properties: &properties[(number % PROPERTIES) as usize],
    };
    black_box(round.append(&message).expect("the disk has room"));
}

/// As a consumer that subscribed to one tag.
struct OneTag(i64);

impl MessageFilter for OneTag {
    fn matches_tags_code(&self, tags_code: Option<i64>) -> bool {
        tags_code.is_none_or(|code| code == self.0)
    }
}

fn steps(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory for the store");
    let config = StoreConfig { segment_len: 256 << 20, ..StoreConfig::at(dir.path()) };
    let store = Store::open(config).expect("an empty store opens");
    let properties: Vec<_> = (0..PROPERTIES).map(properties).collect();
    let mut number = 0;
    criterion.bench_function("append a message of 500 bytes", |bencher| {
        let round = store.round();
        bencher.iter(|| {
            append(&round, &properties, number);
            number += 1;
        });
    });
    let catch_up = || {
        while store.watermarks().projected < store.watermarks().written {
            std::thread::yield_now();
        }
    };
    criterion.bench_function("make 64 messages visible: queue and index entries", |bencher| {
        bencher.iter_batched(
            || {
                catch_up();
                let round = store.round();
                (0..64).for_each(|more| append(&round, &properties, number + more));
                number += 64;
                round
            },
            drop,
            BatchSize::PerIteration,
        );
    });
    catch_up();
    let max = store.queue_bounds("Orders", QueueId(0)).expect("messages are there").max;
    let mut read = |name: &str, filter: &dyn MessageFilter| {
        let mut from = QueueOffset(0);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let found = store
                    .read("Orders", QueueId(0), from, ReadLimits::count(32), filter, Effort::Full)
                    .expect("the log is in memory");
                // Only whole answers: the last of the queue would be a short one.
                from = if found.next_offset.0 + 512 < max.0 { found.next_offset } else { QueueOffset(0) };
                black_box(found);
            });
        });
    };
    read("read 32 messages of one of four queues", &AllMessages);
    read("read up to 32 messages of a tag", &OneTag(tags_code("TagA")));
    store.close().expect("the store closes");
}

criterion_group!(benches, steps);
criterion_main!(benches);
