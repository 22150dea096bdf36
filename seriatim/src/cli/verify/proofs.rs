//! `seriatim verify attestation` and `seriatim verify ledger`: without a solver, and without trusting a node.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::node::json::{self, verdict_name};
use anyhow::{Context, bail};
use checker::{Attestation, Replay};
use clap::Args;
use client::{AuditOptions, Client, TrustedNodes};
use ledger::batch::BatchRecord;
use ledger::{ClusterId, Party};
use serde_json::json;

use super::read;
use crate::cli::progress;

/// First bytes of a file with evidence.
const MAGIC: &[u8; 20] = b"seriatim evidence 1\n";

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
    /// The key of a prover that you trust; repeat for several
    #[arg(long = "prover-key", value_name = "KEY", required = true, value_delimiter = ',')]
    prover_keys: Vec<Party>,
    /// The ledger's batches from the first on, as `verify ledger --save-evidence` wrote them
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
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
            replay(file, &attestation)?;
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
                "proved: replaying the evidence from the first batch on leads to just this"
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

fn replay(file: &Path, attestation: &Attestation) -> anyhow::Result<()> {
    let statement = &attestation.findings.statement;
    let mut evidence = EvidenceFile::open(file)?;
    let mut replay = Replay::genesis(statement.cluster, statement.group, seams::next_u64(&seams::OsEntropy));
    let mut replayed = BTreeMap::new();
    while replay.frontier().batch < statement.last_batch {
        let Some(record) = evidence.next()? else {
            bail!("{} ends with batch {}", file.display(), replay.frontier().batch);
        };
        let here = client::replay_batch(&record, &mut replay)?;
        if record.head.batch >= statement.first_batch {
            replayed.insert(record.head.batch, here);
        }
    }
    client::compare(attestation, &replayed).map_err(|words| anyhow::anyhow!("the attestation does not hold: {words}"))
}

/// Fetch a ledger's evidence from any node, replay all of it by the serial rule, compare its end with a head that the named
/// nodes signed, and verify that the named provers proved every batch of the range from just this evidence.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim verify ledger --cluster venue --endpoint a:7400 --node-key 6ace85… --node-key da6de5… --prover-key 67dc93…
  seriatim verify ledger --cluster venue --endpoint a:7400 --node-key 6ace85… --prover-key 67dc93… --from 100 --to 200

The replay always begins with the first batch: what it finds needs nobody's word. Where the ledger forgets history that is
not possible any more.
Exit code 0: everything holds. 1: something does not, or could not be looked at.")]
pub(crate) struct LedgerArguments {
    /// A node; repeat for several
    #[arg(
        long = "endpoint",
        env = "SERIATIM_ENDPOINTS",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400"
    )]
    endpoints: Vec<String>,
    /// The ledger's name
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The key of a node that you trust; repeat for several
    #[arg(long = "node-key", value_name = "KEY", required = true, value_delimiter = ',')]
    node_keys: Vec<Party>,
    /// How many of these nodes must have signed the head [default: a majority of them]
    #[arg(long, value_name = "COUNT")]
    require_nodes: Option<usize>,
    /// The key of a prover that you trust; repeat for several; without any only the replay judges
    #[arg(long = "prover-key", value_name = "KEY", value_delimiter = ',')]
    prover_keys: Vec<Party>,
    /// How many of these provers have to agree on each batch
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    require_provers: usize,
    /// The first batch whose attestations are verified
    #[arg(long, value_name = "BATCH", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// The last one [default: the newest, or the last attested one]
    #[arg(long, value_name = "BATCH")]
    to: Option<u64>,
    /// Keep the evidence in this file, for `verify attestation`
    #[arg(long, value_name = "FILE")]
    save_evidence: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn ledger(arguments: LedgerArguments) -> anyhow::Result<ExitCode> {
    let cluster = ClusterId::of_name(&arguments.cluster);
    let client = Client::builder().endpoints(arguments.endpoints.clone()).ledger(cluster).connect()?;
    let to = match (arguments.to, arguments.prover_keys.is_empty()) {
        (Some(to), _) => Some(to),
        (None, true) => None,
        // what is newer will be attested in a moment
        (None, false) => {
            let status = client.proof_status(client::Consistency::Linearizable).await?;
            Some(status.attested_batch).filter(|batch| *batch >= arguments.from)
        }
    };
    let required = arguments.require_nodes.unwrap_or(arguments.node_keys.len() / 2 + 1);
    let options = AuditOptions {
        nodes: TrustedNodes { cluster, keys: arguments.node_keys.clone(), required },
        provers: arguments.prover_keys.clone(),
        required: arguments.require_provers,
        first_batch: arguments.from,
        last_batch: to,
    };
    let mut file = arguments.save_evidence.as_deref().map(EvidenceFile::create).transpose()?;
    let mut written = Ok(());
    let (progress, mut done) = (progress::proofs(), 0);
    let seen = |record: &BatchRecord, of: u64| {
        done += 1;
        progress(done, of);
        if let (Some(file), Ok(())) = (&mut file, &written) {
            written = write_record(file, record);
        }
    };
    let audit = client.audit(&options, seen).await?;
    written.and_then(|()| file.map_or(Ok(()), |mut file| file.flush())).context("writing the evidence")?;
    let mut problems = audit.problems.clone();
    let attested = !arguments.prover_keys.is_empty();
    if attested && audit.missing_batches > 0 {
        problems.push(format!("{} batches are not attested", audit.missing_batches));
    }
    if !audit.signed {
        problems.push("the end is not signed".to_owned());
    }
    if arguments.json {
        let view = json!({
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
        });
        println!("{view:#}");
    } else {
        println!(
            "replayed: {} transactions in {} batches; each outcome is the right one",
            audit.transactions, audit.batches
        );
        if audit.signed {
            println!(
                "signed: its end is in a head that {required} or more of the {} nodes signed",
                arguments.node_keys.len()
            );
        }
        if attested {
            println!(
                "attested: {} batches of the range, with {} transactions, by {} or more of the {} provers",
                audit.attested_batches,
                audit.attested_transactions,
                arguments.require_provers,
                arguments.prover_keys.len()
            );
        }
    }
    if !problems.is_empty() {
        bail!("not everything holds: {}", problems.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Batches in a file: each record's length in 4 bytes, little-endian, and its canonical bytes.
struct EvidenceFile(BufReader<File>);

impl EvidenceFile {
    fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
        let mut file = BufWriter::new(File::create(path).with_context(|| path.display().to_string())?);
        file.write_all(MAGIC)?;
        Ok(file)
    }

    fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = BufReader::new(File::open(path).with_context(|| path.display().to_string())?);
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            bail!("{} is no evidence: `seriatim verify ledger --save-evidence` writes it", path.display());
        }
        Ok(Self(file))
    }

    fn next(&mut self) -> anyhow::Result<Option<BatchRecord>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            Err(end) if end.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let mut record = Vec::new();
        let length = u64::from(u32::from_le_bytes(length));
        self.0.by_ref().take(length).read_to_end(&mut record)?;
        Ok(Some(borsh::from_slice(&record).context("a record in the file cannot be read")?))
    }
}

fn write_record(file: &mut BufWriter<File>, record: &BatchRecord) -> std::io::Result<()> {
    let bytes = record.encode();
    let length = u32::try_from(bytes.len()).map_err(|_long| std::io::Error::from(ErrorKind::InvalidData))?;
    file.write_all(&length.to_le_bytes())?;
    file.write_all(&bytes)
}
