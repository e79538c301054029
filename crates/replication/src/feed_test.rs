use bytes::{Buf as _, BytesMut};
use ferromq_protocol::ha::{decode_reports, encode_packet_head, encode_report};

use super::*;
use crate::dice::Dice;
use crate::model_log::{ModelLog, SEGMENT_LEN};

const KIB: u64 = 1024;

fn log(first: u64, end: u64) -> Readable {
    Readable { first: PhysicalOffset(first), end: PhysicalOffset(end), yields: false }
}

fn packet(at: u64, len: usize) -> Result<Option<Outgoing>, FeedEnd> {
    Ok(Some(Outgoing::Packet { at: PhysicalOffset(at), len }))
}

fn feed(config: FeedConfig) -> Feed {
    Feed::new(config, Moment(0))
}

/// What ha.md has as the example of Java's exchange, but for the begin: an empty slave gets all there is.
#[test]
fn an_empty_slave_is_sent_the_log_from_its_first_segment_on() {
    let mut feed = feed(FeedConfig { segment_len: 1000, batch_len_max: 600, ..FeedConfig::default() });
    // Java's slave says nothing for up to five seconds, and nor does its master.
    assert_eq!(feed.next(log(2000, 3100), Moment(5_000)), Ok(None));
    assert_eq!(feed.reported(PhysicalOffset(0), log(2000, 3100), Moment(5_000)), Ok(Report::of(0)));
    assert_eq!(feed.next(log(2000, 3100), Moment(5_000)), packet(2000, 600));
    assert_eq!(feed.next(log(2000, 3100), Moment(5_000)), packet(2600, 400));
    assert_eq!(feed.next(log(2000, 3100), Moment(5_000)), packet(3000, 100));
    assert_eq!(feed.next(log(2000, 3100), Moment(5_000)), Ok(None));
    assert_eq!(feed.reported(PhysicalOffset(3100), log(2000, 3100), Moment(5_001)), Ok(Report::of(3100)));
    assert_eq!(feed.due(log(2000, 3100)), Moment(10_000));
    assert_eq!(feed.next(log(2000, 3100), Moment(9_999)), Ok(None));
    let heartbeat = Outgoing::Heartbeat { at: PhysicalOffset(3100) };
    assert_eq!(feed.next(log(2000, 3100), Moment(10_000)), Ok(Some(heartbeat)));
}

#[test]
fn with_the_last_segment_only_as_in_java() {
    let gib = 1 << 30;
    let mut feed = feed(FeedConfig { from_last_segment: true, ..FeedConfig::default() });
    feed.reported(PhysicalOffset(0), log(0, 2_147_485_000), Moment(0)).unwrap();
    assert_eq!(feed.next(log(0, 2_147_485_000), Moment(0)), packet(2 * gib, 1352));
}

#[test]
fn a_slave_that_stopped_inside_a_record_goes_on_there() {
    let mut feed = feed(FeedConfig::default());
    feed.reported(PhysicalOffset(777), log(0, 1000), Moment(0)).unwrap();
    assert_eq!(feed.next(log(0, 1000), Moment(0)), packet(777, 223));
}

#[test]
fn what_it_cannot_hold_ends_it() {
    let beyond = FeedEnd::BeyondEnd { reported: PhysicalOffset(1001), end: PhysicalOffset(1000) };
    let mut first = feed(FeedConfig::default());
    assert_eq!(first.reported(PhysicalOffset(1001), log(0, 1000), Moment(0)), Err(beyond));
    let mut later = feed(FeedConfig { batch_len_max: 100, ..FeedConfig::default() });
    later.reported(PhysicalOffset(500), log(0, 1000), Moment(0)).unwrap();
    assert_eq!(later.next(log(0, 1000), Moment(0)), packet(500, 100));
    let unsent = FeedEnd::BeyondSent { reported: PhysicalOffset(601), sent: PhysicalOffset(600) };
    assert_eq!(later.reported(PhysicalOffset(601), log(0, 1000), Moment(0)), Err(unsent));
}

#[test]
fn what_the_log_no_longer_has_ends_it() {
    let gone = FeedEnd::BeforeFirst { at: PhysicalOffset(500), first: PhysicalOffset(1000) };
    let mut early = feed(FeedConfig::default());
    assert_eq!(early.reported(PhysicalOffset(500), log(1000, 2000), Moment(0)), Err(gone));
    let mut slow = feed(FeedConfig { segment_len: 1000, ..FeedConfig::default() });
    slow.reported(PhysicalOffset(500), log(0, 500), Moment(0)).unwrap();
    assert_eq!(slow.next(log(1000, 2000), Moment(9)), Err(gone));
}

#[test]
fn silence_ends_it_before_and_after_the_first_report() {
    let mut feed = feed(FeedConfig::default());
    assert_eq!((feed.due(log(0, 9)), feed.next(log(0, 9), Moment(19_999))), (Moment(20_000), Ok(None)));
    feed.reported(PhysicalOffset(9), log(0, 9), Moment(19_999)).unwrap();
    assert!(feed.next(log(0, 9), Moment(39_998)).is_ok());
    assert_eq!(feed.next(log(0, 9), Moment(39_999)), Err(FeedEnd::Silent { ms: 20_000 }));
}

#[test]
fn who_is_far_behind_gets_more_at_a_time_and_yields_to_others() {
    let mut feed = feed(FeedConfig::default());
    let far = |end| Readable { yields: true, ..log(0, end) };
    feed.reported(PhysicalOffset(1), far(2048 * KIB), Moment(0)).unwrap();
    assert_eq!(feed.next(far(2048 * KIB), Moment(0)), packet(1, 256 << 10));
    assert_eq!((feed.next(far(2048 * KIB), Moment(1)), feed.due(far(2048 * KIB))), (Ok(None), Moment(2)));
    // The others are sent something, and then it is its turn; and so it is when nothing comes for them.
    assert_eq!(feed.next(far(2049 * KIB), Moment(1)), packet(1 + 256 * KIB, 256 << 10));
    assert_eq!(feed.next(far(2049 * KIB), Moment(3)), packet(1 + 512 * KIB, 256 << 10));
    // Nobody to yield to.
    assert_eq!(feed.next(log(0, 2049 * KIB), Moment(3)), packet(1 + 768 * KIB, 256 << 10));
    // Near the end it is as with everybody.
    assert_eq!(feed.next(far(2049 * KIB), Moment(5)), packet(1 + 1024 * KIB, 256 << 10));
    assert_eq!(feed.next(far(2049 * KIB), Moment(5)), packet(1 + 1280 * KIB, 32 << 10));
}

#[test]
fn a_limit_for_each_second_counts_heads_too() {
    let mut feed = feed(FeedConfig { bytes_per_second: Some(100), batch_len_max: 60, ..FeedConfig::default() });
    feed.reported(PhysicalOffset(1), log(0, 1000), Moment(0)).unwrap();
    assert_eq!(feed.next(log(0, 1000), Moment(0)), packet(1, 60));
    assert_eq!(feed.next(log(0, 1000), Moment(0)), packet(61, 28));
    assert_eq!((feed.next(log(0, 1000), Moment(999)), feed.due(log(0, 1000))), (Ok(None), Moment(1000)));
    assert_eq!(feed.next(log(0, 1000), Moment(1000)), packet(89, 60));
}

/// Java's slave (DefaultHAClient): takes bytes as they come, holds only each head against its own end, and knows no records.
#[derive(Default)]
struct JavaSlave {
    /// Where its log begins, once it has one.
    first: Option<u64>,
    log: Vec<u8>,
    incoming: BytesMut,
}

impl JavaSlave {
    fn end(&self) -> u64 {
        self.first.unwrap_or(0) + self.log.len() as u64
    }

    /// What it reports, if it has taken anything. It looks at a head as soon as that is there.
    fn reads(&mut self, bytes: &[u8]) -> Option<u64> {
        self.incoming.extend_from_slice(bytes);
        let before = self.end();
        while let Some(head) = self.incoming.first_chunk::<12>() {
            let (at, len) = head.split_at(8);
            let at = u64::from_be_bytes(*at.first_chunk().unwrap());
            let len = u32::from_be_bytes(*len.first_chunk().unwrap()) as usize;
            assert!(self.end() == 0 || at == self.end(), "it has {} and is sent {at}", self.end());
            if self.incoming.len() < 12 + len {
                break;
            }
            self.incoming.advance(12);
            // Even a heartbeat makes its first segment.
            self.first.get_or_insert(at - at % SEGMENT_LEN);
            assert!(at / SEGMENT_LEN == (at + (len as u64).max(1) - 1) / SEGMENT_LEN, "{at} +{len} is in two segments");
            self.log.extend_from_slice(&self.incoming.split_to(len));
        }
        (self.end() > before).then(|| self.end())
    }
}

/// However often it is cut off, and wherever it stops: in the middle of a record, say.
#[test]
fn a_java_slave_gets_the_log_as_it_is() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let (mut master, mut slave, mut id) = (ModelLog::default(), JavaSlave::default(), 0);
        let batch_len_max = 1 + dice.below(900);
        let begin = if dice.one_in(2) { 5000 } else { 0 };
        while master.end() <= begin {
            master.append(id, 300);
            id += 1;
        }
        master.flush(u64::MAX);
        master.drop_before(begin);
        for connection in 0..8 {
            let config = FeedConfig { segment_len: SEGMENT_LEN, batch_len_max, ..FeedConfig::default() };
            let mut feed = Feed::new(config, Moment(0));
            let (mut reports, mut sent) = (BytesMut::from(&encode_report(PhysicalOffset(slave.end()))[..]), Vec::new());
            slave.incoming.clear();
            let (mut now, mut steps) = (0, dice.below(60));
            // The last one lasts until all is there.
            while steps > 0 || connection == 7 && slave.end() < master.end() {
                steps = steps.saturating_sub(1);
                now += dice.below(300);
                if dice.one_in(3) && id < 200 {
                    master.append(id, dice.below(700) as usize);
                    id += 1;
                }
                let readable = Readable { yields: false, ..log(master.first(), master.end()) };
                if let Some(end) = decode_reports(&mut reports).unwrap() {
                    feed.reported(end, readable, Moment(now)).unwrap();
                }
                match feed.next(readable, Moment(now)).unwrap() {
                    Some(Outgoing::Packet { at, len }) => {
                        sent.extend_from_slice(&encode_packet_head(at, len));
                        sent.extend_from_slice(&master.read(at.0, len));
                    }
                    Some(Outgoing::Heartbeat { at }) => sent.extend_from_slice(&encode_packet_head(at, 0)),
                    None => {}
                }
                let part = dice.below(sent.len() as u64 + 1) as usize;
                let bytes: Vec<u8> = sent.drain(..part).collect();
                // It reports every five seconds too.
                if let Some(end) = slave.reads(&bytes).or(dice.one_in(10).then(|| slave.end())) {
                    reports.extend_from_slice(&encode_report(PhysicalOffset(end)));
                }
            }
        }
        assert_eq!((slave.first, slave.end()), (Some(master.first()), master.end()), "seed {seed}");
        assert!(slave.log == master.read(master.first(), slave.log.len()), "seed {seed}");
    }
}
