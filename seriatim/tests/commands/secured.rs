//! Secured clusters as their users start them: `dev --tls`, and certificates made by hand.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use client::{Account, Client, Key, Outcome, TlsFiles, TlsIdentity, TlsOwnFiles};
use ledger::{Leg, Quantity, Terms};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::commands::run;
use super::support_bundle::unpacked;
use crate::support::in_time;

/// A process that says in a line of JSON where it serves. Dropping it kills it.
struct Started {
    child: Child,
    said: Value,
}

impl Started {
    fn of(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_seriatim"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, said: serde_json::from_str(&line).unwrap() }
    }

    /// Ctrl-C, and how it ends then.
    fn interrupt(mut self) -> bool {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|each| each.as_str().unwrap().to_owned()).collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a caller of this name shows, of the certificates in a directory.
fn shown(directory: &Path, name: &str) -> [String; 6] {
    let file = |name: String| path(&directory.join(name)).to_owned();
    let flag = str::to_owned;
    [
        flag("--tls-ca"),
        file("ca.crt".to_owned()),
        flag("--tls-certificate"),
        file(format!("{name}.crt")),
        flag("--tls-key"),
        file(format!("{name}.key")),
    ]
}

fn committed(outcome: &Outcome) -> u64 {
    let Outcome::Committed { batch, .. } = outcome else { panic!("not committed: {outcome:?}") };
    *batch
}

/// Alice swaps 300 dollars for 250 euros of Bob's.
async fn settle(client: &Client) {
    let open = || async { Account::open(client, Key::generate(&seams::OsEntropy)).await.unwrap() };
    let (bank, alice, bob) = (open().await, open().await, open().await);
    let (usd, eur) = (bank.asset("USD".parse().unwrap()), bank.asset("EUR".parse().unwrap()));
    committed(&bank.issue(usd.symbol, alice.party(), Quantity::new(1_000)).await.unwrap());
    let batch = committed(&bank.issue(eur.symbol, bob.party(), Quantity::new(1_000)).await.unwrap());
    alice.wallet().wait_until_batch(client, batch).await.unwrap();
    let leg = |from: &Account, to: &Account, asset, units| Leg {
        payer: from.party(),
        receiver: to.party(),
        asset,
        quantity: Quantity::new(units),
    };
    let legs = vec![leg(&alice, &bob, usd, 300), leg(&bob, &alice, eur, 250)];
    let terms = Terms { legs, nonce: client.nonce() };
    let (proposed, _) = alice.propose(&terms, client.now().plus_millis(60_000)).await.unwrap();
    bob.wallet().wait_until_batch(client, committed(&proposed)).await.unwrap();
    let proposal = bob.wallet().proposal(&terms.id()).unwrap();
    let batch = committed(&bob.settle(&proposal).await.unwrap());
    alice.wallet().wait_until_batch(client, batch).await.unwrap();
    assert_eq!(alice.wallet().balance(&alice.party(), &eur).free, Quantity::new(250));
}

/// A support bundle of the whole cluster, made by an operator whose private key stands in a log.
async fn bundled(cluster: &Value, certificates: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let key = std::fs::read_to_string(certificates.join("operator.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let (log, out) = (directory.path().join("node.log"), directory.path().join("bundle.tar.gz"));
    std::fs::write(&log, format!("INFO before\nWARN found {secret}, alas\n")).unwrap();
    let workers = [strings(&cluster["validator_http_endpoints"]), strings(&cluster["provers"])].concat();
    let (endpoint, http) = (&strings(&cluster["endpoints"])[0], workers.join(","));
    let flags = shown(certificates, "operator");
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let command = ["support-bundle", "--json", "--endpoint", endpoint, "--http", &http, "--log", path(&log)];
    let made = run(&[&command[..], &["--out", path(&out)], &flags].concat()).await;
    assert!(made.status.success(), "{made:?}");
    let told: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(told["missing"].as_object().unwrap().is_empty(), "{told}");

    let files = unpacked(&out);
    let status: Value = serde_json::from_str(&files["status.json"]).unwrap();
    assert!(status["nodes"].as_array().unwrap().iter().all(|node| node["health"] != "unreachable"), "{status}");
    let metrics = files.iter().filter(|(name, _)| name.starts_with("metrics/"));
    let expires = |text: &str| {
        let sample = text.lines().find_map(|line| line.strip_prefix("seriatim_certificate_expiry_timestamp_seconds "));
        sample.unwrap().parse::<f64>().unwrap()
    };
    assert_eq!(metrics.filter(|(_, text)| expires(text) > 0.0).count(), 3 + workers.len());
    assert_eq!(files["logs/1-node.log"], "INFO before\nWARN found [struck out], alas\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_with_tls_settles_through_the_sdk_and_lets_only_operators_administer() {
    let directory = tempfile::tempdir().unwrap();
    let data = path(directory.path()).to_owned();
    let dev = tokio::task::spawn_blocking(move || {
        Started::of(&["dev", "--tls", "--json", "--nodes", "3", "--validators", "1", "--data-dir", &data])
    });
    let dev = in_time(dev).await.unwrap();
    let endpoints = strings(&dev.said["endpoints"]);
    let certificates = directory.path().join("tls");

    let own = TlsOwnFiles { certificate: certificates.join("client.crt"), key: certificates.join("client.key") };
    let files = TlsFiles { authority: certificates.join("ca.crt"), own: Some(own) };
    let secured = endpoints.iter().map(|endpoint| format!("https://{endpoint}"));
    let client = Client::builder().endpoints(secured).tls(TlsIdentity::calling(files).unwrap()).connect().unwrap();
    in_time(settle(&client)).await;

    for (name, expected) in
        [("operator", None), ("node-1", None), ("client", Some("320")), ("validator-1", Some("320"))]
    {
        let flags = shown(&certificates, name);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let asked = run(&[&["admin", "status", "--endpoint", &endpoints[0]][..], &flags].concat()).await;
        let errors = String::from_utf8_lossy(&asked.stderr).into_owned();
        match expected {
            None => {
                assert!(asked.status.success() && asked.stdout.windows(5).any(|it| it == b"ready"), "{name}: {errors}")
            }
            Some(number) => assert!(!asked.status.success() && errors.contains(number), "{name}: {errors}"),
        }
    }
    let ca = certificates.join("ca.crt");
    let unknown = run(&["admin", "status", "--endpoint", &endpoints[0], "--tls-ca", path(&ca)]).await;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("319 Unauthenticated"), "{unknown:?}");
    for http in strings(&dev.said["http_endpoints"]).iter().chain(&strings(&dev.said["provers"])) {
        let asked = run(&["health", "live", "--http", http, "--tls-ca", path(&ca)]).await;
        assert!(asked.status.success(), "{asked:?}");
        assert!(!run(&["health", "live", "--http", http]).await.status.success(), "plain text is not answered");
    }
    bundled(&dev.said, &certificates).await;
    // the wallet's command, without a certificate, at an endpoint that says https
    let key = directory.path().join("carol.key");
    let made = run(&["wallet", "--key", path(&key), "keygen"]).await;
    assert!(made.status.success(), "{made:?}");
    let endpoint = format!("https://{}", endpoints[1]);
    let wallet = ["wallet", "--key", path(&key), "--endpoint", &endpoint, "--tls-ca", path(&ca), "issue", "GOLD", "5"];
    let issued = run(&wallet).await;
    assert!(issued.status.success(), "{issued:?}");
    // it verifies every attestation before it ends
    assert!(tokio::task::spawn_blocking(|| dev.interrupt()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_runs_on_certificates_made_by_hand_and_not_on_anothers() {
    let directory = tempfile::tempdir().unwrap();
    let authority = directory.path().join("authority");
    let cert = async |arguments: &[&str]| {
        let arguments = [&["cert"][..], arguments].concat();
        run(&arguments).await
    };
    let made = async || {
        assert!(cert(&["authority", path(&authority)]).await.status.success());
        std::fs::read(authority.join("ca.crt")).unwrap()
    };
    assert_eq!(made().await, made().await, "an authority is never replaced");
    assert!(!cert(&["issue", "node/0", "--authority", path(&authority)]).await.status.success());
    for role in ["node/1", "node/2", "operator"] {
        let issued = cert(&["issue", role, "--authority", path(&authority), "--name", "a.example"]).await;
        assert!(issued.status.success(), "{issued:?}");
    }
    let data: PathBuf = directory.path().join("data");
    let with = |name: &str| -> Vec<String> {
        let node = ["node", "--attached", "--ready-json", "--initialize", "--id", "1", "--cluster", "test"];
        let places = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir", path(&data)];
        let given = node.into_iter().chain(places).map(str::to_owned);
        given.chain(shown(&authority, name)).collect()
    };
    let anothers = with("node-2");
    let refused = run(&anothers.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && errors.contains("is of node 2, and this process is node 1"), "{errors}");

    let own = with("node-1");
    let start = move || Started::of(&own.iter().map(String::as_str).collect::<Vec<_>>());
    let node = in_time(tokio::task::spawn_blocking(start)).await.unwrap();
    let endpoint = node.said["grpc"].as_str().unwrap().to_owned();
    let operator = shown(&authority, "operator");
    let operator: Vec<&str> = operator.iter().map(String::as_str).collect();
    let asked = run(&[&["admin", "members", "--endpoint", &endpoint][..], &operator].concat()).await;
    assert!(asked.status.success(), "{asked:?}");
    // the same node, called by a name that is not in its certificate
    let port = endpoint.split_once(':').unwrap().1;
    let foreign = format!("127.0.0.2:{port}");
    let listening = tokio::net::TcpListener::bind(&foreign).await.unwrap();
    let to = endpoint.clone();
    let relay = tokio::spawn(async move {
        let (mut caller, _) = listening.accept().await.unwrap();
        let mut node = tokio::net::TcpStream::connect(to).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut caller, &mut node).await);
    });
    let refused = run(&[&["admin", "members", "--endpoint", &foreign][..], &operator].concat()).await;
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.contains("326") && errors.contains("--name 127.0.0.2"), "{errors}");
    relay.abort();
}
