//! A GET from a process of the cluster, over TLS where there is somebody to believe.

use anyhow::Context;
use bytes::Bytes;
use client::TlsIdentity;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What is asked for is some tens of KiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whom to believe at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Believed<'a> {
    /// Anybody: the connection is not secured.
    Anybody,
    /// Whoever serves in the cluster, under any name in the network.
    OfCluster(&'a TlsIdentity),
    /// The same, where the certificate is for the name that is called.
    ByName(&'a TlsIdentity),
}

/// What is served at an address (`host:port`) under a path: the status, and the body.
///
/// # Errors
/// Where nobody who is believed answers there.
pub(super) async fn get(believed: Believed<'_>, address: &str, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let (identity, by_name) = match believed {
        Believed::Anybody => {
            let connected = TcpStream::connect(address).await;
            return ask(connected.with_context(|| format!("nothing serves HTTP at {address}"))?, address, path).await;
        }
        Believed::OfCluster(identity) => (identity, false),
        Believed::ByName(identity) => (identity, true),
    };
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.with_context(|| format!("{address} is not an address (host:port)"))?;
    let connected = identity.connect_http(host, port, by_name).await;
    ask(connected.with_context(|| format!("nothing that is to be believed at {address}"))?, address, path).await
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: &str,
    path: &str,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // it ends with the answer, and what breaks it breaks the answer
    drop(tokio::spawn(connection));
    let request = Request::get(path).header("host", address);
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await;
    let response = response.with_context(|| format!("nothing serves HTTP at {address}"))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|fault| anyhow::anyhow!("the answer broke off: {fault}"))?;
    Ok((status, body.to_bytes()))
}
