//! `seriatim health`: for health checks of containers, whose images hold this binary alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::timeout;

/// Longer than a process on the same machine takes to answer, shorter than health checks wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Ask the node, validator or prover on this machine how it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 it is well, 1 it is not or does not answer. What it says is printed.

Examples:
  seriatim health                                   is the node on this machine ready for clients?
  seriatim health live --http 127.0.0.1:7580        does the validator run?")]
pub(crate) struct HealthArguments {
    /// What to ask
    #[arg(value_enum, default_value_t = Probe::Ready)]
    probe: Probe,
    /// Where it serves HTTP; a wildcard address means this machine
    #[arg(long, env = "SERIATIM_HTTP_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:7480")]
    http: SocketAddr,
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
    let probe = match arguments.probe {
        Probe::Live => "live",
        Probe::Startup => "startup",
        Probe::Ready => "ready",
    };
    let address = reachable(arguments.http);
    let url = format!("http://{address}/health/{probe}").parse()?;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let asked = async {
        let response = client.get(url).await.with_context(|| format!("nothing serves HTTP at {address}"))?;
        let well = response.status().is_success();
        let said = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
        anyhow::Ok((well, said))
    };
    let (well, said) = timeout(ANSWER_TIMEOUT, asked).await.with_context(|| format!("{address} does not answer"))??;
    println!("{}", String::from_utf8_lossy(&said));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where to reach what listens at this address, from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let own: IpAddr = if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let host = if listen.ip().is_unspecified() { own } else { listen.ip() };
    SocketAddr::new(host, listen.port())
}
