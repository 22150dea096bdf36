//! The runbook of backups with real processes: every command of the page, as it stands there, and what it is for.
#![expect(clippy::unwrap_used, reason = "tests")]

#[allow(dead_code, reason = "shared with other tests, which use all of it")]
#[path = "../../node/tests/fixtures/clients.rs"]
mod clients;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use client::{Account, Client, Consistency, Outcome, SignedTransaction};
use ledger::merkle::verify_consistency;
use ledger::{AssetType, Contract, Head, Leg, Party, Quantity, Terms};
use serde_json::Value;
use tempfile::TempDir;

use clients::{asset, eventually, in_time, issue, key};

const PAGE: &str = include_str!("../../docs/runbooks/backup-and-restore.md");
const LEDGER: &str = "venue";
const PROGRAM: &str = env!("CARGO_BIN_EXE_seriatim");
/// Outputs of one transaction that fills the ledger.
const FILLING: usize = 400;

/// Where a machine of the page is on this one.
#[derive(Debug, Clone)]
struct Place {
    grpc: String,
    http: String,
    data: PathBuf,
}

/// A process, killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The machines of the page, by their letters.
struct Stage {
    directory: TempDir,
    places: BTreeMap<char, Place>,
    ran: BTreeSet<String>,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // taken together, so that they differ
        let listeners: Vec<_> = (0..14).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        let place = |(letter, pair): (char, &[String])| {
            let data = directory.path().join(letter.to_string());
            (letter, Place { grpc: pair[0].clone(), http: pair[1].clone(), data })
        };
        let places = "abcdefv".chars().zip(addresses.chunks(2)).map(place).collect();
        Self { directory, places, ran: BTreeSet::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn grpc(&self, letter: char) -> &str {
        &self.places[&letter].grpc
    }

    fn client(&self, letters: &str) -> Client {
        Client::builder().endpoints(letters.chars().map(|letter| self.grpc(letter).to_owned())).connect().unwrap()
    }

    /// A line of the page, with this machine's addresses and directories for the page's.
    fn arguments(&mut self, host: char, line: &str) -> Vec<String> {
        assert!(PAGE.lines().any(|there| there == line), "the page has no line: {line}");
        self.ran.insert(line.to_owned());
        let here = |name: &str| self.path(name).display().to_string();
        let (own, validator) = (&self.places[&host], &self.places[&'v']);
        let mut text = line.to_owned();
        for (there, this) in [
            ("/backups/", here("backups/")),
            ("/var/lib/seriatim", own.data.display().to_string()),
            ("validator.key", here("validator.key")),
            ("new.key", here("new.key")),
            ("head.json", here("head.json")),
            ("0.0.0.0:7400", own.grpc.clone()),
            ("0.0.0.0:7480", own.http.clone()),
            ("0.0.0.0:7500", validator.grpc.clone()),
            ("0.0.0.0:7580", validator.http.clone()),
            ("d:7500", validator.grpc.clone()),
        ] {
            text = text.replace(there, &this);
        }
        for (letter, place) in &self.places {
            text = text.replace(&format!("{letter}:7400"), &place.grpc);
        }
        text.split(' ').skip(1).map(str::to_owned).collect()
    }

    /// Runs a line of the page to its end.
    async fn run(&mut self, line: &str) -> Output {
        // no line that ends by itself names the machine that it runs on, except of a restore, which runs on d
        seriatim(self.arguments('d', line)).await
    }

    /// The same, and it has to succeed; gives what it printed.
    async fn done(&mut self, line: &str) -> String {
        let output = self.run(line).await;
        assert!(output.status.success(), "{line}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a line of the page that goes on until it is stopped.
    fn start(&mut self, host: char, line: &str) -> Running {
        let arguments = self.arguments(host, line);
        self.spawn(&host.to_string(), arguments)
    }

    fn spawn(&self, name: &str, arguments: Vec<String>) -> Running {
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Running(command.spawn().unwrap())
    }

    /// Starts one of the old cluster's nodes, of which the page says nothing.
    fn start_old(&self, number: usize) -> Running {
        let old: Vec<&Place> = "abc".chars().map(|letter| &self.places[&letter]).collect();
        let members: Vec<String> = (1..).zip(&old).map(|(node, place)| format!("{node}={}", place.grpc)).collect();
        let place = old[number - 1];
        let (number, data, members) = (number.to_string(), place.data.display().to_string(), members.join(","));
        let arguments = [
            &["node", "--initialize", "--cluster", LEDGER, "--id", &number, "--data-dir", &data][..],
            &["--listen", &place.grpc, "--http-listen", &place.http, "--members", &members],
        ];
        self.spawn(&format!("old-{number}"), arguments.concat().into_iter().map(str::to_owned).collect())
    }

    /// Waits until a machine's node is ready; gives its status.
    async fn ready(&self, letter: char) -> Value {
        let http = self.places[&letter].http.clone();
        eventually(|| async { run(&["health", "ready", "--http", &http]).await.status.success().then_some(()) }).await;
        self.status(letter).await
    }

    /// A node's own status.
    async fn status(&self, letter: char) -> Value {
        let shown = run(&["admin", "status", "--json", "--endpoint", self.grpc(letter)]).await;
        assert!(shown.status.success(), "{}", errors(&shown));
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let nodes = shown["nodes"].as_array().unwrap();
        let mut members = nodes.iter().flat_map(|node| node["members"].as_array().into_iter().flatten());
        let own = members.find(|member| member["address"] == self.grpc(letter)).unwrap()["node"].clone();
        nodes.iter().find(|node| node["node"] == own).unwrap().clone()
    }

    fn commands_of_the_page(&self) -> BTreeSet<String> {
        PAGE.lines().filter(|line| line.starts_with("seriatim ")).map(str::to_owned).collect()
    }
}

async fn seriatim(arguments: Vec<String>) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    in_time(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

async fn run(arguments: &[&str]) -> Output {
    seriatim(arguments.iter().map(|argument| (*argument).to_owned()).collect()).await
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a node serves over HTTP, as the page fetches it.
fn served(http: &str, path: &str) -> Vec<u8> {
    assert!(PAGE.contains(&format!("curl -s http://a:7480{path} >head.json")), "the page fetches something else");
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    answer.split_off(body)
}

/// What `--json` says went wrong.
async fn fault(arguments: &[&str]) -> String {
    let refused = run(arguments).await;
    assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    said["fault"].as_str().unwrap().to_owned()
}

/// What a client was told, which has to hold for ever.
type Acknowledged = Vec<(SignedTransaction, Outcome)>;

async fn filling(client: &Client, outputs: usize) -> SignedTransaction {
    let mut transaction = client.begin().await.unwrap();
    for _ in 0..outputs {
        transaction.issue(asset(&key(1)), key(2).party(), Quantity::new(1));
    }
    transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap()
}

async fn acknowledged(client: &Client, transaction: SignedTransaction) -> (SignedTransaction, Outcome) {
    // where processes wait for a processor, a leader may change: what is unknown then is sent again, and happens once
    let known = |outcome: Outcome| (!matches!(outcome, Outcome::Unknown { .. })).then_some(outcome);
    let outcome = eventually(|| async { known(client.submit(&transaction).await) }).await;
    assert!(outcome.is_committed(), "{outcome:?}");
    (transaction, outcome)
}

/// Commits one transaction after another, until it is aborted.
fn load(client: Client) -> (Arc<Mutex<Acknowledged>>, tokio::task::JoinHandle<()>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let going = tokio::spawn(async move {
        loop {
            let transaction = issue(&client, &key(1), key(2).party(), 1).await;
            // what is refused or unknown while a node dies is sent again, so that all that happened is known
            let outcome = loop {
                let outcome = client.submit(&transaction).await;
                if outcome.is_committed() {
                    break outcome;
                }
            };
            kept.lock().unwrap().push((transaction, outcome));
        }
    });
    (told, going)
}

/// Two parties who settle a swap: 100 CASH for 5 BOND.
async fn settle(client: &Client, nonce: u64) {
    let (alice, bob) = (Account::open(client, key(11)).await.unwrap(), Account::open(client, key(12)).await.unwrap());
    let (cash, bond) = (alice.asset("CASH".parse().unwrap()), bob.asset("BOND".parse().unwrap()));
    for (party, asset, quantity) in [(&alice, cash, 100), (&bob, bond, 5)] {
        let issued = party.issue(asset.symbol, party.party(), Quantity::new(quantity)).await.unwrap();
        assert!(issued.is_committed(), "{issued:?}");
    }
    let leg = |payer, receiver, asset, units| Leg { payer, receiver, asset, quantity: Quantity::new(units) };
    let (a, b) = (alice.party(), bob.party());
    let terms = Terms { legs: vec![leg(a, b, cash, 100), leg(b, a, bond, 5)], nonce };
    let now = client.head(Consistency::Linearizable).await.unwrap().head.log_time;
    let expires = now.plus_millis(600_000);
    let (proposed, proposal) = alice.propose(&terms, expires).await.unwrap();
    assert!(proposed.is_committed(), "{proposed:?}");
    let settled = bob.settle(&proposal.unwrap()).await.unwrap();
    assert!(settled.is_committed(), "{settled:?}");
}

/// What a party holds of an asset, summed over all of its outputs, and how many these are.
async fn held(client: &Client, owner: &Party, asset: AssetType) -> (i128, usize) {
    let (mut sum, mut count, mut after) = (0, 0, None);
    loop {
        let page = in_time(client.holdings(owner, after.as_ref(), 1_000, Consistency::Linearizable)).await.unwrap();
        for output in &page.outputs {
            if let Contract::Position(position) = &output.contract
                && position.asset == asset
            {
                sum += position.quantity.minor_units();
                count += 1;
            }
        }
        after = page.next;
        if after.is_none() {
            return (sum, count);
        }
    }
}

fn sequence(outcome: &Outcome) -> ledger::Sequence {
    let Outcome::Committed { record, .. } = outcome else { panic!("{outcome:?}") };
    record.sequence
}

fn outputs_of(transaction: &SignedTransaction, told: &BTreeSet<ledger::TransactionId>) -> usize {
    if told.contains(&transaction.id()) { FILLING } else { 1 }
}

/// A backup whose node is killed in the middle: it fails, says what to do, and leaves none.
async fn break_a_backup_off(stage: &mut Stage, serving: Running) {
    let line = "seriatim admin backup /backups/tuesday --endpoint b:7400 --bytes-per-second 65536";
    let arguments = stage.arguments('d', line);
    let backup = Command::new(PROGRAM).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let files = stage.path("backups/tuesday/files");
    let begun = || async { fs::read_dir(&files).is_ok_and(|mut files| files.next().is_some()).then_some(()) };
    eventually(begun).await;
    drop(serving);
    let output = in_time(tokio::task::spawn_blocking(move || backup.wait_with_output().unwrap())).await.unwrap();
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broke off after") && said.contains("remove it and take the backup again"), "{said}");
    let place = stage.path("backups/tuesday").display().to_string();
    assert_eq!(fault(&["verify", "backup", &place, "--json"]).await, "Incomplete");
    let again = ["admin", "backup", &place, "--endpoint", stage.grpc('c'), "--json"];
    assert_eq!(fault(&again).await, "NotEmpty");
    fs::remove_dir_all(&place).unwrap();
}

/// From the backup to three nodes and a validator, as the page says.
async fn restore(stage: &mut Stage, head: &Head) -> Vec<Running> {
    let place = stage.path("backups/monday").display().to_string();
    let data = stage.places[&'d'].data.display().to_string();
    let with_number = |number: &'static str, data: &str| {
        ["restore", &place, "--cluster", LEDGER, "--id", number, "--advertise", "d:1", "--data-dir", data, "--json"]
            .map(str::to_owned)
    };
    for number in ["1", "2", "3"] {
        let refused = with_number(number, &data);
        assert_eq!(fault(&refused.iter().map(String::as_str).collect::<Vec<_>>()).await, "NumberUsed");
    }
    let refused = with_number("4", stage.directory.path().to_str().unwrap());
    assert_eq!(fault(&refused.iter().map(String::as_str).collect::<Vec<_>>()).await, "NotEmpty");
    let other =
        ["restore", &place, "--cluster", "another", "--id", "4", "--advertise", "d:1", "--data-dir", &data, "--json"];
    assert_eq!(fault(&other).await, "OtherLedger");

    let line =
        "seriatim restore /backups/monday --cluster venue --id 4 --advertise d:7400 --data-dir /var/lib/seriatim";
    let said = stage.done(line).await;
    assert!(said.contains(&head.hash().to_string()) && said.contains("seriatim node --id 4"), "{said}");

    let of_d = "seriatim node --cluster venue --id 4 --data-dir /var/lib/seriatim --listen 0.0.0.0:7400 --http-listen \
                0.0.0.0:7480 --advertise d:7400";
    let mut running = vec![stage.start('d', of_d)];
    let status = stage.ready('d').await;
    assert_eq!((status["node"].as_u64(), status["role"].as_str()), (Some(4), Some("leader")), "{status}");
    let shown = stage.done("seriatim admin status --endpoint d:7400").await;
    assert!(shown.contains("leader"), "{shown}");
    for (letter, node) in [('e', 5), ('f', 6)] {
        let line = format!(
            "seriatim node --cluster venue --id {node} --members 4=d:7400 --data-dir /var/lib/seriatim --listen \
             0.0.0.0:7400 --http-listen 0.0.0.0:7480 --advertise {letter}:7400"
        );
        running.push(stage.start(letter, &line));
        let joined = stage.done(&format!("seriatim admin join {node} {letter}:7400 --endpoint d:7400")).await;
        assert_eq!(joined, format!("node {node} votes\n"));
        stage.ready(letter).await;
    }
    let line = "seriatim validator --cluster venue --key-file validator.key --nodes d:7400,e:7400,f:7400 --listen \
                0.0.0.0:7500 --http-listen 0.0.0.0:7580 --advertise d:7500";
    running.push(stage.start('v', line));
    running
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_bring_a_ledger_back() {
    let mut stage = Stage::new();
    let mut old: Vec<Running> = (1..=3).map(|number| stage.start_old(number)).collect();
    let leads = |status: &Value| status["role"] == "leader";
    let mut led = Vec::new();
    for letter in "abc".chars() {
        led.push(leads(&stage.ready(letter).await));
    }
    // on the page nobody asks node a for a backup: here it is the one that leads
    let leader = led.iter().position(|leads| *leads).unwrap();
    let mut letters = ['a', 'b', 'c'];
    letters.swap(0, leader);
    let places: Vec<Place> = letters.iter().map(|letter| stage.places[letter].clone()).collect();
    stage.places.extend("abc".chars().zip(places));
    old.swap(0, leader);

    let validator_key = stage.path("validator.key").display().to_string();
    assert!(run(&["key", &validator_key]).await.status.success());
    let admit = ["admin", "add-validator", "--key-file", &validator_key, "--endpoint", stage.grpc('a')];
    eventually(|| async { run(&admit).await.status.success().then_some(()) }).await;
    let nodes = "abc".chars().map(|letter| stage.grpc(letter).to_owned()).collect::<Vec<_>>().join(",");
    let place = stage.places[&'v'].clone();
    let arguments =
        ["validator", "--cluster", LEDGER, "--key-file", &validator_key, "--nodes", &nodes, "--listen", &place.grpc];
    let arguments = [&arguments[..], &["--http-listen", &place.http]].concat();
    let validator = stage.spawn("old-validator", arguments.into_iter().map(str::to_owned).collect());

    let client = stage.client("abc");
    settle(&client, 1).await;
    let mut told = Acknowledged::new();
    for _ in 0..30 {
        told.push(acknowledged(&client, filling(&client, FILLING).await).await);
    }
    let large: BTreeSet<_> = told.iter().map(|(transaction, _)| transaction.id()).collect();
    fs::write(stage.path("head.json"), served(&stage.places[&'a'].http, "/v1/heads/latest")).unwrap();

    let (under_load, going) = load(client.clone());
    let so_far = || under_load.lock().unwrap().len();
    eventually(|| async { (so_far() > 5).then_some(()) }).await;
    let shown = stage.done("seriatim admin status --endpoint b:7400").await;
    assert!(shown.contains("follower"), "{shown}");
    let killed = old.remove(1);
    break_a_backup_off(&mut stage, killed).await;
    // the other follower is asked, as the page advises
    let (b, c) = (stage.places[&'b'].clone(), stage.places[&'c'].clone());
    stage.places.extend([('b', c), ('c', b)]);
    let before = so_far();
    eventually(|| async { (so_far() > before + 5).then_some(()) }).await;
    let said = stage.done("seriatim admin backup /backups/monday --endpoint b:7400").await;
    let before = so_far();
    eventually(|| async { (so_far() > before + 5).then_some(()) }).await;
    going.abort();
    drop(going.await);

    let manifest = fs::read(stage.path("backups/monday/manifest.json")).unwrap();
    let head = *node::backup::BackupManifest::read(&manifest).unwrap().head();
    assert!(said.contains(&head.hash().to_string()), "{said}");
    told.extend(under_load.lock().unwrap().drain(..));
    let (kept, lost): (Acknowledged, Acknowledged) =
        told.into_iter().partition(|(_, outcome)| sequence(outcome) < head.size);
    assert!(kept.len() > large.len() && lost.len() > 5, "the backup was taken under load");

    drop(old);
    drop(validator);
    drop(client);
    let verified = stage.done("seriatim verify backup /backups/monday --cluster venue").await;
    assert!(verified.contains("add up to the head") && verified.contains("used so far: 1, 2, 3"), "{verified}");
    stage.done("seriatim verify backup /backups/monday --cluster venue --head head.json").await;
    let mut new = restore(&mut stage, &head).await;

    let client = stage.client("def");
    // before anything is committed
    let expected: usize = kept.iter().map(|(transaction, _)| outputs_of(transaction, &large)).sum();
    let balance = held(&client, &key(2).party(), asset(&key(1))).await;
    assert_eq!(balance, (i128::try_from(expected).unwrap(), expected));
    for (transaction, outcome) in &kept {
        let again = in_time(client.submit(transaction)).await;
        let (Outcome::Committed { record, batch }, Outcome::Committed { record: first, batch: first_batch }) =
            (&again, outcome)
        else {
            panic!("{again:?} after {outcome:?}")
        };
        assert_eq!((record, batch), (first, first_batch), "sent again, it has its first outcome");
    }
    for (transaction, _) in &lost {
        let status = client.transaction(&transaction.id(), Consistency::Linearizable, false).await.unwrap();
        assert_eq!(status.sequenced, None, "it came after the backup");
    }
    assert_eq!(held(&client, &key(2).party(), asset(&key(1))).await, balance);
    let cash = AssetType { issuer: key(11).party(), symbol: "CASH".parse().unwrap() };
    assert_eq!(
        held(&client, &key(12).party(), cash).await,
        (100, 1),
        "the settlement from before the backup stands"
    );

    settle(&client, 2).await;
    assert_eq!(held(&client, &key(12).party(), cash).await.0, 200);
    for letter in "def".chars() {
        let own = stage.client(&letter.to_string());
        acknowledged(&own, issue(&own, &key(1), key(3).party(), 1).await).await;
    }
    let newest = client.head(Consistency::Linearizable).await.unwrap().head;
    for letter in "def".chars() {
        let own = stage.client(&letter.to_string());
        let at = in_time(own.head(Consistency::AtLeast(newest.size))).await.unwrap().head;
        assert_eq!((at.batch, at.hash()), (newest.batch, newest.hash()), "{letter}");
        let proof = own.consistency(head.size, newest.size).await.unwrap();
        let (old, new) = (&head.log_root, &newest.log_root);
        verify_consistency(head.size.get(), old, newest.size.get(), new, &proof.hashes).unwrap();
    }

    assert!(run(&["key", stage.path("new.key").to_str().unwrap()]).await.status.success());
    assert_eq!(stage.done("seriatim admin add-validator --key-file new.key --endpoint d:7400").await, "1 added\n");
    let members = stage.done("seriatim admin members --endpoint d:7400").await;
    assert_eq!(members.lines().count(), 1 + 3, "{members}");
    stage.done("seriatim admin backup /backups/new --endpoint e:7400").await;
    let place = stage.path("backups/new");
    let verified = run(&["verify", "backup", place.to_str().unwrap(), "--cluster", LEDGER]).await;
    assert!(verified.status.success(), "{}", errors(&verified));

    // it outlives the node that it was restored to
    drop(new.remove(0));
    let rest = stage.client("ef");
    acknowledged(&rest, issue(&rest, &key(1), key(3).party(), 1).await).await;
    assert_eq!(stage.ran, stage.commands_of_the_page(), "every command of the page was run");
}

fn begin_backup(stage: &Stage, letter: char, bytes_per_second: &str) -> (Child, PathBuf) {
    let place = stage.path(&format!("backups/{letter}"));
    let mut command = Command::new(PROGRAM);
    command.args(["admin", "backup", place.to_str().unwrap(), "--endpoint", stage.grpc(letter)]);
    command.args(["--bytes-per-second", bytes_per_second]).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command.spawn().unwrap(), place)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_breaks_off_its_own_backup_and_no_other() {
    let stage = Stage::new();
    let mut nodes: BTreeMap<char, Running> =
        "abc".chars().zip(1..).map(|(letter, number)| (letter, stage.start_old(number))).collect();
    let mut leader = 'a';
    for letter in "abc".chars() {
        if stage.ready(letter).await["role"] == "leader" {
            leader = letter;
        }
    }
    let follower = nodes.keys().copied().find(|letter| *letter != leader).unwrap();
    let client = stage.client("abc");
    for _ in 0..20 {
        acknowledged(&client, filling(&client, FILLING).await).await;
    }
    let head_file = stage.path("head.json");
    fs::write(&head_file, served(&stage.places[&follower].http, "/v1/heads/latest")).unwrap();

    let (under_load, going) = load(client.clone());
    let so_far = || under_load.lock().unwrap().len();
    eventually(|| async { (so_far() > 5).then_some(()) }).await;
    let taking = [begin_backup(&stage, leader, "65536"), begin_backup(&stage, follower, "1048576")];
    for (_, place) in &taking {
        let files = place.join("files");
        eventually(|| async { fs::read_dir(&files).is_ok_and(|mut files| files.next().is_some()).then_some(()) }).await;
    }
    drop(nodes.remove(&leader).unwrap());
    let before = so_far();
    eventually(|| async { (so_far() > before + 5).then_some(()) }).await;
    let mut ended = Vec::new();
    for (process, place) in taking {
        let waited = tokio::task::spawn_blocking(move || process.wait_with_output().unwrap());
        ended.push((in_time(waited).await.unwrap(), place));
    }
    let (broken, place) = &ended[0];
    assert!(errors(broken).contains("broke off after"), "{}", errors(broken));
    assert_eq!(fault(&["verify", "backup", place.to_str().unwrap(), "--json"]).await, "Incomplete");
    let (whole, place) = &ended[1];
    assert!(whole.status.success(), "{}", errors(whole));
    let head_file = head_file.display().to_string();
    let verify =
        |place: &PathBuf| ["verify", "backup", place.to_str().unwrap(), "--head", &head_file].map(str::to_owned);
    let verified = seriatim(verify(place).to_vec()).await;
    assert!(verified.status.success(), "{}", errors(&verified));
    // those that are left, one of which leads now, send one at full speed under the same load
    for letter in nodes.keys() {
        let place = stage.path(&format!("backups/{letter}-again"));
        let before = so_far();
        let taken = run(&["admin", "backup", place.to_str().unwrap(), "--endpoint", stage.grpc(*letter)]).await;
        assert!(taken.status.success(), "{}", errors(&taken));
        eventually(|| async { (so_far() > before + 5).then_some(()) }).await;
        let verified = seriatim(verify(&place).to_vec()).await;
        assert!(verified.status.success(), "{}", errors(&verified));
    }
    going.abort();
    drop(going.await);
}
