//! A payment whose key is kept elsewhere: prepared here, signed from its canonical bytes there, submitted here.
//!
//! ```text
//! cargo run --release -p client --example prepare_sign_elsewhere -- 127.0.0.1:7001
//! ```

use anyhow::{Context, ensure};
use client::{Account, Client, Key, Prepared};
use ledger::{Body, Contract, Intent, Quantity, Signature};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let client = Client::builder().endpoints(std::env::args().skip(1)).connect()?;
    let vault = Vault { key: Key::generate(&seams::OsEntropy) };
    let owner = vault.key.party();
    let bank = Account::open(&client, Key::generate(&seams::OsEntropy)).await?;
    let wallet = client::Wallet::open(&client, &[owner], client::WalletOptions::default()).await?;
    let asset = bank.asset("GBP".parse()?);
    let issued = bank.issue(asset.symbol, owner, Quantity::new(100)).await?;
    ensure!(issued.is_committed(), "{issued:?}");
    wallet.wait_until_batch(&client, bank.wallet().head().batch).await?;

    let claim = wallet.select(&owner, &asset, Quantity::new(30))?;
    let mut transaction = client.begin().await?;
    transaction.spend_all(claim.outputs()).transfer(owner, bank.party(), asset, Quantity::new(30));
    let prepared: Prepared = transaction.prepare()?;
    println!("prepared {}: {} bytes once signed", prepared.id(), prepared.size_bytes());

    let signature = vault.approve(&prepared.canonical_bytes())?;
    let signed = prepared.add_signature(owner, signature)?.finish()?;
    let outcome = client.submit(&signed).await;
    println!("{outcome:?}");
    claim.conclude(&outcome);
    Ok(())
}

/// Stands for a device that shows what it is to sign.
struct Vault {
    key: Key,
}

impl Vault {
    fn approve(&self, canonical_bytes: &[u8]) -> anyhow::Result<Signature> {
        let body: Body = borsh::from_slice(canonical_bytes).context("not a transaction's body")?;
        let Intent::Movements(movements) = &body.intent else { anyhow::bail!("this vault signs no commands") };
        for output in &movements.outputs {
            if let Contract::Position(position) = output {
                println!("vault: {} {} to {}", position.quantity, position.asset.symbol, position.owner);
            }
        }
        // over what was seen, not over what somebody says it hashes to
        Ok(self.key.sign(&body))
    }
}
