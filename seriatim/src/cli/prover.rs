//! `seriatim prover`.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use ::node::config::{ProverConfig, ProverConfigSettings};
use ::node::http::ProverSource;
use ::node::metrics::ProverMetrics;
use ::node::roles::{ProverFront, identity, own_key};
use attester::{Attester, Figures, Options, Outside};
use clap::Args;
use client::Access;
use ledger::ClusterId;
use serde_json::json;
use tls::Role;

use super::role::RoleArgs;

/// Run a prover, which proves every batch and has its attestations ordered.
#[derive(Debug, Args)]
#[command(after_help = "\
Every option may also be given in the environment, as named above, or in a TOML file under the option's name.

A prover counts once its key is in the cluster's configuration; its log and --ready-json show the key:
    seriatim prover --cluster venue --nodes a:7400,b:7400,c:7400 --data-dir /var/lib/seriatim-prover
    seriatim admin add-prover KEY --endpoint a:7400
    seriatim admin require-provers 2 --endpoint a:7400        two of the configured provers have to agree

Where the ledger has forgotten its first batches, begin with a copy of another prover's replay:
    curl -o replay.copy http://other:7680/v1/replay-copy
    seriatim prover --cluster venue --nodes a:7400 --replay-copy replay.copy

It may be stopped and started at any time: the ledger goes on without it, and it goes on behind its last attestation there.
What it attests: docs/proofs.md. Who checks it: `seriatim verify ledger`.")]
pub(super) struct ProverArgs {
    #[command(flatten)]
    role: RoleArgs<ProverConfigSettings>,
}

impl ProverArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Some(config) = self.role.begin("prover", |config: &ProverConfig| config.log_format)? else {
            return Ok(ExitCode::SUCCESS);
        };
        let key = own_key(&config.key_file)?;
        let tls = identity(config.tls.as_ref(), Role::Prover, config.http_listen)?;
        let addresses = config.nodes.as_slice().iter().map(|node| node.as_str().to_owned()).collect();
        let nodes = Access { addresses, tls: tls.clone() };
        let mut options = Options::new(ClusterId::of_name(&config.cluster), key, config.data_dir);
        options.interval = config.attest_interval;
        options.copy = config.replay_copy;
        options.succeeds = config.succeeds;
        let prover = Arc::new(Attester::start(options, Outside::of_nodes(&nodes)?)?);
        let (figures, copies) = (Arc::clone(&prover), Arc::clone(&prover));
        let source = ProverSource {
            figures: Arc::new(move || metrics(&figures.figures())),
            copies: Arc::new(move || copies.newest_copy()),
        };
        let front = ProverFront::start(config.http_listen, source, tls.as_ref()).await?;
        let (http, key) = (front.address(), key.party().to_string());
        tracing::info!(%http, %key, solver = prover::solver_version(), "proving");
        if self.role.ready_json {
            let ready = json!({ "role": "prover", "cluster": config.cluster, "http": http, "key": key, "pid": std::process::id() });
            let mut out = std::io::stdout().lock();
            writeln!(out, "{ready}")?;
            out.flush()?;
        }
        super::asked_to_stop(self.role.attached).await;
        front.stop().await;
        // the server held the other one
        match Arc::try_unwrap(prover) {
            Ok(prover) => prover.stop().await,
            Err(_served_still) => {
                tracing::warn!("stopping without keeping the replay: its metrics are still being read")
            }
        }
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}

fn metrics(figures: &Figures) -> ProverMetrics {
    let statistics = &figures.statistics;
    ProverMetrics {
        configured: figures.configured,
        newest_batch: figures.newest_batch,
        judged_batch: figures.judged_batch,
        attested_batch: figures.attested_batch,
        attestations: figures.attestations,
        verdicts: [figures.proved, figures.refuted, figures.inconclusive],
        transactions: statistics.transactions,
        patterns: [statistics.pattern_hits, statistics.pattern_misses],
        patterns_kept: figures.patterns,
        solver_checks: [statistics.solver_checks, statistics.solver_unknown],
        solvers_replaced: figures.solvers_replaced,
        proving: Duration::from_micros(statistics.total_us),
        replay: [figures.replayed_transactions, figures.live_outputs],
        lag: figures.lag_ms.map(|lag_ms| Duration::from_secs_f64(lag_ms / 1_000.0)),
        faulty_nodes: u64::try_from(figures.faulty_nodes.len()).unwrap_or(u64::MAX),
        stuck: figures.stuck.is_some(),
    }
}
