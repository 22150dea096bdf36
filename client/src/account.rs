//! One party's key, wallet and client together: whole operations, rebuilt where a race for an input was lost.
//!
//! A committed operation returns when the wallet shows it, so that the next one builds on it.

use ledger::view::LiveOutput;
use ledger::{AssetType, LogTime, OutputId, Party, Quantity, Rejection, Symbol, Terms};
use proto::Problem;
use proto::convert::Proposal;

use crate::builder::{BuildFault, TransactionBuilder};
use crate::client::Client;
use crate::key::Key;
use crate::legs::{needs_of, open_legs};
use crate::outcome::Outcome;
use crate::outputs::allocations_of;
use crate::prepared::SignatureFault;
use crate::wallet::{Claim, Shortage, Wallet, WalletOptions};

/// Lost races after which an operation gives up and returns the last rejection.
const REBUILDS_MAX: u32 = 8;

/// A party that acts.
#[derive(Debug, Clone)]
pub struct Account {
    client: Client,
    wallet: Wallet,
    key: Key,
}

/// Why an operation was not submitted. Nothing happened.
#[derive(Debug, thiserror::Error)]
pub enum AccountFault {
    /// The party does not have what it takes, or not free.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The transaction cannot be built.
    #[error(transparent)]
    Build(#[from] BuildFault),
    /// It needs signatures besides this account's.
    #[error(transparent)]
    Signature(#[from] SignatureFault),
    /// No node answered in time.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The outputs to consume are not live, or another transaction under way uses them.
    #[error("the outputs are claimed or spent")]
    Claimed,
    /// The terms have no leg that this party pays.
    #[error("the terms have no leg for this party to fund")]
    NothingToFund,
    /// Another party has yet to fund a leg.
    #[error("leg {leg} waits for {payer} to fund it")]
    Unfunded {
        /// The leg.
        leg: u16,
        /// Who pays it.
        payer: Party,
    },
}

/// What an operation consumes, chosen anew at each attempt.
enum Needs<'a> {
    /// Enough of each asset.
    Funds(&'a [(AssetType, Quantity)]),
    /// Exactly these.
    Outputs(&'a [LiveOutput]),
}

impl Account {
    /// Opens the account of a key.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn open(client: &Client, key: Key) -> Result<Self, Problem> {
        let wallet = Wallet::open(client, &[key.party()], WalletOptions::default()).await?;
        Ok(Self { client: client.clone(), wallet, key })
    }

    /// The account of a key over a wallet that follows its party.
    #[must_use]
    pub fn over(client: Client, wallet: Wallet, key: Key) -> Self {
        Self { client, wallet, key }
    }

    /// Who acts.
    #[must_use]
    pub fn party(&self) -> Party {
        self.key.party()
    }

    /// The wallet.
    #[must_use]
    pub const fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The client.
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// The asset type of this issuer with that symbol.
    #[must_use]
    pub fn asset(&self, symbol: Symbol) -> AssetType {
        AssetType { issuer: self.party(), symbol }
    }

    /// Issues an asset of this party.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn issue(&self, symbol: Symbol, to: Party, quantity: Quantity) -> Result<Outcome, AccountFault> {
        let asset = self.asset(symbol);
        self.run(Needs::Funds(&[]), |transaction, _| {
            transaction.issue(asset, to, quantity);
        })
        .await
    }

    /// Destroys supply of an asset of this party that it holds itself.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn redeem(&self, symbol: Symbol, quantity: Quantity) -> Result<Outcome, AccountFault> {
        let (asset, party) = (self.asset(symbol), self.party());
        self.run(Needs::Funds(&[(asset, quantity)]), |transaction, inputs| {
            transaction.spend_all(inputs).redeem(asset, party, quantity);
        })
        .await
    }

    /// Pays.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn transfer(&self, to: Party, asset: AssetType, quantity: Quantity) -> Result<Outcome, AccountFault> {
        let party = self.party();
        self.run(Needs::Funds(&[(asset, quantity)]), |transaction, inputs| {
            transaction.spend_all(inputs).transfer(party, to, asset, quantity);
        })
        .await
    }

    /// Merges the largest positions of an asset, as many as one transaction consumes and as are free, into one.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn merge(&self, asset: AssetType) -> Result<Outcome, AccountFault> {
        let inputs_max = self.client.cluster().await?.limits.inputs_max;
        let positions = self.wallet.positions(&self.party(), &asset);
        let free = positions.iter().rev().filter(|output| self.wallet.claim(&[output.id]).is_some());
        let chosen: Vec<LiveOutput> = free.take(inputs_max).copied().collect();
        self.run(Needs::Outputs(&chosen), |transaction, inputs| {
            transaction.spend_all(inputs);
        })
        .await
    }

    /// Proposes terms: locks what funds this party's legs until `expires_at`. The proposal goes to the other parties
    /// over their wallets' updates, or by hand.
    ///
    /// # Errors
    /// Where nothing was submitted, in particular where this party pays no leg.
    pub async fn propose(
        &self,
        terms: &Terms,
        expires_at: LogTime,
    ) -> Result<(Outcome, Option<Proposal>), AccountFault> {
        let own = |(leg, payer)| (payer == self.party()).then_some(leg);
        let legs: Vec<u16> = open_legs(terms, &[]).into_iter().filter_map(own).collect();
        if legs.is_empty() {
            return Err(AccountFault::NothingToFund);
        }
        let needs = needs_of(terms, &legs)?;
        let mut body = None;
        let outcome = self
            .run_observed(Needs::Funds(&needs), &mut body, |transaction, inputs| {
                transaction.spend_all(inputs);
                for leg in &legs {
                    transaction.propose(terms, *leg, expires_at);
                }
            })
            .await?;
        let proposal = match &outcome {
            Outcome::Committed { record, .. } => body.map(|body| proposal_of(terms, record, &body)),
            Outcome::Rejected { .. } | Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
        };
        if let Some(proposal) = &proposal {
            self.wallet.learn(proposal);
        }
        Ok((outcome, proposal))
    }

    /// Accepts and settles in one transaction: the proposal's allocations fund their legs, this party's positions the
    /// legs that it pays.
    ///
    /// # Errors
    /// Where nothing was submitted, in particular where another party has yet to fund a leg.
    pub async fn settle(&self, proposal: &Proposal) -> Result<Outcome, AccountFault> {
        let open = open_legs(&proposal.terms, &proposal.allocations);
        if let Some((leg, payer)) = open.iter().find(|(_, payer)| *payer != self.party()) {
            return Err(AccountFault::Unfunded { leg: *leg, payer: *payer });
        }
        let open: Vec<u16> = open.into_iter().map(|(leg, _)| leg).collect();
        let needs = needs_of(&proposal.terms, &open)?;
        let outcome = self
            .run(Needs::Funds(&needs), |transaction, inputs| {
                transaction.spend_all(inputs).settle(&proposal.terms, &proposal.allocations);
            })
            .await?;
        self.note_allocations(proposal, &outcome);
        Ok(outcome)
    }

    /// Rejects a proposal that names this party: its allocations return.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn reject(&self, proposal: &Proposal) -> Result<Outcome, AccountFault> {
        let party = self.party();
        let outcome = self
            .run(Needs::Funds(&[]), |transaction, _| {
                transaction.reject(&proposal.terms, &proposal.allocations, party);
            })
            .await?;
        self.note_allocations(proposal, &outcome);
        Ok(outcome)
    }

    /// Takes this party's allocations back.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn withdraw(&self, allocations: &[LiveOutput]) -> Result<Outcome, AccountFault> {
        self.run(Needs::Outputs(allocations), |transaction, inputs| {
            for allocation in inputs {
                transaction.withdraw(allocation);
            }
        })
        .await
    }

    /// Returns allocations of this party whose expiry has come.
    ///
    /// # Errors
    /// Where nothing was submitted.
    pub async fn expire(&self, allocations: &[LiveOutput]) -> Result<Outcome, AccountFault> {
        self.run(Needs::Outputs(allocations), |transaction, inputs| {
            for allocation in inputs {
                transaction.expire(allocation);
            }
        })
        .await
    }

    fn note_allocations(&self, proposal: &Proposal, outcome: &Outcome) {
        match outcome {
            Outcome::Committed { .. } => {
                let ids: Vec<OutputId> = proposal.allocations.iter().map(|output| output.id).collect();
                self.wallet.forget(&ids);
            }
            Outcome::Rejected { rejection: Rejection::InputSpent { output, .. }, .. } => {
                self.wallet.forget(&[*output]);
            }
            Outcome::Rejected { .. } | Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
        }
    }

    async fn run(
        &self,
        needs: Needs<'_>,
        build: impl Fn(&mut TransactionBuilder, &[LiveOutput]),
    ) -> Result<Outcome, AccountFault> {
        self.run_observed(needs, &mut None, build).await
    }

    /// Claims, builds, signs, submits; once more with other inputs where another transaction spent a claimed one.
    async fn run_observed(
        &self,
        needs: Needs<'_>,
        body: &mut Option<ledger::Body>,
        build: impl Fn(&mut TransactionBuilder, &[LiveOutput]),
    ) -> Result<Outcome, AccountFault> {
        let mut rebuilds = 0;
        loop {
            let claims = self.claim(&needs)?;
            let inputs: Vec<LiveOutput> = claims.iter().flat_map(Claim::outputs).copied().collect();
            let mut transaction = self.client.begin().await?;
            build(&mut transaction, &inputs);
            let prepared = transaction.prepare()?;
            *body = Some(prepared.body().clone());
            let signs = prepared.required_signers().contains(&self.party());
            let signed = if signs { prepared.sign(&self.key)? } else { prepared };
            let outcome = self.client.submit(&signed.finish()?).await;
            claims.into_iter().for_each(|claim| claim.conclude(&outcome));
            if let Outcome::Committed { batch, .. } = &outcome {
                // a wallet that lags shows it later: the outcome stands
                let _shown = self.wallet.wait_until_batch(&self.client, *batch).await;
            }
            rebuilds += 1;
            if rebuilds > REBUILDS_MAX || !matches!(needs, Needs::Funds(_)) || !lost_race(&outcome, &inputs) {
                return Ok(outcome);
            }
        }
    }

    fn claim(&self, needs: &Needs<'_>) -> Result<Vec<Claim>, AccountFault> {
        match needs {
            Needs::Funds(funds) => {
                let select = |(asset, quantity): &(AssetType, Quantity)| {
                    self.wallet.select(&self.party(), asset, *quantity).map_err(AccountFault::from)
                };
                funds.iter().map(select).collect()
            }
            Needs::Outputs(outputs) => {
                let ids: Vec<OutputId> = outputs.iter().map(|output| output.id).collect();
                Ok(vec![self.wallet.claim(&ids).ok_or(AccountFault::Claimed)?])
            }
        }
    }
}

/// True where another transaction spent one of these inputs: other inputs may do.
fn lost_race(outcome: &Outcome, inputs: &[LiveOutput]) -> bool {
    match outcome.rejection() {
        Some(Rejection::InputSpent { output, .. }) => inputs.iter().any(|input| input.id == *output),
        Some(_) | None => false,
    }
}

/// The allocations that a committed transaction created for these terms.
fn proposal_of(terms: &Terms, record: &ledger::OutcomeRecord, body: &ledger::Body) -> Proposal {
    Proposal { terms: terms.clone(), allocations: allocations_of(&terms.id(), record, body) }
}
