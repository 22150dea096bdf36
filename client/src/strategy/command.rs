//! The command lane: the ledger chooses inputs after ordering, so that no request ever loses a race. In return every
//! payer signs, nobody knows beforehand which positions pay, and the ledger applies commands one after another.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;
use ledger::{AssetType, Command};
use tokio::sync::Semaphore;

use super::attempt::Desk;
use super::funds::Stock;
use super::metrics::Metrics;
use super::request::{Request, Settled, Settlement, Unsettled};
use super::{Strategy, StrategyOptions};
use crate::builder::BuildFault;
use crate::outcome::Outcome;
use crate::prepared::Prepared;

/// Gives the signatures of the other payers of a command.
pub trait CoSigner: Send + Sync + Debug + 'static {
    /// Looks at what is prepared, and adds signatures or refuses.
    fn co_sign(&self, prepared: Prepared) -> BoxFuture<'static, Result<Prepared, Unsettled>>;
}

/// Every request is a command of its own.
#[derive(Debug)]
pub(super) struct CommandLane {
    desk: Arc<Desk>,
    co_signer: Arc<dyn CoSigner>,
    window: Arc<Semaphore>,
}

impl CommandLane {
    pub(super) fn new(desk: Arc<Desk>, co_signer: Arc<dyn CoSigner>, options: &StrategyOptions) -> Self {
        Self { desk, co_signer, window: options.window() }
    }
}

impl Strategy for CommandLane {
    fn settle(&self, request: Request) -> Settlement {
        let (reply, settlement) = Settlement::pending();
        let place = Arc::clone(&self.window).try_acquire_owned();
        self.desk.counters.request(place.is_ok());
        let Ok(place) = place else {
            // the receiver is in this function's hands
            let _told = reply.send(Err(Unsettled::TooManyOpen));
            return settlement;
        };
        let (desk, co_signer) = (Arc::clone(&self.desk), Arc::clone(&self.co_signer));
        drop(seams::tasks::spawn(async move {
            let outcome = carry_out(&desk, &*co_signer, request).await;
            {
                let mut metrics = desk.counters.add();
                match &outcome {
                    Ok(_) => {
                        metrics.settled += 1;
                        metrics.committed += 1;
                    }
                    Err(_) => metrics.failed += 1,
                }
            }
            drop(place);
            // whoever asked may have lost interest
            let _told = reply.send(outcome);
        }));
        settlement
    }

    /// Nothing: which positions pay is the ledger's matter.
    fn stocks(&self) -> BTreeMap<AssetType, Stock> {
        BTreeMap::new()
    }

    fn metrics(&self) -> Metrics {
        self.desk.counters.read()
    }
}

async fn carry_out(desk: &Desk, co_signer: &dyn CoSigner, request: Request) -> Result<Settled, Unsettled> {
    let Request::Settle(proposal) = request else {
        return Err(Unsettled::Unsupported("lock funds: commands draw on what is free when they are applied"));
    };
    if !proposal.allocations.is_empty() {
        return Err(Unsettled::Unsupported("settle with allocations: commands draw on positions"));
    }
    let context = desk.client.context().await.map_err(Unsettled::Refused)?;
    let command = Command::Settle { terms: proposal.terms };
    let prepared = Prepared::command(&context, command).map_err(BuildFault::from)?;
    let signed = prepared.sign(&desk.key)?;
    let signed = co_signer.co_sign(signed).await?.finish()?;
    match desk.send(signed).await {
        Outcome::Committed { record, batch } => {
            Ok(Settled { transaction: record.transaction, batch, proposal: None, retries: 0 })
        }
        Outcome::Rejected { rejection, .. } => Err(Unsettled::Rejected(rejection)),
        Outcome::Refused { problem } => Err(Unsettled::Refused(problem)),
        Outcome::Unknown { token, problem } => Err(Unsettled::Unknown { token: Box::new(token), problem }),
    }
}
