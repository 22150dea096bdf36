//! The checks are checked: each finds its own kind of wrong in a history that was right before.

mod scene;

mod order;
mod linearizability;
mod agreement;
mod export;
