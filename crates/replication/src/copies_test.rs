use super::*;

fn own(end: u64, safe: u64) -> OwnLog {
    OwnLog { end: PhysicalOffset(end), safe: PhysicalOffset(safe) }
}

fn marks(held: u64, late: u64, confirmed: u64) -> Progress {
    let [held, late, confirmed] = [held, late, confirmed].map(PhysicalOffset);
    Progress { held, late, confirmed }
}

fn new(copies: usize, end: u64) -> Copies {
    let config = CopiesConfig { copies, ..CopiesConfig::default() };
    Copies::new(config, own(end, end), PhysicalOffset(end), Moment(10_000))
}

#[test]
fn one_copy_waits_for_nobody() {
    let mut copies = new(1, 0);
    assert_eq!(copies.grown(own(100, 60), Moment(10_000)), marks(60, 0, 60));
    assert_eq!(copies.grown(own(100, 100), Moment(10_001)), marks(100, 0, 100));
}

#[test]
fn a_send_is_answered_when_another_broker_holds_it() {
    let mut copies = new(2, 0);
    let slave = copies.open(Peer(1)).unwrap();
    assert_eq!(copies.grown(own(100, 100), Moment(10_000)), marks(0, 0, 0));
    assert_eq!(copies.reported(slave, Report::of(40), Moment(10_001)), marks(40, 0, 40));
    assert_eq!(copies.reported(slave, Report::of(100), Moment(10_002)), marks(100, 0, 100));
    // No mark goes back with the slave.
    assert_eq!(copies.closed(slave, Moment(10_003)), marks(100, 0, 100));
    // And nothing counts that it says then.
    copies.grown(own(200, 200), Moment(10_004));
    assert_eq!(copies.reported(slave, Report::of(200), Moment(10_005)), marks(100, 0, 100));
}

#[test]
fn the_own_disk_is_one_of_the_copies() {
    let mut copies = new(2, 0);
    let slave = copies.open(Peer(1)).unwrap();
    copies.grown(own(100, 30), Moment(10_000));
    assert_eq!(copies.reported(slave, Report::of(100), Moment(10_001)), marks(30, 0, 30));
}

#[test]
fn a_slave_that_is_gone_delays_consumers_by_the_timeout_once() {
    let mut copies = new(2, 0);
    copies.grown(own(100, 100), Moment(11_000));
    copies.grown(own(200, 200), Moment(12_000));
    assert_eq!(copies.due(), Some(Moment(14_000)));
    assert_eq!(copies.tick(Moment(13_999)), marks(0, 0, 0));
    assert_eq!(copies.tick(Moment(14_000)), marks(0, 100, 100));
    assert_eq!(copies.due(), Some(Moment(15_000)));
    assert_eq!(copies.tick(Moment(15_000)), marks(0, 200, 200));
    assert_eq!(copies.due(), None);
    // What is shown is on the own disk.
    copies.grown(own(300, 250), Moment(16_000));
    assert_eq!(copies.tick(Moment(19_000)), marks(0, 300, 250));
}

#[test]
fn what_an_open_finds_unconfirmed_is_confirmed_like_anything_else() {
    let config = CopiesConfig { copies: 2, ..CopiesConfig::default() };
    // A clock that has only begun is no reason to hurry.
    let mut copies = Copies::new(config, own(500, 500), PhysicalOffset(300), Moment(0));
    assert_eq!(copies.progress(), marks(300, 300, 300));
    assert_eq!((copies.due(), copies.tick(Moment(2_999))), (Some(Moment(3_000)), marks(300, 300, 300)));
    assert_eq!(copies.tick(Moment(3_000)), marks(300, 500, 500));
    let lost = Copies::new(CopiesConfig::default(), own(200, 200), PhysicalOffset(300), Moment(0));
    assert_eq!(lost.progress(), marks(200, 200, 200));
}

#[test]
fn three_copies_are_three_machines() {
    let mut copies = new(3, 0);
    copies.grown(own(100, 100), Moment(10_000));
    let [old, new] = [(); 2].map(|()| copies.open(Peer(1)).unwrap());
    copies.reported(old, Report::of(100), Moment(10_001));
    assert_eq!(copies.reported(new, Report::of(100), Moment(10_002)).held, PhysicalOffset(0));
    let other = copies.open(Peer(2)).unwrap();
    assert_eq!(copies.reported(other, Report::of(70), Moment(10_003)).held, PhysicalOffset(70));
    // What the newest connection of a machine says is the truth.
    copies.reported(new, Report::of(80), Moment(10_004));
    assert_eq!(copies.reported(other, Report::of(100), Moment(10_005)).held, PhysicalOffset(80));
}

#[test]
fn all_in_sync_means_the_slowest_of_them() {
    let config =
        CopiesConfig { copies: 2, all_in_sync: true, in_sync_min: 2, gap_max: 1000, ..CopiesConfig::default() };
    let mut copies = Copies::new(config, own(0, 0), PhysicalOffset(0), Moment(0));
    let [one, two] = [1, 2].map(|peer| copies.open(Peer(peer)).unwrap());
    copies.reported(one, Report::of(0), Moment(0));
    let refused = NotEnoughInSync { in_sync: 1, needed: 2 };
    assert_eq!((copies.in_sync(Moment(0)), copies.admits(Moment(0))), (2, Ok(())));
    copies.reported(two, Report::of(0), Moment(0));
    copies.grown(own(100, 100), Moment(10));
    assert_eq!(copies.reported(one, Report::of(100), Moment(20)).held, PhysicalOffset(0));
    assert_eq!(copies.reported(two, Report::of(60), Moment(20)).held, PhysicalOffset(60));
    // Too far behind.
    copies.grown(own(1061, 1061), Moment(30));
    assert_eq!(copies.reported(one, Report::of(1061), Moment(40)).held, PhysicalOffset(1061));
    let standings: Vec<_> = copies.standings(Moment(40)).map(|standing| standing.is_in_sync).collect();
    assert_eq!(standings, [true, false]);
    // Near, but never there for too long.
    copies.reported(two, Report::of(1000), Moment(50));
    assert_eq!(copies.in_sync(Moment(15_010)), 3);
    assert_eq!(copies.in_sync(Moment(15_011)), 2);
    copies.closed(one, Moment(15_011));
    assert_eq!(copies.admits(Moment(15_011)), Err(refused));
}

#[test]
fn under_load_nobody_has_all_and_is_in_sync_all_the_same() {
    let mut copies = new(2, 0);
    let slave = copies.open(Peer(1)).unwrap();
    copies.reported(slave, Report::of(0), Moment(10_000));
    for ms in 1..20_000 {
        copies.grown(own(ms * 10, ms * 10), Moment(10_000 + ms));
        copies.reported(slave, Report::of(ms * 10 - 5), Moment(10_000 + ms));
    }
    assert_eq!(copies.in_sync(Moment(30_000)), 2);
    // And after a quiet hour the first message makes nobody late.
    copies.reported(slave, Report::of(199_990), Moment(30_000));
    copies.grown(own(1_000_000, 1_000_000), Moment(4_000_000));
    assert_eq!(copies.in_sync(Moment(4_000_000)), 2);
}

#[test]
fn there_are_not_any_number_of_slaves() {
    let mut copies = new(2, 0);
    let feeds: Vec<_> = (0..FEEDS_MAX as u64).map(|peer| copies.open(Peer(peer)).unwrap()).collect();
    assert_eq!(copies.open(Peer(99)), Err(TooManyFeeds));
    copies.closed(feeds[0], Moment(10_000));
    assert!(copies.open(Peer(99)).is_ok());
}
