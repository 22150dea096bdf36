//! `seriatim admin backup`: a copy of the ledger, from a node that runs.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ::node::backup::{BackupFault, BackupManifest, BackupWriter, Received};
use anyhow::anyhow;
use clap::Args;
use proto::wire::admin_client::AdminClient;
use proto::{Problem, ProblemKind, wire};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tonic::Streaming;
use tonic::transport::Channel;

use super::admin::{Said, size};
use super::endpoints::Endpoints;
use super::progress;

/// Less than this takes longer for a piece than a node waits for its reader.
const BYTES_PER_SECOND_MIN: u64 = 64 * 1024;

/// Take a backup of the ledger from a node of any role, while it runs.
///
/// The node makes a snapshot, which holds up nothing, and sends it. The directory then holds `files/` and, written last,
/// `manifest.json`; without that file it is no backup.
#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    /// Where to write it: an empty directory, or none yet
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    /// Take no more than this of the network, in bytes per second [default: as fast as it goes]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(BYTES_PER_SECOND_MIN..))]
    bytes_per_second: Option<u64>,
}

pub(super) async fn take(endpoints: &Endpoints, arguments: &BackupArguments) -> Result<Said, BackupFault> {
    let mut writer = BackupWriter::into_empty(&arguments.directory)?;
    let interrupted = || BackupFault::Interrupted { directory: arguments.directory.clone() };
    let received = tokio::select! {
        received = receive(endpoints, arguments, &mut writer) => received,
        // what was written stays: it says what the message says
        () = super::asked_to_stop(false) => Err(interrupted()),
    };
    received?;
    let taken_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let manifest = writer.finish(taken_at)?;
    Ok(Said { text: described(&manifest, arguments), json: manifest.to_json() })
}

async fn receive(
    endpoints: &Endpoints,
    arguments: &BackupArguments,
    writer: &mut BackupWriter,
) -> Result<(), BackupFault> {
    let ask = |mut admin: AdminClient<Channel>| async move { admin.backup(wire::BackupRequest {}).await };
    let mut parts: Streaming<wire::BackupPart> =
        endpoints.ask(ask).await.map_err(|problem| writer.broken_off(problem))?;
    let progress = progress::backup("Taking a backup");
    let begun = Instant::now();
    loop {
        let part = parts.message().await.map_err(|status| writer.broken_off(cut_off(&status.into())))?;
        let Some(part) = part else { return Ok(()) };
        let first = writer.source().is_none();
        let Received { bytes, total } = writer.take(part)?;
        if first && let Some((node, role, head)) = writer.source() {
            eprintln!("node {node} ({role}) sends {}: {} transactions, batch {}", size(total), head.size, head.batch);
        }
        progress(bytes, total);
        if let Some(rate) = arguments.bytes_per_second {
            sleep_until(begun + Duration::from_millis(bytes.saturating_mul(1_000) / rate)).await;
        }
    }
}

/// A connection that breaks in the middle of an answer says nothing of what a node made of it: there is nothing to be
/// unsure about here.
fn cut_off(problem: &Problem) -> Problem {
    if matches!(problem.kind, ProblemKind::OutcomeUnknown | ProblemKind::Internal) {
        return Problem::new(ProblemKind::Unreachable, format!("the connection was lost: {}", problem.message));
    }
    problem.clone()
}

fn described(manifest: &BackupManifest, arguments: &BackupArguments) -> String {
    let (head, origin) = (manifest.head(), manifest.origin());
    format!(
        "a backup of ledger \"{}\" is in {}\n  from node {} ({}), at {}\n  {} transactions, batch {}, head {}\n  {} files, \
         {} bytes\nverify it before you rely on it: seriatim verify backup {}",
        manifest.cluster(),
        arguments.directory.display(),
        origin.node,
        origin.role,
        origin.taken_at,
        head.size,
        head.batch,
        head.hash(),
        manifest.snapshot().files().len(),
        manifest.snapshot().total_bytes(),
        arguments.directory.display(),
    )
}

/// A fault as a command's end. With `--json` it is on standard output as well.
pub(crate) fn failed(fault: BackupFault, as_json: bool) -> anyhow::Error {
    if as_json {
        println!("{:#}", json!({ "fault": fault.name(), "message": fault.to_string() }));
    }
    anyhow!(fault)
}
