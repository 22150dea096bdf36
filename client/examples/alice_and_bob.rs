//! Alice swaps dollars for Bob's euros on a running cluster:
//!
//! ```text
//! cargo run --release -p client --example alice_and_bob -- 127.0.0.1:7001 127.0.0.1:7002
//! ```

use anyhow::{Context, ensure};
use client::{Account, Client, HeadTracker, Key, Outcome, TrustedNodes};
use ledger::{Leg, Quantity, Terms};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoints: Vec<String> = std::env::args().skip(1).collect();
    let client = Client::builder().endpoints(endpoints).connect()?;
    let cluster = client.cluster().await?;
    println!("ledger {} of {} nodes", cluster.name, cluster.members.len());
    let mut heads = HeadTracker::new(TrustedNodes::named_by(&cluster, 1));
    heads.advance(&client).await?;

    let open = || Account::open(&client, Key::generate(&seams::OsEntropy));
    let (bank, alice, bob) = (open().await?, open().await?, open().await?);
    let (usd, eur) = (bank.asset("USD".parse()?), bank.asset("EUR".parse()?));
    committed("USD issued to Alice", &bank.issue(usd.symbol, alice.party(), Quantity::new(1_000)).await?)?;
    let issued = bank.issue(eur.symbol, bob.party(), Quantity::new(1_000)).await?;
    let batch = committed("EUR issued to Bob", &issued)?;
    alice.wallet().wait_until_batch(&client, batch).await?;

    let leg = |from: &Account, to: &Account, asset, units| Leg {
        payer: from.party(),
        receiver: to.party(),
        asset,
        quantity: Quantity::new(units),
    };
    let terms = Terms { legs: vec![leg(&alice, &bob, usd, 300), leg(&bob, &alice, eur, 250)], nonce: client.nonce() };
    let (proposed, _) = alice.propose(&terms, client.now().plus_millis(60_000)).await?;
    let batch = committed("Alice's proposal", &proposed)?;

    bob.wallet().wait_until_batch(&client, batch).await?;
    let proposal = bob.wallet().proposal(&terms.id()).context("Bob's wallet shows the proposal")?;
    let settled = bob.settle(&proposal).await?;
    let batch = committed("Bob's acceptance and settlement", &settled)?;

    alice.wallet().wait_until_batch(&client, batch).await?;
    for (name, account) in [("Alice", &alice), ("Bob", &bob)] {
        let free = |asset| account.wallet().balance(&account.party(), asset).free;
        println!("{name} has {} USD and {} EUR", free(&usd), free(&eur));
    }
    if let Outcome::Committed { record, .. } = &settled {
        let trusted = TrustedNodes::named_by(&cluster, 1);
        let receipt = client.receipt(&record.transaction).await?;
        receipt.verify(&trusted.cluster, &trusted.keys, trusted.required)?;
        heads.observe(&client, receipt.head).await?;
        println!("the receipt of {} holds", record.transaction);
    }
    Ok(())
}

/// Prints an outcome and returns the batch that decided it.
fn committed(what: &str, outcome: &Outcome) -> anyhow::Result<u64> {
    ensure!(outcome.is_committed(), "{what}: {outcome:?}");
    let Outcome::Committed { record, batch } = outcome else { anyhow::bail!("{what} is not committed") };
    println!("{what}: transaction {} at place {}, batch {batch}", record.transaction, record.sequence);
    Ok(*batch)
}
