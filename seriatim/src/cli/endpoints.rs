//! The nodes that a tool talks to: one after another until one answers.

use std::time::Duration;

use ::node::json;
use ::node::network::MESSAGE_BYTES_MAX;
use anyhow::anyhow;
use proto::problem::Retry;
use proto::wire::admin_client::AdminClient;
use proto::{Problem, ProblemKind};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
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
    /// A node; repeat for several, of which the first that answers is used
    #[arg(
        long = "endpoint",
        env = "SERIATIM_ENDPOINTS",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        global = true
    )]
    pub(crate) addresses: Vec<String>,
}

impl Endpoints {
    /// Asks the first node that can be reached; the next one where that one's problem is its own.
    pub(crate) async fn ask<T, F>(&self, ask: impl Fn(AdminClient<Channel>) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut last = Problem::new(ProblemKind::Unreachable, "no endpoint is given");
        for address in &self.addresses {
            match ask_one(address, &ask).await {
                Ok(answer) => return Ok(answer),
                Err(problem) if problem.retry() == Retry::Elsewhere => last = problem,
                Err(problem) => return Err(problem),
            }
        }
        Err(last)
    }
}

/// Asks one node.
pub(crate) async fn ask_one<T, F>(address: &str, ask: impl Fn(AdminClient<Channel>) -> F) -> Result<T, Problem>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let client = AdminClient::new(connect(address).await?).max_decoding_message_size(MESSAGE_BYTES_MAX);
    match timeout(ANSWER_TIMEOUT, ask(client)).await {
        Ok(answer) => Ok(answer.map_err(|status| Problem::from(&status))?.into_inner()),
        Err(_elapsed) => Err(Problem::new(ProblemKind::Timeout, format!("{address} did not answer"))),
    }
}

async fn connect(address: &str) -> Result<Channel, Problem> {
    let unreachable = |why: String| Problem::new(ProblemKind::Unreachable, format!("{address}: {why}"));
    let endpoint =
        Endpoint::from_shared(format!("http://{address}")).map_err(|fault| unreachable(fault.to_string()))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES);
    match timeout(CONNECT_TIMEOUT * 2, endpoint.connect()).await {
        Ok(connected) => connected.map_err(|_fault| unreachable("no node listens there".to_owned())),
        Err(_elapsed) => Err(unreachable("no connection in time".to_owned())),
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
