//! Fills a ledger with live outputs before anything is measured: positions of one asset, spread over many parties.

use client::{Client, Outcome, SignedTransaction, Submitter, SubmitterOptions};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ledger::{AssetType, Party, Quantity, TransactionId};

use crate::party::key_of;
use crate::trade::TradeFault;

/// Outputs of one transaction: about 100 KiB, so that a bundle of 4 MiB holds some 40 of them.
const OUTPUTS: u64 = 1_000;
/// Parties that hold them: enough that no owner stands out, few enough that their keys are made at once.
const PARTIES: u64 = 10_000;
/// Transactions under way at once: two bundles.
const OPEN_MAX: usize = 64;

/// What was issued.
#[derive(Debug)]
pub struct Preloaded {
    /// Every transaction.
    pub acknowledged: Vec<TransactionId>,
    /// The asset, and how much of it there is.
    pub supply: (AssetType, Quantity),
}

/// Issues `outputs` positions, one unit each, and calls `progress` with how many there are so far.
///
/// # Errors
/// Where the ledger does not take them.
///
/// # Panics
/// Never: the symbol is one.
pub async fn preload(
    client: &Client,
    run: u64,
    outputs: u64,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Preloaded, TradeFault> {
    let issuer = key_of(run, "issuer of the preload");
    let asset = AssetType { issuer: issuer.party(), symbol: "LOAD".parse().expect("letters") };
    let holders: Vec<Party> =
        (0..PARTIES.min(outputs)).map(|number| key_of(run, &format!("holder {number}")).party()).collect();
    let submitter = Submitter::start(client, SubmitterOptions::default());
    let mut preloaded = Preloaded { acknowledged: Vec::new(), supply: (asset, Quantity::new(i128::from(outputs))) };
    let mut holder = holders.iter().cycle();
    let (mut asked, mut done) = (0, 0);
    let mut open = FuturesUnordered::new();
    while done < outputs {
        while asked < outputs && open.len() < OPEN_MAX {
            let count = OUTPUTS.min(outputs - asked);
            let mut builder = client.begin().await?;
            for owner in holder.by_ref().take(usize::try_from(count).unwrap_or(usize::MAX)) {
                builder.issue(asset, *owner, Quantity::new(1));
            }
            let transaction = builder.prepare()?.sign(&issuer)?.finish()?;
            asked += count;
            open.push(issue(client, &submitter, transaction, count));
        }
        if let Some(issued) = open.next().await {
            let (transaction, count) = issued?;
            preloaded.acknowledged.push(transaction);
            done += count;
            progress(done);
        }
    }
    Ok(preloaded)
}

async fn issue(
    client: &Client,
    submitter: &Submitter,
    transaction: SignedTransaction,
    count: u64,
) -> Result<(TransactionId, u64), TradeFault> {
    let id = transaction.id();
    let mut outcome = submitter.submit(transaction).await;
    // ends: a transaction has an outcome once it is no longer valid
    while let Outcome::Unknown { token, .. } = outcome {
        outcome = client.resolve(&token).await;
    }
    match outcome {
        Outcome::Committed { .. } => Ok((id, count)),
        Outcome::Refused { problem } => Err(TradeFault::Refused(problem)),
        other @ (Outcome::Rejected { .. } | Outcome::Unknown { .. }) => {
            Err(TradeFault::NotCommitted("an issue of live outputs", format!("{other:?}")))
        }
    }
}
