//! What one client may submit: over gRPC and HTTP, by certificate and by address.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use client::{Access, Submitter, SubmitterOptions, TlsFiles, TlsIdentity};
use node::config::{NodeConfig, NodeSettings};
use node::roles::RunningNode;
use proto::convert::SubmissionResult;
use proto::wire::ledger_client::LedgerClient;
use proto::{ProblemKind, wire};
use serde_json::json;
use tls::{Authority, Issued, Role};

use crate::http::{get, get_text, post};
use crate::support::{VALID, commit_something, in_time, issue, key, led};

const PATIENCE: Duration = Duration::from_secs(30);
/// A turn: what is accounted at once.
const BURST: usize = 64;

/// A cluster of one node, where a client has a burst, and then so much a second.
async fn start(directory: &Path, per_second: u32, own: Option<Issued>) -> RunningNode {
    let own_files = own.as_ref().and_then(|issued| issued.files.own.clone());
    let settings = NodeSettings {
        data_dir: Some(directory.join("data")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        initialize: Some(true),
        client_rate_max: Some(per_second),
        client_burst_max: Some(u32::try_from(BURST).unwrap()),
        tls_ca: own.map(|issued| issued.files.authority),
        tls_certificate: own_files.as_ref().map(|own| own.certificate.clone()),
        tls_key: own_files.map(|own| own.key),
        ..NodeSettings::default()
    };
    let node = in_time(RunningNode::start(NodeConfig::try_from(settings).unwrap())).await.unwrap();
    in_time(led(&node)).await;
    node
}

fn access(node: &RunningNode, tls: Option<TlsIdentity>) -> Access {
    Access { addresses: vec![node.ready().grpc.to_string()], tls }
}

/// Has a client submit bytes that are no transaction so many times at once: how many were decided, and the problems of
/// the others.
async fn flood(access: &Access, submissions: usize) -> (usize, Vec<proto::Problem>) {
    let submission = wire::Submission { tag: 1, transactions: vec![Bytes::from_static(b"\0")] };
    let request = wire::SubmitRequest { submissions: vec![submission; submissions], timeout_ms: 0 };
    let channel = access.channel(&access.addresses[0], PATIENCE, |endpoint| endpoint).await.unwrap();
    let answered = in_time(LedgerClient::new(channel).submit(request)).await.unwrap().into_inner();
    let mut refused = Vec::new();
    for result in &answered.results {
        if let Err(problem) = SubmissionResult::try_from(result).unwrap().answers {
            refused.push(problem);
        }
    }
    (answered.results.len() - refused.len(), refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_submits_more_than_its_rate_is_told_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), 1, None).await;
    let (decided, refused) = flood(&access(&node, None), 2 * BURST).await;
    assert_eq!((decided, refused.len()), (BURST, BURST), "the second turn would fit a minute later");
    for problem in &refused {
        assert_eq!(problem.kind, ProblemKind::RateLimited);
        assert!(problem.retry_after.is_some_and(|pause| !pause.is_zero()), "{problem:?}");
    }
    // by whatever protocol
    let url = format!("http://{}", node.ready().http);
    let many = json!({ "submissions": vec![json!({ "transactions": ["00"] }); BURST] }).to_string();
    let (status, _, answer) = post(format!("{url}/v1/submissions"), many).await;
    assert_eq!((status, &answer["results"][0]["refused"]["name"]), (200, &json!("RateLimited")), "{answer}");
    let heavy = json!({ "transactions": ["00".repeat(250_000)] }).to_string();
    let (status, _, problem) = post(format!("{url}/v1/submissions"), heavy).await;
    assert_eq!((status, &problem["name"]), (429, &json!("RateLimited")), "62 pieces of 4 KiB: {problem}");
    // reading is not submitting
    assert_eq!(get(format!("{url}/v1/status")).await.0, 200);
    let (_, _, metrics) = get_text(format!("{url}/metrics")).await;
    let line = format!("seriatim_rate_limited_submissions_total{{client=\"address\"}} {}", 2 * BURST + 1);
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
    in_time(node.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_its_certificates_subject_and_takes_nothing_from_others() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::make(directory.path()).unwrap();
    let own = authority.issue(Role::Node(1), &[], VALID, directory.path(), "node-1").unwrap();
    let node = start(directory.path(), 1, Some(own)).await;
    let desk = |subject: &str, file: &str| {
        let issued = authority.issue_to(subject, Role::Client, &[], VALID, directory.path(), file).unwrap();
        access(&node, Some(TlsIdentity::calling(issued.files).unwrap()))
    };
    assert_eq!(flood(&desk("desk 1", "desk-1"), BURST).await.0, BURST);
    let again = flood(&desk("desk 1", "desk-1-renewed"), BURST).await;
    assert_eq!((again.0, again.1.len()), (0, BURST), "another connection and certificate, the same client");
    assert_eq!(flood(&desk("desk 2", "desk-2"), BURST).await.0, BURST, "the same address, another client");
    let unnamed = TlsFiles { authority: authority.certificate(), own: None };
    let unnamed = access(&node, Some(TlsIdentity::calling(unnamed).unwrap()));
    assert_eq!(flood(&unnamed, BURST).await.0, BURST);
    assert_eq!(flood(&unnamed, BURST).await.0, 0, "without a certificate it is the address that counts");
    in_time(node.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_waits_for_its_rate_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path(), 100, None).await;
    let client = access(&node, None).client().connect().unwrap();
    let mut transactions = Vec::new();
    for _ in 0..4 * BURST {
        transactions.push(issue(&client, &key(1), key(2).party(), 1).await);
    }
    // a stream is slowed down
    let submitter = Submitter::start(&client, SubmitterOptions::default());
    let outcomes = in_time(submitter.submit_many(transactions)).await;
    assert_eq!(outcomes.len(), 4 * BURST);
    assert!(outcomes.iter().all(client::Outcome::is_committed));
    // requests by themselves are repeated
    flood(&access(&node, None), 2 * BURST).await;
    commit_something(&client).await;
    in_time(node.stop()).await;
}
