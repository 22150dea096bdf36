//! What travels comes back, and what is doubtful does not come in.
#![expect(clippy::unwrap_used, reason = "tests")]

use borsh::BorshSerialize;
use bytes::Bytes;
use ledger::commitments::Commitments;
use ledger::identifier::canonical_bytes;
use ledger::transaction::Origin;
use ledger::view::{LiveOutput, Place};
use ledger::{
    Allocation, AssetType, ClusterId, Contract, Head, Leg, Limits, LogTime, Outcome, OutcomeRecord, Party, Position,
    Quantity, Rejection, Sequence, Terms, TransactionId,
};
use proto::convert::{
    Answer, Cluster, Consistency, Consumed, Decision, Doubt, Holdings, ProofStatus, Proposal, Prover, SubmissionResult,
    TransactionStatus, Update, canonical, identifier, limits, limits_to_wire, live_output, live_output_to_wire,
    members,
};
use proto::{Problem, ProblemKind, wire};

fn party(name: u8) -> Party {
    Party::from_bytes([name; 32])
}

fn asset() -> AssetType {
    AssetType { issuer: party(9), symbol: "USD".parse().unwrap() }
}

fn output(contract: Contract, sequence: u64) -> LiveOutput {
    let origin = Origin { transaction: TransactionId::from_bytes([7; 32]), index: 3 };
    let place = Place { sequence: Sequence::new(sequence), index: 3 };
    LiveOutput { id: origin.output_id(&contract), origin, place, contract }
}

fn position(quantity: i128) -> LiveOutput {
    output(
        Contract::Position(Position { asset: asset(), owner: party(1), quantity: Quantity::new(quantity) }),
        5,
    )
}

fn proposal() -> Proposal {
    let leg = |payer, receiver| Leg { payer, receiver, asset: asset(), quantity: Quantity::new(5) };
    let terms = Terms { legs: vec![leg(party(1), party(2)), leg(party(2), party(1))], nonce: 1 };
    let allocation = Allocation {
        terms: terms.id(),
        leg: 0,
        asset: asset(),
        quantity: Quantity::new(5),
        payer: party(1),
        return_to: party(1),
        expires_at: LogTime::from_unix_millis(99),
    };
    Proposal { terms, allocations: vec![output(Contract::Allocation(allocation), 5)] }
}

fn head() -> Head {
    let genesis = *Commitments::genesis(ClusterId::of_name("test"), 0).head();
    Head { batch: 4, size: Sequence::new(40), ..genesis }
}

fn record(outcome: Outcome) -> OutcomeRecord {
    OutcomeRecord {
        sequence: Sequence::new(8),
        transaction: TransactionId::from_bytes([7; 32]),
        stamp: Sequence::new(2),
        log_time: LogTime::from_unix_millis(50),
        outcome,
    }
}

fn encoded<T: BorshSerialize>(value: &T) -> Bytes {
    canonical_bytes(value).into()
}

#[test]
fn a_live_output_comes_back() {
    let output = position(10);
    assert_eq!(live_output(&live_output_to_wire(&output)), Ok(output));
}

#[test]
fn an_output_under_a_false_name_is_refused() {
    let mut wire = live_output_to_wire(&position(10));
    wire.contract = live_output_to_wire(&position(11)).contract;
    assert_eq!(live_output(&wire).unwrap_err().field, "id");
}

#[test]
fn an_index_beyond_16_bits_is_refused() {
    let wire = wire::LiveOutput { index: 65_536, ..live_output_to_wire(&position(10)) };
    assert_eq!(live_output(&wire).unwrap_err().doubt, Doubt::OutOfRange(65_536));
}

#[test]
fn identifiers_of_another_length_are_refused() {
    assert_eq!(identifier::<Party>("owner", &[]).unwrap_err().doubt, Doubt::Missing);
    let short = identifier::<Party>("owner", &[1; 31]).unwrap_err();
    assert_eq!(short.doubt, Doubt::Length { expected: 32, found: 31 });
    assert_eq!(short.to_string(), "owner: expected 32 bytes, found 31");
}

#[test]
fn bytes_after_a_canonical_encoding_are_refused() {
    let mut bytes = canonical_bytes(&head());
    assert_eq!(canonical::<Head>("head", &bytes), Ok(head()));
    bytes.push(0);
    assert!(canonical::<Head>("head", &bytes).is_err());
}

#[test]
fn answers_come_back() {
    let transaction = TransactionId::from_bytes([7; 32]);
    let decisions = [
        Decision::Sequenced { record: record(Outcome::Committed { chosen: Vec::new() }), batch: 3 },
        Decision::Sequenced { record: record(Outcome::Rejected(Rejection::Empty {})), batch: 3 },
        Decision::Refused(Rejection::WrongCluster {}),
        Decision::Unknown(Problem::new(ProblemKind::Timeout, "no answer")),
    ];
    for decision in decisions {
        let result = SubmissionResult { tag: 6, answers: Ok(vec![Answer { transaction, decision }]) };
        assert_eq!(SubmissionResult::try_from(&wire::SubmissionResult::from(&result)), Ok(result));
    }
    let refused = SubmissionResult { tag: 6, answers: Err(Problem::new(ProblemKind::Overloaded, "busy")) };
    assert_eq!(SubmissionResult::try_from(&wire::SubmissionResult::from(&refused)), Ok(refused));
}

#[test]
fn an_answer_with_the_record_of_another_transaction_is_refused() {
    let answer = Answer {
        transaction: TransactionId::from_bytes([1; 32]),
        decision: Decision::Sequenced { record: record(Outcome::Committed { chosen: Vec::new() }), batch: 3 },
    };
    assert_eq!(Answer::try_from(&wire::Outcome::from(&answer)).unwrap_err().field, "record");
}

#[test]
fn a_result_that_says_nothing_or_two_things_is_refused() {
    assert!(SubmissionResult::try_from(&wire::SubmissionResult::default()).is_err());
    let both = wire::SubmissionResult {
        tag: 1,
        outcomes: vec![wire::Outcome::default()],
        refused: Some(wire::Problem::default()),
    };
    assert_eq!(SubmissionResult::try_from(&both).unwrap_err().field, "refused");
}

#[test]
fn a_transaction_status_comes_back_and_must_fit_its_head() {
    let transaction = TransactionId::from_bytes([7; 32]);
    let sequenced = Some((record(Outcome::Committed { chosen: Vec::new() }), 3));
    let status = TransactionStatus {
        sequenced,
        body: Some(Bytes::from_static(b"body")),
        head: head(),
        forgotten_until: LogTime::from_unix_millis(3),
    };
    let wire = wire::TransactionStatus::from(&status);
    assert_eq!(TransactionStatus::of(&transaction, &wire), Ok(status));
    let early = wire::TransactionStatus { head: encoded(&Head { size: Sequence::new(8), ..head() }), ..wire.clone() };
    assert_eq!(TransactionStatus::of(&transaction, &early).unwrap_err().field, "record");
    assert!(TransactionStatus::of(&TransactionId::from_bytes([8; 32]), &wire).is_err());
}

#[test]
fn updates_come_back_with_their_proposals() {
    let update = Update {
        head: head(),
        created: vec![position(10)],
        consumed: vec![Consumed { output: position(11), spender: Sequence::new(6) }],
        records: vec![record(Outcome::Committed { chosen: Vec::new() })],
        proposals: vec![proposal()],
    };
    let wire = wire::Update::from(&update);
    assert_eq!(Update::try_from(&wire), Ok(update));
    assert_eq!(Update::try_from(&wire::Update { batch: 5, ..wire }).unwrap_err().field, "batch");
}

#[test]
fn a_proposal_with_foreign_allocations_is_refused() {
    let foreign = Proposal { allocations: vec![position(10)], ..proposal() };
    assert_eq!(Proposal::try_from(&wire::Proposal::from(&foreign)).unwrap_err().field, "allocations");
}

#[test]
fn an_output_consumed_before_its_creation_is_refused() {
    let wire = wire::ConsumedOutput { output: Some(live_output_to_wire(&position(10))), spender_sequence: 5 };
    assert_eq!(Consumed::try_from(&wire).unwrap_err().field, "spender_sequence");
}

#[test]
fn holdings_come_back_and_name_the_next_page_exactly_where_there_is_one() {
    for next in [None, Some(Bytes::from_static(b"cursor"))] {
        let holdings = Holdings { outputs: vec![position(1), position(2)], head: head(), next };
        let wire = wire::ListHoldingsResponse::from(&holdings);
        assert_eq!(Holdings::try_from(&wire), Ok(holdings));
        assert_eq!(
            Holdings::try_from(&wire::ListHoldingsResponse { more: !wire.more, ..wire }).unwrap_err().field,
            "more"
        );
    }
}

#[test]
fn a_request_without_consistency_gets_the_strictest() {
    for level in [Consistency::Local, Consistency::AtLeast(Sequence::new(4)), Consistency::Linearizable] {
        assert_eq!(Consistency::of(Some(&level.into())), Ok(level));
    }
    assert_eq!(Consistency::of(None), Ok(Consistency::Linearizable));
    let denied = wire::Consistency { level: Some(wire::consistency::Level::Local(false)) };
    assert!(Consistency::of(Some(&denied)).is_err());
}

#[test]
fn limits_come_back_and_none_may_be_missing() {
    let wire = limits_to_wire(&Limits::V1);
    assert_eq!(limits(&wire), Ok(Limits::V1));
    assert_eq!(limits(&wire::Limits { legs_max: 0, ..wire }).unwrap_err().field, "legs_max");
}

#[test]
fn a_cluster_must_bear_the_name_that_its_identifier_is_made_of() {
    let wire = wire::ClusterInfo {
        cluster: Bytes::copy_from_slice(ClusterId::of_name("a").as_bytes()),
        cluster_name: "a".to_owned(),
        limits: Some(limits_to_wire(&Limits::V1)),
        ..wire::ClusterInfo::default()
    };
    assert_eq!(Cluster::try_from(&wire).unwrap().identity.cluster, ClusterId::of_name("a"));
    assert!(Cluster::try_from(&wire::ClusterInfo { cluster_name: "b".to_owned(), ..wire }).is_err());
}

#[test]
fn a_submission_has_members_within_the_limit() {
    let submission = |transactions| wire::Submission { tag: 1, transactions };
    let one = Bytes::from_static(b"x");
    assert_eq!(members(&submission(vec![one.clone()]), 1).unwrap().len(), 1);
    assert!(members(&submission(vec![]), 1).is_err());
    assert!(members(&submission(vec![Bytes::new()]), 1).is_err());
    assert!(members(&submission(vec![one.clone(), one]), 1).is_err());
}

#[test]
fn a_conversion_fault_is_a_bad_request_for_its_sender() {
    let fault = identifier::<Party>("owner", &[1; 31]).unwrap_err();
    let problem = Problem::from(fault);
    assert_eq!(problem.kind, ProblemKind::BadRequest);
    assert_eq!(problem.violations[0].field, "owner");
}

#[test]
fn a_batch_is_spoken_of_by_those_who_are_asked_for() {
    let prover = |name, last_batch| Prover {
        key: party(name),
        last: None,
        number: 1,
        last_batch,
        proved: 0,
        inconclusive: last_batch,
        alarm: None,
    };
    let provers = vec![prover(1, 7), prover(2, 9), prover(3, 4)];
    let status = ProofStatus { attestations: 3, attested_batch: 0, required: 1, provers };
    let all = [party(1), party(2), party(3)];
    assert_eq!([0, 1, 2, 3, 4].map(|required| status.spoken_of(&all, required)), [0, 9, 7, 4, 0]);
    assert_eq!(status.spoken_of(&[party(3), party(8)], 1), 4);
}
