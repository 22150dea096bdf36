//! `seriatim wallet`: one party's key against a ledger.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::node::json;
use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use client::{Account, Client, Consistency, Consumed, Key, Outcome, Proposal, Update, Wallet, WalletOptions, Watch};
use futures::StreamExt;
use ledger::identifier::canonical_bytes;
use ledger::view::LiveOutput;
use ledger::{AssetType, Leg, OutcomeRecord, Party, Quantity, Sequence, Symbol, Terms, TermsId, TransactionId};
use seams::OsEntropy;
use serde_json::{Value, json};

use super::endpoints::Endpoints;

/// Act as one party: hold, issue, pay, propose and settle.
#[derive(Debug, Args)]
#[command(after_help = "\
Alice swaps 100 of her CASH for 5 of Bob's BOND:
  seriatim wallet keygen --key alice.key            (prints Alice's party; the same for bob.key)
  seriatim wallet --key alice.key issue CASH 1000
  seriatim wallet --key bob.key issue BOND 50
  seriatim wallet --key alice.key propose BOB 100 CASH@ALICE 5 BOND@BOB
  seriatim wallet --key bob.key proposals
  seriatim wallet --key bob.key accept TERMS
  seriatim wallet --key bob.key balance

A party is a key in hexadecimal. An asset is SYMBOL@ISSUER, or SYMBOL alone for an asset that this party issues.
Quantities are whole numbers of minor units.")]
pub(crate) struct WalletArguments {
    /// The file with the party's private key
    #[arg(long, env = "SERIATIM_KEY", value_name = "FILE", default_value = "wallet.key", global = true)]
    key: PathBuf,
    #[command(flatten)]
    endpoints: Endpoints,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: WalletCommand,
}

#[derive(Debug, Subcommand)]
enum WalletCommand {
    /// Make a key and keep it in the key file, which must not exist
    Keygen,
    /// Print the party that the key signs for
    #[command(alias = "address")]
    Party,
    /// Print what the party holds
    Balance,
    /// Issue an asset of this party
    Issue {
        /// The asset's symbol
        symbol: Symbol,
        /// How much
        quantity: i128,
        /// Who receives it [default: this party]
        #[arg(long)]
        to: Option<Party>,
    },
    /// Destroy supply of an asset of this party that it holds
    Redeem {
        /// The asset's symbol
        symbol: Symbol,
        /// How much
        quantity: i128,
    },
    /// Pay
    Transfer {
        /// Who is paid
        to: Party,
        /// How much
        quantity: i128,
        /// Of which asset
        asset: String,
    },
    /// Propose a swap and lock what this party pays
    Propose {
        /// The counterparty
        with: Party,
        /// How much this party pays
        pay: i128,
        /// Of which asset
        pay_asset: String,
        /// How much it wants
        receive: i128,
        /// Of which asset
        receive_asset: String,
        /// Seconds until what is locked may return by expiry
        #[arg(long, default_value_t = 3_600)]
        expires_in: u64,
    },
    /// List the proposals that name this party
    #[command(alias = "list-proposals")]
    Proposals,
    /// Accept a proposal and settle it
    Accept {
        /// The terms, as `proposals` shows them
        terms: TermsId,
    },
    /// Reject a proposal: what is locked to it returns to its owners
    Reject {
        /// The terms, as `proposals` shows them
        terms: TermsId,
    },
    /// Take back what this party locked to a proposal
    Withdraw {
        /// The terms
        terms: TermsId,
    },
    /// Return what this party locked to a proposal that has expired
    Expire {
        /// The terms
        terms: TermsId,
    },
    /// Print every transaction that changed what the party holds, oldest first
    History,
    /// Print what became of a transaction
    Transaction {
        /// Its identifier
        id: TransactionId,
    },
    /// Fetch a transaction's receipt, for `seriatim verify receipt`
    Receipt {
        /// The transaction
        id: TransactionId,
        /// Where to write it
        #[arg(long, short)]
        output: PathBuf,
    },
}

pub(crate) async fn run(arguments: WalletArguments) -> anyhow::Result<ExitCode> {
    if matches!(arguments.command, WalletCommand::Keygen) {
        return keygen(&arguments.key, arguments.json);
    }
    let key = Key::load(&arguments.key)
        .with_context(|| format!("no key in {}; `seriatim wallet keygen` makes one", arguments.key.display()))?;
    let teller = Teller { client: connect(&arguments.endpoints)?, key, json: arguments.json };
    teller.serve(arguments.command).await
}

fn connect(endpoints: &Endpoints) -> anyhow::Result<Client> {
    Ok(endpoints.access()?.client().connect()?)
}

fn keygen(path: &Path, as_json: bool) -> anyhow::Result<ExitCode> {
    let key = Key::generate(&OsEntropy);
    key.save(path)?;
    print_party(key.party(), as_json);
    Ok(ExitCode::SUCCESS)
}

fn print_party(party: Party, as_json: bool) {
    if as_json {
        println!("{}", json!({ "party": party.to_string() }));
    } else {
        println!("{party}");
    }
}

/// Serves one command.
struct Teller {
    client: Client,
    key: Key,
    json: bool,
}

impl Teller {
    async fn serve(self, command: WalletCommand) -> anyhow::Result<ExitCode> {
        match command {
            WalletCommand::Keygen => Ok(ExitCode::SUCCESS),
            WalletCommand::Party => {
                print_party(self.key.party(), self.json);
                Ok(ExitCode::SUCCESS)
            }
            WalletCommand::Balance => self.balance().await,
            WalletCommand::Issue { symbol, quantity, to } => {
                let account = self.account().await?;
                let to = to.unwrap_or(account.party());
                self.tell(&account.issue(symbol, to, Quantity::new(quantity)).await?)
            }
            WalletCommand::Redeem { symbol, quantity } => {
                self.tell(&self.account().await?.redeem(symbol, Quantity::new(quantity)).await?)
            }
            WalletCommand::Transfer { to, quantity, asset } => {
                let asset = self.asset(&asset)?;
                self.tell(&self.account().await?.transfer(to, asset, Quantity::new(quantity)).await?)
            }
            WalletCommand::Propose { with, pay, pay_asset, receive, receive_asset, expires_in } => {
                let paid = (self.asset(&pay_asset)?, Quantity::new(pay));
                let wanted = (self.asset(&receive_asset)?, Quantity::new(receive));
                self.propose(with, paid, wanted, expires_in).await
            }
            WalletCommand::Proposals => self.proposals().await,
            WalletCommand::Accept { terms } => {
                let account = self.account_with_proposals().await?;
                self.tell(&account.settle(&proposal(&account, &terms)?).await?)
            }
            WalletCommand::Reject { terms } => {
                let account = self.account_with_proposals().await?;
                self.tell(&account.reject(&proposal(&account, &terms)?).await?)
            }
            WalletCommand::Withdraw { terms } => {
                let account = self.account().await?;
                self.tell(&account.withdraw(&locked_to(&account, &terms)?).await?)
            }
            WalletCommand::Expire { terms } => {
                let account = self.account().await?;
                self.tell(&account.expire(&locked_to(&account, &terms)?).await?)
            }
            WalletCommand::History => self.history().await,
            WalletCommand::Transaction { id } => self.transaction(&id).await,
            WalletCommand::Receipt { id, output } => self.receipt(&id, &output).await,
        }
    }

    async fn account(&self) -> anyhow::Result<Account> {
        Ok(Account::open(&self.client, self.key).await?)
    }

    /// Reads the ledger's updates from the beginning, because a proposal shows in the batch that made it.
    async fn account_with_proposals(&self) -> anyhow::Result<Account> {
        let options = WalletOptions { proposals_since: Some(1) };
        let wallet = Wallet::open(&self.client, &[self.key.party()], options).await?;
        Ok(Account::over(self.client.clone(), wallet, self.key))
    }

    /// `SYMBOL@ISSUER`, or a symbol of this party's own.
    fn asset(&self, text: &str) -> anyhow::Result<AssetType> {
        let (symbol, issuer) = match text.split_once('@') {
            Some((symbol, issuer)) => (symbol, issuer.parse()?),
            None => (text, self.key.party()),
        };
        Ok(AssetType { symbol: symbol.parse()?, issuer })
    }

    async fn balance(&self) -> anyhow::Result<ExitCode> {
        let account = self.account().await?;
        let (wallet, party) = (account.wallet(), account.party());
        let mut rows = Vec::new();
        for asset in wallet.assets(&party) {
            let balance = wallet.balance(&party, &asset);
            if self.json {
                rows.push(json!({
                    "asset": asset.to_string(),
                    "free": balance.free.to_string(),
                    "allocated": balance.allocated.to_string(),
                    "positions": wallet.positions(&party, &asset).len(),
                }));
            } else {
                println!("{:>24}  {asset}   ({} locked to proposals)", balance.free.to_string(), balance.allocated);
            }
        }
        if self.json {
            println!("{}", Value::from(rows));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn propose(
        &self,
        with: Party,
        paid: (AssetType, Quantity),
        wanted: (AssetType, Quantity),
        expires_in: u64,
    ) -> anyhow::Result<ExitCode> {
        let account = self.account().await?;
        let leg = |payer, receiver, (asset, quantity)| Leg { payer, receiver, asset, quantity };
        let legs = vec![leg(account.party(), with, paid), leg(with, account.party(), wanted)];
        let terms = Terms { legs, nonce: self.client.nonce() };
        let expires_at = self.client.now().plus_millis(expires_in.saturating_mul(1_000));
        let (outcome, _) = account.propose(&terms, expires_at).await?;
        if !self.json && outcome.is_committed() {
            println!("terms {}", terms.id());
        }
        self.tell(&outcome)
    }

    async fn proposals(&self) -> anyhow::Result<ExitCode> {
        let proposals = self.account_with_proposals().await?.wallet().proposals();
        if self.json {
            let all: Vec<Value> = proposals
                .iter()
                .map(|proposal| {
                    let locked: Vec<Value> = proposal.allocations.iter().map(json::output).collect();
                    json!({ "terms": json::terms(&proposal.terms), "allocations": locked })
                })
                .collect();
            println!("{}", Value::from(all));
            return Ok(ExitCode::SUCCESS);
        }
        for proposal in &proposals {
            println!("terms {}", proposal.terms.id());
            for leg in &proposal.terms.legs {
                println!("    {} pays {} {} of {}", leg.payer, leg.receiver, leg.quantity, leg.asset);
            }
        }
        if proposals.is_empty() {
            eprintln!("no open proposals");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Reads the party's updates from the beginning to where the ledger is now.
    async fn history(&self) -> anyhow::Result<ExitCode> {
        let newest = self.client.position(Consistency::Linearizable).await?.batch;
        let watch = Watch { from_batch: 1, parties: vec![self.key.party()], with_records: true };
        let mut updates = self.client.updates(&watch).await?;
        let mut lines = Vec::new();
        let mut reached = 0;
        while reached < newest {
            let update = updates.next().await.context("the node ended the stream")??;
            reached = update.head.batch;
            lines.extend(changes(self.key.party(), &update));
        }
        if self.json {
            println!("{}", lines.iter().map(Change::json).collect::<Value>());
        } else {
            lines.iter().for_each(|line| println!("{}", line.text()));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn transaction(&self, id: &TransactionId) -> anyhow::Result<ExitCode> {
        let status = self.client.transaction(id, Consistency::Linearizable, false).await?;
        println!("{:#}", json::transaction_status(&status));
        Ok(if status.sequenced.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    async fn receipt(&self, id: &TransactionId, output: &Path) -> anyhow::Result<ExitCode> {
        let receipt = self.client.receipt(id).await?;
        std::fs::write(output, canonical_bytes(&receipt))
            .with_context(|| format!("writing the receipt to {}", output.display()))?;
        let signatures = receipt.head.signatures.len();
        eprintln!("written to {}: {signatures} nodes signed its head", output.display());
        Ok(ExitCode::SUCCESS)
    }

    /// Prints an outcome; only a committed one is a success.
    fn tell(&self, outcome: &Outcome) -> anyhow::Result<ExitCode> {
        let (word, detail) = match outcome {
            Outcome::Committed { record, .. } => ("committed", json::record(record)),
            Outcome::Rejected { rejection, .. } => ("rejected", json::rejection(rejection)),
            Outcome::Refused { problem } => ("refused", json::problem(problem)),
            Outcome::Unknown { token, problem } => {
                let transaction = token.transaction().to_string();
                ("unknown", json!({ "transaction": transaction, "problem": json::problem(problem) }))
            }
        };
        if self.json {
            println!("{}", json!({ "outcome": word, "detail": detail }));
        } else {
            match outcome {
                Outcome::Committed { record, batch } => {
                    println!("committed {} at {} in batch {batch}", record.transaction, record.sequence);
                }
                Outcome::Rejected { rejection, .. } => {
                    bail!("rejected: {rejection}. `seriatim explain {}` says what to do", rejection.code())
                }
                Outcome::Refused { problem } => bail!("nothing happened: {problem}"),
                Outcome::Unknown { token, problem } => {
                    bail!("not known yet: {problem}. Ask with `seriatim wallet transaction {}`", token.transaction())
                }
            }
        }
        Ok(if outcome.is_committed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn proposal(account: &Account, terms: &TermsId) -> anyhow::Result<Proposal> {
    let found = account.wallet().proposal(terms);
    found.ok_or_else(|| anyhow!("no open proposal {terms} names this party; `seriatim wallet proposals` lists them"))
}

fn locked_to(account: &Account, terms: &TermsId) -> anyhow::Result<Vec<LiveOutput>> {
    let of_terms = |output: &LiveOutput| match &output.contract {
        ledger::Contract::Allocation(locked) => locked.terms == *terms,
        ledger::Contract::Position(_) | ledger::Contract::Grant(_) => false,
    };
    let locked: Vec<LiveOutput> = account.wallet().allocations().into_iter().filter(of_terms).collect();
    if locked.is_empty() {
        bail!("this party has nothing locked to {terms}");
    }
    Ok(locked)
}

/// What one transaction changed in a party's holdings.
struct Change {
    record: OutcomeRecord,
    net: BTreeMap<AssetType, i128>,
}

/// The changes of a batch, in order. What is locked to a proposal is still held.
fn changes(party: Party, update: &Update) -> Vec<Change> {
    let mut by_place: BTreeMap<Sequence, BTreeMap<AssetType, i128>> = BTreeMap::new();
    let mut count = |place: Sequence, output: &LiveOutput, sign: i128| {
        if let (true, Some((asset, quantity))) = (output.contract.holder() == party, output.contract.value()) {
            *by_place.entry(place).or_default().entry(asset).or_default() += sign * quantity.minor_units();
        }
    };
    update.consumed.iter().for_each(|consumed| count(consumed.spender, &consumed.output, -1));
    update.created.iter().for_each(|output| count(output.place.sequence, output, 1));
    // what was created and consumed in one batch shows among the consumed only
    let born_here = |consumed: &&Consumed| {
        update.records.first().is_some_and(|first| consumed.output.place.sequence >= first.sequence)
    };
    update.consumed.iter().filter(born_here).for_each(|consumed| {
        count(consumed.output.place.sequence, &consumed.output, 1);
    });
    let of_place =
        |record: &OutcomeRecord| Some(Change { record: record.clone(), net: by_place.get(&record.sequence)?.clone() });
    update.records.iter().filter_map(of_place).collect()
}

impl Change {
    fn text(&self) -> String {
        let Self { record, net } = self;
        let assets = net.iter().map(|(asset, quantity)| format!("  {quantity:+} {asset}"));
        let moved: String = assets.collect();
        format!("{} at {}, {} ms{moved}", record.transaction, record.sequence, record.log_time)
    }

    fn json(&self) -> Value {
        let asset = |(asset, quantity): (&AssetType, &i128)| json!({ "asset": asset.to_string(), "quantity": quantity.to_string() });
        json!({ "record": json::record(&self.record), "net": self.net.iter().map(asset).collect::<Vec<_>>() })
    }
}
