//! The command line: one word per role or tool.

mod node;
mod validator;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ::node::roles::Ready;
use tokio::signal::unix::{SignalKind, signal};

/// A settlement ledger: parties swap assets atomically over a replicated UTXO ledger.
#[derive(Debug, Parser)]
#[command(name = "seriatim", version, propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a member of the cluster
    Node(Box<node::NodeArgs>),
    /// Run a validator, which checks transactions for nodes
    Validator(Box<validator::ValidatorArgs>),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Where it fails; the message says what to do.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Node(args) => args.run().await,
            Command::Validator(args) => args.run().await,
        }
    }
}

/// Exit code of a node that found that it cannot go on (EX_SOFTWARE of sysexits.h).
const EXIT_CANNOT_GO_ON: i32 = 70;

/// Says where the process serves: for people in the log, for programs on standard output.
fn tell_ready(ready: &Ready, as_json: bool) -> anyhow::Result<()> {
    let Ready { role, grpc, http, advertise, key, .. } = ready;
    tracing::info!(%role, %grpc, %http, %advertise, %key, "serving");
    if as_json {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, ready)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
async fn asked_to_stop() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be received");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        () = terminated => {}
        interrupted = tokio::signal::ctrl_c() => drop(interrupted),
    }
}
