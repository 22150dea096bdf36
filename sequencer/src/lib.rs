//! The total order: many nodes agree on one sequence of opaque entries and feed it to their machines.
//!
//! In flow proposals (bytes) on the leader and messages from the other nodes; out flow committed entries to
//! the [`Machine`] of every node, in order, and the leader's machine's answers back to the proposers. Raft
//! itself is openraft (docs/decisions/0001-openraft-alpha.md says what is relied on); this crate gives it a
//! log on a [`storage::LogEngine`], a network on a [`seams::Transport`], snapshots that travel in pieces,
//! an encoding of its own for disk and wire, and a log bounded in bytes.
//!
//! Invariants: an entry is acknowledged only when a majority has synced it; the machine sees each entry once
//! per lifetime of its durable state, in order; the log is never purged beyond what the machine can restart
//! from; state restored from a snapshot never goes backwards; the first fault of the disk or of the machine
//! stops the node.
//!
//! Deliberately absent: any idea of what an entry means. No other crate sees openraft.
//!
//! Reading order: [`machine`] (what is driven), `config` (openraft with our types), `encoding`, `log_store`,
//! `state_machine`, `network` and `snapshot_transfer` (the four adapters), `compaction` and `transfers`, [`sequencer`], [`succession`].

pub mod fault;
pub mod machine;
pub mod options;
pub mod sequencer;
pub mod status;
pub mod succession;

mod compaction;
mod config;
mod encoding;
mod log_store;
mod members;
mod network;
mod reads;
mod snapshot_transfer;
mod state_machine;
mod transfers;
#[cfg(test)]
mod durability;

pub use encoding::{any_bytes, sender};
pub use fault::{InitializeFault, MachineFault, MemberFault, ProposeFault, ReadFault, StartFault};
pub use machine::{Applied, Committed, EntryId, Kind, Machine};
pub use options::Options;
pub use sequencer::{Answer, Measures, Sequencer, World};
pub use status::{Leader, Members, Role, Status};
pub use succession::{SuccessionFault, begin_behind};

/// Names a node for ever: a number is never given to another node, nor to the same one after it lost its disk.
pub type NodeId = u64;
