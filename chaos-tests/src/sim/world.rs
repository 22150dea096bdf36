//! What everything in one simulation shares: the seed's random numbers, virtual time, and the trace.
//!
//! Every choice of the simulated world is drawn here (a world can be used as its [`Dice`]), and every event is told here. Two runs of one seed draw the
//! same numbers as long as the same events happen in the same order, and the trace's hash tells whether they did.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seams::{Address, Method};
use sequencer::NodeId;
use tokio::time::Instant;

use crate::check::{Findings, Property, Violation};
use crate::dice::{Dice, lock};

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
    /// The nemesis begins something of its schedule. Whether that does anything is told by [`World::struck`].
    Fault(&'a str),
    /// What the simulation itself does, or finds.
    Note(&'a str),
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
            Event::Note(what) => write!(out, "note: {what}"),
        }
    }
}

fn name(method: Option<Method>) -> String {
    method.map_or_else(|| "Client".to_owned(), |method| format!("{method:?}"))
}

/// One simulated world. Clones are the same world.
#[derive(Debug, Clone)]
pub struct World(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    dice: Dice,
    trace: Mutex<Trace>,
    findings: Mutex<Findings>,
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
            dice: Dice::new(seed),
            trace: Mutex::new(trace),
            findings: Mutex::default(),
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
        if trace.printed {
            eprint!("{line}");
        }
    }

    /// A fault of the schedule did something: a process ended, a link was cut, a write failed. Until then it does not
    /// count.
    pub fn struck(&self, what: &str) {
        self.record(&Event::Note(&format!("{what} strikes")));
        lock(&self.0.trace).faults += 1;
    }

    /// So many more things of a kind were looked at.
    pub fn looked_at(&self, property: Property, count: usize) {
        lock(&self.0.findings).looked_at(property, count);
    }

    /// Reports that something is wrong with the simulated system.
    pub fn violation(&self, property: Property, what: impl Into<String>) {
        let violation = Violation::new(property, what);
        self.record(&Event::Note(&format!("VIOLATION {violation}")));
        lock(&self.0.findings).violation(violation.property, violation.what);
    }

    /// Takes over what a check found.
    pub fn found(&self, findings: Findings) {
        for violation in findings.violations() {
            self.record(&Event::Note(&format!("VIOLATION {violation}")));
        }
        lock(&self.0.findings).extend(findings);
    }

    /// What was found so far.
    #[must_use]
    pub fn findings(&self) -> Findings {
        lock(&self.0.findings).clone()
    }

    /// A hash over all events so far, and how many there were.
    #[must_use]
    pub fn trace(&self) -> (String, u64) {
        let trace = lock(&self.0.trace);
        (trace.hasher.finalize().to_hex().to_string(), trace.events)
    }

    /// Faults so far that did something.
    #[must_use]
    pub fn faults(&self) -> u64 {
        lock(&self.0.trace).faults
    }
}

impl Deref for World {
    type Target = Dice;

    fn deref(&self) -> &Dice {
        &self.0.dice
    }
}
