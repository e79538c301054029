//! Any bytes as a run of message records: every accessor is used, and what parses is written again to the same bytes.
#![no_main]

use ferromq_protocol::message::{NewMessage, Properties, Records, stamp_record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for record in Records::new(bytes).map_while(Result::ok) {
        let properties = record.properties();
        let _ = (
            record.check_crc(),
            record.property("TAGS"),
            Properties::parse(&properties),
        );
        let message = NewMessage {
            prepared_transaction_offset: record.prepared_transaction_offset(),
            ..NewMessage::copy_of(&record, record.topic(), record.queue_id(), &properties)
        };
        let mut copy = Vec::new();
        if message.encode(&mut copy).is_ok() {
            stamp_record(
                &mut copy,
                record.queue_offset(),
                record.physical_offset(),
                record.store_timestamp(),
            );
            let again = Records::new(&copy)
                .next()
                .expect("a record")
                .expect("what we wrote");
            assert_eq!(again.body(), record.body());
            assert_eq!(again.properties(), properties);
            assert_eq!(again.queue_offset(), record.queue_offset());
        }
    }
});
