//! What applications use: intent and own positions in, exact outcomes and receipts out.
//!
//! ```text
//! Wallet (own positions, claims) ─► TransactionBuilder ─► Prepared ─► sign, here or elsewhere
//!     ─► SignedTransaction ─► Client::submit or Submitter (pipelined) ─► Outcome ─► Receipt, HeadTracker
//! ```
//! [`Account`] puts these together for one key. [`testkit`] is a whole ledger in the process, for tests.
//!
//! Invariants:
//! 1. What is sent again is the same bytes: a transaction happens at most once, whoever sends it how often.
//! 2. An [`Outcome`] is definite, or it is `Unknown` and carries the token that resolves it.
//! 3. No call outlives its deadline.
//!
//! Deliberately absent: storage, Raft, and any knowledge of which node leads. Time is `tokio::time` and
//! [`seams::Clock`], randomness is [`seams::Entropy`], and nodes stand behind [`LedgerApi`]: the same client runs in
//! the simulator.

mod key;
mod builder;
mod prepared;
mod outcome;
mod outputs;
mod legs;
mod api;
mod grpc;
mod access;
mod retry;
mod client;
mod submitter;
mod wallet;
mod account;
mod receipts;
mod heads;
mod audit;
pub mod strategy;
pub mod testkit;

pub use access::Access;
pub use account::{Account, AccountFault};
pub use api::{AttestationStream, BatchStream, EvidenceStream, LedgerApi, UpdateStream};
pub use audit::{Audit, AuditFault, AuditOptions, DismissedProvers, Replayed, compare, replay_batch};
pub use builder::{BuildFault, Context, TransactionBuilder};
pub use client::{Client, ClientBuilder, ConfigurationFault, ConsistencyProof, Numbered, Watch, node_at};
pub use heads::{HeadFault, HeadTracker, TrustedNodes};
pub use key::{Key, KeyFault};
pub use outcome::{Outcome, Unresolved};
pub use outputs::{allocations_of, outputs_of};
pub use prepared::{Prepared, SignatureFault, SignedTransaction, expected_outputs, group};
pub use proto::convert::{Cluster, Consistency, Consumed, Holdings, Member, Proposal, TransactionStatus, Update};
pub use proto::{Problem, ProblemKind};
pub use receipts::{ReceiptStore, ReceiptStoreFault};
pub use retry::RetryPolicy;
pub use submitter::{PendingOutcomes, Submitter, SubmitterOptions};
pub use tls::{Files as TlsFiles, Identity as TlsIdentity, OwnFiles as TlsOwnFiles, TlsFault};
pub use traces::turn_on as turn_on_traces;
pub use wallet::{Balance, Claim, Shortage, Wallet, WalletOptions};
