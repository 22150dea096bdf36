//! Clients that settle while something is done to the cluster.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::{Account, Client, Outcome};
use futures::future::join_all;
use ledger::{AssetType, Leg, Quantity, Terms};

use crate::clients::{eventually, in_time, key};
use crate::load::held;

/// Pairs of parties that settle, one settlement after another.
pub(crate) const PAIRS: u8 = 4;
/// Units of each asset that a pair begins with: more than it settles.
const ISSUED: i128 = 1_000_000;

/// One settlement that a client waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settled {
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
}

/// Pairs that settle until they are told to stop.
pub(crate) struct Settling {
    stop: Arc<AtomicBool>,
    so_far: Arc<AtomicU64>,
    /// What did not end as it should, in words.
    failed: Arc<Mutex<Vec<String>>>,
    pairs: Vec<tokio::task::JoinHandle<Vec<Settled>>>,
}

/// Two parties, each of which issued what it pays.
struct Pair {
    payer: Account,
    seller: Account,
}

impl Pair {
    async fn open(client: &Client, number: u8) -> Self {
        let open = async |seed| Account::open(client, key(seed)).await.unwrap();
        let pair = Self { payer: open(100 + number).await, seller: open(200 + number).await };
        for (party, symbol) in [(&pair.payer, "CASH"), (&pair.seller, "BOND")] {
            let issued = party.issue(symbol.parse().unwrap(), party.party(), Quantity::new(ISSUED)).await.unwrap();
            assert!(issued.is_committed(), "{issued:?}");
        }
        pair
    }

    /// One CASH for one BOND, proposed and settled.
    async fn settle(&self, client: &Client) -> Result<(), String> {
        let leg = |from: &Account, to: &Account, symbol: &str| Leg {
            payer: from.party(),
            receiver: to.party(),
            asset: from.asset(symbol.parse().unwrap()),
            quantity: Quantity::new(1),
        };
        let (payer, seller) = (&self.payer, &self.seller);
        let legs = vec![leg(payer, seller, "CASH"), leg(seller, payer, "BOND")];
        let terms = Terms { legs, nonce: client.nonce() };
        let expires = client.now().plus_millis(600_000);
        let (proposed, proposal) = payer.propose(&terms, expires).await.map_err(|fault| fault.to_string())?;
        let Some(proposal) = proposal else { return Err(format!("proposed: {proposed:?}")) };
        match seller.settle(&proposal).await {
            Ok(Outcome::Committed { .. }) => Ok(()),
            Ok(other) => Err(format!("settled: {other:?}")),
            Err(fault) => Err(fault.to_string()),
        }
    }
}

impl Settling {
    pub(crate) async fn begin(client: &Client) -> Self {
        let (stop, so_far) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let failed = Arc::<Mutex<Vec<String>>>::default();
        let mut pairs = Vec::new();
        for number in 0..PAIRS {
            let (pair, client) = (Pair::open(client, number).await, client.clone());
            let (stop, so_far, failed) = (Arc::clone(&stop), Arc::clone(&so_far), Arc::clone(&failed));
            pairs.push(tokio::spawn(async move {
                let mut settled = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    match pair.settle(&client).await {
                        Ok(()) => settled.push(Settled { began, ended: Instant::now() }),
                        Err(why) => failed.lock().unwrap().push(why),
                    }
                    so_far.fetch_add(1, Ordering::Relaxed);
                }
                settled
            }));
        }
        Self { stop, so_far, failed, pairs }
    }

    /// Waits until some more have ended, however they did.
    pub(crate) async fn goes_on(&self) {
        let before = self.so_far.load(Ordering::Relaxed);
        eventually(|| async { (self.so_far.load(Ordering::Relaxed) > before + 50).then_some(()) }).await;
    }

    /// Waits until none has ended for a moment in which many would.
    pub(crate) async fn stands_still(&self) {
        let so_far = || self.so_far.load(Ordering::Relaxed);
        let (mut last, mut looks) = (so_far(), 0);
        eventually(|| {
            looks = if so_far() == last { looks + 1 } else { 0 };
            last = so_far();
            let stood = (looks > 50).then_some(());
            async move { stood }
        })
        .await;
    }

    /// Ends it; gives what each pair settled, and what failed.
    pub(crate) async fn end(self) -> (Vec<Vec<Settled>>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = in_time(join_all(self.pairs)).await;
        let failed = self.failed.lock().unwrap().clone();
        (ended.into_iter().map(Result::unwrap).collect(), failed)
    }
}

/// The longest time in which no client of any pair was told of a settlement.
pub(crate) fn longest_gap(settled: &[Settled]) -> Duration {
    let mut ends: Vec<Instant> = settled.iter().map(|settled| settled.ended).collect();
    ends.sort();
    ends.windows(2).map(|two| two[1] - two[0]).max().unwrap()
}

/// Every settlement that a client was told of happened, once.
pub(crate) async fn add_up(client: &Client, settled: &[Vec<Settled>]) {
    for (number, settled) in (0..PAIRS).zip(settled) {
        let (payer, seller) = (key(100 + number).party(), key(200 + number).party());
        let cash = AssetType { issuer: payer, symbol: "CASH".parse().unwrap() };
        let units = i128::try_from(settled.len()).unwrap();
        assert_eq!(held(client, &seller, cash).await.0, units);
        assert_eq!(held(client, &payer, cash).await.0, ISSUED - units);
    }
}
