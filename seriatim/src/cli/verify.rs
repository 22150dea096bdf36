//! `seriatim verify`: proofs and backups, checked offline.

mod backup;
mod proofs;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::node::json;
use anyhow::{Context, bail};
use borsh::BorshDeserialize;
use clap::{Args, Subcommand};
use ledger::{ClusterId, Outcome, Party, Receipt};
use serde_json::{Value, json};

/// Check proofs and backups without trusting any node.
#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Check that a transaction's outcome is a line of a ledger
    Receipt(ReceiptArguments),
    /// Check a prover's word on a run of batches, from the evidence alone
    Attestation(proofs::AttestationArguments),
    /// Fetch a ledger's evidence, replay all of it, and verify what provers attest
    Ledger(proofs::LedgerArguments),
    /// Check a backup: every byte of it, and that the ledger in it adds up to its head
    Backup(backup::BackupArguments),
}

/// Check that a transaction's outcome is a line of a ledger: that it is included in the log whose head the named
/// nodes signed. Needs no network.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim wallet receipt TRANSACTION --output r.receipt
  seriatim verify receipt r.receipt --cluster venue --node-key 6ace85… --node-key da6de5… --node-key 0229e0… --require 2
  curl -s http://a:7480/v1/receipts/TRANSACTION | seriatim verify receipt - --cluster venue --node-key 6ace85…

Get the nodes' keys from their operators (`seriatim admin members` shows them), not from whoever gives you the receipt.
Exit code 0: the receipt proves what is printed. 1: it proves nothing.")]
pub(crate) struct ReceiptArguments {
    /// The receipt: its bytes, these in hexadecimal, or JSON with them; - for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The ledger's name
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The key of a node that you trust; repeat for several
    #[arg(long = "node-key", value_name = "KEY", required = true, value_delimiter = ',')]
    node_keys: Vec<Party>,
    /// How many of these nodes must have signed [default: a majority of them]
    #[arg(long, value_name = "COUNT")]
    require: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(command: VerifyCommand) -> anyhow::Result<ExitCode> {
    match command {
        VerifyCommand::Receipt(arguments) => receipt(&arguments),
        VerifyCommand::Attestation(arguments) => proofs::attestation(&arguments),
        VerifyCommand::Ledger(arguments) => proofs::ledger(arguments).await,
        VerifyCommand::Backup(arguments) => backup::run(arguments).await,
    }
}

fn receipt(arguments: &ReceiptArguments) -> anyhow::Result<ExitCode> {
    let receipt: Receipt = read(&arguments.file, "receipt")?;
    let cluster = ClusterId::of_name(&arguments.cluster);
    let required = arguments.require.unwrap_or(arguments.node_keys.len() / 2 + 1);
    let verdict = receipt.verify(&cluster, &arguments.node_keys, required);
    let signatures = receipt.head.signers_among(&arguments.node_keys);
    let trusted = arguments.node_keys.len();
    if arguments.json {
        let view = json!({
            "valid": verdict.is_ok(),
            "fault": verdict.as_ref().err().map(ToString::to_string),
            "record": json::record(&receipt.record),
            "head": json::head(&receipt.head.head),
            "signatures": signatures,
            "trusted": trusted,
            "required": required,
        });
        println!("{view:#}");
    } else if verdict.is_ok() {
        println!("{}", proved(&receipt, &arguments.cluster, signatures, trusted));
    }
    match verdict {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) => bail!("the receipt proves nothing: {fault}"),
    }
}

fn proved(receipt: &Receipt, cluster: &str, signatures: usize, trusted: usize) -> String {
    let (record, head) = (&receipt.record, &receipt.head.head);
    let outcome = match &record.outcome {
        Outcome::Committed { .. } => "committed".to_owned(),
        Outcome::Rejected(reason) => format!("was rejected ({reason})"),
    };
    format!(
        "proved: transaction {} {outcome}\n  as number {} of ledger \"{cluster}\", log time {} ms\n  in the log of \
         {} transactions with root {}\n  signed by {signatures} of the {trusted} nodes named",
        record.transaction, record.sequence, record.log_time, head.size, head.log_root
    )
}

/// Takes what is to be verified in any of its forms.
fn read<T: BorshDeserialize>(file: &Path, what: &str) -> anyhow::Result<T> {
    let mut content = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut content).context("standard input")?;
    } else {
        content = std::fs::read(file).with_context(|| file.display().to_string())?;
    }
    let bytes = canonical(&content).unwrap_or(content);
    T::try_from_slice(&bytes)
        .with_context(|| format!("{} is no {what}: it holds neither its bytes nor JSON with them", file.display()))
}

/// The bytes out of JSON or hexadecimal; `None` where the content is neither.
fn canonical(content: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?.trim();
    match serde_json::from_str::<Value>(text) {
        Ok(view) => hex::decode(view.get("canonical")?.as_str()?).ok(),
        Err(_not_json) => hex::decode(text).ok(),
    }
}
