//! `seriatim health`: for health checks of containers, whose images hold this binary alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::endpoints::TlsArgs;

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
    let probe = match arguments.probe {
        Probe::Live => "live",
        Probe::Startup => "startup",
        Probe::Ready => "ready",
    };
    let address = reachable(arguments.http);
    let believing = arguments.tls.believing()?;
    let asked = async {
        match believing {
            // a process on this machine, whatever name its certificate is for
            Some(identity) => {
                let connected = identity.connect_http(&address.ip().to_string(), address.port(), false).await;
                ask(connected.with_context(|| format!("nothing that is to be believed at {address}"))?, address, probe)
                    .await
            }
            None => {
                let connected = TcpStream::connect(address).await;
                ask(connected.with_context(|| format!("nothing serves HTTP at {address}"))?, address, probe).await
            }
        }
    };
    let (well, said) = timeout(ANSWER_TIMEOUT, asked).await.with_context(|| format!("{address} does not answer"))??;
    println!("{}", String::from_utf8_lossy(&said));
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether it is well, and what it says.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    probe: &str,
) -> anyhow::Result<(bool, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // it ends with the answer, and what breaks it breaks the answer
    drop(tokio::spawn(connection));
    let request = Request::get(format!("/health/{probe}")).header("host", address.to_string());
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await;
    let response = response.with_context(|| format!("nothing serves HTTP at {address}"))?;
    let well = response.status().is_success();
    let said = response.into_body().collect().await.context("the answer broke off")?.to_bytes();
    Ok((well, said))
}

/// Where to reach what listens at this address, from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let own: IpAddr = if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let host = if listen.ip().is_unspecified() { own } else { listen.ip() };
    SocketAddr::new(host, listen.port())
}
