//! `seriatim chaos run`: a cluster of real processes under faults.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::node::telemetry;
use anyhow::Context as _;
use chaos_tests::live::{self, Fault, LiveOptions, NetworkChoice, Workload};
use chaos_tests::report::{LiveReport, page};

/// Starts a real cluster on this machine, with a prover, drives it with clients that write down what they are told, causes faults one
/// after another, then reads the order back from every node and checks it against the clients' histories.
///
/// Each process stands behind a proxy, which cuts, slows and breaks links. Where this process may make network
/// namespaces (as root, with the tools ip, unshare, nsenter and setpriv), each process has one of its own: the kernel
/// cuts links too, and cables can be pulled. Where it may mount file systems (as root, with loop devices), each node has
/// one of its own, whose power can be cut. Where not, those faults are skipped, and the run says so.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seriatim chaos run
  seriatim chaos run --nodes 5 --duration 10m --seed 7
  seriatim chaos run --faults kill-leader --duration 5m      how long is a dead leader felt?
  seriatim chaos run --faults partition-leader,power-cut-all --workloads registers,groups")]
pub(crate) struct RunArguments {
    /// How long faults go on
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Faults and workload follow from it [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Voting nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// Validator processes
    #[arg(long, default_value_t = 2)]
    validators: u8,
    /// Without a prover, whose attestations are otherwise replayed in the end
    #[arg(long)]
    no_prover: bool,
    /// Clients that wait for their answers
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Which faults; all where none is named
    #[arg(long, value_delimiter = ',', value_name = "FAULT,…")]
    faults: Vec<Fault>,
    /// What clients do; everything where nothing is named
    #[arg(long, value_delimiter = ',', value_name = "WORKLOAD,…")]
    workloads: Vec<Workload>,
    /// What joins the processes: namespaces, loopback, or auto: namespaces where they can be made
    #[arg(long, default_value_t = NetworkChoice::Auto)]
    network: NetworkChoice,
    /// Where data, logs, histories and the report go [default: chaos/SEED]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn or_all<T: Copy>(named: Vec<T>, all: &[T]) -> Vec<T> {
    if named.is_empty() { all.to_vec() } else { named }
}

pub(crate) async fn run(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    telemetry::init(::node::config::LogFormat::Text);
    let seed = arguments.seed.unwrap_or_else(|| super::super::fresh_run() % 1_000_000);
    let directory = arguments.out.clone().unwrap_or_else(|| PathBuf::from(format!("chaos/{seed}")));
    anyhow::ensure!(
        !directory.join("report.json").exists(),
        "{} holds another run: name another directory with --out, or remove it",
        directory.display()
    );
    let options = LiveOptions {
        program: std::env::current_exe().context("finding this program")?,
        seed,
        duration: arguments.duration,
        nodes: usize::from(arguments.nodes),
        validators: usize::from(arguments.validators),
        prover: !arguments.no_prover,
        clients: usize::from(arguments.clients),
        command: again(&arguments, seed),
        workloads: or_all(arguments.workloads, &Workload::ALL),
        faults: or_all(arguments.faults, &Fault::ALL),
        network: arguments.network,
        directory: directory.clone(),
    };
    eprintln!("seed {seed}; everything goes to {}", directory.display());
    let ran = tokio::task::spawn_blocking(move || live::run(&options, &|line| eprintln!("{line}")));
    let report = ran.await.context("the run panicked")??;
    super::super::output::page(&directory.join("report.html"), &page(&report))?;
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        print(&report);
    }
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that runs the same again.
fn again(arguments: &RunArguments, seed: u64) -> String {
    let RunArguments { duration, nodes, validators, clients, .. } = arguments;
    let duration = humantime::format_duration(*duration).to_string().replace(' ', "");
    let mut command = format!(
        "seriatim chaos run --seed {seed} --duration {duration} --nodes {nodes} --validators {validators} \
         --clients {clients}"
    );
    if arguments.no_prover {
        command.push_str(" --no-prover");
    }
    if arguments.network != NetworkChoice::Auto {
        command.push_str(&format!(" --network {}", arguments.network));
    }
    let faults: Vec<&str> = arguments.faults.iter().map(|fault| fault.name()).collect();
    let workloads: Vec<&str> = arguments.workloads.iter().map(|workload| workload.name()).collect();
    for (flag, names) in [("--faults", faults), ("--workloads", workloads)] {
        if !names.is_empty() {
            command.push_str(&format!(" {flag} {}", names.join(",")));
        }
    }
    command
}

fn print(report: &LiveReport) {
    let totals = &report.totals;
    println!("\n{} faults in {:.0} s; network: {}", report.faults.len(), report.seconds, report.setting.network);
    println!(
        "  {} calls of clients: {} committed, {} rejected, {} refused, {} unknown, {} reads; {} batches",
        totals.operations,
        totals.committed,
        totals.rejected,
        totals.refused,
        totals.unknown,
        totals.reads,
        totals.batches
    );
    if let (Some(median), Some(worst)) = (report.recovery_median, report.recovery_worst) {
        println!(
            "  leader killed {} times: commits again after {median:.2} s at the median, {worst:.2} s at worst",
            report.recoveries.len()
        );
    }
    for verdict in &report.verdicts {
        let says =
            if verdict.violations == 0 { "holds".to_owned() } else { format!("VIOLATED {}", verdict.violations) };
        println!("  {:<13} {:<66} {:>8}  {says}", verdict.label, verdict.sentence, verdict.checked);
        verdict.told.iter().for_each(|told| println!("      {told}"));
    }
    report.setting.skipped.iter().for_each(|line| println!("  skipped: {line}"));
    println!("  {}", if report.is_sound() { "Everything holds." } else { "NOT GOOD: see above." });
}
