//! What parties do with each other, end to end over the real ledger.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use client::{Account, AccountFault, BuildFault, Prepared, SignatureFault, Wallet, WalletOptions, group};
use ledger::{Body, Command, Leg, Terms};
use support::{World, key, quantity, reason, symbol};

#[tokio::test]
async fn alice_proposes_and_bob_accepts_and_settles_in_one_transaction() {
    let world = World::funded().await;
    let terms = world.swap(300, 200);
    let (outcome, _) = world.alice.propose(&terms, world.in_a_minute()).await.unwrap();
    world.see(&world.bob, &outcome).await;
    assert_eq!(world.free(&world.alice, "USD"), 700);

    let proposal = world.bob.wallet().proposal(&terms.id()).unwrap();
    assert_eq!((&proposal.terms, proposal.allocations.len()), (&terms, 1));
    let outcome = world.bob.settle(&proposal).await.unwrap();
    world.see(&world.alice, &outcome).await;

    assert_eq!([world.free(&world.alice, "USD"), world.free(&world.alice, "EUR")], [700, 200]);
    assert_eq!([world.free(&world.bob, "USD"), world.free(&world.bob, "EUR")], [300, 300]);
    assert!(world.bob.wallet().proposals().is_empty());
    assert!(world.alice.wallet().proposals().is_empty());
    assert!(world.alice.wallet().allocations().is_empty());
}

#[tokio::test]
async fn a_withdrawn_allocation_returns_at_once_and_cannot_settle() {
    let world = World::funded().await;
    let terms = world.swap(300, 200);
    let (outcome, proposal) = world.alice.propose(&terms, world.in_a_minute()).await.unwrap();
    world.see(&world.bob, &outcome).await;
    let proposal = proposal.unwrap();
    let outcome = world.alice.withdraw(&proposal.allocations).await.unwrap();
    assert!(outcome.is_committed());
    assert_eq!(world.free(&world.alice, "USD"), 1_000);

    let outcome = world.bob.settle(&proposal).await.unwrap();
    assert_eq!(reason(&outcome), "InputSpent");
    assert_eq!(world.free(&world.bob, "EUR"), 500, "the claim on Bob's position has ended");
    assert!(world.bob.wallet().proposals().is_empty(), "the lost race tells Bob that the proposal is gone");
}

#[tokio::test]
async fn a_rejected_allocation_returns_and_both_wallets_know() {
    let world = World::funded().await;
    let terms = world.swap(300, 200);
    let (outcome, proposal) = world.alice.propose(&terms, world.in_a_minute()).await.unwrap();
    world.see(&world.bob, &outcome).await;
    let outcome = world.bob.reject(&proposal.unwrap()).await.unwrap();
    world.see(&world.alice, &outcome).await;
    assert_eq!(world.free(&world.alice, "USD"), 1_000);
    assert!(world.alice.wallet().proposals().is_empty());
    assert!(world.bob.wallet().proposals().is_empty());
}

#[tokio::test]
async fn an_allocation_returns_by_expiry_when_log_time_is_there_and_not_before() {
    let world = World::funded().await;
    let (_, proposal) = world.alice.propose(&world.swap(300, 200), world.in_a_minute()).await.unwrap();
    let proposal = proposal.unwrap();
    let early = world.alice.expire(&proposal.allocations).await.unwrap();
    assert_eq!(reason(&early), "NotYetExpired");

    world.ledger.clock().advance(Duration::from_secs(60));
    assert_eq!(reason(&world.bob.settle(&proposal).await.unwrap()), "AllocationExpired");
    assert!(world.alice.expire(&proposal.allocations).await.unwrap().is_committed());
    assert_eq!(world.free(&world.alice, "USD"), 1_000);
    assert!(world.alice.wallet().proposals().is_empty());
}

#[tokio::test]
async fn a_ring_of_three_settles_when_the_last_one_accepts() {
    let world = World::funded().await;
    let carol = Account::open(&world.client, key(4)).await.unwrap();
    world.fund(&carol, "CHF", 50).await;
    let leg = |payer, receiver, asset: &str, units| Leg {
        payer,
        receiver,
        asset: world.asset(asset),
        quantity: quantity(units),
    };
    let (a, b, c) = (world.alice.party(), world.bob.party(), carol.party());
    let terms = Terms { legs: vec![leg(a, b, "USD", 10), leg(b, c, "EUR", 20), leg(c, a, "CHF", 30)], nonce: 7 };

    let (_, first) = world.alice.propose(&terms, world.in_a_minute()).await.unwrap();
    let missing = carol.settle(&first.unwrap()).await.unwrap_err();
    assert!(matches!(missing, AccountFault::Unfunded { leg: 1, payer } if payer == b), "{missing}");

    let (outcome, _) = world.bob.propose(&terms, world.in_a_minute()).await.unwrap();
    world.see(&carol, &outcome).await;
    let proposal = carol.wallet().proposal(&terms.id()).unwrap();
    assert_eq!(proposal.allocations.len(), 2);
    let outcome = carol.settle(&proposal).await.unwrap();
    world.see(&world.alice, &outcome).await;
    world.see(&world.bob, &outcome).await;
    assert_eq!(world.free(&world.alice, "CHF"), 30);
    assert_eq!(world.free(&world.bob, "USD"), 10);
    assert_eq!(world.free(&carol, "EUR"), 20);
}

#[tokio::test]
async fn one_transaction_carries_many_settlements_out_of_one_position() {
    let world = World::funded().await;
    let mut proposals = Vec::new();
    for eur in 1..=20 {
        let (outcome, proposal) = world.alice.propose(&world.swap(10, eur), world.in_a_minute()).await.unwrap();
        world.see(&world.bob, &outcome).await;
        proposals.push(proposal.unwrap());
    }
    let eur = world.asset("EUR");
    let claim = world.bob.wallet().select(&world.bob.party(), &eur, quantity(210)).unwrap();
    let mut transaction = world.client.begin().await.unwrap();
    transaction.spend_all(claim.outputs());
    for proposal in &proposals {
        transaction.settle(&proposal.terms, &proposal.allocations);
    }
    let signed = transaction.prepare().unwrap().sign(&key(3)).unwrap().finish().unwrap();
    let outcome = world.client.submit(&signed).await;
    claim.conclude(&outcome);
    world.see(&world.bob, &outcome).await;
    assert_eq!([world.free(&world.bob, "USD"), world.free(&world.bob, "EUR")], [200, 290]);
}

#[tokio::test]
async fn a_group_happens_whole_or_not_at_all() {
    let world = World::funded().await;
    let (alice, bob, bank) = (world.alice.party(), world.bob.party(), world.bank.party());
    let limits = world.client.cluster().await.unwrap().limits;
    let usd = world.alice.wallet().positions(&alice, &world.asset("USD"))[0];
    let eur = world.bob.wallet().positions(&bob, &world.asset("EUR"))[0];
    let pay = |nonce: u64, position: ledger::view::LiveOutput, to| {
        let world = &world;
        async move {
            let mut context = world.client.context().await.unwrap();
            context.nonce = nonce;
            let mut transaction = client::TransactionBuilder::new(context);
            let (owner, asset) = (position.contract.holder(), position.contract.asset());
            transaction.spend(&position).transfer(owner, to, asset, quantity(5));
            transaction.prepare().unwrap()
        }
    };
    let sign = |prepared: Vec<Prepared>, keys: [u8; 2]| {
        let signed = prepared.into_iter().zip(keys);
        signed.map(|(member, name)| member.sign(&key(name)).unwrap().finish().unwrap()).collect::<Vec<_>>()
    };

    // both spend the same position: the second cannot, so the first does not
    let torn = group(vec![pay(1, usd, bob).await, pay(2, usd, bank).await], &limits).unwrap();
    let outcomes = world.client.submit_group(&sign(torn, [2, 2])).await;
    assert_eq!(outcomes.iter().map(reason).collect::<Vec<_>>(), ["GroupMemberRejected", "InputSpent"]);

    let whole = group(vec![pay(3, usd, bob).await, pay(4, eur, alice).await], &limits).unwrap();
    let whole = sign(whole, [2, 3]);
    assert_eq!(reason(&world.client.submit(&whole[0]).await), "GroupIncomplete", "a member alone is nothing");
    let outcomes = world.client.submit_group(&whole).await;
    assert!(outcomes.iter().all(client::Outcome::is_committed), "{outcomes:?}");
}

#[tokio::test]
async fn members_of_a_group_spend_what_earlier_ones_create_and_what_broke_up_a_group_is_told() {
    let world = World::funded().await;
    let (alice, bob, bank) = (world.alice.party(), world.bob.party(), world.bank.party());
    let limits = world.client.cluster().await.unwrap().limits;
    let usd = world.asset("USD");
    let position = world.alice.wallet().positions(&alice, &usd)[0];
    let pay = |nonce: u64, position: ledger::view::LiveOutput, to| {
        let world = &world;
        async move {
            let mut context = world.client.context().await.unwrap();
            context.nonce = nonce;
            let mut transaction = client::TransactionBuilder::new(context);
            let owner = position.contract.holder();
            transaction.spend(&position).transfer(owner, to, usd, quantity(5));
            transaction.prepare().unwrap()
        }
    };
    let sign = |prepared: Prepared, name: u8| prepared.sign(&key(name)).unwrap().finish().unwrap();

    let first = pay(1, position, bob).await;
    let received = first.outputs().into_iter().find(|output| output.contract.holder() == bob).unwrap();
    let second = pay(2, received, bank).await;
    let alone = sign(first.clone(), 2);
    let chained = group(vec![first, second], &limits).unwrap();
    assert_eq!(chained[0].id(), alone.id(), "a group does not change its members' names");
    let signed: Vec<_> = chained.into_iter().zip([2, 3]).map(|(member, name)| sign(member, name)).collect();
    let forged = client::SignedTransaction::decode(signed[0].bytes().clone()).unwrap();
    assert_ne!(forged.bytes(), alone.bytes(), "signed for the group only");
    let outcomes = world.client.submit_group(&signed).await;
    assert!(outcomes.iter().all(client::Outcome::is_committed), "{outcomes:?}");
    assert!(world.client.submit(&alone).await.is_committed(), "the one outcome of this identifier");

    let other = {
        let mut transaction = world.client.begin().await.unwrap();
        transaction.issue(usd, alice, quantity(1));
        transaction.prepare().unwrap()
    };
    let again = pay(1, position, bob).await;
    let broken = group(vec![other, again], &limits).unwrap();
    let signed: Vec<_> = broken.into_iter().zip([1, 2]).map(|(member, name)| sign(member, name)).collect();
    let outcomes = world.client.submit_group(&signed).await;
    assert_eq!(reason(&outcomes[0]), "GroupMemberSequenced");
}

#[tokio::test]
async fn a_group_has_members_and_none_belongs_to_two() {
    let world = World::funded().await;
    let limits = world.client.cluster().await.unwrap().limits;
    assert!(matches!(group(Vec::new(), &limits), Err(BuildFault::GroupSize { members: 0, .. })));
    let mut transaction = world.client.begin().await.unwrap();
    transaction.issue(world.asset("USD"), world.alice.party(), quantity(1));
    let grouped = group(vec![transaction.prepare().unwrap()], &limits).unwrap();
    assert_eq!(group(grouped, &limits).unwrap_err(), BuildFault::GroupedTwice { member: 0 });
}

#[tokio::test]
async fn commands_choose_their_inputs_when_they_are_applied() {
    let world = World::funded().await;
    let context = world.client.context().await.unwrap();
    let (asset, from, to) = (world.asset("USD"), world.alice.party(), world.bob.party());
    let command = Command::Transfer { asset, from, to, quantity: quantity(100) };
    let signed = Prepared::command(&context, command).unwrap().sign(&key(2)).unwrap().finish().unwrap();
    let outcome = world.client.submit(&signed).await;
    world.see(&world.bob, &outcome).await;
    assert_eq!(world.free(&world.bob, "USD"), 100);
    let own = Command::Transfer { asset, from, to: from, quantity: quantity(1) };
    assert_eq!(Prepared::command(&context, own).unwrap_err().name(), "CommandMalformed");
}

#[tokio::test]
async fn bookkeeping_positions_may_be_negative_until_the_grant_is_revoked() {
    let world = World::new().await;
    let (bank, alice, bob) = (world.bank.party(), world.alice.party(), world.bob.party());
    let asset = world.asset("USD");
    let mut transaction = world.client.begin().await.unwrap();
    transaction.grant(asset, alice);
    let signed = transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
    let outcome = world.client.submit(&signed).await;
    world.see(&world.alice, &outcome).await;
    let grant = world.alice.wallet().grants()[0];

    let mut transaction = world.client.begin().await.unwrap();
    transaction.transfer(alice, bob, asset, quantity(40));
    assert!(matches!(transaction.prepare(), Err(BuildFault::Short { party, .. }) if party == alice));
    transaction.under_grant(&grant);
    let signed = transaction.prepare().unwrap().sign(&key(2)).unwrap().finish().unwrap();
    let outcome = world.client.submit(&signed).await;
    world.see(&world.alice, &outcome).await;
    world.see(&world.bob, &outcome).await;
    assert_eq!([world.free(&world.alice, "USD"), world.free(&world.bob, "USD")], [-40, 40]);

    let mut transaction = world.client.begin().await.unwrap();
    transaction.revoke(&grant);
    let revocation = transaction.prepare().unwrap();
    assert_eq!(revocation.required_signers(), [bank]);
    let outcome = world.client.submit(&revocation.sign(&key(1)).unwrap().finish().unwrap()).await;
    world.see(&world.alice, &outcome).await;
    assert!(world.alice.wallet().grants().is_empty());
}

#[tokio::test]
async fn supply_is_issued_split_merged_and_redeemed() {
    let world = World::new().await;
    world.fund(&world.bank, "USD", 100).await;
    let (bank, asset) = (world.bank.party(), world.asset("USD"));
    let mut transaction = world.client.begin().await.unwrap();
    let whole = world.bank.wallet().positions(&bank, &asset)[0];
    transaction.split(&whole, &[quantity(10), quantity(20), quantity(30)]);
    let signed = transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
    let outcome = world.client.submit(&signed).await;
    world.see(&world.bank, &outcome).await;
    let quantities = |world: &World| {
        let positions = world.bank.wallet().positions(&bank, &asset);
        positions.iter().map(|output| output.contract.value().unwrap().1.minor_units()).collect::<Vec<_>>()
    };
    assert_eq!(quantities(&world), [10, 20, 30, 40]);
    assert!(world.bank.merge(asset).await.unwrap().is_committed());
    assert_eq!(quantities(&world), [100]);
    assert!(world.bank.redeem(symbol("USD"), quantity(99)).await.unwrap().is_committed());
    assert_eq!(quantities(&world), [1]);
}

#[tokio::test]
async fn a_transaction_is_signed_elsewhere_from_its_canonical_bytes() {
    let world = World::funded().await;
    let (alice, bob, asset) = (world.alice.party(), world.bob.party(), world.asset("USD"));
    let position = world.alice.wallet().positions(&alice, &asset)[0];
    let mut transaction = world.client.begin().await.unwrap();
    transaction.spend(&position).transfer(alice, bob, asset, quantity(1));
    let prepared = transaction.prepare().unwrap();

    // elsewhere: decode, look, sign what was seen
    let seen: Body = borsh::from_slice(&prepared.canonical_bytes()).unwrap();
    let signature = key(2).sign(&seen);
    let false_signature = key(3).sign(&seen);

    let rejected = prepared.clone().add_signature(alice, false_signature).unwrap_err();
    assert_eq!(rejected, SignatureFault::False(alice));
    let uninvited = prepared.clone().add_signature(bob, false_signature).unwrap_err();
    assert_eq!(uninvited, SignatureFault::NotASigner(bob));
    assert_eq!(prepared.clone().finish().unwrap_err(), SignatureFault::Missing(vec![alice]));
    let size = prepared.size_bytes();
    let signed = prepared.add_signature(alice, signature).unwrap().finish().unwrap();
    assert_eq!(signed.bytes().len(), size);
    assert_eq!(client::SignedTransaction::decode(signed.bytes().clone()).unwrap(), signed);
    assert!(world.client.submit(&signed).await.is_committed());
}

#[tokio::test]
async fn what_breaks_a_rule_is_found_without_a_round_trip() {
    let world = World::funded().await;
    let mut transaction = world.client.begin().await.unwrap();
    assert!(matches!(transaction.prepare(), Err(BuildFault::Rejected(ref why)) if why.0.name() == "Empty"));
    transaction.issue(world.asset("USD"), world.alice.party(), quantity(0));
    assert!(
        matches!(transaction.prepare(), Err(BuildFault::Rejected(ref why)) if why.0.name() == "QuantityOutOfRange")
    );

    let position = world.alice.wallet().positions(&world.alice.party(), &world.asset("USD"))[0];
    let mut transaction = world.client.begin().await.unwrap();
    transaction.withdraw(&position);
    assert!(matches!(transaction.prepare(), Err(BuildFault::WrongKind { expected: "an allocation", .. })));
    let mut transaction = world.client.begin().await.unwrap();
    transaction.propose(&world.swap(1, 1), 2, world.in_a_minute());
    assert!(matches!(transaction.prepare(), Err(BuildFault::NoSuchLeg { leg: 2, .. })));
}

#[tokio::test(start_paused = true)]
async fn an_account_rebuilds_when_another_process_spent_its_input() {
    let world = World::funded().await;
    world.fund(&world.alice, "USD", 900).await;
    // a wallet that no longer follows chooses the position of 900, too
    let cut_off = world.ledger.node();
    let source = world.ledger.client_builder().node(cut_off.clone()).connect().unwrap();
    let wallet = Wallet::open(&source, &[world.alice.party()], WalletOptions::default()).await.unwrap();
    cut_off.stop();
    let behind = Account::over(world.client.clone(), wallet, key(2));

    let (bob, usd) = (world.bob.party(), world.asset("USD"));
    assert!(world.alice.transfer(bob, usd, quantity(850)).await.unwrap().is_committed());
    let size = world.ledger.size();
    let outcome = behind.transfer(bob, usd, quantity(850)).await.unwrap();
    assert!(outcome.is_committed(), "{}", reason(&outcome));
    assert_eq!(world.ledger.size(), size + 2, "a lost race, and another transaction with other inputs");
}
