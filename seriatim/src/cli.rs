//! The command line: one word per role or tool.

mod node;
mod validator;
mod prover;
mod dev;
mod demo;
mod bench;
mod replay;
mod wallet;
mod admin;
mod backup;
mod restore;
mod health;
mod support;
mod key;
mod cert;
mod explain;
mod verify;
mod proof;
mod chaos;
mod completions;
mod role;
mod settings;
mod endpoints;
mod get;
mod evidence;
mod drawing;
mod view;
mod progress;
mod output;

use std::io::Write;
use std::process::ExitCode;

use ::node::roles::Ready;
use clap::{Parser, Subcommand};
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
    /// Run a prover, which proves every batch and has its attestations ordered
    Prover(Box<prover::ProverArgs>),
    /// Run a whole cluster on this machine to develop against
    Dev(dev::DevArguments),
    /// Run a cluster under settlements, kill its leader, and prove that nothing was lost
    Demo(demo::DemoArguments),
    /// Measure a cluster
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Run a Bitcoin block's graph through the ledger
    Replay(replay::ReplayArguments),
    /// Act as one party: hold, issue, pay, propose and settle
    Wallet(Box<wallet::WalletArguments>),
    /// Look at a cluster and change it
    Admin(admin::AdminArguments),
    /// Make a backup into the first node of a new cluster
    Restore(restore::RestoreArguments),
    /// Ask the node, validator or prover on this machine how it is
    Health(health::HealthArguments),
    /// Put together what somebody else needs to look into a cluster's trouble
    SupportBundle(support::SupportArguments),
    /// Print the public key of a key file; make the file where there is none
    Key(key::KeyArguments),
    /// Check proofs and backups without trusting any node
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Look into the proof of a batch
    #[command(subcommand)]
    Proof(proof::ProofCommand),
    /// Cause faults in simulated or real clusters, and judge what they make of them
    #[command(subcommand)]
    Chaos(chaos::ChaosCommand),
    /// Make an authority for a cluster, and certificates for its roles
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Explain an error or a reason by its number or name
    Explain(explain::ExplainArguments),
    /// Print completions for a shell
    Completions(completions::CompletionsArguments),
}

impl Cli {
    /// What the command runs on. A prover proves on a thread of its own, and beside it waits for the network only.
    pub(crate) fn runtime(&self) -> tokio::runtime::Builder {
        let waits_only = matches!(self.command, Command::Prover(_));
        if waits_only {
            tokio::runtime::Builder::new_current_thread()
        } else {
            tokio::runtime::Builder::new_multi_thread()
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Where it fails; the message says what to do.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Node(args) => args.run().await,
            Command::Validator(args) => args.run().await,
            Command::Prover(args) => args.run().await,
            Command::Dev(arguments) => dev::run(arguments).await,
            Command::Wallet(arguments) => wallet::run(*arguments).await,
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Bench(command) => bench::run(command).await,
            Command::Replay(arguments) => replay::run(arguments).await,
            Command::Admin(arguments) => admin::run(arguments).await,
            Command::Restore(arguments) => restore::run(arguments).await,
            Command::Health(arguments) => health::run(arguments).await,
            Command::SupportBundle(arguments) => support::run(arguments).await,
            Command::Key(arguments) => key::run(&arguments),
            Command::Cert(command) => cert::run(command),
            Command::Verify(command) => verify::run(command).await,
            Command::Proof(command) => proof::run(command).await,
            Command::Chaos(command) => chaos::run(command).await,
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Completions(arguments) => Ok(completions::run(&arguments)),
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

/// Waits for SIGTERM or SIGINT, and where the process is attached also for the end of its input.
async fn asked_to_stop(attached: bool) {
    let abandoned = async {
        if !attached {
            std::future::pending::<()>().await;
        }
        let (ended, end) = tokio::sync::oneshot::channel();
        // a thread of its own, which nobody has to wait for when the process stops otherwise
        std::thread::spawn(move || {
            // what comes is of no interest; the end is, and an error is one
            drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()));
            ended.send(()).unwrap_or_default();
        });
        drop(end.await);
    };
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
        () = abandoned => {}
    }
}

/// A number that tells this run's parties from those of any other run.
fn fresh_run() -> u64 {
    seams::next_u64(&seams::OsEntropy)
}
