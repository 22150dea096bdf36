//! What certificates admit, and what a wrong certificate cannot do.

use ledger::apply::{AdmittedBundle, BatchContext, MemberResult, apply};
use ledger::bundle::{BundleBuilder, BundleLayout};
use ledger::certificate::{Attested, Certificate, CertificateFault, ValidatorSet, VerdictBitmap};
use ledger::entry::{CertifiedBundle, Configuration, ConfigurationChange};
use ledger::history::KeptHistory;
use ledger::identifier::BundleDigest;
use ledger::parallel::Serial;
use ledger::{
    AtomicGroupId, Body, Contract, Input, Intent, Limits, LogTime, Movements, Origin, Outcome, Party, Position,
    Quantity, Rejection, Sequence, SupplyChange, Transaction, TransactionId, Unlock,
};

use crate::support::{State, Submitted, TestLedger, asset, identity, key, party};

fn transaction(movements: Movements, signer: &str) -> Transaction {
    let body = Body {
        cluster: identity().cluster,
        group: 0,
        valid_until: LogTime::from_unix_millis(10_000),
        nonce: 0,
        atomic: None,
        seen_head: None,
        signers: vec![party(signer)],
        intent: Intent::Movements(movements),
    };
    let signatures = vec![key(signer).sign_transaction(&body)];
    Transaction { body, signatures }
}

fn alice_holds(quantity: i128) -> Contract {
    Contract::Position(Position { asset: asset("USD"), owner: party("alice"), quantity: Quantity::new(quantity) })
}

fn issue(quantity: i128) -> Transaction {
    let change = SupplyChange { asset: asset("USD"), quantity: Quantity::new(quantity) };
    transaction(
        Movements { outputs: vec![alice_holds(quantity)], supply: vec![change], ..Movements::default() },
        "bank",
    )
}

fn issue_until(valid_until: LogTime) -> Transaction {
    let body = Body { valid_until, ..issue(1).body };
    let signatures = vec![key("bank").sign_transaction(&body)];
    Transaction { body, signatures }
}

fn grouped(members: &[Transaction]) -> Vec<Transaction> {
    let ids: Vec<TransactionId> = members.iter().map(Transaction::id).collect();
    let atomic = Some(AtomicGroupId::of(&ids));
    let named = |member: &Transaction| Transaction { body: Body { atomic, ..member.body.clone() }, ..member.clone() };
    members.iter().map(named).collect()
}

#[test]
fn an_output_named_twice_behind_a_wrong_certificate_is_spent_once() {
    let mut ledger = TestLedger::new();
    let issued = issue(10);
    ledger.batch(LogTime::ZERO, &[Submitted::new(vec![issued.clone()])]);
    let input = Input {
        origin: Origin { transaction: issued.id(), index: 0 },
        contract: alice_holds(10),
        unlock: Unlock::Owner,
    };
    let doubled = Movements { inputs: vec![input, input], outputs: vec![alice_holds(20)], ..Movements::default() };
    let thief = transaction(doubled, "alice");
    let honest = Movements { inputs: vec![input], outputs: vec![alice_holds(10)], ..Movements::default() };
    let submissions = [thief.clone(), transaction(honest, "alice")].map(|one| Submitted::new(vec![one]));
    let effects = ledger.batch_certified(&Serial, LogTime::ZERO, &submissions, &[true, true]);
    let output = input.output_id();
    let spent = Rejection::InputSpent { input: 1, output, winner: thief.id() };
    assert_eq!(effects.records[0].outcome, Outcome::Rejected(spent));
    assert!(effects.records[1].outcome.is_committed(), "what a rejected transaction named stays unspent");
}

#[test]
fn a_group_of_which_a_certificate_passes_half_has_no_place_in_the_order() {
    let mut ledger = TestLedger::new();
    let submission = Submitted::new(grouped(&[issue(1), issue(2)]));
    for verdicts in [[true, false], [false, true]] {
        let effects = ledger.batch_certified(&Serial, LogTime::ZERO, std::slice::from_ref(&submission), &verdicts);
        assert_eq!(effects.results, [MemberResult::Refused, MemberResult::Refused]);
        assert_eq!(effects.records, []);
    }
}

#[test]
fn a_certificate_that_passes_half_a_group_as_a_single_submission_splits_nothing() {
    let mut ledger = TestLedger::new();
    let members = grouped(&[issue(1), issue(2)]);
    let effects = ledger.batch_certified(&Serial, LogTime::ZERO, &[Submitted::new(members[..1].to_vec())], &[true]);
    assert_eq!(effects.results, [MemberResult::Refused]);
}

#[test]
fn equal_members_of_a_group_and_equal_submissions_have_one_place() {
    let mut ledger = TestLedger::new();
    let group = Submitted::new(grouped(&[issue(1), issue(3)]));
    let single = Submitted::new(vec![issue(2)]);
    let submissions = [group.clone(), single.clone(), group, single];
    let effects = ledger.batch_certified(&Serial, LogTime::ZERO, &submissions, &[true; 6]);
    let places = [0, 1, 2, 0, 1, 2].map(MemberResult::Sequenced);
    assert_eq!(effects.results, places);
    assert!(effects.records.iter().all(|record| record.outcome.is_committed()));
}

#[test]
fn a_group_that_names_one_transaction_twice_has_no_place_in_the_order() {
    let mut ledger = TestLedger::new();
    let twice = Submitted::new(grouped(&[issue(1), issue(1)]));
    let effects = ledger.batch_certified(&Serial, LogTime::ZERO, &[twice], &[true; 2]);
    assert_eq!(effects.results, [MemberResult::Refused, MemberResult::Refused]);
}

#[test]
fn what_was_sequenced_before_bars_the_rest_of_its_group_and_keeps_its_outcome() {
    let barred = |member| Outcome::Rejected(Rejection::GroupMemberSequenced { member });
    let single = Submitted::new(vec![issue(2)]);
    let group = Submitted::new(grouped(&[issue(1), issue(2), issue(3)]));
    let overlapping = Submitted::new(grouped(&[issue(3), issue(4)]));
    let submissions = [single, group.clone(), overlapping];

    let mut together = TestLedger::new();
    let effects = together.batch_certified(&Serial, LogTime::ZERO, &submissions, &[true; 6]);
    let answers = TestLedger::answers(&effects);
    let outcomes: Vec<Outcome> = answers.into_iter().flatten().map(|(_, outcome)| outcome).collect();
    let committed = Outcome::Committed { chosen: Vec::new() };
    let expected = [committed.clone(), barred(1), committed, barred(1), barred(1), barred(0)];
    assert_eq!(outcomes, expected);

    let mut apart = TestLedger::new();
    let mut found = Vec::new();
    for submission in &submissions {
        let passed = vec![true; submission.members.len()];
        let effects = apart.batch_certified(&Serial, LogTime::ZERO, std::slice::from_ref(submission), &passed);
        found.extend(TestLedger::answers(&effects).into_iter().flatten().map(|(_, outcome)| outcome));
    }
    assert_eq!(found, expected, "in one batch as in three");
    assert_eq!(apart.commitments.head().unspent, together.commitments.head().unspent);
}

#[test]
fn what_a_wrong_certificate_passes_and_does_not_decode_is_refused() {
    let mut builder = BundleBuilder::new();
    builder.push(Sequence::default(), &[vec![1_u8, 2, 3]]);
    let certified = certified(builder.finish(), &[true]);
    let validators = validators(1, &["v1"]);
    let admitted = AdmittedBundle::admit(&certified, &validators, &Limits::V1).unwrap();
    let history = &KeptHistory::default();
    let context = BatchContext {
        next: Sequence::default(),
        log_time: LogTime::ZERO,
        limits: &Limits::V1,
        validity_ms_max: Limits::V1.validity_ms_max,
        history,
    };
    let effects = apply(&State::default(), &Serial, &context, &admitted).unwrap();
    assert_eq!(effects.results, [MemberResult::Refused]);
}

fn certified(bundle: Vec<u8>, verdicts: &[bool]) -> CertifiedBundle {
    let bundle_digest = BundleLayout::read(&bundle, &Limits::V1).unwrap().digest();
    CertifiedBundle { bundle, certificates: vec![certificate("v1", bundle_digest, verdicts, 5)] }
}

fn certificate(validator: &str, bundle: BundleDigest, verdicts: &[bool], epoch: u64) -> Certificate {
    Attested { bundle, verdicts: VerdictBitmap::of(verdicts), epoch }.certify(&key(validator))
}

fn validators(required: u16, names: &[&str]) -> ValidatorSet {
    ValidatorSet { epoch: 5, required, keys: names.iter().map(|name| party(name)).collect() }
}

#[test]
fn certificates_admit_only_their_bundle_epoch_validators_and_number() {
    let (bundle, other) = (BundleDigest::of(b"one"), BundleDigest::of(b"two"));
    let set = validators(2, &["v1", "v2", "v3"]);
    let by = |validator: &str| certificate(validator, bundle, &[true, false], 5);
    let admit = |certificates: &[Certificate]| set.admit(&bundle, 2, certificates).map(|verdicts| verdicts.passed(0));

    assert_eq!(admit(&[by("v1"), by("v3")]), Ok(Some(true)));
    assert_eq!(admit(&[]), Err(CertificateFault::TooFew { found: 0, required: 2 }));
    assert_eq!(admit(&[by("v1"), by("v1")]), Err(CertificateFault::TooFew { found: 1, required: 2 }));
    assert_eq!(admit(&[by("v1"), by("v9")]), Err(CertificateFault::NotAValidator(party("v9"))));
    let of_other = certificate("v2", other, &[true, false], 5);
    assert_eq!(admit(&[by("v1"), of_other]), Err(CertificateFault::OtherBundle));
    let longer = certificate("v2", bundle, &[true, false, true], 5);
    assert_eq!(admit(&[by("v1"), longer]), Err(CertificateFault::OtherBundle));
    let old = certificate("v2", bundle, &[true, false], 4);
    assert_eq!(admit(&[by("v1"), old]), Err(CertificateFault::OtherEpoch { found: 4, current: 5 }));
    let contrary = certificate("v2", bundle, &[false, true], 5);
    assert_eq!(admit(&[by("v1"), contrary]), Err(CertificateFault::Disagreement));
    let mut forged = by("v2");
    forged.attested.verdicts = VerdictBitmap::of(&[true, true]);
    assert_eq!(admit(&[forged, by("v1")]), Err(CertificateFault::FalseSignature(party("v2"))));
    let renamed = Certificate { validator: party("v2"), ..by("v1") };
    assert_eq!(admit(&[by("v1"), renamed]), Err(CertificateFault::FalseSignature(party("v2"))));
    assert!(validators(0, &["v1"]).admit(&bundle, 2, &[]).is_err(), "no certificate is never enough");
}

#[test]
fn what_may_have_been_forgotten_gets_no_second_place() {
    let mut ledger = TestLedger::new();
    let hour = 3_600_000;
    let at = |hours: u64| LogTime::from_unix_millis(hours * hour);
    for hours in 0..=60 {
        let batch = (hours + 2, Sequence::new(5), at(hours));
        ledger.history.advance(batch, at(hours + 24), Some(30 * hour));
    }
    // ordered before the beginning at about 30 hours, and valid for a day at most
    let forgotten_until = ledger.history.beginning().expired_by;
    assert!(at(50) < forgotten_until && forgotten_until <= at(60), "{forgotten_until}");
    let until = |valid_until: LogTime| Submitted::new(vec![issue_until(valid_until)]);
    let [forgotten, expired, valid] =
        [forgotten_until, forgotten_until.plus_millis(1), at(60).plus_millis(1)].map(until);
    let effects = ledger.batch(at(60), &[forgotten.clone(), expired, valid]);
    let kinds = [MemberResult::Forgotten, MemberResult::Sequenced(0), MemberResult::Sequenced(1)];
    assert_eq!(effects.results, kinds);
    assert_eq!(effects.records[0].outcome, Outcome::Rejected(Rejection::Expired { log_time: at(60) }));
    assert!(effects.records[1].outcome.is_committed());
    // a group with one of them has no place as a whole
    let [first] = <[Transaction; 1]>::try_from(forgotten.members).unwrap();
    let group = Submitted::new(grouped(&[first, issue_until(at(61))]));
    let effects = ledger.batch_certified(&Serial, at(60), &[group], &[true, true]);
    assert_eq!(effects.results, [MemberResult::Forgotten, MemberResult::Forgotten]);
}

/// Of a thousand changes of the validators, each behind the one before: those behind which a certificate that was right
/// under an earlier set still admits its bundle.
fn changes_that_old_certificates_survive() -> Vec<usize> {
    let bundle = BundleDigest::of(b"one");
    let mut configuration = Configuration::genesis();
    let all: Vec<Party> = (0..4).map(|number| party(&format!("v{number}"))).collect();
    let mut survived = Vec::new();
    let mut earlier: Vec<Certificate> = Vec::new();
    for number in 0..1_000_usize {
        let some = vec![all[number / 2 % all.len()]];
        let change = match number % 2 {
            0 => ConfigurationChange::AddValidators(some),
            _ => ConfigurationChange::RemoveValidators(some),
        };
        let Some(next) = configuration.after(&change) else { continue };
        configuration = next;
        let set = &configuration.validators;
        let admits = |certificate: &Certificate| set.admit(&bundle, 1, std::slice::from_ref(certificate)).is_ok();
        if earlier.iter().any(admits) {
            survived.push(number);
        }
        let names = (0..4).map(|number| format!("v{number}")).filter(|name| set.keys.contains(&party(name)));
        let made: Vec<Certificate> = names.map(|name| certificate(&name, bundle, &[true], set.epoch)).collect();
        assert!(made.iter().all(admits), "what the validators in force certify is admitted");
        earlier.extend(made);
        let recent = earlier.len().saturating_sub(8);
        earlier.drain(..recent);
    }
    survived
}

#[test]
fn no_certificate_survives_a_change_of_the_validators() {
    assert_eq!(changes_that_old_certificates_survive(), Vec::<usize>::new());
}

/// The test above finds what it is meant to find.
#[cfg(feature = "planted")]
#[test]
fn planted_bugs_are_found_here() {
    let flaw = flaws::Flaw::OldEpochAccepted;
    flaws::plant(Some(flaw));
    let survived = changes_that_old_certificates_survive();
    flaws::plant(None);
    let first = survived.first().expect("it is found: only the validators in force admit");
    let by = "authority (only the validators in force admit)";
    println!(
        "| `{flaw}` | {} | `ledger/tests/suite/certification.rs` | {by} | case {} |",
        flaw.sentence(),
        first + 1
    );
    assert_eq!(changes_that_old_certificates_survive(), Vec::<usize>::new(), "without it nothing is found");
}
