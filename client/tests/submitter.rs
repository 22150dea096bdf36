//! The pipeline: many transactions at once, each with its exact outcome.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use client::testkit::{LocalLedger, LocalNode, Mishap};
use client::{Client, Outcome, Problem, ProblemKind, SignedTransaction, Submitter, SubmitterOptions, group};
use ledger::{AssetType, Quantity};
use support::{key, reason};

struct Net {
    ledger: LocalLedger,
    nodes: [Arc<LocalNode>; 2],
    client: Client,
}

fn net() -> Net {
    let ledger = LocalLedger::new("pipeline");
    let nodes = [ledger.node(), ledger.node()];
    let builder = ledger.client_builder().node(nodes[0].clone()).node(nodes[1].clone());
    let client = builder.deadline(Duration::from_secs(20)).connect().unwrap();
    Net { ledger, nodes, client }
}

impl Net {
    async fn prepare(&self) -> client::Prepared {
        let issuer = key(1).party();
        let mut transaction = self.client.begin().await.unwrap();
        let asset = AssetType { issuer, symbol: "USD".parse().unwrap() };
        transaction.issue(asset, issuer, Quantity::new(1));
        transaction.prepare().unwrap()
    }

    async fn issues(&self, count: usize) -> Vec<SignedTransaction> {
        let mut issues = Vec::new();
        for _ in 0..count {
            issues.push(self.prepare().await.sign(&key(1)).unwrap().finish().unwrap());
        }
        issues
    }

    fn submitter(&self) -> Submitter {
        let options = SubmitterOptions { open_max: 64, message_submissions_max: 16, ..SubmitterOptions::default() };
        Submitter::start(&self.client, options)
    }

    fn plan(&self, mishaps: &[Mishap]) {
        self.nodes.iter().for_each(|node| node.plan(mishaps.iter().cloned()));
    }
}

fn all_committed(outcomes: &[Outcome]) {
    let others: Vec<String> = outcomes.iter().filter(|outcome| !outcome.is_committed()).map(reason).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[tokio::test(start_paused = true)]
async fn each_transaction_gets_its_own_outcome_in_order() {
    let net = net();
    let mut transactions = net.issues(200).await;
    let twice = transactions[7].clone();
    transactions.push(twice.clone());
    let outcomes = net.submitter().submit_many(transactions.clone()).await;
    all_committed(&outcomes);
    for (transaction, outcome) in transactions.iter().zip(&outcomes) {
        let Outcome::Committed { record, .. } = outcome else { unreachable!("all committed") };
        assert_eq!(record.transaction, transaction.id());
    }
    assert_eq!(outcomes[7], outcomes[200], "the same transaction has the same outcome");
    assert_eq!(net.ledger.size(), 200);
}

#[tokio::test(start_paused = true)]
async fn broken_streams_lose_and_repeat_nothing() {
    let net = net();
    net.plan(&[Mishap::LoseAnswer, Mishap::LoseRequest, Mishap::LoseAnswer]);
    let submitter = net.submitter();
    let outcomes = submitter.submit_many(net.issues(100).await).await;
    all_committed(&outcomes);
    net.nodes[0].stop();
    all_committed(&submitter.submit_many(net.issues(100).await).await);
    net.nodes[0].start();
    net.nodes[1].stop();
    all_committed(&submitter.submit_many(net.issues(100).await).await);
    assert_eq!(net.ledger.size(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_left_for_another() {
    let net = net();
    net.nodes.iter().for_each(|node| node.plan([Mishap::Hang]));
    all_committed(&net.submitter().submit_many(net.issues(10).await).await);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_node_slows_the_pipeline_down() {
    let net = net();
    let busy = Mishap::Refuse(Problem::overloaded(Duration::from_secs(2)));
    net.plan(&vec![busy; 30]);
    let before = tokio::time::Instant::now();
    all_committed(&net.submitter().submit_many(net.issues(40).await).await);
    assert!(before.elapsed() >= Duration::from_secs(2));
    assert_eq!(net.ledger.size(), 40);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_refused_at_the_deadline_and_what_was_is_unknown() {
    let net = net();
    let issues = net.issues(2).await;
    net.nodes.iter().for_each(|node| node.stop());
    let outcome = net.submitter().submit(issues[0].clone()).await;
    assert!(matches!(&outcome, Outcome::Refused { problem } if problem.kind == ProblemKind::Unreachable));

    net.nodes.iter().for_each(|node| node.start());
    net.plan(&vec![Mishap::Hang; 50]);
    let outcome = net.submitter().submit(issues[1].clone()).await;
    let Outcome::Unknown { token, .. } = outcome else { panic!("{}", reason(&outcome)) };
    net.nodes.iter().for_each(|node| node.forget_plans());
    assert!(net.client.resolve(&token).await.is_committed());
}

#[tokio::test(start_paused = true)]
async fn the_window_bounds_what_is_open() {
    let net = net();
    net.plan(&vec![Mishap::Hang; 50]);
    let submitter = net.submitter();
    let mut issues = net.issues(65).await;
    let last = issues.pop().unwrap();
    let mut pending = Vec::new();
    for issue in issues {
        pending.push(submitter.enqueue(&[issue]).await);
    }
    assert_eq!(submitter.room(), 0);
    let waiting = tokio::time::timeout(Duration::from_secs(1), submitter.enqueue(&[last])).await;
    assert!(waiting.is_err(), "there is no room before an outcome frees some");
    net.nodes.iter().for_each(|node| node.forget_plans());
    for outcomes in pending {
        assert!(outcomes.await[0].is_committed());
    }
    assert_eq!(submitter.room(), 64);
}

#[tokio::test(start_paused = true)]
async fn a_group_travels_and_ends_as_one() {
    let net = net();
    let limits = net.client.cluster().await.unwrap().limits;
    let members = group(vec![net.prepare().await, net.prepare().await], &limits).unwrap();
    let members: Vec<SignedTransaction> =
        members.into_iter().map(|member| member.sign(&key(1)).unwrap().finish().unwrap()).collect();
    let outcomes = net.submitter().enqueue(&members).await.await;
    assert_eq!(outcomes.len(), 2);
    all_committed(&outcomes);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_reaches_its_sender_alone() {
    let net = net();
    let mut issues = net.issues(3).await;
    let mut bytes = issues[1].bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    issues[1] = SignedTransaction::decode(bytes.into()).unwrap();
    let outcomes = net.submitter().submit_many(issues).await;
    assert_eq!(outcomes.iter().map(reason).collect::<Vec<_>>(), ["committed", "SignatureInvalid", "committed"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_open_ends_after_the_last_handle_is_gone() {
    let net = net();
    let issue = net.issues(1).await.remove(0);
    let submitter = net.submitter();
    let pending = submitter.enqueue(&[issue]).await;
    drop(submitter);
    assert!(pending.await[0].is_committed());
}
