//! The dependency graph of a chunk or batch: who meets whom at which output, what may run side by side, and which
//! components are proved apart from each other. Linear in what the transactions name.

use checker::{Chunk, Entry};
use ledger::dependency::{Conflict, ConflictKind, Dependencies};
use ledger::effects::Effects;
use ledger::rejection::Rejection;
use ledger::{Intent, Outcome, OutputId, Sequence, TransactionId};

use crate::abstraction::Abstraction;

/// A transaction in the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The transaction.
    pub transaction: TransactionId,
    /// Its place.
    pub sequence: Sequence,
    /// The claimed reason, where it is said to be rejected.
    pub rejected: Option<&'static str>,
    /// The transaction that is said to have won against it.
    pub lost_to: Option<TransactionId>,
    /// How many dependent transactions must come before it.
    pub level: usize,
    /// Its connected component.
    pub component: usize,
}

/// The graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The transactions in order.
    pub nodes: Vec<Node>,
    /// Who depends on whom, and why; places count from 0.
    pub conflicts: Vec<Conflict>,
    /// The longest chain, first to last.
    pub critical_path: Vec<usize>,
    /// Transactions of the fullest level.
    pub width: usize,
    /// Levels.
    pub levels: usize,
    /// Connected components.
    pub components: usize,
}

impl Graph {
    /// The graph of a chunk.
    ///
    /// # Errors
    /// Where the evidence does not list what its transactions name.
    pub fn of(chunk: &Chunk) -> Result<Self, checker::Finding> {
        let abstraction = Abstraction::of(chunk)?;
        let effects: Vec<Effects> = chunk.entries.iter().map(|entry| effects(chunk, entry)).collect();
        let named: Vec<(TransactionId, &Effects)> = chunk.entries.iter().map(Entry::id).zip(&effects).collect();
        let dependencies = Dependencies::of(&named);
        let mut nodes: Vec<Node> = chunk.entries.iter().map(node).collect();
        let levels = dependencies.levels();
        for (level, places) in levels.iter().enumerate() {
            for place in places {
                if let Some(node) = nodes.get_mut(*place) {
                    node.level = level;
                }
            }
        }
        for (component, places) in abstraction.component_entries().enumerate() {
            for place in places {
                if let Some(node) = nodes.get_mut(place) {
                    node.component = component;
                }
            }
        }
        Ok(Self {
            nodes,
            conflicts: dependencies.conflicts().to_vec(),
            critical_path: dependencies.critical_path(),
            width: dependencies.width(),
            levels: levels.len(),
            components: abstraction.components(),
        })
    }

    /// Conflicts of a kind.
    #[must_use]
    pub fn count(&self, kind: ConflictKind) -> usize {
        self.conflicts.iter().filter(|conflict| conflict.kind == kind).count()
    }
}

fn node(entry: &Entry) -> Node {
    let (rejected, lost_to) = match &entry.outcome {
        Outcome::Committed { .. } => (None, None),
        Outcome::Rejected(reason) => {
            let mut winner = None;
            if let Rejection::InputSpent { winner: by, .. } | Rejection::ReferenceSpent { winner: by, .. } = reason {
                winner = Some(*by);
            }
            (Some(reason.name()), winner)
        }
    };
    Node { transaction: entry.id(), sequence: entry.sequence, rejected, lost_to, level: 0, component: 0 }
}

/// What a transaction names. A command names what it is said to have chosen, and what came of that.
fn effects(chunk: &Chunk, entry: &Entry) -> Effects {
    let body = &entry.received.transaction().body;
    let (Intent::Command(_), Outcome::Committed { chosen }) = (&body.intent, &entry.outcome) else {
        return Effects::of(&entry.id(), body);
    };
    let listed = |id: &OutputId| chunk.touched.iter().find(|output| output.id == *id);
    let own = chunk.touched.iter().filter(|output| output.origin.transaction == entry.id());
    Effects {
        consumed: chosen.iter().filter_map(listed).map(|output| (output.id, output.origin)).collect(),
        created: own.map(|output| (output.id, output.contract)).collect(),
        ..Effects::default()
    }
}
