//! `seriatim health`: for health checks of containers, whose images hold this binary alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep, timeout};

use super::endpoints::TlsArgs;
use super::get::{Believed, get};

/// Longer than a process on the same machine takes to answer, shorter than health checks wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Ask the node, validator or prover on this machine how it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 it is well, 1 it is not or does not answer. What it says is printed.

Examples:
  seriatim health                                   is the node on this machine ready for clients?
  seriatim health ready --within 2min               the same, once it is, or after two minutes of asking
  seriatim health live --http 127.0.0.1:7580        does the validator run?")]
pub(crate) struct HealthArguments {
    /// What to ask
    #[arg(value_enum, default_value_t = Probe::Ready)]
    probe: Probe,
    /// Where it serves HTTP; a wildcard address means this machine
    #[arg(long, env = "SERIATIM_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7480")]
    http: SocketAddr,
    /// Ask again until it is well, for at most this long: after a restart, for example
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0s")]
    within: Duration,
    #[command(flatten)]
    tls: TlsArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Probe {
    /// It runs and can go on; it need not know a leader
    Live,
    /// It has read its disk
    Startup,
    /// Clients can be sent to it: it votes, knows a leader and has caught up
    Ready,
}

pub(crate) async fn run(arguments: HealthArguments) -> anyhow::Result<ExitCode> {
    let path = match arguments.probe {
        Probe::Live => "/health/live",
        Probe::Startup => "/health/startup",
        Probe::Ready => "/health/ready",
    };
    let address = reachable(arguments.http).to_string();
    let identity = arguments.tls.believing()?;
    // a process on this machine, whatever name its certificate is for
    let believed = identity.as_ref().map_or(Believed::Anybody, Believed::OfCluster);
    let deadline = Instant::now() + arguments.within;
    loop {
        let asked = timeout(ANSWER_TIMEOUT, get(believed, &address, path)).await;
        let answer = asked.with_context(|| format!("{address} does not answer")).flatten();
        let well = answer.as_ref().is_ok_and(|(status, _)| status.is_success());
        if !well && Instant::now() < deadline {
            sleep(PAUSE).await;
            continue;
        }
        let (_, said) = answer?;
        println!("{}", String::from_utf8_lossy(&said));
        return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
}

/// Where to reach what listens at this address, from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let own: IpAddr = if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let host = if listen.ip().is_unspecified() { own } else { listen.ip() };
    SocketAddr::new(host, listen.port())
}
