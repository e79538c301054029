use super::*;
use crate::model_log::ModelLog;

/// A follower and its log; what is asked of the log is done at once, and everything else is told.
struct Slave {
    follower: Follower,
    log: ModelLog,
    master: ModelLog,
    /// The store takes nothing.
    is_full: bool,
    told: Vec<String>,
}

impl Slave {
    fn new(config: FollowerConfig, log: ModelLog, master: ModelLog) -> Slave {
        let config = FollowerConfig { segment_len: crate::model_log::SEGMENT_LEN, ..config };
        Slave { follower: Follower::new(config), log, master, is_full: false, told: Vec::new() }
    }

    /// Takes a step, and answers what the log and the master's log are asked.
    fn step(&mut self, input: Input<'_>, now: u64) {
        let mut effects = self.follower.step(input, self.log.as_copy(), Moment(now));
        effects.reverse();
        while let Some(effect) = effects.pop() {
            let attempt = self.follower.attempt;
            let text = match &effect {
                Effect::Append { at, bytes } => format!("Append {at} +{}", bytes.len()),
                Effect::Tell(notice) => format!("Tell {notice}"),
                Effect::Report(end) => format!("Report {end}"),
                Effect::RestartAt(at) | Effect::CutTo(at) => {
                    format!("{} {at}", if let Effect::CutTo(_) = effect { "CutTo" } else { "RestartAt" })
                }
                Effect::AskRecords(probe) => format!("AskRecords {}..={}", probe.from, probe.near),
                Effect::Connect(_) => "Connect".into(),
                other => format!("{other:?}"),
            };
            self.told.push(text);
            let (record, theirs);
            let news = match effect {
                Effect::AskBounds => {
                    let [first, end] = [self.master.first(), self.master.end()].map(PhysicalOffset);
                    News::Bounds { first, end }
                }
                Effect::AskRecords(probe) => {
                    let (at, ours) = self.log.probe(probe);
                    record = ours.map(<[u8]>::to_vec);
                    theirs = self.master.record_at(at).map(<[u8]>::to_vec);
                    News::Probed(Probed { at: PhysicalOffset(at), ours: record.as_deref(), theirs: theirs.as_deref() })
                }
                Effect::AskFirstRecord => News::FirstRecord(self.master.record_at(0).map(Bytes::copy_from_slice)),
                Effect::RestartAt(at) => {
                    self.log.restart_at(at.0);
                    News::Changed
                }
                Effect::CutTo(at) => {
                    self.log.cut(at.0);
                    News::Changed
                }
                Effect::Append { .. } if self.is_full => News::NotAppended(NotAppended::NotNow),
                Effect::Append { at, bytes } => {
                    self.log.append_copy(at.0, &bytes).map_or_else(News::NotAppended, News::Appended)
                }
                _ => continue,
            };
            let more = self.follower.step(Input::Of(attempt, news), self.log.as_copy(), Moment(now));
            effects.extend(more.into_iter().rev());
        }
    }

    fn news(&mut self, news: News<'_>, now: u64) {
        self.step(Input::Of(self.follower.attempt, news), now);
    }

    /// Up to the first report.
    fn follow(&mut self, now: u64) {
        self.step(Input::Master { is_known: true }, now);
        self.news(News::Connected, now);
    }

    /// What the master's log has from `at` on, damaged in its byte `flip`.
    fn packet(&mut self, at: u64, len: usize, flip: Option<usize>, now: u64) {
        let mut body = self.master.read(at, len).to_vec();
        if let Some(flip) = flip {
            body[flip] ^= 1;
        }
        self.news(News::Packet(Packet { at: PhysicalOffset(at), body: body.into() }), now);
    }

    fn told(&mut self) -> String {
        std::mem::take(&mut self.told).join("; ")
    }
}

fn log(records: u64) -> ModelLog {
    let mut log = ModelLog::default();
    for id in 0..records {
        // A hundred bytes each.
        log.append(id, 8);
    }
    log.flush(u64::MAX);
    log
}

fn slave(records: u64, master: u64) -> Slave {
    Slave::new(FollowerConfig::default(), log(records), log(master))
}

#[test]
fn it_connects_compares_reports_and_appends() {
    let mut slave = slave(2, 4);
    assert_eq!(slave.follower.state(), FollowerState::Looking);
    slave.step(Input::Master { is_known: true }, 0);
    assert_eq!((slave.told(), slave.follower.state()), ("Connect".into(), FollowerState::Connecting));
    slave.news(News::Connected, 5);
    assert_eq!(slave.told(), "AskBounds; AskRecords 0..=199; Report 200; Tell follows the master from 200 on");
    assert_eq!(slave.follower.state(), FollowerState::Following);
    // A part of a record waits for its rest.
    slave.packet(200, 130, None, 10);
    assert_eq!((slave.told(), slave.follower.part_len()), ("Append 200 +130; Report 300".into(), 30));
    slave.packet(330, 20, None, 11);
    assert_eq!((slave.told(), slave.follower.part_len()), ("Append 300 +50".into(), 50));
    slave.packet(350, 50, None, 12);
    assert_eq!((slave.told(), slave.follower.part_len()), ("Append 300 +100; Report 400".into(), 0));
    assert_eq!(slave.log.end(), slave.master.end());
    // Heartbeats are heard, and reports go on.
    slave.news(News::Packet(Packet { at: PhysicalOffset(400), body: Bytes::new() }), 4_000);
    assert_eq!((slave.follower.due(), slave.told()), (Some(Moment(5_012)), String::new()));
    slave.step(Input::Tick, 5_012);
    assert_eq!(slave.told(), "Report 400");
    slave.step(Input::Tick, 23_999);
    slave.told();
    slave.step(Input::Tick, 24_000);
    assert_eq!(slave.told(), "Tell the master was silent for 20000 ms; Close");
}

#[test]
fn tries_come_after_100_ms_and_later_after_5_s() {
    let mut slave = slave(0, 0);
    slave.step(Input::Master { is_known: true }, 0);
    let mut now = 0;
    let mut waited = Vec::new();
    for _ in 0..8 {
        slave.news(News::Closed, now);
        let due = slave.follower.due().unwrap();
        slave.step(Input::Tick, due.0 - 1);
        waited.push(due.0 - now);
        now = due.0;
        slave.told();
        slave.step(Input::Tick, now);
        assert_eq!(slave.told(), "Connect");
    }
    assert_eq!(waited, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // One that is never answered is given up.
    slave.step(Input::Tick, now + 14_999);
    assert_eq!(slave.told(), "");
    slave.step(Input::Tick, now + 15_000);
    assert_eq!(slave.told(), "Close");
    slave.step(Input::Master { is_known: false }, now + 15_001);
    assert_eq!((slave.follower.state(), slave.follower.due()), (FollowerState::Looking, None));
}

#[test]
fn with_synchronous_flush_it_reports_what_is_on_the_disk() {
    let mut slave = slave(2, 4);
    slave.follower.config.sync_flush = true;
    slave.log.append(2, 8);
    slave.follow(0);
    assert_eq!(slave.told(), "Connect; AskBounds; AskRecords 0..=299; Flush");
    slave.log.flush(300);
    slave.step(Input::Flushed, 1);
    assert_eq!(slave.told(), "Report 300; Tell follows the master from 300 on");
    slave.packet(300, 100, None, 2);
    assert_eq!(slave.told(), "Append 300 +100; Flush");
    slave.step(Input::Tick, 5_001);
    assert_eq!(slave.told(), "Report 300");
    slave.log.flush(400);
    slave.step(Input::Flushed, 5_002);
    assert_eq!(slave.told(), "Report 400");
}

#[test]
fn an_empty_slave_takes_the_whole_history_from_any_master() {
    // To Java, report 0 would mean the last segment.
    let mut first = slave(0, 3);
    first.follow(0);
    let told = "Connect; AskBounds; AskFirstRecord; Append 0 +100; Report 100; Tell follows the master from 100 on";
    assert_eq!(first.told(), told);
    // There is nothing yet.
    let mut both = slave(0, 0);
    both.follow(0);
    assert_eq!(both.told(), "Connect; AskBounds; Report 0; Tell follows the master from 0 on");
    // The begin is gone.
    let mut later = slave(0, 100);
    later.master.drop_before(5000);
    later.follow(0);
    let told = "Connect; AskBounds; RestartAt 4096; AskBounds; Report 4096; Tell follows the master from 4096 on";
    assert_eq!(later.told(), told);
}

#[test]
fn who_was_away_for_too_long_begins_anew_only_when_told_to() {
    let mut slave = slave(3, 100);
    slave.master.drop_before(5000);
    slave.follow(0);
    let told = "Connect; AskBounds; Close; Tell fenced: the log ends at 300, and the master's begins at 4096";
    assert_eq!((slave.told().as_str(), slave.log.end()), (told, 300));
    slave.follower.config.restarts_when_gone = true;
    slave.step(Input::Retry, 1);
    slave.news(News::Connected, 2);
    let told = "Connect; AskBounds; RestartAt 4096; AskBounds; Report 4096; Tell follows the master from 4096 on";
    assert_eq!(slave.told(), told);
}

#[test]
fn a_log_that_has_parted_is_cut_only_when_told_to() {
    let mut slave = slave(3, 2);
    slave.log.append(77, 8);
    slave.master.append(88, 8);
    slave.follow(0);
    slave.told();
    let fence = Fence::Parted { common: Some(PhysicalOffset(200)), end: PhysicalOffset(400) };
    assert_eq!((slave.follower.state(), slave.log.end()), (FollowerState::Fenced(fence), 400));
    assert_eq!(slave.follower.due(), None);
    slave.follower.config.cuts_parted = true;
    slave.step(Input::Retry, 1);
    slave.news(News::Connected, 2);
    assert!(slave.told().ends_with(
        "Tell the master has other bytes, or none, from 200 on: what is from there to 400 is cut off; CutTo 200; \
         AskBounds; AskRecords 0..=199; Report 200; Tell follows the master from 200 on"
    ));
}

#[test]
fn another_master_is_another_matter() {
    let mut slave = slave(3, 2);
    slave.follow(0);
    assert!(matches!(slave.follower.state(), FollowerState::Fenced(_)));
    slave.master = log(3);
    slave.follow(1);
    assert_eq!(slave.follower.state(), FollowerState::Following);
}

#[test]
fn bad_bytes_are_not_taken_and_three_times_are_enough() {
    let mut slave = slave(1, 4);
    slave.follow(0);
    slave.told();
    for times in 1..=2 {
        // The second record of the packet: the first is not taken either.
        slave.packet(100, 300, Some(190), times);
        let told = format!("Append 100 +300; Tell what the master sends is no record at 200, {times} times now; Close");
        assert_eq!((slave.told(), slave.log.end()), (told, 100));
        slave.step(Input::Tick, 10_000 * times);
        slave.news(News::Connected, 10_000 * times);
        slave.told();
    }
    slave.packet(100, 300, Some(190), 30_000);
    let fence = Fence::BadBytes { at: PhysicalOffset(200) };
    assert_eq!((slave.follower.state(), slave.log.end()), (FollowerState::Fenced(fence), 100));
}

#[test]
fn a_record_longer_than_any_is_not_waited_for() {
    let mut slave = slave(1, 1);
    slave.follower.config.record_len_max = 1000;
    slave.follow(0);
    slave.told();
    slave.master.append(1, 2000);
    slave.packet(100, 50, None, 1);
    assert_eq!(slave.told(), "Append 100 +50; Tell what the master sends is no record at 100, 1 times now; Close");
}

#[test]
fn what_does_not_come_next_ends_the_connection() {
    let mut slave = slave(1, 4);
    slave.follow(0);
    slave.told();
    slave.packet(200, 100, None, 1);
    assert_eq!(slave.told(), "Tell the master sends what stands at 200, and 100 comes next; Close");
    // And of a heartbeat as well.
    slave.step(Input::Tick, 1000);
    slave.news(News::Connected, 1000);
    slave.news(News::Packet(Packet { at: PhysicalOffset(0), body: Bytes::new() }), 1001);
    assert_eq!(slave.follower.state(), FollowerState::Connecting);
}

#[test]
fn a_full_disk_stops_reports_and_nothing_else() {
    let mut slave = slave(1, 4);
    slave.follow(0);
    slave.told();
    slave.is_full = true;
    slave.packet(100, 300, None, 1);
    assert_eq!(slave.told(), "Append 100 +300; Tell the log takes nothing at present; Close");
    assert_eq!(slave.follower.due(), Some(Moment(5_001)));
    slave.is_full = false;
    slave.step(Input::Tick, 5_001);
    slave.news(News::Connected, 5_002);
    slave.packet(100, 300, None, 5_003);
    assert!(slave.told().ends_with("Append 100 +300; Report 400"));
}

#[test]
fn what_comes_late_from_an_older_connection_is_not_heard() {
    let mut slave = slave(1, 4);
    slave.follow(0);
    let old = slave.follower.attempt;
    slave.news(News::Closed, 1);
    slave.step(Input::Tick, 200);
    slave.news(News::Connected, 200);
    slave.told();
    let packet = Packet { at: PhysicalOffset(100), body: slave.master.read(100, 100) };
    slave.step(Input::Of(old, News::Packet(packet)), 201);
    slave.step(Input::Of(old, News::Closed), 202);
    assert_eq!((slave.told(), slave.follower.state()), (String::new(), FollowerState::Following));
}

#[test]
fn segments_of_another_length_are_said_and_not_followed() {
    let mut slave = slave(0, 0);
    slave.step(Input::Master { is_known: true }, 0);
    slave.news(News::Connected, 0);
    slave.told();
    slave.step(Input::Master { is_known: true }, 1);
    let attempt = slave.follower.attempt;
    let log = slave.log.as_copy();
    slave.follower.step(Input::Of(attempt, News::Connected), log, Moment(1));
    let bounds = News::Bounds { first: PhysicalOffset(1000), end: PhysicalOffset(2000) };
    slave.follower.step(Input::Of(attempt, bounds), log, Moment(1));
    let fence = Fence::OtherSegments { first: PhysicalOffset(1000) };
    assert_eq!(slave.follower.state(), FollowerState::Fenced(fence));
}

/// What the two had in common is gone from the master's begin.
#[test]
fn a_master_that_begins_behind_the_common_end_has_nothing_in_common() {
    let mut slave = slave(3, 3);
    for id in 100..200 {
        slave.log.append(id, 8);
        slave.master.append(1_000 + id, 8);
    }
    slave.master.flush(u64::MAX);
    slave.master.drop_before(5000);
    slave.follow(0);
    let fence = Fence::Parted { common: None, end: PhysicalOffset(slave.log.end()) };
    assert_eq!(slave.follower.state(), FollowerState::Fenced(fence));
}

/// While the logs were compared the master lost the oldest of what was held against it: that is no difference.
#[test]
fn retention_is_not_taken_for_a_difference() {
    let mut slave = slave(100, 100);
    slave.log.append(7, 8);
    slave.master.append(8, 8);
    let end = slave.log.end();
    let mut steps = 0;
    let mut effects = slave.follower.step(Input::Master { is_known: true }, slave.log.as_copy(), Moment(0));
    loop {
        let news = match effects.pop().unwrap() {
            Effect::Connect(_) => News::Connected,
            Effect::AskBounds => {
                let [first, end] = [slave.master.first(), slave.master.end()].map(PhysicalOffset);
                News::Bounds { first, end }
            }
            Effect::AskRecords(probe) => {
                steps += 1;
                if steps == 2 {
                    slave.master.drop_before(5000);
                }
                let (at, ours) = slave.log.probe(probe);
                let theirs = slave.master.record_at(at);
                News::Probed(Probed { at: PhysicalOffset(at), ours, theirs })
            }
            Effect::Tell(Notice::Fenced(fence)) => {
                let common = Some(slave.log.starts().last().copied().map(PhysicalOffset).unwrap());
                return assert_eq!(fence, Fence::Parted { common, end: PhysicalOffset(end) });
            }
            other => panic!("{other:?}"),
        };
        let input = Input::Of(slave.follower.attempt, news);
        effects = slave.follower.step(input, slave.log.as_copy(), Moment(0));
    }
}
