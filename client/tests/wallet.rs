//! The wallet follows the ledger and keeps builders apart.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use client::{Shortage, Wallet, WalletOptions};
use ledger::Quantity;
use support::{World, key, quantity, reason};

#[tokio::test]
async fn claims_are_exclusive_and_end_when_dropped() {
    let world = World::funded().await;
    world.fund(&world.alice, "USD", 50).await;
    let (wallet, alice, usd) = (world.alice.wallet(), world.alice.party(), world.asset("USD"));
    let first = wallet.select(&alice, &usd, quantity(10)).unwrap();
    let second = wallet.select(&alice, &usd, quantity(10)).unwrap();
    assert_ne!(first.outputs(), second.outputs());
    assert_eq!(first.outputs()[0].contract.value().unwrap().1, quantity(50), "the smallest that suffices");
    assert!(matches!(wallet.select(&alice, &usd, quantity(10)), Err(Shortage::Locked { .. })));
    assert!(matches!(wallet.select(&alice, &usd, quantity(2_000)), Err(Shortage::Insufficient { .. })));
    assert!(wallet.claim(&[first.outputs()[0].id]).is_none());
    let balance = wallet.balance(&alice, &usd);
    assert_eq!((balance.free, balance.claimed), (Quantity::ZERO, quantity(1_050)));
    drop(first);
    assert_eq!(wallet.balance(&alice, &usd).free, quantity(50));
    drop(second);
    assert_eq!(wallet.select(&alice, &usd, quantity(1_050)).unwrap().outputs().len(), 2);
}

#[tokio::test]
async fn allocated_value_shows_as_such() {
    let world = World::funded().await;
    world.alice.propose(&world.swap(300, 200), world.in_a_minute()).await.unwrap();
    let balance = world.alice.wallet().balance(&world.alice.party(), &world.asset("USD"));
    assert_eq!((balance.free, balance.allocated), (quantity(700), quantity(300)));
    assert_eq!(world.alice.wallet().assets(&world.alice.party()), [world.asset("USD")]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_holds_its_inputs_until_log_time_has_passed() {
    let world = World::funded().await;
    let node = world.ledger.node();
    let builder = world.ledger.client_builder().node(node.clone()).deadline(Duration::from_secs(5));
    let blind = builder.connect().unwrap();
    let account = client::Account::over(blind.clone(), world.alice.wallet().clone(), key(2));
    blind.cluster().await.unwrap();
    node.plan(vec![client::testkit::Mishap::Hang; 50]);
    let outcome = account.transfer(world.bob.party(), world.asset("USD"), quantity(1)).await.unwrap();
    assert!(!outcome.is_definite(), "{}", reason(&outcome));
    let (wallet, alice, usd) = (world.alice.wallet(), world.alice.party(), world.asset("USD"));
    assert!(matches!(wallet.select(&alice, &usd, quantity(1)), Err(Shortage::Locked { .. })));

    world.ledger.clock().advance(Duration::from_secs(120));
    world.fund(&world.alice, "EUR", 1).await;
    assert!(wallet.select(&alice, &usd, quantity(1)).is_ok());
}

#[tokio::test]
async fn a_wallet_opens_page_by_page_on_what_is_already_there() {
    let world = World::new().await;
    let (bank, alice, usd) = (world.bank.party(), world.alice.party(), world.asset("USD"));
    let mut outcome = None;
    for _ in 0..3 {
        let mut transaction = world.client.begin().await.unwrap();
        for _ in 0..900 {
            transaction.issue(usd, alice, quantity(1));
        }
        transaction.issue(usd, bank, quantity(1));
        let signed = transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
        outcome = Some(world.client.submit(&signed).await);
    }
    world.see(&world.alice, &outcome.unwrap()).await;
    let opened = Wallet::open(&world.client, &[alice, bank], WalletOptions::default()).await.unwrap();
    assert_eq!(opened.balance(&alice, &usd).free, quantity(2_700));
    assert_eq!(opened.balance(&bank, &usd).free, quantity(3));
    assert_eq!(opened.positions(&alice, &usd), world.alice.wallet().positions(&alice, &usd));
    assert!(matches!(opened.select(&alice, &usd, quantity(2_000)), Err(Shortage::Fragmented { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_wallet_resumes_where_its_stream_broke() {
    let ledger = client::testkit::LocalLedger::new("resume");
    let nodes = [ledger.node(), ledger.node()];
    let client = ledger.client_builder().node(nodes[0].clone()).node(nodes[1].clone()).connect().unwrap();
    let world = World::with(ledger, client).await;
    for round in 0..6 {
        nodes[round % 2].stop();
        world.fund(&world.alice, "USD", 10).await;
        nodes[round % 2].start();
    }
    assert_eq!(world.free(&world.alice, "USD"), 60);
    nodes.iter().for_each(|node| node.stop());
    tokio::time::sleep(Duration::from_secs(30)).await;
    nodes.iter().for_each(|node| node.start());
    world.fund(&world.alice, "USD", 10).await;
    assert_eq!(world.free(&world.alice, "USD"), 70);
}

#[tokio::test(start_paused = true)]
async fn a_wallet_takes_a_new_snapshot_where_its_updates_were_pruned() {
    let ledger = client::testkit::LocalLedger::new("pruned");
    let (far, near) = (ledger.node(), ledger.node());
    let far_client = ledger.client_builder().node(far.clone()).connect().unwrap();
    let world = World::with(ledger.clone(), ledger.client_builder().node(near).connect().unwrap()).await;
    world.fund(&world.alice, "USD", 10).await;
    let wallet = Wallet::open(&far_client, &[world.alice.party()], WalletOptions::default()).await.unwrap();
    let claim = wallet.select(&world.alice.party(), &world.asset("USD"), quantity(10)).unwrap();
    far.stop();
    world.fund(&world.alice, "USD", 5).await;
    world.fund(&world.alice, "USD", 7).await;
    ledger.prune_before(ledger.size() + 1);
    far.start();
    wallet.wait_until_size(&far_client, ledger::Sequence::new(ledger.size())).await.unwrap();
    let balance = wallet.balance(&world.alice.party(), &world.asset("USD"));
    assert_eq!((balance.free, balance.claimed), (quantity(12), quantity(10)), "claims outlive the snapshot");
    drop(claim);
}

#[tokio::test]
async fn earlier_proposals_are_found_by_replaying_updates() {
    let world = World::funded().await;
    let (_, settled) = world.alice.propose(&world.swap(1, 1), world.in_a_minute()).await.unwrap();
    assert!(world.bob.settle(&settled.unwrap()).await.unwrap().is_committed());
    let (_, open) = world.alice.propose(&world.swap(2, 2), world.in_a_minute()).await.unwrap();

    let options = WalletOptions { proposals_since: Some(1) };
    let late = Wallet::open(&world.client, &[world.bob.party()], options).await.unwrap();
    late.wait_until_batch(&world.client, world.alice.wallet().head().batch).await.unwrap();
    assert_eq!(late.proposals(), [open.unwrap()]);
    assert_eq!(late.balance(&world.bob.party(), &world.asset("EUR")).free, quantity(499));
    assert_eq!(late.positions(&world.bob.party(), &world.asset("EUR")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_batch_that_does_not_come_ends() {
    let world = World::new().await;
    assert!(world.alice.wallet().wait_until_batch(&world.client, 99).await.is_err());
}

#[tokio::test]
async fn concurrent_payments_never_race_for_an_input() {
    let world = World::new().await;
    for _ in 0..20 {
        world.fund(&world.alice, "USD", 10).await;
    }
    let payments = (0..20).map(|_| world.alice.transfer(world.bob.party(), world.asset("USD"), quantity(10)));
    let outcomes = futures::future::join_all(payments).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(client::Outcome::is_committed)));
    assert_eq!(world.ledger.size(), 40, "nobody had to try twice");
}
