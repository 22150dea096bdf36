//! What the outside world is to the system: time, randomness, processors, tasks and the network.
//!
//! Everything non-deterministic enters through one of these five seams, so that the code that runs in
//! production runs unchanged in a simulator that replays a whole cluster from one seed. Four have their
//! production implementation here; the network's is where the servers are (crate `node`), and disks have
//! their own seam in crate `storage`.
//!
//! Deliberately absent: timers. Async code uses `tokio::time`, which the simulator pauses and steps.

pub mod clock;
pub mod compute;
pub mod entropy;
pub mod tasks;
pub mod transport;

pub use clock::{Clock, ShiftedClock, SystemClock};
pub use compute::{Compute, Inline, ThreadPool, offload};
pub use entropy::{Entropy, OsEntropy, next_u64};
pub use futures::future::BoxFuture;
pub use tasks::TaskGroup;
pub use transport::{Address, CallError, Duplex, Method, Service, Transport, Wire, duplex};
