//! JSON, problems, events, health and metrics over HTTP.

use std::sync::Arc;

use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use client::Outcome;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use ledger::{ClusterId, Quantity, Receipt};
use node::config::NodeConfig;
use node::http::ProverSource;
use node::metrics::ProverMetrics;
use node::roles::{ProverFront, RunningNode};
use serde_json::{Value, json};

use crate::support::{CLUSTER, Cluster, asset, commit, eventually, in_time, issue, key};

async fn send(
    request: Request<Full<Bytes>>,
) -> Response<impl axum::body::HttpBody<Data = Bytes, Error: std::fmt::Debug> + Unpin> {
    let client = HttpClient::builder(TokioExecutor::new()).build_http();
    in_time(client.request(request)).await.unwrap()
}

pub(crate) async fn get_text(url: String) -> (StatusCode, String, String) {
    let response = send(Request::get(url).body(Full::default()).unwrap()).await;
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) async fn get(url: String) -> (u16, Value) {
    let (status, _, body) = get_text(url).await;
    (status.as_u16(), serde_json::from_str(&body).unwrap())
}

pub(crate) async fn post(url: String, body: impl Into<Bytes>) -> (u16, String, Value) {
    let request = Request::post(url).header("idempotency-key", "k-1").body(Full::new(body.into())).unwrap();
    let response = send(request).await;
    assert_eq!(response.headers()["idempotency-key"], "k-1");
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, kind, serde_json::from_slice(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_are_answered_with_outcomes_or_problems() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let url = format!("{}/v1/submissions", cluster.http(1));
    let (bank, alice) = (key(1), key(2));
    let issued = issue(&client, &bank, alice.party(), 1 << 100).await;
    let body = json!({ "transactions": [hex::encode(issued.bytes())] }).to_string();
    let (status, _, first) = post(url.clone(), body.clone()).await;
    assert_eq!((status, &first["outcomes"][0]["outcome"]), (200, &json!("committed")));
    let (_, _, again) = post(url.clone(), body).await;
    assert_eq!(first, again);

    let (_, page) = get(format!("{}/v1/holdings/{}", cluster.http(1), alice.party())).await;
    assert_eq!(page["outputs"][0]["contract"]["quantity"], json!("1267650600228229401496703205376"));

    let page = client.holdings(&alice.party(), None, 10, client::Consistency::Local).await.unwrap();
    let mut rivals = Vec::new();
    for quantity in [1, 2] {
        let mut transaction = client.begin().await.unwrap();
        let quantity = Quantity::new(quantity);
        transaction.spend_all(&page.outputs).transfer(alice.party(), bank.party(), asset(&bank), quantity);
        rivals.push(transaction.prepare().unwrap().sign(&alice).unwrap().finish().unwrap());
    }
    commit(&client, &rivals[0]).await;
    let lost = json!({ "transactions": [hex::encode(rivals[1].bytes())] }).to_string();
    let (status, kind, problem) = post(url.clone(), lost).await;
    assert_eq!((status, kind.as_str()), (409, "application/problem+json"));
    assert_eq!((&problem["code"], &problem["name"]), (&json!(206), &json!("InputSpent")));
    assert_eq!(problem["evidence"]["winner"], json!(rivals[0].id().to_string()));
    assert_eq!(problem["outcomes"][0]["outcome"], "rejected");
    assert!(problem["advice"].is_string() && problem["type"] == "/v1/errors/206");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_problems() {
    let cluster = Cluster::start(1).await;
    let root = cluster.http(1);
    let url = format!("{root}/v1/submissions");
    for (body, status, code) in [
        ("no json", 400, 307),
        ("{}", 400, 307),
        (r#"{"transactions":["zz!"]}"#, 400, 307),
        (r#"{"transactions":["00"],"surprise":1}"#, 400, 307),
        (r#"{"transactions":["00"]}"#, 422, 100),
    ] {
        let (found, kind, problem) = post(url.clone(), body).await;
        assert_eq!((found, kind.as_str()), (status, "application/problem+json"), "{body}");
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{body}");
    }
    let mixed = json!({ "submissions": [{ "tag": 7, "transactions": ["00"] }] }).to_string();
    let (status, _, results) = post(url, mixed).await;
    assert_eq!((status, &results["results"][0]["tag"]), (200, &json!(7)));
    assert_eq!(results["results"][0]["outcomes"][0]["reason"]["name"], "Malformed");

    let unknown = "07".repeat(32);
    for (path, status, code) in [
        ("/v1/transactions/xyz".to_owned(), 400, 307),
        (format!("/v1/transactions/{unknown}"), 404, 306),
        (format!("/v1/transactions/{unknown}?consistency=maybe"), 400, 307),
        (format!("/v1/receipts/{unknown}"), 404, 306),
        (format!("/v1/holdings/{unknown}?limit=x"), 400, 307),
        ("/v1/consistency?old=5&new=2".to_owned(), 400, 307),
        ("/v1/updates?party=xyz".to_owned(), 400, 307),
        ("/v1/errors/9999".to_owned(), 404, 306),
        ("/v1/nowhere".to_owned(), 404, 306),
        ("/v1/submissions".to_owned(), 405, 318),
    ] {
        let (found, problem) = get(format!("{root}{path}")).await;
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_receipts_are_served() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let transaction = issue(&client, &key(1), key(2).party(), 100).await;
    commit(&client, &transaction).await;
    let root = cluster.http(cluster.follower().await);
    let (status, found) = get(format!("{root}/v1/transactions/{}?body=true", transaction.id())).await;
    assert_eq!((status, &found["record"]["outcome"]), (200, &json!("committed")));
    assert_eq!(found["canonical"], json!(hex::encode(transaction.bytes())));

    let (_, receipt) = get(format!("{root}/v1/receipts/{}", transaction.id())).await;
    let bytes = hex::decode(receipt["canonical"].as_str().unwrap()).unwrap();
    let receipt: Receipt = proto::convert::canonical("receipt", &bytes).unwrap();
    receipt.verify(&ClusterId::of_name(CLUSTER), &cluster.node_keys(), 1).unwrap();

    let (_, head) = get(format!("{root}/v1/heads/latest?consistency=linearizable")).await;
    let size = head["head"]["size"].as_u64().unwrap();
    assert!(size > 0);
    let (_, proof) = get(format!("{root}/v1/consistency?old=0&new={size}")).await;
    assert_eq!(proof["new"]["log_root"], head["head"]["log_root"]);
    let (_, node) = get(format!("{root}/v1/status")).await;
    assert_eq!((&node["health"], node["members"].as_array().unwrap().len()), (&json!("ready"), 3));
    let described = eventually(|| async {
        let (_, described) = get(format!("{root}/v1/cluster")).await;
        // nodes tell each other where they serve HTTP
        let known = described["members"].as_array().unwrap().iter().all(|member| member["http_address"].is_string());
        known.then_some(described)
    })
    .await;
    assert_eq!((&described["name"], described["limits"]["inputs_max"].as_u64()), (&json!(CLUSTER), Some(1_024)));
    let (_, error) = get(format!("{root}/v1/errors/206")).await;
    assert_eq!(error["name"], "InputSpent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_resume_after_the_last_one_seen() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let first = commit(&client, &issue(&client, &key(1), key(2).party(), 1).await).await;
    let second = commit(&client, &issue(&client, &key(1), key(2).party(), 2).await).await;
    let url = format!("{}/v1/updates?party={}", cluster.http(1), key(2).party());
    for (from, last_seen, expected) in [("&from=1", None, first), ("", Some(first), second)] {
        let mut request = Request::get(format!("{url}{from}"));
        if let Some(last) = last_seen {
            request = request.header("last-event-id", last.to_string());
        }
        let response = send(request.body(Full::default()).unwrap()).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        let frame = in_time(body.frame()).await.unwrap().unwrap().into_data().unwrap();
        let text = String::from_utf8(frame.to_vec()).unwrap();
        assert!(text.contains(&format!("id: {expected}\n")) && text.contains("event: update\n"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_live_at_once_and_ready_when_it_can_serve() {
    let directory = tempfile::tempdir().unwrap();
    let settings = node::config::NodeSettings {
        id: Some(1),
        data_dir: Some(directory.path().join("data")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Default::default()
    };
    let node = RunningNode::start(NodeConfig::try_from(settings).unwrap()).await.unwrap();
    let probe = |name: &'static str| {
        let url = format!("http://{}/health/{name}", node.ready().http);
        async move { get_text(url).await.0.as_u16() }
    };
    assert_eq!((probe("live").await, probe("startup").await, probe("ready").await), (200, 200, 503));
    let alone = std::iter::once((1, seams::Address::new(node.ready().advertise.clone()))).collect();
    node.api().initialize(alone).await.unwrap();
    eventually(|| async { (probe("ready").await == 200).then_some(()) }).await;
    in_time(node.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_tell_what_happened() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client_of(cluster.leader().await);
    commit(&client, &issue(&client, &key(1), key(2).party(), 1).await).await;
    let (status, kind, text) = get_text(format!("{}/metrics", cluster.http(cluster.leader().await))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(kind.starts_with("application/openmetrics-text"));
    assert!(text.contains("seriatim_raft_role{role=\"leader\"} 1"), "{text}");
    assert!(text.contains("seriatim_gateway_answers_total{answer=\"outcome\"} 1"), "{text}");
    assert!(matches!(
        client.submit(&issue(&client, &key(1), key(2).party(), 2).await).await,
        Outcome::Committed { .. }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_says_when_to_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let settings = node::config::NodeSettings {
        data_dir: Some(directory.path().join("data")),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        http_listen: Some("127.0.0.1:0".parse().unwrap()),
        initialize: Some(true),
        queued_transactions_max: Some(1),
        ..Default::default()
    };
    let node = RunningNode::start(NodeConfig::try_from(settings).unwrap()).await.unwrap();
    in_time(crate::support::led(&node)).await;
    let body = json!({ "transactions": ["00", "00"] }).to_string();
    let request = Request::post(format!("http://{}/v1/submissions", node.ready().http));
    let response = send(request.body(Full::new(body.into())).unwrap()).await;
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&problem["name"], &problem["retry_after_ms"]), (&json!("Overloaded"), &json!(50)));
    in_time(node.stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provers_copy_is_handed_out_whole_and_one_that_cannot_be_read_is_its_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy");
    let whole: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (found, missing) = (path.clone(), directory.path().to_owned());
    let copies: [(node::http::ReplayCopies, u16); 3] = [
        (Arc::new(move || std::fs::File::open(&found).map(Some)), 200),
        (Arc::new(|| Ok(None)), 404),
        (Arc::new(move || std::fs::File::open(missing.join("gone")).map(Some)), 500),
    ];
    std::fs::write(path, &whole).unwrap();
    for (copies, expected) in copies {
        let source = ProverSource { figures: Arc::new(ProverMetrics::default), copies };
        let front = ProverFront::start("127.0.0.1:0".parse().unwrap(), source, None).await.unwrap();
        let url = format!("http://{}/v1/replay-copy", front.address());
        let response = send(Request::get(url).body(Full::default()).unwrap()).await;
        assert_eq!(response.status(), expected);
        let length: usize = response.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(length, body.len());
        if expected == 200 {
            assert!(body == whole && kind == "application/octet-stream");
        } else {
            assert_eq!(kind, "application/problem+json", "{}", String::from_utf8_lossy(&body));
        }
        front.stop().await;
    }
}
