//! One settlement, one trace: from the client through every process that had a part in it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use client::{Account, Client, Key, Outcome};
use ledger::{Leg, Quantity, Terms};
use opentelemetry::global;
use opentelemetry::trace::{TraceContextExt, Tracer};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::cluster::{DevCluster, get};
use crate::collector::{Collector, Received, Trace};
use crate::golden::Scrape;

/// How long spans may take to come in; provers attest once a second.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

/// Every stage that a transaction's trace has: the span, the one it is a part of, and what they come from.
const STAGES: [(&str, &str, &str); 16] = [
    ("submit", "settlement", "test-client"),
    ("submission", "submit", "seriatim-node"),
    ("admission", "submission", "seriatim-node"),
    ("queueing", "submission", "seriatim-node"),
    ("bundle", "submission", "seriatim-node"),
    ("validation", "bundle", "seriatim-node"),
    ("validate", "validation", "seriatim-node"),
    ("validate", "validate", "seriatim-validator"),
    ("check", "validate", "seriatim-validator"),
    ("ordering", "bundle", "seriatim-node"),
    ("forward", "ordering", "seriatim-node"),
    ("forward", "forward", "seriatim-node"),
    ("commit", "forward", "seriatim-node"),
    ("apply", "bundle", "seriatim-node"),
    ("attestation", "bundle", "seriatim-node"),
    ("response", "submission", "seriatim-node"),
];

/// The application's own set-up: its spans go where its provider sends them.
fn traced_application(endpoint: &str) -> SdkTracerProvider {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build().unwrap();
    let resource = Resource::builder().with_service_name("test-client").build();
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
    global::set_text_map_propagator(TraceContextPropagator::new());
    global::set_tracer_provider(provider.clone());
    client::turn_on_traces();
    provider
}

/// A node that does not lead: what it admits is forwarded.
fn follower(cluster: &DevCluster) -> String {
    let http = cluster.list("http_endpoints");
    let leads = |address: &String| metrics(address).sum("seriatim_raft_role", &[("role", "leader")]) > 0.5;
    let other = http.iter().position(|address| !leads(address)).unwrap();
    cluster.list("endpoints")[other].clone()
}

async fn see(client: &Client, account: &Account, outcome: &Outcome) {
    let Outcome::Committed { batch, .. } = outcome else { panic!("not committed: {outcome:?}") };
    account.wallet().wait_until_batch(client, *batch).await.unwrap();
}

/// Alice pays dollars for Bob's euros: two transactions. Gives the trace's name.
async fn settle(endpoint: &str) -> Vec<u8> {
    let client = Client::builder().endpoint(endpoint).connect().unwrap();
    let open = |name: u8| Account::open(&client, Key::from_seed([name; 32]));
    let (bank, alice, bob) = (open(1).await.unwrap(), open(2).await.unwrap(), open(3).await.unwrap());
    for (account, asset) in [(&alice, "USD"), (&bob, "EUR")] {
        let issued = bank.issue(asset.parse().unwrap(), account.party(), Quantity::new(1_000)).await.unwrap();
        see(&client, account, &issued).await;
    }
    let leg = |payer: &Account, receiver: &Account, asset: &str, units: i128| Leg {
        payer: payer.party(),
        receiver: receiver.party(),
        asset: bank.asset(asset.parse().unwrap()),
        quantity: Quantity::new(units),
    };
    let legs = vec![leg(&alice, &bob, "USD", 300), leg(&bob, &alice, "EUR", 200)];
    let terms = Terms { legs, nonce: client.nonce() };

    let tracer = global::tracer("application");
    let context = opentelemetry::Context::new().with_span(tracer.start("settlement"));
    let trace = context.span().span_context().trace_id().to_bytes().to_vec();
    let traded = async {
        let (outcome, _) = alice.propose(&terms, client.now().plus_millis(60_000)).await.unwrap();
        see(&client, &bob, &outcome).await;
        let proposal = bob.wallet().proposal(&terms.id()).unwrap();
        assert!(bob.settle(&proposal).await.unwrap().is_committed());
    };
    opentelemetry::context::FutureExt::with_context(traded, context).await;
    trace
}

/// How often a stage is in a trace.
fn count(trace: &Trace, (name, parent, service): (&str, &str, &str)) -> usize {
    let is_part = |received: &&&Received| {
        received.service == service && trace.parent(received).is_some_and(|found| found.span.name == parent)
    };
    trace.named(name).iter().filter(is_part).count()
}

/// What is still to come: two transactions, each with every stage, and each checked by two validators.
fn missing(trace: &Trace) -> Vec<String> {
    let expected = |name: &str| if ["validate", "check"].contains(&name) { 4 } else { 2 };
    let stages = STAGES.into_iter().filter(|stage| count(trace, *stage) < expected(stage.0));
    let stages = stages.map(|stage| format!("{stage:?}"));
    let loose =
        trace.roots().into_iter().filter(|name| *name != "settlement").map(|name| format!("the parent of {name}"));
    stages.chain(loose).collect()
}

/// The trace of one settlement through a node that does not lead; none where it came to lead meanwhile.
async fn traced_settlement(cluster: &DevCluster, collector: &Collector, provider: &SdkTracerProvider) -> Option<Trace> {
    let node = follower(cluster);
    let name = settle(&node).await;
    tokio::task::block_in_place(|| provider.force_flush()).unwrap();
    let begun = Instant::now();
    loop {
        let trace = collector.trace(&name);
        let missing = missing(&trace);
        if missing.is_empty() {
            return Some(trace);
        }
        if follower(cluster) != node {
            return None;
        }
        assert!(begun.elapsed() < PATIENCE, "missing: {missing:?} in\n{}", trace.tree());
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_settlement_is_one_trace_with_all_its_stages() {
    let (collector, address) = Collector::start().await;
    let endpoint = format!("http://{address}");
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let cluster = tokio::task::block_in_place(|| {
        DevCluster::start(&["--nodes", "3", "--validators", "2", "--provers", "1"], &environment)
    });
    let required = Command::new(env!("CARGO_BIN_EXE_seriatim"))
        .args(["admin", "require-certificates", "2", "--endpoint", &follower(&cluster)])
        .output()
        .unwrap();
    assert!(required.status.success(), "{}", String::from_utf8_lossy(&required.stderr));

    let provider = traced_application(&endpoint);
    let trace = loop {
        if let Some(trace) = traced_settlement(&cluster, &collector, &provider).await {
            break trace;
        }
    };
    println!("{}", trace.tree());
    holds_together(&trace);
    let sent: f64 = cluster.list("http_endpoints").iter().map(|node| spans(node, "sent")).sum();
    assert!(sent > 0.0, "what was sent is counted");
    tokio::task::block_in_place(|| cluster.stop());
}

/// How many spans of a process met this fate.
fn spans(address: &str, fate: &str) -> f64 {
    metrics(address).sum("seriatim_trace_spans_total", &[("fate", fate)])
}

fn metrics(address: &str) -> Scrape {
    Scrape::read(&get(address, "/metrics").unwrap())
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(PAUSE);
    }
}

#[test]
fn a_collector_that_never_answers_holds_nobody_up() {
    // takes connections, as far as the system does, and says nothing
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
    ];
    let cluster =
        DevCluster::start(&["--nodes", "1", "--validators", "1", "--provers", "1", "--pairs", "4"], &environment);
    let node = &cluster.list("http_endpoints")[0];
    until("spans find no room", || spans(node, "dropped") > 0.0);
    let committed = || metrics(node).sum("seriatim_ordered_transactions_total", &[("outcome", "committed")]);
    let before = committed();
    until("settlements go on", || committed() > before + 500.0);
    let queued = metrics(node).sum("seriatim_trace_spans_queued", &[]);
    assert!(queued <= 64.0, "{queued} spans are held");
    assert!(spans(node, "sent") < 0.5);
    cluster.stop();
}

/// One root, no loose end, bundles that name their submissions and are named by them, and attested batches.
fn holds_together(trace: &Trace) {
    assert_eq!(trace.roots(), ["settlement"], "{}", trace.tree());
    let names: BTreeSet<&str> = trace.spans.iter().map(|received| received.span.name.as_str()).collect();
    let known: BTreeSet<&str> = STAGES.iter().map(|(name, _, _)| *name).chain(["settlement"]).collect();
    assert_eq!(names, known);
    for bundle in trace.named("bundle") {
        let submission = trace.parent(bundle).unwrap();
        let links = |from: &Received, to: &Received| {
            from.span.links.iter().any(|link| link.span_id == to.span.span_id && link.trace_id == to.span.trace_id)
        };
        assert!(links(bundle, submission) && links(submission, bundle), "{}", trace.tree());
        assert!(bundle.attribute("seriatim.bundle").is_some_and(|digest| digest.len() == 64));
        assert!(submission.attribute("seriatim.batch").is_some());
        assert_eq!(submission.attribute("seriatim.outcome").as_deref(), Some("committed"));
    }
    for attestation in trace.named("attestation") {
        assert_eq!(attestation.attribute("seriatim.attested").as_deref(), Some("true"));
    }
    let validators: BTreeSet<_> =
        trace.named("check").iter().filter_map(|check| check.attribute("seriatim.validator")).collect();
    assert!(validators.len() >= 2, "each transaction was checked by two validators: {validators:?}");
    for call in trace.named("validate").into_iter().chain(trace.named("forward")) {
        assert_eq!(call.attribute("rpc.system.name").as_deref(), Some("grpc"));
        assert!(call.span.kind() != SpanKind::Client || call.attribute("server.port").is_some());
    }
}
