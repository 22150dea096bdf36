//! The checks are checked with bugs in production code, which only builds with the feature `planted` have.

use std::env;

use crate::hunt::{Quarry, hunt};
use chaos_tests::check::Property::{self, *};
use chaos_tests::sim::nemesis::Fault;
use chaos_tests::{Report, SimulationOptions, simulate};
use flaws::Flaw;

/// Hunts for one bug alone, by its name.
const ONLY_VARIABLE: &str = "SERIATIM_SIM_BUG";

/// What has to find a bug.
struct Meant {
    found_by: &'static [Property],
    /// Words of the check in the product that stops a node because of it.
    stopped_by: &'static [&'static str],
    /// Seeds within which it has to be found.
    seeds: u64,
    /// The kinds of faults that these seeds have; those that they draw where none is named.
    kinds: &'static [Fault],
}

const fn by(found_by: &'static [Property], seeds: u64) -> Option<Meant> {
    Some(Meant { found_by, stopped_by: &[], seeds, kinds: &[] })
}

/// What takes several faults of just this kind, and is lost among others.
const fn by_kinds(kinds: &'static [Fault], found_by: &'static [Property], seeds: u64) -> Option<Meant> {
    Some(Meant { found_by, stopped_by: &[], seeds, kinds })
}

const fn by_check(found_by: &'static [Property], stopped_by: &'static [&'static str], seeds: u64) -> Option<Meant> {
    Some(Meant { found_by, stopped_by, seeds, kinds: &[] })
}

/// What in a simulation has to find a bug. `None` where another layer does (`planted_bugs_are_found_here`):
/// a truncation that is lost does harm only where a crash falls into a window of milliseconds;
/// openraft itself ignores an old snapshot first, and `sequencer/src/durability.rs` finds it without openraft; validators
/// of an earlier set are honest in simulations; and nobody there forges a prover's chain.
const fn meant(flaw: Flaw) -> Option<Meant> {
    match flaw {
        Flaw::LeaderRestored => by(&[EqualReplicas, Acknowledgements], 60),
        Flaw::AppendBeforeSync => by(&[EqualReplicas, Acknowledgements], 60),
        Flaw::SyncErrorSwallowed => by(&[EqualReplicas, Acknowledgements], 100),
        Flaw::PurgeBeforeFlush => by(&[EqualReplicas, Acknowledgements, AppendOnly], 60),
        Flaw::FlushInTwoSteps => by_check(&[], &["do not add up to the head"], 60),
        Flaw::ReadWithoutMajority => by(&[RealTime], 20),
        Flaw::ReadWithoutWaiting => by(&[Reads], 60),
        Flaw::NoDeduplication => by(&[OneOutcome], 20),
        Flaw::StaleInputs => by(&[SingleSpend, Outcomes], 40),
        Flaw::ConflictsUnlinked => by(&[SingleSpend, Outcomes], 40),
        Flaw::AllocationStays => by(&[SingleSpend, Outcomes], 20),
        Flaw::HalfAGroup => by(&[Atomicity, Outcomes], 20),
        Flaw::LogTimeRunsBack => by(&[AppendOnly], 40),
        Flaw::ExpiryByLocalClock => by(&[EqualReplicas], 20),
        Flaw::OutcomesByChance => by(&[EqualReplicas], 20),
        Flaw::CertificateUnchecked => by(&[Authority], 20),
        Flaw::SignatureUnchecked => by(&[Authority], 20),
        Flaw::VerdictsShifted => by(&[Authority], 20),
        Flaw::UnknownIsRefused => by(&[Authority, Acknowledgements], 40),
        Flaw::StatePastLog => by(&[EqualReplicas], 100),
        Flaw::VoteBeforeSync => by_kinds(&[Fault::SplitVote], &[EqualReplicas, Acknowledgements], 400),
        Flaw::TruncationBeforeSync
        | Flaw::OldSnapshotInstalled
        | Flaw::MembersInOneStep
        | Flaw::OldEpochAccepted
        | Flaw::AttestationLinkUnchecked => None,
    }
}

/// What the proof service alone has to find too: it judges by rules of its own, and refuses to attest. With seeds
/// within which it has to.
const PROVED: [(Flaw, u64); 3] = [(Flaw::StaleInputs, 40), (Flaw::ConflictsUnlinked, 40), (Flaw::HalfAGroup, 40)];

fn simulate_with(flaw: Flaw, kinds: &'static [Fault]) -> impl Fn(u64) -> Report + Sync {
    move |seed| {
        flaws::plant(Some(flaw));
        let report = simulate(&SimulationOptions { kinds: kinds.to_vec(), ..SimulationOptions::new(seed) });
        flaws::plant(None);
        report
    }
}

fn simulated(flaw: Flaw) -> Option<Quarry> {
    let Meant { found_by, stopped_by, seeds, kinds } = meant(flaw)?;
    let simulate = Box::new(simulate_with(flaw, kinds));
    let (name, sentence, layer, words) = (flaw.to_string(), flaw.sentence(), "simulation", "");
    Some(Quarry { name, sentence, layer, found_by, words, stopped_by, seeds, simulate })
}

fn proved((flaw, seeds): (Flaw, u64)) -> Quarry {
    let (name, sentence, layer, words) = (flaw.to_string(), flaw.sentence(), "prover", "raises an alarm over batch");
    let (found_by, stopped_by): (&[Property], &[&str]) = (&[Attestations], &[]);
    Quarry { name, sentence, layer, found_by, words, stopped_by, seeds, simulate: Box::new(simulate_with(flaw, &[])) }
}

#[test]
fn every_bug_of_production_code_is_found_by_the_check_meant_for_it() {
    let only = env::var(ONLY_VARIABLE).ok();
    let wanted = |quarry: &Quarry| only.as_ref().is_none_or(|only| quarry.name == *only);
    let quarries = Flaw::ALL.iter().copied().filter_map(simulated).chain(PROVED.map(proved));
    hunt(&quarries.filter(wanted).collect::<Vec<_>>());
}
