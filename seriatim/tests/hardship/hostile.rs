//! Clients that mean harm: an honest one goes on meanwhile, and the node's memory stays bounded.
//!
//! What is asserted are counts and bytes. The honest client's latency under attack is printed as a ratio to its latency
//! before, measured in the same run, and not judged: the machine that the tests run on may be busy with anything. The
//! attackers' threads stand back behind those of node and honest client: elsewhere they have machines of their own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use client::Client;
use proto::wire;
use proto::wire::ledger_client::LedgerClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;

use crate::clients::{commit, in_time, issue, key};
use crate::process::NodeProcess;

/// Transactions of the honest client in each measurement.
const HONEST: i128 = 300;
/// Of threads, by the operating system's measure.
const LOWEST_PRIORITY: i32 = 19;
/// Connections that say nothing, or half of what they should.
const HALF_OPEN: usize = 2_000;
/// What a node may keep in memory under all of this, in bytes. The bounds that add up to it: 256 MiB of incomplete
/// messages, 64 MiB queued, RocksDB's buffers, and the allocator's slack over them.
const RESIDENT_BYTES_MAX: u64 = 1_536 * 1024 * 1024;

/// Half of the honest client's transactions take at most this long.
async fn median_latency(client: &Client) -> Duration {
    let mut latencies = Vec::new();
    for quantity in 1..=HONEST {
        let transaction = issue(client, &key(1), key(2).party(), quantity).await;
        let begin = Instant::now();
        commit(client, &transaction).await;
        latencies.push(begin.elapsed());
    }
    latencies.sort();
    latencies[latencies.len() / 2]
}

async fn stub(node: &str) -> LedgerClient<Channel> {
    LedgerClient::connect(format!("http://{node}")).await.unwrap()
}

/// A connection that sends these bytes and then nothing, for ever.
async fn half_open(address: String, said: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    if stream.write_all(&said).await.is_ok() {
        std::future::pending::<()>().await;
    }
}

/// Sends the same requests again and again over one stream. Reads the answers, or does not.
async fn flood(node: String, requests: Vec<wire::SubmitRequest>, reads: bool) {
    loop {
        let endless = tokio_stream::iter(requests.clone().into_iter().cycle());
        let Ok(answers) = stub(&node).await.submit_batches(endless).await else { continue };
        let mut answers = answers.into_inner();
        if !reads {
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        while let Some(Ok(_)) = answers.next().await {}
    }
}

/// Messages beyond the limit, one after another.
async fn oversized(node: String) {
    let transactions = vec![Bytes::from(vec![0; 12 * 1024 * 1024])];
    let mut stub = stub(&node).await;
    loop {
        let submission = wire::Submission { tag: 1, transactions: transactions.clone() };
        let request = wire::SubmitRequest { submissions: vec![submission], timeout_ms: 0 };
        assert!(stub.submit(request).await.is_err());
    }
}

/// Watches everything and reads nothing.
async fn blind_watcher(node: String) {
    let request = wire::WatchUpdatesRequest { from_batch: 1, with_records: true, ..Default::default() };
    let updates = stub(&node).await.watch_updates(request).await;
    std::future::pending::<()>().await;
    drop(updates);
}

fn request<'a>(members: impl IntoIterator<Item = &'a Bytes>) -> wire::SubmitRequest {
    let submission = |bytes: &Bytes| wire::Submission { tag: 1, transactions: vec![bytes.clone()] };
    wire::SubmitRequest { submissions: members.into_iter().map(submission).collect(), timeout_ms: 0 }
}

/// Requests to submit right transactions, and the same with a false signature.
async fn requests(client: &Client) -> [Vec<wire::SubmitRequest>; 2] {
    let mut right = Vec::new();
    for quantity in 1..=2_000 {
        right.push(issue(client, &key(9), key(10).party(), quantity).await.bytes().clone());
    }
    let falsified = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        bytes.last_mut().into_iter().for_each(|byte| *byte ^= 1);
        Bytes::from(bytes)
    };
    let wrong: Vec<Bytes> = right.iter().map(falsified).collect();
    [right, wrong].map(|all| all.chunks(100).map(request).collect())
}

/// Attackers, until it is dropped.
struct Attackers {
    threads: Option<Runtime>,
    tasks: JoinSet<()>,
}

impl Attackers {
    fn new() -> Self {
        let stand_back = || rustix::process::setpriority_process(None, LOWEST_PRIORITY).map(drop).unwrap();
        let threads = Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(stand_back).build();
        Self { threads: Some(threads.unwrap()), tasks: JoinSet::new() }
    }

    fn spawn(&mut self, attacker: impl Future<Output = ()> + Send + 'static) {
        let threads = self.threads.as_ref().unwrap().handle();
        self.tasks.spawn_on(attacker, threads);
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.threads.take().unwrap().shutdown_background();
    }
}

/// Begins everything at once that never brings a transaction to commit.
fn attack(node: &NodeProcess, wrong: &[wire::SubmitRequest]) -> Attackers {
    let mut attackers = Attackers::new();
    let (grpc, http) = (|| node.grpc.clone(), || node.http.clone());
    let half_openings: [(String, &[u8]); 4] = [
        (grpc(), b""),
        (grpc(), b"PRI * HTTP/2.0\r\n"),
        (http(), b""),
        (http(), b"POST /v1/submissions HTTP/1.1\r\nContent-Le"),
    ];
    for (address, said) in half_openings.iter().cycle().take(HALF_OPEN) {
        attackers.spawn(half_open(address.clone(), said.to_vec()));
    }
    let large = vec![request(&vec![Bytes::from(vec![0; 255 * 1024]); 30])];
    for reads in [true, false, false] {
        attackers.spawn(flood(grpc(), wrong.to_vec(), reads));
        attackers.spawn(flood(grpc(), large.clone(), reads));
    }
    attackers.spawn(oversized(grpc()));
    // half of a body that would be allowed
    let head = b"POST /v1/submissions HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n";
    for _ in 0..150 {
        attackers.spawn(half_open(http(), [&head[..], &[b' '; 4_000_000]].concat()));
    }
    for _ in 0..100 {
        attackers.spawn(blind_watcher(grpc()));
    }
    attackers
}

/// What an honest client met.
#[derive(Debug)]
struct Met {
    latency: Duration,
    /// The most that the node kept in memory meanwhile, in bytes.
    resident_bytes: u64,
}

async fn meet(node: &NodeProcess, client: &Client) -> Met {
    let mut resident_bytes = 0;
    let watching = async {
        loop {
            resident_bytes = node.resident_bytes().max(resident_bytes);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let latency = tokio::select! {
        // each transaction fails the test where it hangs
        latency = median_latency(client) => latency,
        () = watching => unreachable!("it never ends"),
    };
    Met { latency, resident_bytes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_neither_stop_an_honest_one_nor_fill_the_memory() {
    node::connections::raise_open_files();
    let directory = tempfile::tempdir().unwrap();
    let mut node = NodeProcess::start(&directory.path().join("data"), 1).unwrap();
    let client = node.client();
    let [right, wrong] = requests(&client).await;
    let alone = meet(&node, &client).await;
    let mut attackers = attack(&node, &wrong);
    let attacked = meet(&node, &client).await;
    for reads in [true, false, false] {
        attackers.spawn(flood(node.grpc.clone(), right.clone(), reads));
    }
    let crowded = meet(&node, &client).await;
    drop(attackers);
    let afterwards = meet(&node, &client).await;
    for (when, met) in [
        ("alone", &alone),
        ("attacked", &attacked),
        ("attacked, in a flood of right transactions", &crowded),
        ("afterwards", &afterwards),
    ] {
        let ratio = met.latency.div_duration_f64(alone.latency);
        let mebibytes = met.resident_bytes / 1024 / 1024;
        eprintln!("{when}: median latency {:?}, {ratio:.1} times as long as alone; {mebibytes} MiB", met.latency);
        assert!(met.resident_bytes < RESIDENT_BYTES_MAX, "{when}");
    }
    assert!(node.ended().is_none());
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let node = NodeProcess::start(&directory.path().join("data"), 1).unwrap();
    let ended = [
        (&node.grpc, &b""[..]),
        (&node.grpc, b"PRI * HTTP/2.0\r\n"),
        (&node.http, b""),
        (&node.http, b"GET /v1/status HT"),
        (&node.http, b"POST /v1/submissions HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"),
    ]
    .map(|(address, said)| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        // a reset is an end too; what counts is that the node ends it
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
    });
    in_time(futures::future::join_all(ended)).await;
    commit(&node.client(), &issue(&node.client(), &key(1), key(2).party(), 1).await).await;
    node.stop();
}
