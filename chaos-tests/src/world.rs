//! What everything in one simulation shares: the seed's random numbers, virtual time, and the trace.
//!
//! Every choice of the simulated world is drawn here, and every event is told here. Two runs of one seed draw the
//! same numbers as long as the same events happen in the same order, and the trace's hash tells whether they did.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use seams::{Address, Entropy, Method};
use sequencer::NodeId;
use tokio::time::Instant;

/// Something that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A message left.
    Sent {
        /// Who sent it.
        from: &'a Address,
        /// To whom.
        to: &'a Address,
        /// What it asks; `None` for a client's call and its answer.
        method: Option<Method>,
        /// Its content.
        body: &'a [u8],
    },
    /// A message arrived.
    Delivered {
        /// Who sent it.
        from: &'a Address,
        /// To whom.
        to: &'a Address,
        /// What it asks; `None` for a client's call and its answer.
        method: Option<Method>,
    },
    /// A message was lost.
    Dropped {
        /// Who sent it.
        from: &'a Address,
        /// To whom.
        to: &'a Address,
        /// What it asks; `None` for a client's call and its answer.
        method: Option<Method>,
    },
    /// A log synced so many batches.
    Synced {
        /// Whose log.
        disk: &'a str,
        /// How many batches.
        batches: usize,
    },
    /// A disk lost its power.
    PowerLost {
        /// Whose.
        disk: &'a str,
        /// Log batches and table writes that survived without having been synced.
        kept: usize,
        /// Those that did not.
        lost: usize,
    },
    /// A node or validator process started.
    Started(&'a Address),
    /// A node or validator process ended.
    Crashed(&'a Address),
    /// A replica was seen at a batch.
    Applied {
        /// Which.
        node: NodeId,
        /// The batch.
        batch: u64,
        /// The hash of its head.
        head: ledger::Hash,
    },
    /// A client called.
    Invoked {
        /// Which.
        client: u64,
        /// What.
        operation: &'a str,
    },
    /// A client was answered.
    Answered {
        /// Which.
        client: u64,
        /// What.
        answer: &'a str,
    },
    /// The nemesis did something.
    Fault(&'a str),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Sent { from, to, method, body } => {
                let hash = blake3::hash(body).to_hex();
                write!(
                    out,
                    "{from} -> {to} {} {} bytes {}",
                    name(*method),
                    body.len(),
                    hash.get(..8).unwrap_or_default()
                )
            }
            Event::Delivered { from, to, method } => write!(out, "{from} => {to} {}", name(*method)),
            Event::Dropped { from, to, method } => write!(out, "{from} -x {to} {}", name(*method)),
            Event::Synced { disk, batches } => write!(out, "{disk} synced {batches}"),
            Event::PowerLost { disk, kept, lost } => write!(out, "{disk} lost power: {kept} kept, {lost} lost"),
            Event::Started(who) => write!(out, "{who} started"),
            Event::Crashed(who) => write!(out, "{who} crashed"),
            Event::Applied { node, batch, head } => write!(out, "node {node} applied batch {batch} {head:?}"),
            Event::Invoked { client, operation } => write!(out, "client {client} invokes {operation}"),
            Event::Answered { client, answer } => write!(out, "client {client} learns {answer}"),
            Event::Fault(what) => write!(out, "fault: {what}"),
        }
    }
}

fn name(method: Option<Method>) -> String {
    method.map_or_else(|| "Client".to_owned(), |method| format!("{method:?}"))
}

/// The content of a mutex, also where a simulated task panicked with it: that is reported as what it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One simulated world. Clones are the same world.
#[derive(Debug, Clone)]
pub struct World(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    random: Mutex<StdRng>,
    trace: Mutex<Trace>,
    violations: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Trace {
    hasher: blake3::Hasher,
    events: u64,
    faults: u64,
    printed: bool,
}

impl World {
    /// The world of a seed. Must be made on the simulation's runtime, whose clock is paused.
    #[must_use]
    pub fn new(seed: u64, printed: bool) -> Self {
        let trace = Trace { hasher: blake3::Hasher::new(), events: 0, faults: 0, printed };
        Self(Arc::new(Shared {
            began: Instant::now(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            trace: Mutex::new(trace),
            violations: Mutex::default(),
        }))
    }

    /// Virtual time since the world began.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.began.elapsed()
    }

    /// Adds an event to the trace.
    pub fn record(&self, event: &Event<'_>) {
        let now = self.now().as_micros();
        let line = format!("{now:>10} {event}\n");
        let mut trace = lock(&self.0.trace);
        trace.hasher.update(line.as_bytes());
        trace.events += 1;
        trace.faults += u64::from(matches!(event, Event::Fault(_)));
        if trace.printed {
            eprint!("{line}");
        }
    }

    /// Reports that something is wrong with the simulated system.
    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        self.record(&Event::Fault(&format!("VIOLATION {what}")));
        lock(&self.0.violations).push(what);
    }

    /// What was reported so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.0.violations).clone()
    }

    /// A hash over all events so far, and how many there were.
    #[must_use]
    pub fn trace(&self) -> (String, u64) {
        let trace = lock(&self.0.trace);
        (trace.hasher.finalize().to_hex().to_string(), trace.events)
    }

    /// Faults so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        lock(&self.0.trace).faults
    }

    fn random(&self) -> MutexGuard<'_, StdRng> {
        lock(&self.0.random)
    }

    /// A number of the range.
    #[must_use]
    pub fn between(&self, range: RangeInclusive<u64>) -> u64 {
        self.random().random_range(range)
    }

    /// A duration of the range, in whole milliseconds: the grain of the runtime's timers.
    #[must_use]
    pub fn pause(&self, range: &RangeInclusive<Duration>) -> Duration {
        let millis = |duration: &Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.between(millis(range.start())..=millis(range.end())))
    }

    /// True so many times in a thousand.
    #[must_use]
    pub fn chance(&self, per_mille: u32) -> bool {
        per_mille > 0 && self.random().random_ratio(per_mille.min(1000), 1000)
    }

    /// One of the items; `None` where there are none.
    #[must_use]
    pub fn pick<'a, T>(&self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        items.get(self.random().random_range(0..items.len()))
    }

    /// Randomness of its own for a node, drawn from this world's.
    #[must_use]
    pub fn entropy(&self) -> Arc<dyn Entropy> {
        let seed = self.random().next_u64();
        Arc::new(SeededEntropy(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// A 32-byte seed, for keys.
    #[must_use]
    pub fn key_seed(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.random().fill_bytes(&mut seed);
        seed
    }
}

/// Randomness that repeats with its seed.
#[derive(Debug)]
struct SeededEntropy(Mutex<StdRng>);

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        lock(&self.0).fill_bytes(buffer);
    }
}
