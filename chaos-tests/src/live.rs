//! Clusters of real processes under real faults.
//!
//! ```text
//! clients (SDK) ─► proxies (every link: cut, one way, slow, lossy, reset) ─► nodes and validators (processes)
//!      │                 ▲                                                        │ each node's disk: a file system
//!      ▼                 │ nemesis: signals, links, disks, members, clocks        ▼ of its own, where that is allowed
//!   journal ───────────► check ◄──────────────────────── order read back from every node
//! ```
//! A proxy of ours is in front of each process, and knows whose connections it carries; so each link has its own state,
//! in both directions. A cut link carries nothing and closes nothing, like one on which every packet is lost.
//!
//! As root, where Linux makes network namespaces, each process has one of its own (`network/namespaces.rs`), and whose
//! a connection is follows from its address. There the kernel cuts links too, and pulls cables. Elsewhere processes
//! share loopback, without any privilege; the kernel is asked whose socket it is (`network/loopback.rs`).
//!
//! Deliberately absent: any look inside the nodes. What the checks know is what clients were told.

mod process;
mod network;
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
pub use network::NetworkChoice;
pub use run::{LiveFault, LiveOptions, Progress, run};
