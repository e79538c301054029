use super::*;
use crate::dice::Dice;
use crate::model_log::{ModelLog, SEGMENT_LEN};

/// What comes of it, and how often was asked.
fn compare(ours: &ModelLog, theirs: &ModelLog) -> (Comparison, u32) {
    let first = PhysicalOffset(ours.first().max(theirs.first()));
    let mut comparing = Comparing::new(first, PhysicalOffset(ours.end()), PhysicalOffset(theirs.end()), SEGMENT_LEN);
    for asked in 0.. {
        let Comparison::Ask(probe) = comparing.next() else { return (comparing.next(), asked) };
        let (at, record) = ours.probe(probe);
        comparing.answered(Probed { at: PhysicalOffset(at), ours: record, theirs: theirs.record_at(at) });
    }
    unreachable!("asks for ever");
}

fn common(at: u64) -> Comparison {
    Comparison::Parted { common: Some(PhysicalOffset(at)) }
}

#[test]
fn one_question_is_enough_when_the_master_has_it_all() {
    let mut ours = ModelLog::default();
    for id in 0..200 {
        ours.append(id, 100);
    }
    let mut theirs = ours.clone();
    assert_eq!(compare(&ours, &theirs), (Comparison::Equal, 1));
    theirs.append(200, 100);
    assert_eq!(compare(&ours, &theirs), (Comparison::Equal, 1));
}

#[test]
fn who_has_more_than_the_master_parts_at_its_end() {
    let mut ours = ModelLog::default();
    let ends: Vec<u64> = (0..200).map(|id| ours.append(id, 100)).collect();
    let mut theirs = ours.clone();
    theirs.cut(ends[120]);
    assert_eq!(compare(&ours, &theirs).0, common(ends[120]));
    theirs.restart_at(0);
    assert_eq!(compare(&ours, &theirs).0, Comparison::Parted { common: None });
}

#[test]
fn a_filler_is_no_record_but_what_the_master_has_there_is_one() {
    let mut theirs = ModelLog::default();
    let mut end = 0;
    while theirs.end() + 300 < SEGMENT_LEN {
        end = theirs.append(theirs.end(), 100);
    }
    let mut ours = theirs.clone();
    ours.append(1, 1000);
    ours.cut(SEGMENT_LEN);
    assert_eq!(ours.end(), SEGMENT_LEN);
    // The master had lost the message that made the filler, and took a shorter one.
    let mut other = theirs.clone();
    other.append(2, 8);
    other.append(3, 1000);
    assert_eq!(compare(&ours, &other).0, common(end));
    // Nor has it a filler there that has nothing there yet: what it appends next may be shorter.
    assert_eq!(compare(&ours, &theirs).0, common(end));
    theirs.append(4, 2000);
    assert_eq!(compare(&ours, &theirs), (Comparison::Equal, 2));
}

#[test]
fn wherever_two_logs_part_it_is_found() {
    for seed in 0..500 {
        let mut dice = Dice::new(seed);
        let (mut log, mut ids) = (ModelLog::default(), 0..);
        let mut extend = |log: &mut ModelLog, dice: &mut Dice, most: u64| {
            for _ in 0..dice.below(most) {
                let body_len = if dice.one_in(5) { 700 } else { dice.below(60) };
                log.append(ids.next().unwrap(), body_len as usize);
            }
        };
        extend(&mut log, &mut dice, 200);
        let at = log.end();
        let (mut ours, mut theirs) = (log.clone(), log);
        // What only one has may begin with a filler, which is in nobody's way.
        extend(&mut theirs, &mut dice, 60);
        let parts = dice.one_in(2);
        if parts {
            extend(&mut ours, &mut dice, 60);
        }
        let gone = dice.below(at + 1);
        for log in [&mut ours, &mut theirs] {
            if dice.one_in(3) {
                log.flush(u64::MAX);
                log.drop_before(gone);
            }
        }
        let first = ours.first().max(theirs.first());
        if ours.end() <= first {
            continue;
        }
        let (found, asked) = compare(&ours, &theirs);
        assert!(asked <= 30, "seed {seed}: {asked} questions");
        let only_ours = ours.starts().iter().any(|start| *start >= at);
        let any_common = ours.starts().iter().any(|start| (first..at).contains(start));
        match found {
            Comparison::Ask(_) | Comparison::Damaged { .. } => panic!("seed {seed}: {found:?}"),
            Comparison::Equal => assert!(!only_ours, "seed {seed}"),
            Comparison::Parted { common: None } => assert!(only_ours && !any_common, "seed {seed}"),
            Comparison::Parted { common: Some(common) } => {
                assert!(only_ours && common.0 == at, "seed {seed}: {common} for {at}")
            }
        }
    }
}

#[test]
fn a_damaged_record_is_no_difference() {
    let mut log = ModelLog::default();
    for id in 0..200 {
        log.append(id, 100);
    }
    let last = *log.starts().last().unwrap();
    let good = log.record_at(last).unwrap().to_vec();
    let mut spoilt = good.clone();
    spoilt[120] ^= 1;
    for (ours, theirs) in [(&good, &spoilt), (&spoilt, &good)] {
        let mut comparing =
            Comparing::new(PhysicalOffset(0), PhysicalOffset(log.end()), PhysicalOffset(log.end()), SEGMENT_LEN);
        let at = PhysicalOffset(last);
        comparing.answered(Probed { at, ours: Some(ours), theirs: Some(theirs) });
        assert_eq!(comparing.next(), Comparison::Damaged { at });
    }
}

/// Whatever the master says, there is an end.
#[test]
fn a_master_that_lies_is_asked_no_more_often() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let mut ours = ModelLog::default();
        for id in 0..300 {
            ours.append(id, 100);
        }
        let mut comparing =
            Comparing::new(PhysicalOffset(0), PhysicalOffset(ours.end()), PhysicalOffset(ours.end()), SEGMENT_LEN);
        let mut asked = 0;
        while let Comparison::Ask(probe) = comparing.next() {
            let (at, record) = ours.probe(probe);
            let theirs =
                if dice.one_in(2) { record } else { Some(&b"nothing of the kind"[..]).filter(|_| dice.one_in(2)) };
            comparing.answered(Probed { at: PhysicalOffset(at), ours: record, theirs });
            asked += 1;
            assert!(asked <= 30, "seed {seed}");
        }
    }
}
