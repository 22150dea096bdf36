//! Workloads, and what is said about them: settlements between many parties, a Bitcoin block's graph, an audit of the
//! end state from what every node itself says, and one report for all.
//!
//! Everything goes through the client SDK, against a cluster that is running already.
//!
//! Deliberately absent: starting clusters (crate `node`), and any knowledge of how a node works inside.

pub mod report;
mod line;
pub mod meter;
pub mod processes;
pub mod party;
pub mod schedule;
pub mod pool;
pub mod trade;
pub mod preload;
pub mod load;
pub mod scale;
pub mod strategies;
pub mod synchrony;
pub mod compare;
pub mod html;
pub mod audit;
pub mod proofs;
pub mod prove;
pub mod block;
pub mod replay;
