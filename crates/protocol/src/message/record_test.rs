//! Tests of the record codec: the specification's vectors, limits, and damage of every kind.

use super::*;
use proptest::prelude::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn sample() -> NewMessage<'static> {
    NewMessage {
        topic: "TopicA",
        queue_id: QueueId(3),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 1_700_000_000_000,
        born_host: "127.0.0.1:50000".parse().unwrap(),
        store_host: "10.0.0.1:10911".parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"hello",
        properties: "TAGS\u{1}TagA\u{2}",
    }
}

fn encoded(message: &NewMessage<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(&mut out).unwrap();
    assert_eq!(out.len(), message.record_len());
    out
}

#[test]
fn store_vector() {
    let mut record = encoded(&sample());
    stamp_record(&mut record, QueueOffset(5), PhysicalOffset(1024), 1_700_000_000_123);
    let expected = hex("00000070 daa320a7 3610a686 00000003 00000000 0000000000000005 0000000000000400 00000000
         0000018bcfe56800 7f0000010000c350 0000018bcfe5687b 0a00000100002a9f 00000000 0000000000000000
         00000005 68656c6c6f 06 546f70696341 000a 54414753015461674102");
    assert_eq!(record, expected);
}

#[test]
fn protocol_vector() {
    let properties = "TAGS\u{1}TagA\u{2}UNIQ_KEY\u{1}0A0000010000000000000000000000AA\u{2}";
    let message =
        NewMessage { queue_id: QueueId(0), born_host: "10.0.0.9:50000".parse().unwrap(), properties, ..sample() };
    let mut bytes = encoded(&message);
    stamp_record(&mut bytes, QueueOffset(3), PhysicalOffset(1000), 1_700_000_000_001);
    let expected =
        hex("0000009a daa320a7 3610a686 00000000 00000000 0000000000000003 00000000000003e8 00000000 0000018bcfe56800
         0a000009 0000c350 0000018bcfe56801 0a000001 00002a9f 00000000 0000000000000000 00000005 68656c6c6f
         06 546f70696341 0034 54414753 01 54616741 02 554e49515f4b4559 01");
    assert_eq!(bytes[..expected.len()], expected);

    let record = Record::parse(&bytes).unwrap();
    record.check_crc().unwrap();
    assert_eq!(record.queue_offset(), QueueOffset(3));
    assert_eq!(record.physical_offset(), PhysicalOffset(1000));
    assert_eq!(record.born_timestamp(), 1_700_000_000_000);
    assert_eq!(record.store_timestamp(), 1_700_000_000_001);
    assert_eq!(record.born_host(), "10.0.0.9:50000".parse().unwrap());
    assert_eq!(record.store_host(), "10.0.0.1:10911".parse().unwrap());
    assert_eq!((record.topic(), record.body()), ("TopicA", &b"hello"[..]));
    assert_eq!(record.properties(), properties);
    assert_eq!(record.property("TAGS").as_deref(), Some("TagA"));
    assert_eq!(record.property("KEYS"), None);
}

#[test]
fn crc_vectors() {
    assert_eq!(body_crc(b"hello"), 0x3610_A686);
    assert_eq!(body_crc(b"Hello RocketMQ"), 0x69C8_65ED);
    assert_eq!(body_crc(b"hello0"), 0x7036_E992);
    assert_eq!(body_crc(b""), 0);
}

#[test]
fn all_host_forms() {
    let v4: SocketAddr = "1.2.3.4:5".parse().unwrap();
    let v6: SocketAddr = "[2001:db8::1]:65535".parse().unwrap();
    for (born_host, store_host, flag, len) in
        [(v4, v4, 0, 112), (v6, v4, 0x10, 124), (v4, v6, 0x20, 124), (v6, v6, 0x30, 136)]
    {
        let message = NewMessage {
            born_host,
            store_host,
            sys_flag: SysFlag(0x30 | 0x1),
            reconsume_times: 7,
            prepared_transaction_offset: -2,
            ..sample()
        };
        let mut bytes = encoded(&message);
        stamp_record(&mut bytes, QueueOffset(8), PhysicalOffset(9), 10);
        let record = Record::parse(&bytes).unwrap();
        assert_eq!(record.record_len(), len);
        assert_eq!(record.sys_flag(), SysFlag(flag | 0x1));
        assert_eq!((record.born_host(), record.store_host()), (born_host, store_host));
        assert_eq!((record.queue_offset(), record.physical_offset()), (QueueOffset(8), PhysicalOffset(9)));
        assert_eq!((record.store_timestamp(), record.born_timestamp()), (10, 1_700_000_000_000));
        assert_eq!((record.reconsume_times(), record.prepared_transaction_offset()), (7, -2));
        assert_eq!((record.body(), record.topic()), (&b"hello"[..], "TopicA"));
    }
}

#[test]
fn a_mapped_ipv4_host_is_stored_as_ipv4() {
    let message = NewMessage { born_host: "[::ffff:127.0.0.1]:50000".parse().unwrap(), ..sample() };
    assert_eq!(encoded(&message), encoded(&sample()));
}

#[test]
fn long_retry_topics_take_the_second_magic() {
    let topic = format!("%RETRY%{}", "g".repeat(121));
    let message = NewMessage { topic: &topic, ..sample() };
    let bytes = encoded(&message);
    let record = Record::parse(&bytes).unwrap();
    assert_eq!((record.magic(), record.topic()), (MAGIC_V2, topic.as_str()));
    assert_eq!(record.property("TAGS").as_deref(), Some("TagA"));

    let topic = format!("%RETRY%{}", "g".repeat(120));
    let message = NewMessage { topic: &topic, ..sample() };
    assert_eq!(Record::parse(&encoded(&message)).unwrap().magic(), MAGIC_V1);
}

#[test]
fn limits_are_typed() {
    let mut out = Vec::new();
    let topic = "t".repeat(128);
    let message = NewMessage { topic: &topic, ..sample() };
    assert_eq!(message.check_limits(5), Err(RecordError::TopicTooLong { len: 128, limit: 127 }));
    assert_eq!(Record::parse(&encoded(&message)).unwrap().topic(), topic);
    let topic = format!("%DLQ%{}", "t".repeat(251));
    let message = NewMessage { topic: &topic, ..sample() };
    assert_eq!(message.check_limits(5), Err(RecordError::TopicTooLong { len: 256, limit: 255 }));
    let topic = "t".repeat(32_768);
    let message = NewMessage { topic: &topic, ..sample() };
    assert_eq!(message.encode(&mut out), Err(RecordError::TopicTooLong { len: 32_768, limit: 32_767 }));
    let properties = "p".repeat(32_768);
    let message = NewMessage { properties: &properties, ..sample() };
    assert_eq!(message.encode(&mut out), Err(RecordError::PropertiesTooLong { len: 32_768 }));
    assert!(out.is_empty());
    assert_eq!(sample().check_limits(5), Ok(()));
    assert_eq!(sample().check_limits(4), Err(RecordError::BodyTooLong { len: 5, limit: 4 }));
}

#[test]
fn fillers_and_zeroes() {
    assert_eq!(blank(300).to_vec(), hex("0000012c cbd43194"));
    assert!(matches!(Record::parse_in_segment(&blank(300)), Ok(ParsedRecord::Blank { len: Some(300) })));
    assert!(matches!(Record::parse(&blank(300)), Err(RecordError::Blank)));
    assert_eq!(Record::parse(&[0; 200]).unwrap_err(), RecordError::UnknownMagic(0));
    assert_eq!(Record::parse(&[0; 3]).unwrap_err(), RecordError::Truncated { needed: 8, left: 3 });
}

#[test]
fn records_run_to_the_filler() {
    let one = encoded(&sample());
    let run = [&one[..], &one, &blank(90), &one].concat();
    assert_eq!(Records::new(&run).filter(|record| record.is_ok()).count(), 2);
    let mut cut = Records::new(&run[..150]);
    assert!(cut.next().is_some_and(|record| record.is_ok()));
    assert!(cut.next().is_some_and(|record| record.is_err()));
    assert!(cut.next().is_none());
}

#[test]
fn every_cut_is_an_error() {
    let whole = encoded(&sample());
    for cut in 0..whole.len() {
        assert!(Record::parse(&whole[..cut]).is_err(), "{cut}");
    }
}

/// Touches everything a view offers.
fn read_all(record: &Record<'_>) {
    let _ = record.check_crc();
    let _ = (record.queue_id(), record.flag(), record.queue_offset(), record.physical_offset(), record.sys_flag());
    let _ = (record.born_timestamp(), record.born_host(), record.store_timestamp(), record.store_host());
    let _ = (record.reconsume_times(), record.prepared_transaction_offset(), record.body().len());
    let _ = (record.topic(), record.properties(), record.property("TAGS"), record.magic(), record.stored_crc());
}

proptest! {
    /// The encoder is as strict as the parser: lengths around every limit, ids of all 32 bits, any flags and hosts.
    #[test]
    fn what_is_encoded_is_read(
        topic in (prop_oneof![0..300_usize, 32_760..32_775_usize], "[aé]"), properties_len in prop_oneof![0..40_usize, 32_760..32_775_usize],
        body in proptest::collection::vec(any::<u8>(), 0..40), queue_id in prop_oneof![any::<u32>(), 0x7FFF_FFF0..0x8000_0010_u32],
        numbers in any::<(i32, i32, i64, i32, i64)>(), hosts in any::<(std::net::IpAddr, u16, std::net::IpAddr, u16)>(),
    ) {
        let (topic, properties) = (topic.1.repeat(topic.0), "p".repeat(properties_len));
        let message = NewMessage {
            topic: &topic, queue_id: QueueId(queue_id), flag: numbers.0, sys_flag: SysFlag(numbers.1), born_timestamp: numbers.2,
            born_host: (hosts.0, hosts.1).into(), store_host: (hosts.2, hosts.3).into(), reconsume_times: numbers.3,
            prepared_transaction_offset: numbers.4, body: &body, properties: &properties,
        };
        let mut bytes = Vec::new();
        let taken = message.encode(&mut bytes).is_ok();
        prop_assert_eq!(taken, queue_id <= 0x7FFF_FFFF && topic.len() <= 32_767 && properties_len <= 32_767);
        prop_assert!(taken || message.check_limits(40).is_err());
        if taken {
            stamp_record(&mut bytes, QueueOffset(i64::MAX as u64), PhysicalOffset(i64::MAX as u64), i64::MIN);
            let record = Record::parse(&bytes);
            let read = record.as_ref().is_ok_and(|record| record.check_crc().is_ok() && record.record_len() == bytes.len());
            prop_assert!(read, "{:?}", record);
        }
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), magic in prop_oneof![Just(MAGIC_V1), Just(MAGIC_V2), Just(BLANK_MAGIC)]) {
        if bytes.len() > 8 {
            let len = bytes.len() as u32;
            bytes[..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&magic.to_be_bytes());
        }
        if let Ok(record) = Record::parse(&bytes) {
            read_all(&record);
        }
    }

    #[test]
    fn single_byte_damage_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), v6 in any::<bool>()) {
        let mut message = sample();
        if v6 {
            message.born_host = "[::1]:9".parse().unwrap();
        }
        let mut bytes = encoded(&message);
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(record) = Record::parse(&bytes) {
            prop_assert_eq!(record.record_len(), bytes.len());
            read_all(&record);
        }
    }

    #[test]
    fn round_trip(
        topic in "[a-zA-Z0-9_-]{1,127}", body in proptest::collection::vec(any::<u8>(), 0..300), properties in "[a-zé\u{1}\u{2}]{0,60}",
        numbers in any::<(i32, i32, i32, i64, i32, i64)>(), stamps in any::<(u32, u32, i64)>(), born_v6 in any::<bool>(), store_v6 in any::<bool>(),
    ) {
        let host = |v6: bool| if v6 { "[2001:db8::7]:1".parse().unwrap() } else { "10.1.2.3:10911".parse().unwrap() };
        let message = NewMessage {
            topic: &topic, queue_id: QueueId(numbers.0.unsigned_abs() >> 1), flag: numbers.1, sys_flag: SysFlag(numbers.2), born_timestamp: numbers.3,
            born_host: host(born_v6), store_host: host(store_v6), reconsume_times: numbers.4, prepared_transaction_offset: numbers.5,
            body: &body, properties: &properties,
        };
        let mut bytes = encoded(&message);
        stamp_record(&mut bytes, QueueOffset(stamps.0.into()), PhysicalOffset(stamps.1.into()), stamps.2);
        bytes.extend_from_slice(b"what follows");
        let record = Record::parse(&bytes).unwrap();
        record.check_crc().unwrap();
        let again = NewMessage {
            topic: record.topic(), queue_id: record.queue_id(), flag: record.flag(), sys_flag: record.sys_flag(),
            born_timestamp: record.born_timestamp(), born_host: record.born_host(), store_host: record.store_host(),
            reconsume_times: record.reconsume_times(), prepared_transaction_offset: record.prepared_transaction_offset(),
            body: record.body(), properties: &record.properties(),
        };
        let mut copy = encoded(&again);
        stamp_record(&mut copy, record.queue_offset(), record.physical_offset(), record.store_timestamp());
        prop_assert_eq!(&copy[..], record.bytes());
    }
}
