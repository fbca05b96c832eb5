//! The correct broker is never accused; each faulty one is, of what it does and of nothing else.

use warren_tests::history::Verdict::{
    self, ConfirmHonesty, Corrupt, Lost, Order, Phantom, Resurrected, SilentDuplicate,
    SplitTransaction,
};
use warren_tests::history::{Statistics, check};

use super::simulation::{Fault, Simulation};

#[test]
fn a_correct_broker_is_not_accused() {
    let mut all = Statistics::default();
    for seed in 0..100 {
        let (history, injected) = Simulation::run(seed, None);
        let report = check(&history);
        assert!(report.is_clean(), "seed {seed}\n{report}");
        assert_eq!(injected, 0);
        let here = report.statistics;
        all.kills += here.kills;
        all.redelivered += here.redelivered;
        all.acks_kept += here.acks_kept;
        all.committed += here.committed;
        all.in_doubt += here.in_doubt;
        all.rolled_back += here.rolled_back;
    }
    // Otherwise there was nothing that it could have been accused of.
    let least =
        [all.kills, all.redelivered, all.acks_kept, all.committed, all.in_doubt, all.rolled_back];
    assert!(least.iter().all(|count| *count >= 100), "{all:?}");
}

/// Runs a broker with a fault from many seeds. Where the fault has shown it must be found, and what is found must be one of
/// `verdicts`; the first of them is the fault's own.
#[track_caller]
fn caught(fault: Fault, verdicts: &[Verdict]) {
    let mut shown = 0;
    for seed in 0..40 {
        let (history, injected) = Simulation::run(seed, Some(fault));
        let report = check(&history);
        let counts = report.counts();
        let strange = counts.keys().find(|verdict| !verdicts.contains(verdict));
        assert_eq!(strange, None, "seed {seed}\n{report}");
        let found = counts.get(&verdicts[0]).copied().unwrap_or_default();
        assert_eq!(found > 0, injected > 0, "seed {seed}: it showed {injected} times\n{report}");
        shown += usize::from(injected > 0);
        for finding in &report.findings {
            assert!(!finding.events.is_empty(), "{finding}");
        }
    }
    assert!(shown >= 8, "the fault shows with {shown} seeds of 40 only");
}

#[test]
fn loss_is_found() {
    // What was lost may have been a part of a transaction whose other parts are there.
    caught(Fault::LosesConfirmed, &[Lost, SplitTransaction]);
    // Whoever believes these confirms believes that other things are kept too.
    caught(Fault::ConfirmsBeforeKeeping, &[Lost, SilentDuplicate, Order, Resurrected]);
}

#[test]
fn phantoms_are_found() {
    // A delivery that the broker does not know of is none that it can have noted.
    caught(Fault::DeliversWhatNobodyPublished, &[Phantom, SilentDuplicate, Order]);
    caught(Fault::DeliversFromAnotherQueue, &[Phantom, SilentDuplicate, Order]);
    caught(Fault::DeliversRolledBack, &[Phantom]);
}

#[test]
fn other_bodies_are_found() {
    caught(Fault::FlipsAnOctet, &[Corrupt]);
    caught(Fault::SwapsBodies, &[Corrupt]);
}

#[test]
fn missing_flags_are_found() {
    // Without its flag a message that comes again is also out of order.
    caught(Fault::DuplicatesSilently, &[SilentDuplicate, Order]);
    caught(Fault::ForgetsTheFlagOfRequeued, &[SilentDuplicate, Order]);
    caught(Fault::ForgetsTheFlagAfterACrash, &[SilentDuplicate, Order]);
}

#[test]
fn undone_acks_are_found() {
    // The receipt may have been that of a commit.
    caught(Fault::ResurrectsAfterTheReceipt, &[Resurrected, SplitTransaction]);
    caught(Fault::ResurrectsOldAcks, &[Resurrected]);
    caught(Fault::ResurrectsWithinALife, &[Resurrected]);
}

#[test]
fn another_order_is_found() {
    caught(Fault::Reorders, &[Order]);
}

#[test]
fn half_transactions_are_found() {
    caught(Fault::KeepsHalfOfTheStores, &[SplitTransaction]);
    caught(Fault::KeepsStoresWithoutAcks, &[SplitTransaction]);
    caught(Fault::KeepsAcksWithoutStores, &[SplitTransaction]);
}

#[test]
fn answers_to_nothing_are_found() {
    caught(Fault::ConfirmsTwice, &[ConfirmHonesty]);
    caught(Fault::ConfirmsWhatNobodyPublished, &[ConfirmHonesty]);
    caught(Fault::CommitsUnasked, &[ConfirmHonesty]);
}
