//! Faults, and the checks of what a cluster made of them.
//!
//! ```text
//! seed ─► sim: whole clusters of the real code in one thread, simulated network, disks, clocks ─┐
//!         live: clusters of real processes, a network and disks that fail for real ─────────────┤
//! workload (what clients submit) ───────────────────────────────────────────────────────────────┤
//!                          history (what they were told) and order (what nodes tell) ─► check ─► report
//! ```
//! The simulator finds and replays, because one seed is one execution; the runner shows that what the simulator stands
//! for (processes, sockets, file systems) is what it takes them for. Both are judged by the same checks.
//!
//! Deliberately absent: any use of the ledger's own apply in the checks.

pub mod dice;
pub mod history;
pub mod workload;
pub mod check;
pub mod sim;
pub mod live;
pub mod report;

pub use sim::bugs::PlantedBug;
pub use sim::run::{Report, STEPS, SimulationOptions, simulate, simulate_with_history};
