//! Whether the ledger has a batch as this prover knows it. One that was restored from a backup lacks what came after that.

use std::time::Duration;

use checker::Frontier;
use client::{Client, Consistency};
use futures::stream::{FuturesUnordered, StreamExt};
use proto::{Problem, ProblemKind};
use tokio::time::timeout;

use crate::Node;

/// How long a node may take to show a batch.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the nodes say of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Continuity {
    /// One has it as it was, or has forgotten it.
    Confirmed,
    /// Most have another one, or none, and nobody has it as it was.
    Denied,
    /// Too few answered.
    Unknown,
}

/// Asks all nodes for the batch that ended at this frontier, until one has it.
pub(crate) async fn with_any(nodes: &[Node], known: &Frontier) -> Continuity {
    let asked = nodes.iter().map(|node| async { timeout(PATIENCE, has(&node.client, known)).await.ok()?.ok() });
    let mut answers: FuturesUnordered<_> = asked.collect();
    let mut denied = 0;
    while let Some(answer) = answers.next().await {
        match answer {
            Some(true) => return Continuity::Confirmed,
            Some(false) => denied += 1,
            None => {}
        }
    }
    if denied * 2 > nodes.len() { Continuity::Denied } else { Continuity::Unknown }
}

async fn has(node: &Client, known: &Frontier) -> Result<bool, Problem> {
    // a node that is behind the others would not have it yet
    let newest = node.position(Consistency::Linearizable).await?;
    if newest.batch < known.batch {
        return Ok(false);
    }
    if known.batch == 0 {
        return Ok(true);
    }
    let shown = match node.evidence(known.batch).await {
        Ok(mut evidence) => evidence.next().await,
        Err(problem) => Some(Err(problem)),
    };
    match shown {
        Some(Ok(record)) => Ok(known.agrees_with(&record.head)),
        // nobody can go on from there: that is found, and said, where evidence is asked for
        Some(Err(problem)) if problem.kind == ProblemKind::PositionUnavailable => Ok(true),
        Some(Err(problem)) => Err(problem),
        None => Err(Problem::new(ProblemKind::Unreachable, "the evidence ended")),
    }
}
