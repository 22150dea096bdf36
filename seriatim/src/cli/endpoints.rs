//! The nodes that a tool talks to: one after another until one answers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::node::json;
use ::node::network::MESSAGE_BYTES_MAX;
use anyhow::anyhow;
use client::{Access, TlsFault, TlsFiles, TlsIdentity, TlsOwnFiles};
use proto::problem::Retry;
use proto::wire::admin_client::AdminClient;
use proto::{Problem, ProblemKind};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than a node takes for anything it is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// A node that is silent for this long while it is asked, and for as long again, is taken to be gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// What a node may send ahead of a reader.
const WINDOW_BYTES: u32 = 256 * 1024;

/// Which nodes to talk to.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Endpoints {
    /// A node, `host:port` or `https://host:port`; repeat for several, of which the first that answers is used
    #[arg(
        long = "endpoint",
        env = "SERIATIM_ENDPOINTS",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        global = true
    )]
    pub(crate) addresses: Vec<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

/// What secures connections to nodes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TlsArgs {
    /// File with the certificate of the cluster's authority, in PEM form: secures the connections
    #[arg(long, env = "SERIATIM_TLS_CA", value_name = "FILE", global = true)]
    tls_ca: Option<PathBuf>,
    /// File with a certificate to show, in PEM form: an operator's, where the cluster is to be administered
    #[arg(long, env = "SERIATIM_TLS_CERTIFICATE", value_name = "FILE", global = true)]
    tls_certificate: Option<PathBuf>,
    /// File with that certificate's private key, in PEM form
    #[arg(long, env = "SERIATIM_TLS_KEY", value_name = "FILE", global = true)]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// Whom to believe, and who to be.
    ///
    /// # Errors
    /// Where a file is no good, or one of two that go together is missing; the message says what to do.
    pub(crate) fn identity(&self) -> anyhow::Result<Option<TlsIdentity>> {
        let own = match (&self.tls_certificate, &self.tls_key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(TlsOwnFiles { certificate: certificate.clone(), key: key.clone() }),
            _ => anyhow::bail!("--tls-certificate and --tls-key go together"),
        };
        match &self.tls_ca {
            Some(authority) => Ok(Some(TlsIdentity::calling(TlsFiles { authority: authority.clone(), own })?)),
            None if own.is_some() => anyhow::bail!("--tls-certificate needs --tls-ca, which says whom to believe"),
            None => Ok(None),
        }
    }

    /// The private key's file.
    pub(crate) fn key_file(&self) -> Option<&Path> {
        self.tls_key.as_deref()
    }

    /// Whether connections are to be secured.
    pub(crate) const fn is_given(&self) -> bool {
        self.tls_ca.is_some()
    }

    /// Whom to believe, without being anybody.
    ///
    /// # Errors
    /// Where the file is no good.
    pub(crate) fn believing(&self) -> Result<Option<TlsIdentity>, TlsFault> {
        let files = self.tls_ca.clone().map(|authority| TlsFiles { authority, own: None });
        files.map(TlsIdentity::calling).transpose()
    }
}

impl Endpoints {
    /// The nodes, and what connections to them need.
    ///
    /// # Errors
    /// Where a file is no good; the message says what to do.
    pub(crate) fn access(&self) -> anyhow::Result<Access> {
        Ok(Access { addresses: self.addresses.clone(), tls: self.tls.identity()? })
    }

    /// Asks the first node that can be reached; the next one where that one's problem is its own.
    pub(crate) async fn ask<T, F>(&self, ask: impl Fn(AdminClient<Channel>) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let access = self.access().map_err(|fault| Problem::new(ProblemKind::CertificateRefused, fault.to_string()))?;
        let mut last = Problem::new(ProblemKind::Unreachable, "no endpoint is given");
        for address in &self.addresses {
            match ask_one(&access, address, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(problem) if problem.retry() == Retry::Elsewhere => last = problem,
                Err(problem) => return Err(problem),
            }
        }
        Err(last)
    }
}

/// Asks one node.
pub(crate) async fn ask_one<T, F>(
    access: &Access,
    address: &str,
    ask: impl Fn(AdminClient<Channel>) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let channel = access.channel(address, CONNECT_TIMEOUT, |endpoint| {
        endpoint
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(2 * WINDOW_BYTES)
    });
    let client = AdminClient::new(channel.await?).max_decoding_message_size(MESSAGE_BYTES_MAX);
    match timeout(ANSWER_TIMEOUT, ask(client)).await {
        Ok(answer) => Ok(answer.map_err(|status| Problem::from(&status))?.into_inner()),
        Err(_elapsed) => Err(Problem::new(ProblemKind::Timeout, format!("{address} did not answer"))),
    }
}

/// A problem as a command's end: what happened, and what to do. With `--json` it is on standard output as well.
pub(crate) fn failed(problem: &Problem, as_json: bool) -> anyhow::Error {
    if as_json {
        println!("{}", json::problem(problem));
    }
    let advice = problem.kind.entry().advice;
    anyhow!("{problem}\n  What to do: {advice}")
}
