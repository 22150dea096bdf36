//! Transactions while operators work, and whether what clients were told stands afterwards.

use std::sync::{Arc, Mutex};

use client::{Client, Consistency, Outcome, SignedTransaction};
use ledger::{AssetType, Contract, Party};
use tokio::task::JoinHandle;

use crate::clients::{eventually, in_time, issue, key};
use crate::stage::Stage;

/// What a client was told, which has to hold for ever.
pub(crate) type Acknowledged = Vec<(SignedTransaction, Outcome)>;

pub(crate) async fn acknowledged(client: &Client, transaction: SignedTransaction) -> (SignedTransaction, Outcome) {
    // where processes wait for a processor, a leader may change: what is unknown then is sent again, and happens once
    let known = |outcome: Outcome| (!matches!(outcome, Outcome::Unknown { .. })).then_some(outcome);
    let outcome = eventually(|| async { known(client.submit(&transaction).await) }).await;
    assert!(outcome.is_committed(), "{outcome:?}");
    (transaction, outcome)
}

/// One transaction after another, until it is stopped.
pub(crate) struct Load {
    told: Arc<Mutex<Acknowledged>>,
    going: JoinHandle<()>,
}

impl Load {
    pub(crate) fn begin(client: Client) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&told);
        let going = tokio::spawn(async move {
            loop {
                let transaction = issue(&client, &key(1), key(2).party(), 1).await;
                // what is refused or unknown while a node dies is sent again, so that all that happened is known
                let outcome = loop {
                    let outcome = client.submit(&transaction).await;
                    if outcome.is_committed() {
                        break outcome;
                    }
                };
                kept.lock().unwrap().push((transaction, outcome));
            }
        });
        Self { told, going }
    }

    /// Waits until some more were committed.
    pub(crate) async fn goes_on(&self) {
        let so_far = || self.told.lock().unwrap().len();
        let before = so_far();
        eventually(|| async { (so_far() > before + 5).then_some(()) }).await;
    }

    /// Ends it; gives all that it was told.
    pub(crate) async fn end(self) -> Acknowledged {
        self.going.abort();
        drop(self.going.await);
        self.told.lock().unwrap().drain(..).collect()
    }
}

/// Each of these transactions, sent again, has the outcome that it had.
pub(crate) async fn all_stands(client: &Client, told: &Acknowledged) {
    for (transaction, outcome) in told {
        let again = in_time(client.submit(transaction)).await;
        let (Outcome::Committed { record, batch }, Outcome::Committed { record: first, batch: first_batch }) =
            (&again, outcome)
        else {
            panic!("{again:?} after {outcome:?}")
        };
        assert_eq!((record, batch), (first, first_batch), "sent again, it has its first outcome");
    }
}

/// Every one of these machines' nodes holds the same ledger, whatever was committed so far.
pub(crate) async fn agree(stage: &Stage, letters: &str) {
    let newest = in_time(stage.client(letters).head(Consistency::Linearizable)).await.unwrap().head;
    for letter in letters.chars() {
        let own = stage.client(&letter.to_string());
        let held = in_time(own.head(Consistency::AtLeast(newest.size))).await.unwrap().head;
        if held.batch == newest.batch {
            assert_eq!(held.hash(), newest.hash(), "{letter}");
        } else {
            let proof = in_time(own.consistency(newest.size, held.size)).await.unwrap();
            let (old, new) = (&newest.log_root, &held.log_root);
            let sizes = (newest.size.get(), held.size.get());
            ledger::merkle::verify_consistency(sizes.0, old, sizes.1, new, &proof.hashes).unwrap();
        }
    }
}

/// What a party holds of an asset, summed over all of its outputs, and how many these are.
pub(crate) async fn held(client: &Client, owner: &Party, asset: AssetType) -> (i128, usize) {
    let (mut sum, mut count, mut after) = (0, 0, None);
    loop {
        let page = in_time(client.holdings(owner, after.as_ref(), 1_000, Consistency::Linearizable)).await.unwrap();
        for output in &page.outputs {
            if let Contract::Position(position) = &output.contract
                && position.asset == asset
            {
                sum += position.quantity.minor_units();
                count += 1;
            }
        }
        after = page.next;
        if after.is_none() {
            return (sum, count);
        }
    }
}
