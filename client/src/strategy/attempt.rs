//! One transaction of a strategy: built, signed, sent, and its outcome understood.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ledger::view::LiveOutput;
use ledger::{AssetType, Contract, OutputId, Party, Quantity, Rejection, TermsId, TransactionId};
use proto::convert::Proposal;
use proto::{Problem, ProblemKind};
use tokio::time::sleep;

use super::metrics::Counters;
use super::outbox::{Outbox, OutboxFault};
use super::request::{Item, Request, Settled, Unsettled};
use crate::client::Client;
use crate::key::Key;
use crate::outcome::{Outcome, Unresolved};
use crate::outputs::outputs_of;
use crate::prepared::{Prepared, SignedTransaction};
use crate::submitter::Submitter;

/// How often an unknown outcome is asked for, each time for the client's deadline: together longer than a transaction is
/// valid, after which the answer is definite.
const RESOLVES_MAX: u32 = 12;
/// Allocations returned by one transaction.
pub(super) const EXPIRED_MAX: usize = 200;
/// Pause before an unknown outcome is asked for again.
const RESOLVE_PAUSE: Duration = Duration::from_millis(200);

/// What transactions are made with.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) client: Client,
    pub(super) submitter: Submitter,
    pub(super) key: Key,
    pub(super) outbox: Option<Outbox>,
    pub(super) counters: Counters,
}

/// A transaction to be made.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// Positions that it consumes, claimed.
    pub(super) claim: Vec<LiveOutput>,
    /// Grants that it uses.
    pub(super) grants: Vec<LiveOutput>,
    /// Requests that it carries out.
    pub(super) items: Vec<Item>,
    /// Positions that it leaves for its own party, besides what remains.
    pub(super) pieces: Vec<(AssetType, Quantity)>,
    /// Allocations of its own party that have expired, to be returned.
    pub(super) expired: Vec<LiveOutput>,
}

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// It happened, and left its own party these positions and grants.
    Committed { transaction: TransactionId, batch: u64, proposals: BTreeMap<TermsId, Proposal>, own: Vec<LiveOutput> },
    /// Another transaction consumed a position of its claim.
    LostRace(OutputId, Rejection),
    /// One request cannot be carried out: what funds its other legs is gone.
    ItemFailed(usize, Rejection),
    /// It cannot happen, and the reason names no single request.
    Fell(Unsettled),
    /// Nobody knows.
    Unknown(Box<Unresolved>, Problem),
}

impl Desk {
    pub(super) fn party(&self) -> Party {
        self.key.party()
    }

    /// Of what is live, the allocations of this party whose expiry has come: what they lock may return.
    pub(super) fn expired_of(&self, live: &[LiveOutput]) -> Vec<LiveOutput> {
        let (now, party) = (self.client.now(), self.party());
        let expired = |output: &&LiveOutput| match &output.contract {
            Contract::Allocation(locked) => locked.return_to == party && locked.expires_at <= now,
            Contract::Position(_) | Contract::Grant(_) => false,
        };
        live.iter().filter(expired).copied().collect()
    }

    /// Makes the transaction and waits for its outcome.
    pub(super) async fn carry_out(self: Arc<Self>, draft: Draft) -> (Draft, Ending) {
        let prepared = match self.prepare(&draft).await {
            Ok(prepared) => prepared,
            Err(fault) => return (draft, Ending::Fell(fault)),
        };
        let ending = match self.sign(prepared.clone()) {
            Ok(signed) => {
                let outcome = self.send(signed).await;
                self.understand(&draft, &prepared, outcome)
            }
            Err(fault) => Ending::Fell(fault),
        };
        (draft, ending)
    }

    async fn prepare(&self, draft: &Draft) -> Result<Prepared, Unsettled> {
        let party = self.party();
        let mut transaction = self.client.begin().await.map_err(Unsettled::Refused)?;
        transaction.keep_together(party).spend_all(&draft.claim);
        for grant in &draft.grants {
            transaction.under_grant(grant);
        }
        for item in &draft.items {
            item.request.write(&item.legs, &mut transaction);
        }
        for (asset, quantity) in &draft.pieces {
            transaction.transfer(party, party, *asset, *quantity);
        }
        for allocation in &draft.expired {
            transaction.expire(allocation);
        }
        Ok(transaction.prepare()?)
    }

    pub(super) fn sign(&self, prepared: Prepared) -> Result<SignedTransaction, Unsettled> {
        let signs = prepared.required_signers().contains(&self.party());
        let signed = if signs { prepared.sign(&self.key)? } else { prepared };
        Ok(signed.finish()?)
    }

    /// Submits until the outcome is known, or nobody can know it any more.
    pub(super) async fn send(&self, transaction: SignedTransaction) -> Outcome {
        let kept = self.outbox.as_ref().map(|outbox| (outbox, transaction.clone()));
        if let Some((outbox, kept)) = &kept
            && let Err(fault) = outbox.keep(kept).await
        {
            return not_kept(kept, &fault);
        }
        {
            let mut metrics = self.counters.add();
            metrics.transactions += 1;
            metrics.in_flight += 1;
        }
        let mut outcome = self.submitter.submit(transaction).await;
        for _ in 0..RESOLVES_MAX {
            let Outcome::Unknown { token, .. } = &outcome else { break };
            let token = token.clone();
            sleep(RESOLVE_PAUSE).await;
            outcome = self.client.resolve(&token).await;
        }
        if let Some((outbox, kept)) = kept {
            match &outcome {
                Outcome::Committed { .. } | Outcome::Rejected { .. } => outbox.drop_known(&kept.id()),
                // a later process must not send what somebody was told has not happened
                Outcome::Refused { .. } => {
                    if let Err(fault) = outbox.withdraw(&kept.id()).await {
                        outcome = not_kept(&kept, &fault);
                    }
                }
                Outcome::Unknown { .. } => {}
            }
        }
        self.counters.add().in_flight -= 1;
        if let Outcome::Rejected { rejection, record } = &outcome {
            self.counters.reject(rejection, record.is_some());
        }
        outcome
    }

    fn understand(&self, draft: &Draft, prepared: &Prepared, outcome: Outcome) -> Ending {
        match outcome {
            Outcome::Committed { record, batch } => {
                let created = outputs_of(&record, prepared.body());
                let own = |output: &&LiveOutput| match &output.contract {
                    Contract::Position(held) => held.owner == self.party(),
                    Contract::Grant(_) | Contract::Allocation(_) => false,
                };
                let own = created.iter().filter(own).copied().collect();
                let transaction = record.transaction;
                Ending::Committed { transaction, batch, proposals: proposals_of(draft, &created), own }
            }
            Outcome::Rejected { rejection, .. } => draft.blame(rejection),
            Outcome::Refused { problem } => Ending::Fell(Unsettled::Refused(problem)),
            Outcome::Unknown { token, problem } => Ending::Unknown(Box::new(token), problem),
        }
    }
}

/// The outcome of a transaction that no node took in, and that the outbox could not keep or drop.
fn not_kept(transaction: &SignedTransaction, fault: &OutboxFault) -> Outcome {
    let problem = Problem::new(ProblemKind::Cancelled, fault.to_string());
    if fault.may_be_found {
        Outcome::Unknown { token: Unresolved::of_one(transaction), problem }
    } else {
        Outcome::Refused { problem }
    }
}

/// The proposals that a committed transaction made, by terms.
fn proposals_of(draft: &Draft, created: &[LiveOutput]) -> BTreeMap<TermsId, Proposal> {
    let mut proposals = BTreeMap::new();
    for item in &draft.items {
        if let Request::Propose { terms, .. } = &item.request {
            proposals.insert(terms.id(), Proposal { terms: terms.clone(), allocations: Vec::new() });
        }
    }
    for output in created {
        if let Contract::Allocation(locked) = &output.contract
            && let Some(proposal) = proposals.get_mut(&locked.terms)
        {
            proposal.allocations.push(*output);
        }
    }
    proposals
}

impl Draft {
    /// Whom a rejection concerns: inputs are named in the order in which the transaction was built.
    fn blame(&self, rejection: Rejection) -> Ending {
        let by_output = |id: &OutputId| {
            if self.claim.iter().any(|output| output.id == *id) {
                return Some(Blamed::Claim);
            }
            self.items.iter().position(|item| item.request.allocations().any(|used| used == *id)).map(Blamed::Item)
        };
        let mut output = None;
        if let Rejection::InputSpent { output: named, .. } | Rejection::InputUnknown { output: named, .. } = &rejection
        {
            output = Some(*named);
        }
        if let Rejection::AllocationExpired { input, .. } = &rejection {
            let position = usize::from(*input).checked_sub(self.claim.len());
            let mut used = self.items.iter().flat_map(|item| item.request.allocations());
            output = position.and_then(|position| used.nth(position));
        }
        let blamed = output.as_ref().and_then(by_output);
        match (blamed, output) {
            (Some(Blamed::Claim), Some(output)) => Ending::LostRace(output, rejection),
            (Some(Blamed::Item(item)), _) => Ending::ItemFailed(item, rejection),
            (Some(Blamed::Claim) | None, _) => Ending::Fell(Unsettled::Rejected(rejection)),
        }
    }

    /// Tells every request that it is done.
    pub(super) fn settle(
        self,
        transaction: TransactionId,
        batch: u64,
        proposals: &mut BTreeMap<TermsId, Proposal>,
    ) -> u64 {
        let mut settled = 0;
        for item in self.items {
            let proposal = match &item.request {
                Request::Propose { terms, .. } => proposals.remove(&terms.id()),
                Request::Settle(_) => None,
            };
            let retries = item.retries;
            item.tell(Ok(Settled { transaction, batch, proposal, retries }));
            settled += 1;
        }
        settled
    }
}

enum Blamed {
    Claim,
    Item(usize),
}

/// True where the same request may succeed in a transaction built anew.
pub(super) fn may_succeed_later(fault: &Unsettled) -> bool {
    match fault {
        Unsettled::Rejected(Rejection::Expired { .. }) => true,
        Unsettled::Rejected(_)
        | Unsettled::Shortage(_)
        | Unsettled::Build(_)
        | Unsettled::Signature(_)
        | Unsettled::Unfunded { .. }
        | Unsettled::NothingToFund
        | Unsettled::Unsupported(_)
        | Unsettled::TooManyOpen
        | Unsettled::Refused(_)
        | Unsettled::Stopped
        | Unsettled::Unknown { .. } => false,
    }
}
