//! `seriatim verify attestation` and `seriatim verify ledger`: without a solver, and without trusting a node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::node::json::{self, verdict_name};
use anyhow::{Context, bail};
use checker::{Attestation, Replay};
use clap::Args;
use client::{Audit, AuditFault, AuditOptions, Client, DismissedProvers, TrustedNodes};
use ledger::batch::BatchRecord;
use ledger::{ClusterId, Party};
use proto::ProblemKind;
use serde_json::{Value, json};

use super::read;
use crate::cli::endpoints::Endpoints;
use crate::cli::evidence::{EvidenceFile, EvidenceWriter, replay_copy, save_replay};
use crate::cli::progress;

/// Check a prover's word on a run of batches. With the evidence the batches are replayed, and what the prover says of them
/// compared; without it, only who said it is checked. Needs no network.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  curl -s http://a:7480/v1/attestations/17 | jq '.attestations[0]' > 17.json
  seriatim verify ledger --cluster venue --endpoint a:7400 --node-key 6ace85… --prover-key 67dc93… --save-evidence e.bin
  seriatim verify attestation 17.json --prover-key 67dc93… --evidence e.bin

Get the provers' keys from their operators, not from whoever gives you the attestation.
Exit code 0: it holds. 1: it does not.")]
pub(crate) struct AttestationArguments {
    /// The attestation: its bytes, these in hexadecimal, or JSON with them; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The key of a prover that you trust; repeat for several. Of one that was dismissed, what it said before that counts
    #[arg(long = "prover-key", value_name = "KEY", required = true, value_delimiter = ',')]
    prover_keys: Vec<Party>,
    /// The ledger's batches from the first on, as `verify ledger --save-evidence` wrote them
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// The copy of a replay behind which that evidence begins, where it does not begin with the first batch
    #[arg(long, value_name = "FILE", requires = "evidence")]
    replay_copy: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn attestation(arguments: &AttestationArguments) -> anyhow::Result<ExitCode> {
    let attestation: Attestation = read(&arguments.file, "attestation")?;
    attestation.verify_signature(&arguments.prover_keys).context("the attestation proves nothing")?;
    let (statement, verdict) = (&attestation.findings.statement, &attestation.findings.verdict);
    let replayed = match &arguments.evidence {
        Some(file) => {
            replay(file, arguments.replay_copy.as_deref(), &attestation)?;
            true
        }
        None => false,
    };
    if arguments.json {
        println!(
            "{:#}",
            json!({ "valid": true, "replayed": replayed, "attestation": json::attestation(0, &attestation) })
        );
    } else {
        println!(
            "signed: prover {} says {} of batches {} to {}\n  {} transactions, in the log of {} with root {}\n  judged by {} \
             and checker version {}",
            attestation.prover,
            verdict_name(verdict),
            statement.first_batch,
            statement.last_batch,
            attestation.findings.statistics.transactions,
            statement.after.next,
            statement.after.log_root,
            attestation.findings.versions.solver,
            attestation.findings.versions.checker,
        );
        println!(
            "{}",
            if replayed {
                "proved: replaying the evidence leads to just this"
            } else {
                "not looked at: whether it is true. Give the evidence with --evidence"
            }
        );
    }
    if !verdict.is_proved() {
        bail!("it says {verdict}");
    }
    Ok(ExitCode::SUCCESS)
}

fn replay(file: &Path, copy: Option<&Path>, attestation: &Attestation) -> anyhow::Result<()> {
    let statement = &attestation.findings.statement;
    let mut evidence = EvidenceFile::open(file)?;
    let mut replay = match copy {
        Some(copy) => replay_copy(copy, statement.cluster)?,
        None => Replay::genesis(statement.cluster, statement.group, seams::next_u64(&seams::OsEntropy)),
    };
    if replay.frontier().batch >= statement.first_batch {
        bail!(
            "the copy of the replay stands behind batch {}; the attestation begins before",
            replay.frontier().batch
        );
    }
    let (mut replayed, mut dismissed) = (BTreeMap::new(), DismissedProvers::default());
    while replay.frontier().batch < statement.last_batch {
        let Some(record) = evidence.next()? else {
            bail!("{} ends with batch {}", file.display(), replay.frontier().batch);
        };
        let here = client::replay_batch(&record, &mut replay)?;
        dismissed.take(&record);
        if record.head.batch >= statement.first_batch {
            replayed.insert(record.head.batch, here);
        }
    }
    let holds = dismissed.permit(attestation).and_then(|()| client::compare(attestation, &replayed));
    holds.map_err(|words| anyhow::anyhow!("the attestation does not hold: {words}"))
}

/// Fetch a ledger's evidence from any node, replay all of it by the serial rule, compare its end with a head that the named
/// nodes signed, and verify that the named provers proved every batch of the range from just this evidence.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim verify ledger --cluster venue --endpoint a:7400 --node-key 6ace85… --node-key da6de5… --prover-key 67dc93…
  seriatim verify ledger --cluster venue --endpoint a:7400 --node-key 6ace85… --prover-key 67dc93… --from 100 --to 200
  seriatim verify ledger … --save-replay today.copy                              and tomorrow, only what came since:
  seriatim verify ledger … --replay-copy today.copy --save-replay tomorrow.copy

The replay begins with the first batch, and what it finds needs nobody's word. Or it begins behind a copy: an own one, or any
prover's (`curl -o replay.copy http://prover:7680/v1/replay-copy`), which is the way where the ledger has forgotten its first
batches. With --prover-key nobody has to trust where the copy came from: what the replay takes from it is part of each
batch's evidence, and trusted provers attest just this evidence or do not. Without, the copy is taken at its word.
Exit code 0: everything holds. 1: something does not, or could not be looked at.")]
pub(crate) struct LedgerArguments {
    #[command(flatten)]
    endpoints: Endpoints,
    /// The ledger's name
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The key of a node that you trust; repeat for several
    #[arg(long = "node-key", value_name = "KEY", required = true, value_delimiter = ',')]
    node_keys: Vec<Party>,
    /// How many of these nodes must have signed the head [default: a majority of them]
    #[arg(long, value_name = "COUNT")]
    require_nodes: Option<usize>,
    /// The key of a prover that you trust; repeat for several; without any only the replay judges. Of one that was
    /// dismissed, what it said before that counts
    #[arg(long = "prover-key", value_name = "KEY", value_delimiter = ',')]
    prover_keys: Vec<Party>,
    /// How many of these provers have to agree on each batch
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    require_provers: usize,
    /// The first batch whose attestations are verified [default: the first one that is replayed]
    #[arg(long, value_name = "BATCH", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// The last one [default: the newest, or the last that enough provers spoke of]
    #[arg(long, value_name = "BATCH")]
    to: Option<u64>,
    /// Begin behind this copy of a replay, and not with the first batch
    #[arg(long, value_name = "FILE")]
    replay_copy: Option<PathBuf>,
    /// Keep a copy of the replay's end in this file, to begin with another time
    #[arg(long, value_name = "FILE")]
    save_replay: Option<PathBuf>,
    /// Keep the evidence in this file, for `verify attestation`
    #[arg(long, value_name = "FILE")]
    save_evidence: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn ledger(arguments: LedgerArguments) -> anyhow::Result<ExitCode> {
    let cluster = ClusterId::of_name(&arguments.cluster);
    let client = arguments.endpoints.access()?.client().ledger(cluster).connect()?;
    let start = arguments.replay_copy.as_deref().map(|file| replay_copy(file, cluster)).transpose()?;
    let begins_behind = start.as_ref().map_or(0, |replay| replay.frontier().batch);
    let options = arguments.options(cluster, begins_behind, &client).await?;
    let mut file = arguments.save_evidence.as_deref().map(EvidenceWriter::create).transpose()?;
    let mut written = Ok(());
    let (progress, mut done) = (progress::proofs(), 0);
    let seen = |record: &BatchRecord, of: u64| {
        done += 1;
        progress(done, of.saturating_sub(begins_behind));
        if let (Some(file), Ok(())) = (&mut file, &written) {
            written = file.write(record);
        }
    };
    let (audit, end) = client.audit(&options, start, seen).await.map_err(explained)?;
    written.and_then(|()| file.map_or(Ok(()), EvidenceWriter::finish)).context("writing the evidence")?;
    let problems = problems(&audit, &options);
    if arguments.json {
        println!("{:#}", view(&audit, begins_behind, &problems));
    } else {
        print(&audit, &options, begins_behind);
    }
    if !problems.is_empty() {
        bail!("not everything holds: {}", problems.join("; "));
    }
    if let Some(file) = &arguments.save_replay {
        save_replay(file, &end)?;
        eprintln!("Wrote {}: the replay behind batch {}", file.display(), end.frontier().batch);
    }
    Ok(ExitCode::SUCCESS)
}

impl LedgerArguments {
    /// What is to be verified: by default from behind the copy up to the newest batch, or the last one
    /// that enough of the provers spoke of.
    async fn options(&self, cluster: ClusterId, begins_behind: u64, client: &Client) -> anyhow::Result<AuditOptions> {
        let first_batch = self.from.unwrap_or(begins_behind + 1);
        let last_batch = match (self.to, self.prover_keys.is_empty()) {
            (Some(to), _) => Some(to),
            (None, true) => None,
            // what is newer will be attested in a moment
            (None, false) => {
                let status = client.proof_status(client::Consistency::Linearizable).await?;
                let spoken_of = status.spoken_of(&self.prover_keys, self.require_provers);
                Some(spoken_of).filter(|batch| *batch >= first_batch)
            }
        };
        let required = self.require_nodes.unwrap_or(self.node_keys.len() / 2 + 1);
        Ok(AuditOptions {
            nodes: TrustedNodes { cluster, keys: self.node_keys.clone(), required },
            provers: self.prover_keys.clone(),
            required: self.require_provers,
            first_batch,
            last_batch,
        })
    }
}

/// What to do where the first batches are not there any more.
fn explained(fault: AuditFault) -> anyhow::Error {
    let forgotten = matches!(&fault, AuditFault::Problem(problem) if problem.kind == ProblemKind::PositionUnavailable);
    let fault = anyhow::Error::from(fault);
    if !forgotten {
        return fault;
    }
    fault.context(
        "the ledger has forgotten its first batches: begin behind a copy of a replay, with --replay-copy FILE. An earlier \
         run's --save-replay wrote one, and any prover hands one out (`curl -o FILE http://PROVER:7680/v1/replay-copy`)",
    )
}

fn problems(audit: &Audit, options: &AuditOptions) -> Vec<String> {
    let mut problems = audit.problems.clone();
    if !options.provers.is_empty() && audit.missing_batches > 0 {
        problems.push(format!("{} batches are not attested", audit.missing_batches));
    }
    if !audit.signed {
        problems.push("the end is not signed".to_owned());
    }
    problems
}

fn view(audit: &Audit, begins_behind: u64, problems: &[String]) -> Value {
    json!({
        "begins_behind": begins_behind,
        "batches": audit.batches,
        "transactions": audit.transactions,
        "signed": audit.signed,
        "attestations": audit.attestations,
        "attested_batches": audit.attested_batches,
        "attested_transactions": audit.attested_transactions,
        "missing_batches": audit.missing_batches,
        "refuted": audit.refuted,
        "inconclusive": audit.inconclusive,
        "problems": problems,
    })
}

fn print(audit: &Audit, options: &AuditOptions, begins_behind: u64) {
    if begins_behind > 0 {
        let believed = if options.provers.is_empty() {
            "what it says is taken at its word"
        } else {
            "what it says is part of the evidence that provers attest"
        };
        println!("begun: behind batch {begins_behind}, with a copy; {believed}");
    }
    println!(
        "replayed: {} transactions in {} batches; each outcome is the right one",
        audit.transactions, audit.batches
    );
    if audit.signed {
        println!(
            "signed: its end is in a head that {} or more of the {} nodes signed",
            options.nodes.required,
            options.nodes.keys.len()
        );
    }
    if !options.provers.is_empty() {
        println!(
            "attested: {} batches of the range, with {} transactions, by {} or more of the {} provers",
            audit.attested_batches,
            audit.attested_transactions,
            options.required,
            options.provers.len()
        );
    }
}
