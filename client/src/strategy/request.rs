//! What a trader asks of a strategy, and what it is told.

use std::fmt::{self, Debug};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ledger::{AssetType, LogTime, OutputId, Party, Quantity, Rejection, Terms, TransactionId};
use proto::Problem;
use proto::convert::Proposal;
use proto::problem::Retry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::drawing::Queue;
use crate::builder::{BuildFault, TransactionBuilder};
use crate::legs::{needs_of, open_legs};
use crate::outcome::Unresolved;
use crate::prepared::SignatureFault;
use crate::wallet::Shortage;

/// What a party wants done. Its own positions pay for it; which of them is the strategy's matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Proposes terms: locks what funds this party's legs until `expires_at`.
    Propose {
        /// The terms.
        terms: Terms,
        /// The log time at which what is locked may return.
        expires_at: LogTime,
    },
    /// Accepts terms and settles them: the proposal's allocations fund their legs, this party the others.
    Settle(Proposal),
}

/// A request that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The transaction that did it, perhaps together with other requests.
    pub transaction: TransactionId,
    /// The batch that decided it.
    pub batch: u64,
    /// What a [`Request::Propose`] locked, for the other parties.
    pub proposal: Option<Proposal>,
    /// Transactions that were built for it before, and lost a race for an input or fell with another request.
    pub retries: u32,
}

/// Why a request was not carried out. But for [`Self::Unknown`] and [`Self::Stopped`], nothing of it happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unsettled {
    /// The ledger said no.
    #[error("rejected: {0}")]
    Rejected(Rejection),
    /// There is too little: [`Shortage::Insufficient`]. Or there is enough, and transactions under way use it:
    /// [`Shortage::Locked`].
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// It breaks a rule, or has a leg that this party cannot fund.
    #[error(transparent)]
    Build(#[from] BuildFault),
    /// It needs a signature that this party cannot give.
    #[error(transparent)]
    Signature(#[from] SignatureFault),
    /// Another party has yet to fund a leg.
    #[error("leg {leg} waits for {payer} to fund it")]
    Unfunded {
        /// The leg.
        leg: u16,
        /// Who pays it.
        payer: Party,
    },
    /// The terms have no leg that this party pays.
    #[error("the terms have no leg for this party to fund")]
    NothingToFund,
    /// This strategy does not do that.
    #[error("this strategy does not {0}")]
    Unsupported(&'static str),
    /// As many requests are open as may be ([`super::StrategyOptions::requests_max`]): ask again when some are told.
    #[error("too many requests are open: ask again when some are told")]
    TooManyOpen,
    /// No node took it in.
    #[error("no node takes it in: {0}")]
    Refused(Problem),
    /// It may have happened. The token finds out.
    #[error("outcome unknown: {problem}")]
    Unknown {
        /// What [`crate::Client::resolve`] finds out with.
        token: Box<Unresolved>,
        /// The last problem met.
        problem: Problem,
    },
    /// The strategy's tasks were aborted. Whether it happened shows in the ledger; what was on its way is in the outbox.
    #[error("outcome unknown: the strategy was stopped")]
    Stopped,
}

impl Unsettled {
    /// True where no node took the transaction in, whatever is in it.
    pub(super) fn is_of_the_nodes(&self) -> bool {
        matches!(self, Self::Refused(problem) if problem.retry() != Retry::Never)
    }
}

/// What becomes of a request, as soon as it is known.
#[derive(Debug)]
#[must_use = "what becomes of a request is told here"]
pub struct Settlement(oneshot::Receiver<Result<Settled, Unsettled>>);

impl Settlement {
    pub(super) fn pending() -> (oneshot::Sender<Result<Settled, Unsettled>>, Self) {
        let (reply, outcome) = oneshot::channel();
        (reply, Self(outcome))
    }
}

impl Future for Settlement {
    type Output = Result<Settled, Unsettled>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|told| match told {
            Ok(outcome) => outcome,
            Err(_dropped) => Err(Unsettled::Stopped),
        })
    }
}

impl Request {
    /// The terms.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        match self {
            Self::Propose { terms, .. } => terms,
            Self::Settle(proposal) => &proposal.terms,
        }
    }

    /// The legs that `party` has to fund, by position. An error where another party has to fund one first.
    pub(super) fn legs_of(&self, party: &Party) -> Result<Vec<u16>, Unsettled> {
        match self {
            Self::Propose { terms, .. } => {
                let open = open_legs(terms, &[]).into_iter();
                let own: Vec<u16> = open.filter(|(_, payer)| payer == party).map(|(leg, _)| leg).collect();
                if own.is_empty() { Err(Unsettled::NothingToFund) } else { Ok(own) }
            }
            Self::Settle(Proposal { terms, allocations }) => {
                let open = open_legs(terms, allocations);
                match open.iter().find(|(_, payer)| payer != party) {
                    Some((leg, payer)) => Err(Unsettled::Unfunded { leg: *leg, payer: *payer }),
                    None => Ok(open.into_iter().map(|(leg, _)| leg).collect()),
                }
            }
        }
    }

    /// Writes it into a transaction.
    pub(super) fn write(&self, legs: &[u16], transaction: &mut TransactionBuilder) {
        match self {
            Self::Propose { terms, expires_at } => {
                for leg in legs {
                    transaction.propose(terms, *leg, *expires_at);
                }
            }
            Self::Settle(proposal) => {
                transaction.settle(&proposal.terms, &proposal.allocations);
            }
        }
    }

    /// The allocations that it consumes.
    pub(super) fn allocations(&self) -> impl Iterator<Item = OutputId> + '_ {
        let allocations = match self {
            Self::Propose { .. } => [].as_slice(),
            Self::Settle(proposal) => &proposal.allocations,
        };
        allocations.iter().map(|output| output.id)
    }
}

/// A request with everything the engine keeps of it.
pub(super) struct Item {
    pub(super) request: Request,
    pub(super) legs: Vec<u16>,
    pub(super) needs: Vec<(AssetType, Quantity)>,
    pub(super) arrived: tokio::time::Instant,
    pub(super) retries: u32,
    /// Where it waits.
    pub(super) queue: Queue,
    /// With how many others it travels at most; fewer where it may have made a transaction fall.
    pub(super) batch_max: usize,
    reply: oneshot::Sender<Result<Settled, Unsettled>>,
    /// Among the requests that may be open.
    place: OwnedSemaphorePermit,
}

impl Debug for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Item")
            .field("needs", &self.needs)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

impl Item {
    /// A request of this party; what is wrong with it at first sight is told at once.
    pub(super) fn new(request: Request, party: &Party, window: &Arc<Semaphore>) -> (Option<Self>, Settlement) {
        let (reply, settlement) = Settlement::pending();
        let read = || -> Result<_, Unsettled> {
            let place = Arc::clone(window).try_acquire_owned().map_err(|_full| Unsettled::TooManyOpen)?;
            let legs = request.legs_of(party)?;
            let needs = needs_of(request.terms(), &legs)?;
            Ok((place, legs, needs))
        };
        match read() {
            Ok((place, legs, needs)) => {
                let arrived = tokio::time::Instant::now();
                (
                    Some(Self {
                        request,
                        legs,
                        needs,
                        arrived,
                        retries: 0,
                        queue: Queue::Main,
                        batch_max: usize::MAX,
                        reply,
                        place,
                    }),
                    settlement,
                )
            }
            Err(fault) => {
                // the receiver is in this function's hands
                let _told = reply.send(Err(fault));
                (None, settlement)
            }
        }
    }

    /// What it takes of its first asset; zero where it takes nothing.
    pub(super) fn size(&self) -> Quantity {
        self.needs.first().map(|(_, quantity)| *quantity).unwrap_or_default()
    }

    pub(super) fn asset(&self) -> Option<AssetType> {
        self.needs.first().map(|(asset, _)| *asset)
    }

    /// Tells whoever asked. They may have lost interest.
    pub(super) fn tell(self, outcome: Result<Settled, Unsettled>) {
        // whoever is told may ask again at once
        drop(self.place);
        let _told = self.reply.send(outcome);
    }
}
