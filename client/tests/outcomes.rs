//! Exact outcomes whatever happens on the way.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use client::testkit::{LocalLedger, LocalNode, Mishap};
use client::{Client, Consistency, Outcome, Problem, ProblemKind, SignedTransaction, TransactionBuilder, Unresolved};
use ledger::{AssetType, Quantity};
use support::{key, reason};

struct Net {
    ledger: LocalLedger,
    nodes: [Arc<LocalNode>; 2],
    client: Client,
}

fn net() -> Net {
    let ledger = LocalLedger::new("outcomes");
    let nodes = [ledger.node(), ledger.node()];
    let builder = ledger.client_builder().node(nodes[0].clone()).node(nodes[1].clone());
    let client = builder.deadline(Duration::from_secs(20)).connect().unwrap();
    Net { ledger, nodes, client }
}

impl Net {
    async fn issue(&self) -> SignedTransaction {
        let issuer = key(1).party();
        let mut transaction = self.client.begin().await.unwrap();
        let asset = AssetType { issuer, symbol: "USD".parse().unwrap() };
        transaction.issue(asset, issuer, Quantity::new(1));
        transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap()
    }

    fn plan(&self, mishaps: &[Mishap]) {
        self.nodes.iter().for_each(|node| node.plan(mishaps.iter().cloned()));
    }

    async fn unknown(&self) -> Unresolved {
        self.plan(&vec![Mishap::Hang; 50]);
        let Outcome::Unknown { token, .. } = self.client.submit(&self.issue().await).await else {
            panic!("nobody answered")
        };
        self.nodes.iter().for_each(|node| node.forget_plans());
        token
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_and_lost_requests_still_yield_one_outcome() {
    let net = net();
    for mishaps in [vec![Mishap::LoseAnswer], vec![Mishap::LoseRequest], vec![Mishap::LoseAnswer, Mishap::LoseRequest]]
    {
        let before = net.ledger.size();
        net.plan(&mishaps);
        let transaction = net.issue().await;
        let outcome = net.client.submit(&transaction).await;
        assert!(outcome.is_committed(), "{mishaps:?}: {}", reason(&outcome));
        assert_eq!(net.ledger.size(), before + 1);
        assert_eq!(net.client.submit(&transaction).await, outcome, "the original outcome, whenever asked");
        assert_eq!(net.ledger.size(), before + 1);
        net.nodes.iter().for_each(|node| node.forget_plans());
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_left_for_another() {
    let net = net();
    let transaction = net.issue().await;
    net.nodes.iter().for_each(|node| node.plan([Mishap::Hang]));
    assert!(net.client.submit(&transaction).await.is_committed());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_node_is_left_for_another() {
    let net = net();
    for node in &net.nodes {
        let transaction = net.issue().await;
        node.stop();
        assert!(net.client.submit(&transaction).await.is_committed());
        node.start();
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_node_took_in_did_not_happen() {
    let net = net();
    let transaction = net.issue().await;
    net.nodes.iter().for_each(|node| node.stop());
    let outcome = net.client.submit(&transaction).await;
    assert!(matches!(&outcome, Outcome::Refused { problem } if problem.kind == ProblemKind::Unreachable));
    net.nodes.iter().for_each(|node| node.start());
    assert!(net.client.submit(&transaction).await.is_committed(), "the same bytes may be submitted again");
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_node_is_asked_again_when_it_says() {
    let net = net();
    let transaction = net.issue().await;
    net.plan(&[Mishap::Refuse(Problem::overloaded(Duration::from_secs(3)))]);
    let before = tokio::time::Instant::now();
    assert!(net.client.submit(&transaction).await.is_committed());
    assert!(before.elapsed() >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_with_an_unknown_outcome() {
    let net = net();
    let before = tokio::time::Instant::now();
    let token = net.unknown().await;
    assert!(before.elapsed() <= Duration::from_secs(20));
    assert!(!format!("{token:?}").is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_resolved_by_the_same_bytes() {
    let net = net();
    let token = net.unknown().await;
    let kept = Unresolved::decode(&token.encode()).unwrap();
    assert_eq!(kept, token);
    let outcome = net.client.resolve(&kept).await;
    assert!(outcome.is_committed(), "{}", reason(&outcome));
    assert_eq!(net.client.resolve(&token).await, outcome);
    assert_eq!(net.ledger.size(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_becomes_definite_when_its_time_has_passed() {
    let net = net();
    let token = net.unknown().await;
    net.ledger.clock().advance(Duration::from_secs(120));
    // nothing else moves log time: the same bytes do, and expire in the order
    let outcome = net.client.resolve(&token).await;
    assert_eq!(reason(&outcome), "Expired");

    let token = {
        net.ledger.clock().advance(Duration::from_secs(1));
        net.unknown().await
    };
    net.ledger.clock().advance(Duration::from_secs(120));
    assert!(net.client.submit(&net.issue().await).await.is_committed());
    let size = net.ledger.size();
    let outcome = net.client.resolve(&token).await;
    assert!(
        matches!(&outcome, Outcome::Rejected { record: None, .. }),
        "log time has passed: {}",
        reason(&outcome)
    );
    assert_eq!(net.ledger.size(), size, "nothing was submitted for it");
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_stays_unknown_and_is_never_said_not_to_have_happened() {
    let net = net();
    net.plan(&vec![Mishap::LoseAnswer; 50]);
    let Outcome::Unknown { token, .. } = net.client.submit(&net.issue().await).await else { panic!("it was answered") };
    net.nodes.iter().for_each(|node| node.forget_plans());
    // it did happen
    assert_eq!(net.ledger.size(), 1);
    net.ledger.clock().advance(Duration::from_secs(120));
    assert!(net.client.submit(&net.issue().await).await.is_committed());
    net.ledger.forget(&token.transaction(), token.valid_until());
    let outcome = net.client.resolve(&token).await;
    assert!(matches!(&outcome, Outcome::Unknown { token: same, .. } if *same == token), "{}", reason(&outcome));

    // what is valid for longer than anything forgotten can be told
    let later = net.unknown().await;
    net.ledger.clock().advance(Duration::from_secs(120));
    assert_eq!(reason(&net.client.resolve(&later).await), "Expired");
}

#[tokio::test(start_paused = true)]
async fn what_is_valid_for_too_long_may_still_happen_and_is_not_called_rejected() {
    let net = net();
    let days = |days: u64| Duration::from_secs(days * 24 * 3_600);
    let mut context = net.client.context().await.unwrap();
    context.valid_until = net.client.now().plus_millis(u64::try_from(days(2).as_millis()).unwrap());
    let mut transaction = TransactionBuilder::new(context);
    let asset = AssetType { issuer: key(1).party(), symbol: "USD".parse().unwrap() };
    transaction.issue(asset, key(1).party(), Quantity::new(1));
    let transaction = transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
    let outcome = net.client.submit(&transaction).await;
    assert!(matches!(&outcome, Outcome::Refused { problem } if problem.kind == ProblemKind::BadRequest));
    assert_eq!(net.ledger.size(), 0);
    net.ledger.clock().advance(days(1) + Duration::from_secs(1));
    assert!(net.client.submit(&transaction).await.is_committed());
}

#[tokio::test(start_paused = true)]
async fn resolving_without_any_node_stays_unknown() {
    let net = net();
    let token = net.unknown().await;
    net.nodes.iter().for_each(|node| node.stop());
    let outcome = net.client.resolve(&token).await;
    assert!(matches!(&outcome, Outcome::Unknown { token: same, .. } if *same == token));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_is_final_and_has_its_place() {
    let net = net();
    let transaction = net.issue().await;
    net.ledger.clock().advance(Duration::from_secs(120));
    let outcome = net.client.submit(&transaction).await;
    assert!(matches!(&outcome, Outcome::Rejected { record: Some(_), .. }), "{}", reason(&outcome));
    let status = net.client.transaction(&transaction.id(), Consistency::Linearizable, true).await.unwrap();
    assert_eq!(status.sequenced.unwrap().0.sequence.get(), 0);
    assert_eq!(status.body.unwrap(), transaction.bytes());
}

#[tokio::test(start_paused = true)]
async fn a_client_refuses_another_ledger_than_expected() {
    let ledger = LocalLedger::new("another");
    let expected = ledger::ClusterId::of_name("expected");
    let client = ledger.client_builder().node(ledger.node()).ledger(expected).connect().unwrap();
    assert_eq!(client.begin().await.unwrap_err().kind, ProblemKind::DoubtfulAnswer);
}

#[tokio::test]
async fn a_client_needs_endpoints_that_are_addresses() {
    assert!(Client::builder().connect().is_err());
    assert!(Client::builder().endpoint("not an address").connect().is_err());
}
