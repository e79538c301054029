//! Any bytes as a batch body: what parses is written again and parses to the same items.
#![no_main]

use ferromq_protocol::message::{BatchItem, BatchItems};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(items) = BatchItems::parse(bytes) else {
        return;
    };
    let items: Vec<BatchItem<'_>> = items.collect();
    let mut copy = Vec::new();
    // Replaced bytes can make a property string longer than its field.
    if items.iter().all(|item| item.encode(&mut copy).is_ok()) {
        let again: Vec<BatchItem<'_>> = BatchItems::parse(&copy).expect("what we wrote").collect();
        assert_eq!(again, items);
    }
});
