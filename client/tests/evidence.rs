//! Receipts and heads: what a client can hold against the ledger.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use client::testkit::LocalLedger;
use client::{Consistency, HeadFault, HeadTracker, Key, ReceiptStore, ReceiptStoreFault, TrustedNodes};
use ledger::TransactionId;
use ledger::receipt::ReceiptFault;
use support::{World, reason};

#[tokio::test]
async fn a_receipt_is_fetched_verified_kept_and_found_again() {
    let world = World::funded().await;
    let outcome = world.alice.transfer(world.bob.party(), world.asset("USD"), support::quantity(1)).await.unwrap();
    let client::Outcome::Committed { record, .. } = &outcome else { panic!("{}", reason(&outcome)) };
    let receipt = world.client.receipt(&record.transaction).await.unwrap();
    assert_eq!(receipt.record, *record);
    let trusted = world.ledger.trusted();
    receipt.verify(&trusted.cluster, &trusted.keys, 1).unwrap();
    let stranger = [Key::from_seed([9; 32]).party()];
    assert!(matches!(
        receipt.verify(&trusted.cluster, &stranger, 1),
        Err(ReceiptFault::TooFewSignatures { found: 0, .. })
    ));

    let folder = tempfile::tempdir().unwrap();
    let store = ReceiptStore::open(folder.path().join("receipts")).unwrap();
    assert_eq!(store.load(&record.transaction).unwrap(), None);
    let path = store.keep(&receipt).unwrap();
    assert_eq!(store.load(&record.transaction).unwrap(), Some(receipt));
    assert_eq!(store.transactions().unwrap(), [record.transaction]);

    let other = TransactionId::from_bytes([5; 32]);
    std::fs::rename(path, store.path(&other)).unwrap();
    assert!(matches!(store.load(&other), Err(ReceiptStoreFault::OtherContent { .. })));
}

#[tokio::test]
async fn there_is_no_receipt_for_what_has_no_place() {
    let world = World::funded().await;
    let problem = world.client.receipt(&TransactionId::from_bytes([5; 32])).await.unwrap_err();
    assert_eq!(problem.kind, client::ProblemKind::NotFound);
}

#[tokio::test]
async fn heads_are_followed_and_survive_a_restart() {
    let world = World::funded().await;
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    let first = tracker.advance(&world.client).await.unwrap();
    for _ in 0..5 {
        world.fund(&world.alice, "USD", 1).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("head");
    tracker.save(&file).unwrap();
    let mut tracker = HeadTracker::load(world.ledger.trusted(), &file).unwrap();
    assert_eq!(tracker.newest(), Some(&first));
    let second = tracker.advance(&world.client).await.unwrap();
    assert_eq!(second.size.get(), first.size.get() + 5);
    assert_eq!(tracker.advance(&world.client).await.unwrap(), second, "an unchanged ledger is consistent too");
}

#[tokio::test]
async fn an_older_head_is_verified_against_the_newest_without_replacing_it() {
    let world = World::funded().await;
    let older = world.client.head(Consistency::Linearizable).await.unwrap();
    world.fund(&world.alice, "USD", 1).await;
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    let newest = tracker.advance(&world.client).await.unwrap();
    assert_eq!(tracker.observe(&world.client, older.clone()).await.unwrap(), older.head);
    assert_eq!(tracker.newest(), Some(&newest));
}

#[tokio::test]
async fn a_fork_is_found_with_both_signed_heads_as_evidence() {
    // two ledgers of one name and one node key, with other histories
    let (world, forked) = (World::funded().await, World::funded().await);
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    tracker.advance(&world.client).await.unwrap();
    let fault = tracker.advance(&forked.client).await.unwrap_err();
    assert!(matches!(fault, HeadFault::Forked(_)), "the same size: {fault}");
    forked.fund(&forked.alice, "USD", 1).await;
    let fault = tracker.advance(&forked.client).await.unwrap_err();
    assert!(matches!(fault, HeadFault::Unconnected { .. }), "a larger size: {fault}");
}

#[tokio::test]
async fn a_rollback_is_found() {
    let world = World::funded().await;
    world.fund(&world.alice, "USD", 1).await;
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    let newest = tracker.advance(&world.client).await.unwrap();
    let rolled_back = World::funded().await;
    assert!(tracker.advance(&rolled_back.client).await.is_err());
    assert_eq!(tracker.newest(), Some(&newest), "what was verified stays");
}

#[tokio::test]
async fn whoever_is_believed_later_has_to_continue_what_was_seen() {
    let world = World::funded().await;
    world.fund(&world.alice, "USD", 1).await;
    let trusted = world.ledger.trusted();
    let mut tracker = HeadTracker::new(trusted.clone());
    let newest = tracker.advance(&world.client).await.unwrap();
    tracker.trust(TrustedNodes { keys: Vec::new(), ..trusted.clone() });
    assert!(matches!(tracker.advance(&world.client).await, Err(HeadFault::Untrusted(_))));
    assert_eq!(tracker.newest(), Some(&newest), "what was verified stays");
    tracker.trust(trusted);
    assert!(tracker.advance(&World::funded().await.client).await.is_err(), "a rollback");
    assert!(tracker.advance(&world.client).await.is_ok());
}

#[tokio::test]
async fn an_unsigned_head_is_not_believed() {
    let world = World::funded().await;
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    let mut head = world.client.head(Consistency::Linearizable).await.unwrap();
    head.head.batch += 1;
    assert!(matches!(tracker.observe(&world.client, head).await, Err(HeadFault::Untrusted(_))));
}

#[tokio::test]
async fn a_transaction_that_names_a_head_is_rejected_on_a_fork() {
    let (world, forked) = (World::funded().await, World::funded().await);
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    let head = tracker.advance(&world.client).await.unwrap();
    let mut transaction = world.client.begin().await.unwrap();
    transaction.after_head(&head).issue(world.asset("USD"), world.alice.party(), support::quantity(1));
    let signed = transaction.prepare().unwrap().sign(&support::key(1)).unwrap().finish().unwrap();
    assert_eq!(reason(&forked.client.submit(&signed).await), "HeadUnknown");
    assert!(world.client.submit(&signed).await.is_committed());
}

#[tokio::test]
async fn a_ledger_of_another_name_is_not_believed() {
    let world = World::funded().await;
    let other = LocalLedger::new("other");
    let mut tracker = HeadTracker::new(world.ledger.trusted());
    assert!(matches!(tracker.advance(&other.client()).await, Err(HeadFault::Untrusted(_))));
}
