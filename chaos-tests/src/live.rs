//! Clusters of real processes under real faults.
//!
//! ```text
//! clients (SDK) ─► proxies (every link: cut, one way, slow, lossy, reset) ─► nodes and validators (processes)
//!      │                 ▲                                                        │ each node's disk: a file system
//!      ▼                 │ nemesis: signals, links, disks, members, clocks        ▼ of its own, where that is allowed
//!   journal ───────────► check ◄──────────────────────── order read back from every node
//! ```
//! The network between the processes is a proxy of ours in front of each of them. It finds out which process a
//! connection comes from by asking the kernel whose socket it is; so each link has its own state, in both directions,
//! without any privilege. A cut link carries nothing and closes nothing, like one on which every packet is lost.
//!
//! Deliberately absent: any look inside the nodes. What the checks know is what clients were told.

mod process;
mod links;
mod disk;
mod cluster;
mod clients;
mod watch;
mod nemesis;
mod read_back;
mod run;

pub use clients::Workload;
pub use nemesis::Fault;
pub use run::{LiveFault, LiveOptions, Progress, run};
