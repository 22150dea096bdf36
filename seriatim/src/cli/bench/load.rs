//! `seriatim bench load`: settlements by many pairs of parties.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use ::bench::html::load_page;
use ::bench::load::{Arrivals, Load};
use ::bench::schedule::Schedule;
use ::bench::trade::TradeOptions;
use anyhow::Context as _;
use clap::value_parser;
use client::Access;

use super::ReportArguments;
use super::run::{self, Manner, Place};
use crate::cli::endpoints::TlsArgs;
use crate::cli::{fresh_run, output};

/// Pairs of an open loop: one second of arrivals within these bounds. Fewer would limit the rate where latency is
/// small, more would take longer to endow than a run takes.
const PAIRS: (u32, u32) = (64, 8_192);

const EXAMPLES: &str = "\
Closed loop (--in-flight): every pair settles again as soon as it has settled. Shows what the cluster can do.

Open loop (--rate): settlements are due at a fixed rate, whatever the cluster does, and latency counts from when a \
settlement was due, waiting for an idle pair of parties included. Shows what users see. What cannot begin within a \
second, because no pair is idle or no node takes it in, is counted as pushed back.

A settlement is two signed transactions. With --settlements-per-tx N each of them carries N, and latency is theirs.

Examples:
  seriatim bench load --duration 30 --in-flight 256
  seriatim bench load --rate 1000 --html load.html --report load.json
  seriatim bench load --in-flight 64 --settlements-per-tx 50
  seriatim bench load --hot --in-flight 128
  seriatim bench load --live-outputs 2000000 --no-audit
  seriatim bench load --endpoints 10.0.0.1:7001,10.0.0.2:7001 --connections 8";

/// Settlements by many pairs of parties at once. Starts its own temporary cluster unless told otherwise, and proves the
/// end state from every node's history.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LoadArguments {
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u64).range(1..=86_400))]
    duration: u64,
    /// How long the load runs before it is measured, in seconds
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u64).range(..=3_600))]
    warm_up: u64,
    /// Closed loop: settlements in flight, which is pairs of parties that trade at once
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// Open loop: settlements offered per second
    #[arg(long, conflicts_with = "in_flight", value_parser = value_parser!(u32).range(1..=10_000_000))]
    rate: Option<u32>,
    /// Open loop: pairs of parties that serve arrivals; one second of arrivals unless told, 64 to 8192
    #[arg(long, requires = "rate", value_parser = value_parser!(u32).range(1..=100_000))]
    pairs: Option<u32>,
    /// Settlements per transaction
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u16).range(1..=200))]
    settlements_per_tx: u16,
    /// Client connections that share the pairs
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u16).range(1..=1_000))]
    connections: u16,
    /// One party stands on one side of every settlement
    #[arg(long)]
    hot: bool,
    /// Live outputs that the ledger is filled with before anything is measured
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u64).range(..=1_000_000_000))]
    live_outputs: u64,
    /// Nodes of a running cluster, separated by commas
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["nodes", "validators", "provers"])]
    endpoints: Vec<String>,
    #[command(flatten)]
    tls_files: TlsArgs,
    /// Secure all connections of the temporary cluster, and to it
    #[arg(long, conflicts_with = "endpoints")]
    tls: bool,
    /// Voting nodes of the temporary cluster
    #[arg(long, default_value_t = 3, value_parser = value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// Validator processes of the temporary cluster; without any, the nodes check transactions themselves
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u8).range(..=16))]
    validators: u8,
    /// Prover processes of the temporary cluster; with any, all that they attest is verified at the end
    #[arg(long, default_value_t = 0, value_parser = value_parser!(u8).range(..=4))]
    provers: u8,
    /// Do not read every node's history at the end; the report says so
    #[arg(long)]
    no_audit: bool,
    #[command(flatten)]
    output: ReportArguments,
}

pub(super) async fn run(arguments: LoadArguments) -> anyhow::Result<ExitCode> {
    let place = arguments.place()?;
    if let Place::Temporary { nodes, validators, .. } = &place {
        eprintln!("Starting {nodes} nodes and {validators} validators");
    }
    let manner = Manner { audited: !arguments.no_audit, shown: true };
    let mut report = run::run(&place, arguments.load()?, manner).await?;
    "bench load".clone_into(&mut report.workload);
    report.settings = arguments.settings();
    output::report(&report, None, arguments.output.json)?;
    arguments.output.write(&report.to_json(), || load_page(&report))?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl LoadArguments {
    fn place(&self) -> anyhow::Result<Place> {
        let Self { nodes, validators, provers, tls, .. } = *self;
        if self.endpoints.is_empty() {
            return Ok(Place::Temporary { nodes, validators, provers, tls });
        }
        Ok(Place::Running(Access { addresses: self.endpoints.clone(), tls: self.tls_files.identity()? }))
    }

    fn load(&self) -> anyhow::Result<Load> {
        let arrivals = match self.rate {
            None => Arrivals::ClosedLoop,
            Some(rate) => Arrivals::OpenLoop(
                Schedule::new(rate, self.settlements_per_tx).context("--rate and --settlements-per-tx begin at 1")?,
            ),
        };
        Ok(Load {
            arrivals,
            trade: TradeOptions {
                pairs: usize::try_from(self.pairs())?,
                settlements_per_transaction: usize::from(self.settlements_per_tx),
                hot: self.hot,
                run: fresh_run(),
            },
            connections: usize::from(self.connections),
            live_outputs: self.live_outputs,
            warm_up: Duration::from_secs(self.warm_up),
            duration: Duration::from_secs(self.duration),
        })
    }

    fn pairs(&self) -> u32 {
        self.rate.map_or(self.in_flight, |rate| self.pairs.unwrap_or_else(|| pairs_for(rate, self.settlements_per_tx)))
    }

    /// What tells this run from another, by the flags' names.
    fn settings(&self) -> BTreeMap<String, String> {
        let loop_flag = match self.rate {
            Some(rate) => vec![("rate", rate.to_string()), ("pairs", self.pairs().to_string())],
            None => vec![("in-flight", self.in_flight.to_string())],
        };
        let others = [
            ("settlements-per-tx", self.settlements_per_tx.to_string()),
            ("connections", self.connections.to_string()),
            ("hot", self.hot.to_string()),
            ("tls", (self.tls || self.tls_files.is_given()).to_string()),
            ("live-outputs", self.live_outputs.to_string()),
            ("warm-up", self.warm_up.to_string()),
        ];
        loop_flag.into_iter().chain(others).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// How many pairs an open loop needs for this rate.
pub(super) fn pairs_for(settlements_per_second: u32, settlements_per_transaction: u16) -> u32 {
    settlements_per_second.div_ceil(u32::from(settlements_per_transaction)).clamp(PAIRS.0, PAIRS.1)
}
