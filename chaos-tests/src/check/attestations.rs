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

/// Whoever replays the evidence finds that this prover, whom he believes alone, does not tell the truth.
pub async fn check_liar(node: &Client, name: &str, prover: Party) -> Findings {
    let mut findings = Findings::default();
    let audited = async {
        let (audit, _) = node.audit(&trusting(node, prover, None).await?, None, |_, _| {}).await?;
        anyhow::Ok(audit)
    };
    match audited.await {
        Ok(audit) => {
            findings.looked_at(Property::Attestations, usize::try_from(audit.attestations).unwrap_or_default());
            if !audit.problems.iter().any(|problem| problem.contains("does not hold")) {
                let what = format!("{name}: {} false attestations, and an audit finds nothing", audit.attestations);
                findings.violation(Property::Attestations, what);
            }
        }
        Err(fault) => findings.violation(Property::Attestations, format!("{name}: {fault:#}")),
    }
    findings
}

/// An audit by the words of one prover, of everything or up to some batch.
async fn trusting(node: &Client, prover: Party, last_batch: Option<u64>) -> anyhow::Result<AuditOptions> {
    let described = node.fetch_cluster().await?;
    Ok(AuditOptions {
        nodes: TrustedNodes::named_by(&described, 1),
        provers: vec![prover],
        required: 1,
        first_batch: 1,
        last_batch,
    })
}

async fn audit(node: &Client, name: &str, prover: Party, findings: &mut Findings) -> anyhow::Result<()> {
    let (newest, late) = proved(node).await?;
    if let Some(status) = late {
        findings.violation(Property::Recovery, format!("after {PROVED_MAX:?} {status}"));
    }
    // a batch that came since has had no time to be proved
    let last = newest.min(node.head(Consistency::Linearizable).await?.head.batch);
    let (audit, _) = node.audit(&trusting(node, prover, Some(last)).await?, None, |_, _| {}).await?;
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

/// Waits until everything that there is is attested: up to which batch, and what is not, where that takes too long.
async fn proved(node: &Client) -> anyhow::Result<(u64, Option<String>)> {
    let deadline = Instant::now() + PROVED_MAX;
    loop {
        let status = node.proof_status(Consistency::Linearizable).await?;
        // the newest that is signed may be older
        let newest = node.position(Consistency::Linearizable).await?.batch;
        if status.attested_batch >= newest {
            return Ok((newest, None));
        }
        if Instant::now() > deadline {
            let late = format!("batch {} of {newest} is the last that is attested", status.attested_batch);
            return Ok((newest, Some(late)));
        }
        sleep(Duration::from_millis(200)).await;
    }
}
