//! Invariant 11: what a prover said of every batch, compared with what a replay of the evidence leads to.

use std::time::Duration;

use client::{AuditOptions, Client, Consistency, TrustedNodes};
use ledger::Party;
use tokio::time::{Instant, sleep};

use super::{Findings, Property};

/// How long a prover may take for what is left once everything works.
const PROVED_MAX: Duration = Duration::from_secs(120);

/// Every batch is attested by the prover, and just by what the evidence of this node leads to.
pub async fn check(node: &Client, name: &str, prover: Party) -> Findings {
    let mut findings = Findings::default();
    if let Err(fault) = audit(node, name, prover, &mut findings).await {
        findings.violation(Property::Attestations, format!("{name}: {fault:#}"));
    }
    findings
}

async fn audit(node: &Client, name: &str, prover: Party, findings: &mut Findings) -> anyhow::Result<()> {
    if let Err(status) = proved(node).await? {
        findings.violation(Property::Recovery, format!("after {PROVED_MAX:?} {status}"));
    }
    let described = node.fetch_cluster().await?;
    let options = AuditOptions {
        nodes: TrustedNodes::named_by(&described, 1),
        provers: vec![prover],
        required: 1,
        first_batch: 1,
        last_batch: None,
    };
    let (audit, _) = node.audit(&options, None, |_, _| {}).await?;
    findings.looked_at(Property::Attestations, usize::try_from(audit.attested_batches)?);
    let mut problems = audit.problems;
    if !audit.signed {
        problems.push("the end of the replay is part of no head that it signed".to_owned());
    }
    if audit.missing_batches > 0 {
        problems.push(format!("{} batches are not attested", audit.missing_batches));
    }
    if audit.refuted > 0 || audit.inconclusive > 0 {
        problems.push(format!("{} attestations say refuted, {} inconclusive", audit.refuted, audit.inconclusive));
    }
    for problem in problems {
        findings.violation(Property::Attestations, format!("{name}: {problem}"));
    }
    Ok(())
}
/// Waits until everything is attested; what is not, where that takes too long.
async fn proved(node: &Client) -> anyhow::Result<Result<(), String>> {
    let deadline = Instant::now() + PROVED_MAX;
    loop {
        let status = node.proof_status(Consistency::Linearizable).await?;
        // the newest that is signed may be older
        let newest = node.position(Consistency::Linearizable).await?.batch;
        if status.attested_batch >= newest {
            return Ok(Ok(()));
        }
        if Instant::now() > deadline {
            return Ok(Err(format!("batch {} of {newest} is the last that is attested", status.attested_batch)));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
