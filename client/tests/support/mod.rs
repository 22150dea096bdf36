//! A ledger with parties that hold something.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "tests")]

use client::testkit::LocalLedger;
use client::{Account, Client, Key, Outcome};
use ledger::{AssetType, Leg, LogTime, Party, Quantity, Symbol, Terms};

pub(crate) struct World {
    pub(crate) ledger: LocalLedger,
    pub(crate) client: Client,
    pub(crate) bank: Account,
    pub(crate) alice: Account,
    pub(crate) bob: Account,
}

pub(crate) fn key(name: u8) -> Key {
    Key::from_seed([name; 32])
}

pub(crate) fn symbol(text: &str) -> Symbol {
    text.parse().unwrap()
}

pub(crate) fn quantity(units: i128) -> Quantity {
    Quantity::new(units)
}

impl World {
    pub(crate) async fn new() -> Self {
        let ledger = LocalLedger::new("world");
        let client = ledger.client();
        Self::with(ledger, client).await
    }

    pub(crate) async fn with(ledger: LocalLedger, client: Client) -> Self {
        let open = |name| Account::open(&client, key(name));
        let (bank, alice, bob) = (open(1).await.unwrap(), open(2).await.unwrap(), open(3).await.unwrap());
        Self { ledger, client, bank, alice, bob }
    }

    /// Alice has 1,000 USD, Bob has 500 EUR.
    pub(crate) async fn funded() -> Self {
        let world = Self::new().await;
        world.fund(&world.alice, "USD", 1_000).await;
        world.fund(&world.bob, "EUR", 500).await;
        world
    }

    pub(crate) async fn fund(&self, account: &Account, asset: &str, units: i128) {
        let outcome = self.bank.issue(symbol(asset), account.party(), quantity(units)).await.unwrap();
        self.see(account, &outcome).await;
    }

    /// Waits until an account's wallet shows a committed outcome.
    pub(crate) async fn see(&self, account: &Account, outcome: &Outcome) {
        let Outcome::Committed { batch, .. } = outcome else { panic!("not committed: {outcome:?}") };
        account.wallet().wait_until_batch(&self.client, *batch).await.unwrap();
    }

    pub(crate) fn asset(&self, text: &str) -> AssetType {
        self.bank.asset(symbol(text))
    }

    pub(crate) fn free(&self, account: &Account, asset: &str) -> i128 {
        account.wallet().balance(&account.party(), &self.asset(asset)).free.minor_units()
    }

    /// Alice pays USD for Bob's EUR.
    pub(crate) fn swap(&self, usd: i128, eur: i128) -> Terms {
        let (alice, bob) = (self.alice.party(), self.bob.party());
        let leg = |payer: Party, receiver: Party, asset: &str, units: i128| Leg {
            payer,
            receiver,
            asset: self.asset(asset),
            quantity: quantity(units),
        };
        Terms { legs: vec![leg(alice, bob, "USD", usd), leg(bob, alice, "EUR", eur)], nonce: self.client.nonce() }
    }

    pub(crate) fn in_a_minute(&self) -> LogTime {
        self.client.now().plus_millis(60_000)
    }
}

/// The rejection's name, or what else it was.
pub(crate) fn reason(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed { .. } => "committed".to_owned(),
        Outcome::Rejected { rejection, .. } => rejection.name().to_owned(),
        Outcome::Refused { problem } => format!("refused: {problem}"),
        Outcome::Unknown { problem, .. } => format!("unknown: {problem}"),
    }
}
