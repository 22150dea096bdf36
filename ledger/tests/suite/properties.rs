//! The state against the naive model, and what must hold of every history.

use std::collections::{BTreeMap, BTreeSet};

use ledger::apply::BatchEffects;
use ledger::dependency::Dependencies;
use ledger::digest::UnspentDigest;
use ledger::effects::Effects;
use ledger::identifier::canonical_bytes;
use ledger::parallel::{Parallel, Serial};
use ledger::{AssetType, Intent, Limits, LogTime, Outcome, OutputId, Rejection, Sequence, Transaction, TransactionId};
use proptest::prelude::*;

use crate::history::{Batch, histories, histories_with_commands};
use crate::model::{Known, Model};
use crate::support::{Scrambled, Submitted, TestLedger, verdicts};

type Answer = Option<(Sequence, Outcome)>;

/// Everything that executing a history yields.
struct Run {
    ledger: TestLedger,
    effects: Vec<BatchEffects>,
    answers: Vec<Vec<Answer>>,
}

fn run(history: &[Batch], threads: &dyn Parallel) -> Run {
    let mut run = Run { ledger: TestLedger::new(), effects: Vec::new(), answers: Vec::new() };
    for batch in history {
        let passed: Vec<bool> = verdicts(&batch.submissions).iter().flatten().map(Result::is_ok).collect();
        let effects = run.ledger.batch_certified(threads, batch.log_time, &batch.submissions, &passed);
        run.answers.push(TestLedger::answers(&effects));
        run.effects.push(effects);
    }
    run
}

fn live_of(ledger: &TestLedger) -> BTreeMap<OutputId, Known> {
    let known = |output: &ledger::view::LiveOutput| Known {
        origin: output.origin,
        contract: output.contract,
        created_at: output.place.sequence,
    };
    ledger.state.live.iter().map(|(id, output)| (*id, known(output))).collect()
}

fn equals_the_model(history: &[Batch]) {
    let run = run(history, &Serial);
    let mut model = Model::default();
    model.roots.insert(0, ledger::merkle::empty_root());
    for (batch, answers) in history.iter().zip(&run.answers) {
        let passed = verdicts(&batch.submissions).into_iter().map(|members| members.iter().all(Result::is_ok));
        let submissions: Vec<(Submitted, bool)> = batch.submissions.iter().cloned().zip(passed).collect();
        assert_eq!(&model.batch(batch.log_time, &submissions), answers);
    }
    let records: Vec<_> = run.effects.iter().flat_map(|effects| effects.records.clone()).collect();
    assert_eq!(model.records, records);
    assert_eq!(model.live, live_of(&run.ledger));
    assert_eq!(model.spent, run.ledger.state.spent);
}

fn is_the_same_in_parallel(history: &[Batch]) {
    let (serial, parallel) = (run(history, &Serial), run(history, &Scrambled));
    assert_eq!(serial.effects, parallel.effects);
    assert_eq!(canonical_bytes(&serial.ledger.commitments), canonical_bytes(&parallel.ledger.commitments));
}

/// Cuts each batch in two at the place that `cuts` says.
fn split(history: &[Batch], cuts: &[usize]) -> Vec<Batch> {
    let halves = history.iter().zip(cuts.iter().cycle()).flat_map(|(batch, cut)| {
        let (first, second) = batch.submissions.split_at(cut % batch.submissions.len());
        [first, second].map(|half| Batch { log_time: batch.log_time, submissions: half.to_vec() })
    });
    halves.collect()
}

fn is_the_same_split(history: &[Batch], cuts: &[usize]) {
    let (whole, parts) = (run(history, &Serial), run(&split(history, cuts), &Serial));
    let answers = |run: &Run| run.answers.concat();
    assert_eq!(answers(&whole), answers(&parts));
    assert_eq!(whole.ledger.state.live, parts.ledger.state.live);
    assert_eq!(whole.ledger.state.spent, parts.ledger.state.spent);
    let head = |run: &Run| {
        let head = *run.ledger.commitments.head();
        (head.size, head.log_root, head.unspent, head.log_time)
    };
    assert_eq!(head(&whole), head(&parts));
}

fn conserves_every_asset(history: &[Batch]) {
    let run = run(history, &Serial);
    let mut supply: BTreeMap<AssetType, i128> = BTreeMap::new();
    let transactions = history.iter().flat_map(|batch| &batch.submissions).flat_map(|one| &one.members);
    let by_id: BTreeMap<TransactionId, &Transaction> = transactions.map(|member| (member.id(), member)).collect();
    for record in run.effects.iter().flat_map(|effects| &effects.records) {
        if let (true, Intent::Movements(movements)) =
            (record.outcome.is_committed(), &by_id[&record.transaction].body.intent)
        {
            for change in &movements.supply {
                *supply.entry(change.asset).or_default() += change.quantity.minor_units();
            }
        }
    }
    let mut held: BTreeMap<AssetType, i128> = BTreeMap::new();
    for (asset, quantity) in run.ledger.state.live.values().filter_map(|output| output.contract.value()) {
        *held.entry(asset).or_default() += quantity.minor_units();
    }
    supply.retain(|_, total| *total != 0);
    held.retain(|_, total| *total != 0);
    assert_eq!(supply, held);
}

fn consumes_nothing_twice_and_nothing_before_its_creation(history: &[Batch]) {
    let run = run(history, &Serial);
    let mut consumed = BTreeSet::new();
    for output in run.effects.iter().flat_map(|effects| &effects.consumed) {
        assert!(consumed.insert(output.output.id), "consumed twice");
        assert!(output.output.place.sequence < output.spender, "consumed before its creation");
        assert_eq!(output.output.origin.output_id(&output.output.contract), output.output.id);
    }
}

fn commits_groups_whole_or_not_at_all(history: &[Batch]) {
    let run = run(history, &Serial);
    let mut sequenced = BTreeSet::new();
    let answered = history.iter().zip(&run.answers).flat_map(|(batch, answers)| {
        let mut answers = answers.iter();
        let submissions = batch.submissions.iter();
        submissions.map(move |it| (it, answers.by_ref().take(it.members.len()).collect::<Vec<_>>()))
    });
    for (submission, answers) in answered {
        let members = submission.members.iter().map(Transaction::id).zip(answers);
        let (before, here): (Vec<_>, Vec<_>) = members.partition(|(id, _)| sequenced.contains(id));
        let outcomes: Vec<_> = here.iter().map(|(_, answer)| answer.as_ref().map(|(_, outcome)| outcome)).collect();
        let fates: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.map(Outcome::is_committed)).collect();
        assert!(fates.len() <= 1, "a group has one fate: {outcomes:?}");
        if !before.is_empty() {
            let barred =
                |outcome: &&Outcome| matches!(outcome, Outcome::Rejected(Rejection::GroupMemberSequenced { .. }));
            assert!(outcomes.iter().flatten().all(barred), "the rest of a broken group: {outcomes:?}");
        }
        sequenced.extend(here.iter().filter(|(_, answer)| answer.is_some()).map(|(id, _)| *id));
    }
}

fn is_valid_for_too_long(submission: &Submitted, log_time: LogTime) -> bool {
    let latest = log_time.plus_millis(Limits::V1.validity_ms_max);
    submission.members.iter().any(|member| member.body.valid_until > latest)
}

fn answers_the_same_when_submitted_again(history: &[Batch]) {
    let mut run = run(history, &Serial);
    let (state, size) = (run.ledger.state.clone(), run.ledger.next());
    let last = history.last().unwrap().log_time;
    for (batch, answers) in history.iter().zip(&run.answers) {
        let mut answers = answers.iter().cloned();
        let mut submissions = Vec::new();
        let mut expected = Vec::new();
        for submission in &batch.submissions {
            let answers: Vec<_> = answers.by_ref().take(submission.members.len()).collect();
            if !is_valid_for_too_long(submission, batch.log_time) {
                submissions.push(submission.clone());
                expected.extend(answers);
            }
        }
        let effects = run.ledger.batch(last.plus_millis(50_000), &submissions);
        assert_eq!(TestLedger::answers(&effects), expected);
        assert!(effects.records.is_empty() && effects.created.is_empty() && effects.consumed.is_empty());
    }
    let after = run.ledger.state.clone();
    assert_eq!((state.live, state.spent, size), (after.live, after.spent, run.ledger.next()));
}

fn has_a_digest_of_its_live_outputs_alone(history: &[Batch]) {
    let run = run(history, &Serial);
    let mut backwards = UnspentDigest::default();
    run.ledger.state.live.keys().rev().for_each(|id| backwards.insert(id));
    assert_eq!(backwards, run.ledger.commitments.head().unspent);
}

/// Executes single transactions level by level instead of in the order of the log.
fn has_the_same_outcomes_in_the_order_of_its_levels(history: &[Batch]) {
    let single = |submission: &&Submitted| submission.members.len() == 1;
    let mut seen = BTreeSet::new();
    let in_order: Vec<Batch> = history
        .iter()
        .map(|batch| {
            let submissions = batch.submissions.iter().filter(single);
            let fresh = submissions.filter(|submission| seen.insert(submission.members[0].id()));
            Batch { log_time: batch.log_time, submissions: fresh.cloned().collect() }
        })
        .collect();
    let by_level: Vec<Batch> = in_order
        .iter()
        .map(|batch| {
            let order = dependencies_of(batch).execution_order();
            let submissions = order.into_iter().map(|place| batch.submissions[place].clone()).collect();
            Batch { log_time: batch.log_time, submissions }
        })
        .collect();
    let (in_order, by_level) = (run(&in_order, &Serial), run(&by_level, &Scrambled));
    let outcomes = |run: &Run| -> BTreeMap<TransactionId, Outcome> {
        run.ledger.state.outcomes.iter().map(|(id, (_, outcome))| (*id, outcome.clone())).collect()
    };
    assert_eq!(outcomes(&in_order), outcomes(&by_level));
    assert_eq!(in_order.ledger.commitments.head().unspent, by_level.ledger.commitments.head().unspent);
}

fn dependencies_of(batch: &Batch) -> Dependencies {
    let members = batch.submissions.iter().flat_map(|submission| &submission.members);
    let effects: Vec<(TransactionId, Effects)> =
        members.map(|member| (member.id(), Effects::of(&member.id(), &member.body))).collect();
    let named: Vec<(TransactionId, &Effects)> = effects.iter().map(|(id, effects)| (*id, effects)).collect();
    Dependencies::of(&named)
}

/// The graph by its definition: every two that name one output, where one of them changes it, must be connected, and
/// levels must be those of the edges.
fn has_dependencies_that_follow_from_the_definition(history: &[Batch]) {
    for batch in history {
        let dependencies = dependencies_of(batch);
        let members: Vec<&Transaction> = batch.submissions.iter().flat_map(|one| &one.members).collect();
        let count = members.len();
        let mut reaches = vec![vec![false; count]; count];
        for (earlier, later) in dependencies.edges() {
            assert!(earlier < later);
            for row in &mut reaches {
                row[later] |= row[earlier];
            }
            reaches[earlier][later] = true;
        }
        let level = |place: usize| dependencies.levels().iter().position(|level| level.contains(&place)).unwrap();
        for later in 0..count {
            let predecessors = dependencies.edges().into_iter().filter(|edge| edge.1 == later).map(|edge| edge.0);
            assert_eq!(level(later), predecessors.map(|place| level(place) + 1).max().unwrap_or(0));
            for earlier in 0..later {
                if meet(members[earlier], members[later]) {
                    assert!(reaches[earlier][later], "{earlier} and {later} meet and are not linked");
                }
            }
        }
        let path = dependencies.critical_path();
        assert_eq!(path.len(), dependencies.levels().len());
        let edges: BTreeSet<(usize, usize)> = dependencies.edges().into_iter().collect();
        assert!(path.iter().zip(path.iter().skip(1)).all(|(a, b)| edges.contains(&(*a, *b))));
    }
}

fn meet(earlier: &Transaction, later: &Transaction) -> bool {
    let effects = [earlier, later].map(|it| Effects::of(&it.id(), &it.body));
    let named = |effects: &Effects| -> BTreeSet<OutputId> {
        effects.changed().copied().chain(effects.referenced.iter().map(|(id, _)| *id)).collect()
    };
    let [first, second] = &effects;
    earlier.id() != later.id()
        && (first.changed().any(|id| named(second).contains(id))
            || second.changed().any(|id| named(first).contains(id)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_equals_the_model(history in histories()) {
        equals_the_model(&history);
    }

    #[test]
    fn applying_commands_equals_the_model(history in histories_with_commands()) {
        equals_the_model(&history);
    }

    #[test]
    fn splitting_a_batch_anywhere_changes_nothing(history in histories(), cuts in prop::collection::vec(0_usize..20, 4)) {
        is_the_same_split(&history, &cuts);
    }

    #[test]
    fn splitting_a_batch_of_commands_changes_nothing(
        history in histories_with_commands(),
        cuts in prop::collection::vec(0_usize..20, 4),
    ) {
        is_the_same_split(&history, &cuts);
    }

    #[test]
    fn many_threads_in_any_order_compute_the_bytes_of_one(
        history in prop_oneof![3 => histories().boxed(), 1 => histories_with_commands().boxed()],
    ) {
        is_the_same_in_parallel(&history);
    }

    #[test]
    fn invariants_hold_of_every_history(
        history in prop_oneof![histories().boxed(), histories_with_commands().boxed()],
    ) {
        conserves_every_asset(&history);
        consumes_nothing_twice_and_nothing_before_its_creation(&history);
        commits_groups_whole_or_not_at_all(&history);
        has_a_digest_of_its_live_outputs_alone(&history);
    }

    #[test]
    fn submitting_everything_again_answers_the_same_and_changes_nothing(
        history in prop_oneof![3 => histories().boxed(), 1 => histories_with_commands().boxed()],
    ) {
        answers_the_same_when_submitted_again(&history);
    }

    #[test]
    fn executing_by_levels_equals_the_order_of_the_log(history in histories()) {
        has_the_same_outcomes_in_the_order_of_its_levels(&history);
    }

    #[test]
    fn dependencies_follow_from_their_definition(history in histories()) {
        has_dependencies_that_follow_from_the_definition(&history);
    }
}

/// Generated histories are worth something only if they reach what matters.
#[test]
fn histories_reach_commits_and_every_kind_of_race() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for strategy in [histories().boxed(), histories_with_commands().boxed()] {
        for _ in 0..150 {
            let history = strategy.new_tree(&mut runner).unwrap().current();
            for record in run(&history, &Serial).effects.iter().flat_map(|effects| &effects.records) {
                let name = match &record.outcome {
                    Outcome::Committed { chosen } => {
                        if chosen.is_empty() {
                            "Committed"
                        } else {
                            "CommandCommitted"
                        }
                    }
                    Outcome::Rejected(reason) => reason.name(),
                };
                *ended.entry(name.to_owned()).or_default() += 1;
            }
        }
    }
    let wanted = [
        "Committed",
        "CommandCommitted",
        "Expired",
        "HeadUnknown",
        "NotYetExpired",
        "AllocationExpired",
        "InputUnknown",
        "InputSpent",
        "ReferenceUnknown",
        "ReferenceSpent",
        "GroupMemberRejected",
        "GroupMemberSequenced",
        "InsufficientFunds",
    ];
    let missing: Vec<&str> = wanted.into_iter().filter(|name| !ended.contains_key(*name)).collect();
    assert!(missing.is_empty(), "never ended as {missing:?}: {ended:?}");
    let (committed, all) = (ended["Committed"] + ended["CommandCommitted"], ended.values().sum::<usize>());
    assert!(committed * 2 > all, "most of a history commits: {ended:?}");
}
