//! The wire: messages between clients, nodes and operators, what goes wrong between them, and the conversions to
//! the ledger's types.
//!
//! Protobuf only wraps. What is hashed or signed travels as its canonical bytes and is decoded by [`convert`],
//! which refuses anything doubtful. Everything that a user can be told has a number: reasons of the ledger (below
//! 300) and problems of nodes and the network (from 300) in one [`problem::catalogue`].
//!
//! Deliberately absent: storage, Raft, and the decision what to do about a problem.

pub mod wire;
pub mod problem;
pub mod convert;

pub use convert::ConversionFault;
pub use problem::{Problem, ProblemKind};
