//! The total-order check finds each kind of wrong, and nothing in what is right.

use chaos_tests::check::{Findings, Property, order, registers};
use chaos_tests::history::{Call, Level, Operation, Told};
use ledger::{Limits, Outcome, Rejection};

use super::scene::Scene;

async fn scene() -> (Scene, Vec<Operation>) {
    let scene = Scene::play(7, 150).await;
    let operations = scene.journal.operations().to_vec();
    (scene, operations)
}

fn check(scene: &Scene, operations: &[Operation]) -> Findings {
    let mut findings = order::check(&scene.batches, operations, &Limits::V1);
    findings.extend(registers::check(operations, &scene.registers));
    findings
}

fn properties(findings: &Findings) -> Vec<Property> {
    findings.violations().iter().map(|violation| violation.property).collect()
}

/// The first operation of which this makes another.
fn change(operations: &mut [Operation], mut change: impl FnMut(&mut Operation) -> bool) {
    assert!(operations.iter_mut().any(&mut change), "there is something to change");
}

#[tokio::test]
async fn a_right_history_is_right_and_everything_in_it_is_looked_at() {
    let (scene, operations) = scene().await;
    let findings = check(&scene, &operations);
    assert_eq!(properties(&findings), Vec::<Property>::new(), "{:?}", findings.violations());
    for property in [Property::Acknowledgements, Property::RealTime, Property::Reads, Property::Authority] {
        assert!(findings.checked(property) > 100, "{property:?}");
    }
    assert!(findings.checked(Property::Registers) > 20 && findings.checked(Property::Atomicity) > 2);
}

#[tokio::test]
async fn a_lost_acknowledgement_is_found() {
    let (mut scene, operations) = scene().await;
    scene.batches.pop();
    let findings = order::check(&scene.batches, &operations, &Limits::V1);
    assert!(properties(&findings).contains(&Property::Acknowledgements), "{:?}", findings.violations());
}

#[tokio::test]
async fn a_changed_acknowledgement_is_found() {
    let (scene, mut operations) = scene().await;
    change(&mut operations, |operation| {
        let Call::Submission { answers, .. } = &mut operation.call else { return false };
        let Some(Told::Sequenced(record)) = answers.iter_mut().flatten().next() else { return false };
        record.outcome = Outcome::Rejected(Rejection::Malformed {});
        true
    });
    assert_eq!(properties(&order::check(&scene.batches, &operations, &Limits::V1)), [Property::Acknowledgements]);
}

#[tokio::test]
async fn an_answer_from_before_what_stands_before_it_is_found() {
    let (scene, mut operations) = scene().await;
    // the last submission claims to have been answered before the first was invoked
    let last = operations.iter_mut().rev().find(|operation| matches!(operation.call, Call::Submission { .. })).unwrap();
    last.answered = Some(std::time::Duration::from_micros(1));
    let found = properties(&order::check(&scene.batches, &operations, &Limits::V1));
    assert_eq!(found, [Property::RealTime]);
}

#[tokio::test]
async fn a_stale_read_is_wrong_where_it_had_to_be_fresh_and_right_where_not() {
    let (scene, operations) = scene().await;
    let early = operations.iter().find_map(|operation| match &operation.call {
        Call::Read { found: Some(found), .. } if found.head.batch > 3 => Some((operation.call.clone(), found.head)),
        Call::Read { .. } | Call::Submission { .. } => None,
    });
    let (early, head) = early.unwrap();
    let end = operations.iter().filter_map(|operation| operation.answered).max().unwrap();
    let Call::Read { party, found, .. } = early else { unreachable!() };
    let late = |level| {
        let mut operations = operations.clone();
        let (invoked, answered) = (end * 2, Some(end * 3));
        operations.push(Operation {
            client: 9,
            invoked,
            answered,
            call: Call::Read { party, level, found: found.clone() },
        });
        properties(&order::check(&scene.batches, &operations, &Limits::V1))
    };
    // whatever stands behind it was answered before it was invoked
    assert!(late(Level::Linearizable).iter().all(|property| *property == Property::RealTime));
    assert!(!late(Level::Linearizable).is_empty());
    assert_eq!(late(Level::Local), []);
    assert_eq!(late(Level::AtLeast(head.size)), []);
    assert_eq!(late(Level::AtLeast(head.size.plus(1))), [Property::Reads]);
}

#[tokio::test]
async fn a_read_of_what_was_never_so_is_found() {
    let (scene, mut operations) = scene().await;
    change(&mut operations, |operation| {
        let Call::Read { found: Some(found), .. } = &mut operation.call else { return false };
        found.outputs.pop_first().is_some()
    });
    assert!(properties(&check(&scene, &operations)).contains(&Property::Reads));
}

#[tokio::test]
async fn what_was_refused_or_never_submitted_must_not_be_in_the_order() {
    let (scene, mut operations) = scene().await;
    let refused = {
        let mut operations = operations.clone();
        change(&mut operations, |operation| {
            let Call::Submission { answers, .. } = &mut operation.call else { return false };
            answers.fill(Some(Told::NotTaken));
            true
        });
        properties(&order::check(&scene.batches, &operations, &Limits::V1))
    };
    assert_eq!(refused, [Property::Authority]);
    operations.remove(0);
    assert!(properties(&order::check(&scene.batches, &operations, &Limits::V1)).contains(&Property::Authority));
}

#[tokio::test]
async fn an_order_that_is_not_what_the_rules_make_of_it_is_found_by_the_rule_that_it_breaks() {
    let (scene, operations) = scene().await;
    let spoiled = |spoil: &dyn Fn(&mut Scene) -> bool| {
        let (batches, journal) = (scene.batches.clone(), scene.journal.clone());
        let mut scene = Scene { batches, journal, registers: scene.registers.clone() };
        assert!(spoil(&mut scene), "there is something to spoil");
        properties(&order::check(&scene.batches, &operations, &Limits::V1)).into_iter().next()
    };
    let first_lost_race = |scene: &mut Scene| {
        let mut records = scene.batches.iter_mut().flat_map(|batch| &mut batch.records);
        let lost = |record: &&mut ledger::OutcomeRecord| {
            matches!(record.outcome, Outcome::Rejected(Rejection::InputSpent { .. }))
        };
        records.find(lost).map(|record| record.outcome = Outcome::Committed { chosen: Vec::new() }).is_some()
    };
    assert_eq!(spoiled(&first_lost_race), Some(Property::SingleSpend));
    let half_a_group = |scene: &mut Scene| {
        for batch in &mut scene.batches {
            let grouped = batch.transactions.iter().position(|transaction| transaction.body.atomic.is_some());
            let Some(position) = grouped else { continue };
            if batch.records[position].outcome.is_committed() {
                batch.records[position].outcome = Outcome::Rejected(Rejection::Malformed {});
                return true;
            }
        }
        false
    };
    assert_eq!(spoiled(&half_a_group), Some(Property::Atomicity));
    let twice = |scene: &mut Scene| {
        let first = scene.batches.iter().find(|batch| !batch.records.is_empty()).cloned();
        let Some((mut batch, last)) = first.zip(scene.batches.last().map(|batch| batch.head)) else { return false };
        batch.head = last;
        batch.head.batch += 1;
        scene.batches.push(batch);
        true
    };
    assert!(spoiled(&twice).is_some());
    let another_head = |scene: &mut Scene| {
        scene.batches.last_mut().is_some_and(|batch| {
            batch.head.log_root = ledger::Hash::from_bytes([1; 32]);
            true
        })
    };
    assert_eq!(spoiled(&another_head), Some(Property::AppendOnly));
    let unsigned = |scene: &mut Scene| {
        let mut batches = scene
            .batches
            .iter_mut()
            .filter(|batch| batch.records.first().is_some_and(|record| record.outcome.is_committed()));
        batches.next().is_some_and(|batch| {
            batch.transactions[0].signatures.fill(ledger::Signature::from_bytes([9; 64]));
            true
        })
    };
    assert_eq!(spoiled(&unsigned), Some(Property::Authority));
    let skipped = |scene: &mut Scene| {
        scene.batches.remove(2);
        true
    };
    assert_eq!(spoiled(&skipped), Some(Property::AppendOnly));
}
