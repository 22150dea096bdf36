//! The runbook of backups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use client::{Account, Client, Consistency, Outcome, SignedTransaction};
use ledger::merkle::verify_consistency;
use ledger::{AssetType, Head, Leg, Quantity, Terms};
use serde_json::Value;

use crate::clients::{asset, eventually, in_time, issue, key};
use crate::load::{Acknowledged, Load, acknowledged, all_stands, held};
use crate::stage::{LEDGER, PROGRAM, Place, Running, Stage, errors, run, seriatim, served};

const PAGE: &str = include_str!("../../../docs/runbooks/backup-and-restore.md");
/// Outputs of one transaction that fills the ledger.
const FILLING: usize = 400;

/// What `--json` says went wrong.
async fn fault(arguments: &[&str]) -> String {
    let refused = run(arguments).await;
    assert_eq!(refused.status.code(), Some(1), "{arguments:?}");
    let said: Value = serde_json::from_slice(&refused.stdout).unwrap();
    said["fault"].as_str().unwrap().to_owned()
}

async fn filling(client: &Client, outputs: usize) -> SignedTransaction {
    let mut transaction = client.begin().await.unwrap();
    for _ in 0..outputs {
        transaction.issue(asset(&key(1)), key(2).party(), Quantity::new(1));
    }
    transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap()
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
    let refused = with_number("4", stage.path("backups").to_str().unwrap());
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
    let mut stage = Stage::new(PAGE);
    let mut old: Vec<Running> = (1..=3).map(|number| stage.start_first(number, &[])).collect();
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
    stage.fetched("curl -s http://a:7480/v1/heads/latest >head.json").await;

    let load = Load::begin(client.clone());
    load.goes_on().await;
    let shown = stage.done("seriatim admin status --endpoint b:7400").await;
    assert!(shown.contains("follower"), "{shown}");
    let killed = old.remove(1);
    break_a_backup_off(&mut stage, killed).await;
    // the other follower is asked, as the page advises
    let (b, c) = (stage.places[&'b'].clone(), stage.places[&'c'].clone());
    stage.places.extend([('b', c), ('c', b)]);
    load.goes_on().await;
    let said = stage.done("seriatim admin backup /backups/monday --endpoint b:7400").await;
    load.goes_on().await;
    told.extend(load.end().await);

    let manifest = fs::read(stage.path("backups/monday/manifest.json")).unwrap();
    let head = *node::backup::BackupManifest::read(&manifest).unwrap().head();
    assert!(said.contains(&head.hash().to_string()), "{said}");
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
    all_stands(&client, &kept).await;
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
    stage.all_ran();
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
    let stage = Stage::new(PAGE);
    let mut nodes: BTreeMap<char, Running> =
        "abc".chars().zip(1..).map(|(letter, number)| (letter, stage.start_first(number, &[]))).collect();
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
    fs::write(&head_file, served(&stage.places[&follower].http, "/v1/heads/latest").unwrap()).unwrap();

    let load = Load::begin(client.clone());
    load.goes_on().await;
    let taking = [begin_backup(&stage, leader, "65536"), begin_backup(&stage, follower, "1048576")];
    for (_, place) in &taking {
        let files = place.join("files");
        eventually(|| async { fs::read_dir(&files).is_ok_and(|mut files| files.next().is_some()).then_some(()) }).await;
    }
    drop(nodes.remove(&leader).unwrap());
    load.goes_on().await;
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
        let taken = run(&["admin", "backup", place.to_str().unwrap(), "--endpoint", stage.grpc(*letter)]).await;
        assert!(taken.status.success(), "{}", errors(&taken));
        load.goes_on().await;
        let verified = seriatim(verify(&place).to_vec()).await;
        assert!(verified.status.success(), "{}", errors(&verified));
    }
    drop(load.end().await);
}
