//! The runbook of members: nodes that are killed while the cluster forms, grows, shrinks and mends.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use client::Client;
use proto::wire;
use proto::wire::admin_client::AdminClient;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::clients::{asset, commit_something, eventually, in_time, issue, key};
use crate::load::{Load, acknowledged, agree, all_stands};
use crate::stage::{Running, Stage, errors, run};

const PAGE: &str = include_str!("../../../docs/runbooks/members.md");
/// A log of so many bytes loses its beginning: whoever comes later needs a snapshot.
const SHORT_LOG: [&str; 2] = ["--log-bytes-max", "500000"];

/// What a machine's node says of itself; nothing where it does not answer.
async fn health(stage: &Stage, letter: char) -> String {
    let said = run(&["health", "ready", "--http", &stage.places[&letter].http]).await;
    String::from_utf8(said.stdout).unwrap()
}

fn first(number: usize) -> String {
    format!(
        "seriatim node --initialize --cluster venue --id {number} --members 1=a:7400,2=b:7400,3=c:7400 --data-dir \
         /var/lib/seriatim --listen 0.0.0.0:7400 --http-listen 0.0.0.0:7480"
    )
}

fn later(number: usize, host: char) -> String {
    format!(
        "seriatim node --cluster venue --id {number} --members 1=a:7400,2=b:7400,3=c:7400 --advertise {host}:7400 \
         --data-dir /var/lib/seriatim --listen 0.0.0.0:7400 --http-listen 0.0.0.0:7480"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_form_grow_mend_and_shrink_a_cluster() {
    let mut stage = Stage::patient(PAGE);
    let mut nodes: BTreeMap<char, Running> =
        ('a'..='c').zip(1..).map(|(host, number)| (host, stage.start(host, &first(number)))).collect();
    for host in 'a'..='c' {
        stage.done_on(host, "seriatim health ready --http 127.0.0.1:7480 --within 2min").await;
    }
    eventually(|| async {
        let members = run(&["admin", "members", "--json", "--endpoint", stage.grpc('a')]).await;
        let members: serde_json::Value = serde_json::from_slice(&members.stdout).ok()?;
        let listed = members["members"].as_array()?.clone();
        (listed.len() == 3 && listed.iter().all(|member| member["key"].is_string())).then_some(())
    })
    .await;
    let members = stage.done("seriatim admin members --endpoint a:7400").await;
    assert_eq!(members.lines().count(), 1 + 3, "{members}");
    let load = Load::begin(stage.client("abc"));
    load.goes_on().await;

    // three to five
    nodes.insert('d', stage.start('d', &later(4, 'd')));
    let said = stage.done("seriatim admin join 4 d:7400 --endpoint a:7400,b:7400,c:7400").await;
    assert_eq!(said, "node 4 votes\n");
    nodes.insert('e', stage.start('e', &later(5, 'e')));
    stage.done("seriatim admin add-learner 5 e:7400 --endpoint a:7400,b:7400,c:7400").await;
    eventually(|| async { (health(&stage, 'e').await == "learner\n").then_some(()) }).await;
    let shown = stage.done("seriatim admin status --endpoint a:7400").await;
    assert!(shown.contains("learner"), "{shown}");
    stage.done_in_the_end("seriatim admin promote 5 --endpoint a:7400,b:7400,c:7400").await;
    stage.ready('e').await;
    load.goes_on().await;

    let lost = lose_a_disk(&mut stage, &mut nodes, &load).await;
    the_old_disk_turns_up(&stage, &lost, &load).await;

    let said = stage.done("seriatim admin remove 5 --endpoint a:7400,b:7400,c:7400").await;
    assert!(said.contains("no member any more"), "{said}");
    eventually(|| async { (!stage.is_ready('e').await).then_some(()) }).await;
    drop(nodes.remove(&'e'));
    // numbers that were used: of a removed node, and of one whose disk was lost
    for number in ["5", "2"] {
        let refused = run(&["admin", "add-learner", number, "f:7400", "--endpoint", stage.grpc('a')]).await;
        assert!(errors(&refused).contains("take one that was never used"), "{}", errors(&refused));
    }
    assert_eq!(stage.voters('a').await, [1, 3, 4, 6]);
    load.goes_on().await;
    let told = load.end().await;
    all_stands(&stage.client("abcd"), &told).await;
    agree(&stage, "abcd").await;
    stage.all_ran();
}

/// Node 2's disk is taken away and its node replaced, as the page says; gives where the disk is.
async fn lose_a_disk(stage: &mut Stage, nodes: &mut BTreeMap<char, Running>, load: &Load) -> String {
    // killed in the middle of what it does
    drop(nodes.remove(&'b'));
    let lost = stage.path("lost");
    fs::rename(&stage.places[&'b'].data, &lost).unwrap();
    let refused = stage.run_on('b', &first(2)).await;
    assert_eq!(refused.status.code(), Some(1), "{}", errors(&refused));
    assert!(errors(&refused).contains("its disk was lost"), "{}", errors(&refused));
    load.goes_on().await;
    stage.done("seriatim admin remove 2 --endpoint a:7400,c:7400").await;
    nodes.insert('b', stage.start('b', &later(6, 'b')));
    let said = stage.done("seriatim admin join 6 b:7400 --endpoint a:7400,c:7400").await;
    assert_eq!(said, "node 6 votes\n");
    stage.ready('b').await;
    load.goes_on().await;
    lost.display().to_string()
}

/// The node that was replaced comes back with all that it had, at another address.
async fn the_old_disk_turns_up(stage: &Stage, lost: &str, load: &Load) {
    let term = async || stage.status('a').await["term"].as_u64().unwrap();
    let before = term().await;
    let place = &stage.places[&'f'];
    let arguments = [
        ["node", "--cluster", crate::stage::LEDGER].as_slice(),
        &["--id", "2", "--data-dir", lost, "--listen", &place.grpc, "--http-listen", &place.http],
    ];
    let old = stage.spawn("old", arguments.concat().into_iter().map(str::to_owned).collect());
    eventually(|| async { (health(stage, 'f').await == "no leader\n").then_some(()) }).await;
    load.goes_on().await;
    // while others elect, too
    let to = if stage.status('c').await["role"] == "leader" { "4" } else { "3" };
    let moved = run(&["admin", "transfer-leader", to, "--endpoint", stage.grpc('a')]).await;
    assert!(moved.status.success(), "{}", errors(&moved));
    load.goes_on().await;
    assert_eq!(health(stage, 'f').await, "no leader\n");
    assert!(term().await <= before + 1, "it deposed somebody");
    assert!(!stage.voters('a').await.contains(&2));
    drop(old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_is_interrupted_is_repeated_and_forms_one_cluster() {
    let stage = Stage::patient(PAGE);
    // the first two are killed once the first of them has begun to write, and once more when it takes part
    let early = || (1..=2).map(|number| stage.start_first(number, &[])).collect::<Vec<Running>>();
    let begun = early();
    let log = stage.places[&'a'].data.join("log");
    eventually(|| async { log.exists().then_some(()) }).await;
    drop(begun);
    let begun = early();
    let place = &stage.places[&'a'].http;
    let started = || async { run(&["health", "startup", "--http", place]).await.status.success().then_some(()) };
    eventually(started).await;
    drop(begun);
    let start = || (1..=3).map(|number| stage.start_first(number, &[])).collect::<Vec<_>>();
    let nodes = start();
    for letter in "abc".chars() {
        stage.ready(letter).await;
        assert_eq!(stage.voters(letter).await, [1, 2, 3]);
    }
    let mut told = Vec::new();
    for letter in "abc".chars() {
        let own = stage.client(&letter.to_string());
        told.push(acknowledged(&own, issue(&own, &key(1), key(2).party(), 1).await).await);
    }
    agree(&stage, "abc").await;
    drop(nodes);
    // and all of them again, with the same commands
    let _nodes = start();
    for letter in "abc".chars() {
        stage.ready(letter).await;
    }
    all_stands(&stage.client("abc"), &told).await;
    agree(&stage, "abc").await;
}

/// Puts some megabytes into the ledger.
async fn fill(client: &Client) {
    for _ in 0..60 {
        let mut transaction = client.begin().await.unwrap();
        for _ in 0..500 {
            transaction.issue(asset(&key(1)), key(2).party(), ledger::Quantity::new(1));
        }
        let filling = transaction.prepare().unwrap().sign(&key(1)).unwrap().finish().unwrap();
        acknowledged(client, filling).await;
    }
}

/// `admin join` under way: the process, and its words one by one.
struct Joining {
    process: Child,
    words: BufReader<std::process::ChildStderr>,
}

impl Joining {
    fn begin(stage: &Stage, number: &str, host: char, endpoints: &str) -> Self {
        let endpoints: Vec<&str> = endpoints.chars().map(|letter| stage.grpc(letter)).collect();
        let arguments = ["admin", "join", number, stage.grpc(host), "--endpoint", &endpoints.join(",")];
        let mut command = stage.command(arguments.map(str::to_owned).to_vec());
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let words = BufReader::new(process.stderr.take().unwrap());
        Self { process, words }
    }

    /// Waits until it says that the node was added.
    async fn added(mut self) -> Self {
        let read = spawn_blocking(move || {
            let mut line = String::new();
            self.words.read_line(&mut line).unwrap();
            assert!(line.contains("it votes once it is promoted"), "{line}");
            self
        });
        in_time(read).await.unwrap()
    }

    /// Waits until it ends; the rest of its words is read meanwhile.
    async fn ended(self) -> Output {
        let Self { mut process, words } = self;
        let ended = spawn_blocking(move || {
            process.stderr = Some(words.into_inner());
            process.wait_with_output().unwrap()
        });
        in_time(ended).await.unwrap()
    }
}

/// Whether a snapshot is coming in at a node, or was when it was killed.
fn receives_a_snapshot(data: &Path) -> bool {
    let is_partial =
        |entry: fs::DirEntry| entry.path().is_dir() && entry.file_name().to_string_lossy().ends_with(".partial");
    fs::read_dir(data.join("ledger")).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(is_partial)))
}

/// Kills a node as soon as a snapshot comes in.
fn killed_in_a_snapshot(data: PathBuf, node: Running) -> JoinHandle<()> {
    spawn_blocking(move || {
        while !receives_a_snapshot(&data) {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(node);
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_is_killed_while_it_catches_up_goes_on_and_the_same_command_gives_it_its_vote() {
    let stage = Stage::patient(PAGE);
    let _first: Vec<Running> = (1..=3).map(|number| stage.start_first(number, &SHORT_LOG)).collect();
    stage.led("abc").await;
    let client = stage.client("abc");
    fill(&client).await;
    for letter in "abc".chars() {
        eventually(|| async { stage.status(letter).await["purged_index"].as_u64().filter(|index| *index > 0) }).await;
    }
    let load = Load::begin(client.clone());
    load.goes_on().await;

    let data = stage.places[&'d'].data.clone();
    let killed = killed_in_a_snapshot(data.clone(), stage.start_node('d', 4, &["node"]));
    let joining = Joining::begin(&stage, "4", 'd', "abc").added().await;
    in_time(killed).await.unwrap();
    assert!(receives_a_snapshot(&data), "it was killed in the middle");
    assert!(!stage.voters('a').await.contains(&4), "it had not caught up");
    load.goes_on().await;
    let _learner = stage.start_node('d', 4, &["node"]);
    let joined = joining.ended().await;
    assert!(joined.status.success(), "{}", errors(&joined));
    stage.ready('d').await;
    assert_eq!(stage.voters('a').await, [1, 2, 3, 4]);
    let told = load.end().await;
    all_stands(&stage.client("d"), &told).await;
    agree(&stage, "abcd").await;
}

/// Waits, closely, until a node counts another among the voters, be that committed or not.
async fn counts(stage: &Stage, letter: char, node: u64) {
    let admin = AdminClient::connect(format!("http://{}", stage.grpc(letter))).await.unwrap();
    let looking = async {
        loop {
            let status = admin.clone().get_status(wire::GetStatusRequest {}).await.unwrap().into_inner();
            if status.members.iter().any(|member| member.node == node && member.voter) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    in_time(looking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_during_a_promotion_leaves_it_to_the_next_one() {
    let stage = Stage::new(PAGE);
    let mut nodes: Vec<(char, usize, Running)> =
        "abc".chars().zip(1..).map(|(letter, number)| (letter, number, stage.start_first(number, &[]))).collect();
    stage.led("abc").await;
    let load = Load::begin(stage.client("abc"));
    load.goes_on().await;
    for (number, host, letters) in [(4, 'd', "abc"), (5, 'e', "abcd")] {
        let leader = stage.led(letters).await;
        nodes.push((host, number, stage.start_node(host, number, &["node"])));
        let joining = Joining::begin(&stage, &number.to_string(), host, letters).added().await;
        if number == 5 {
            // the first time at once, and the second time in the middle of the change, or right behind it
            counts(&stage, leader, 5).await;
        }
        let position = nodes.iter().position(|(letter, _, _)| *letter == leader).unwrap();
        let (_, killed, process) = nodes.remove(position);
        drop(process);
        let joined = joining.ended().await;
        assert!(joined.status.success(), "{}", errors(&joined));
        load.goes_on().await;
        let arguments: &[&str] = if killed <= 3 { &["node", "--initialize"] } else { &["node"] };
        nodes.push((leader, killed, stage.start_node(leader, killed, arguments)));
        for letter in letters.chars().chain([host]) {
            stage.ready(letter).await;
        }
        let expected: Vec<u64> = (1..=u64::try_from(number).unwrap()).collect();
        for letter in letters.chars().chain([host]) {
            eventually(|| async { (stage.voters(letter).await == expected).then_some(()) }).await;
        }
    }
    let told = load.end().await;
    all_stands(&stage.client("abcde"), &told).await;
    commit_something(&stage.client("e")).await;
    agree(&stage, "abcde").await;
}

/// The last entry of a node's own log.
async fn last_of_the_log(stage: &Stage, letter: char) -> u64 {
    let mut admin = AdminClient::connect(format!("http://{}", stage.grpc(letter))).await.unwrap();
    in_time(admin.get_status(wire::GetStatusRequest {})).await.unwrap().into_inner().last_log_index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_during_a_removal_leaves_it_to_the_next_one() {
    let stage = Stage::patient(PAGE);
    let mut nodes: BTreeMap<char, (usize, Running)> =
        "abc".chars().zip(1..).map(|(letter, number)| (letter, (number, stage.start_first(number, &[])))).collect();
    stage.led("abc").await;
    nodes.insert('d', (4, stage.start_node('d', 4, &["node"])));
    let joined = Joining::begin(&stage, "4", 'd', "abc").ended().await;
    assert!(joined.status.success(), "{}", errors(&joined));
    let leader = stage.led("abcd").await;
    let load = Load::begin(stage.client("abcd"));
    load.goes_on().await;
    // nobody submits in the middle, so that what is new in the leader's log is the change
    let mut told = load.end().await;
    let others: Vec<char> = nodes.keys().copied().filter(|letter| *letter != leader).collect();
    let [leaves, stay @ ..] = others.as_slice() else { panic!("{others:?}") };
    let number = nodes[leaves].0.to_string();
    let before = last_of_the_log(&stage, leader).await;

    // with two of four voters nothing is committed, so the command cannot end
    stay.iter().for_each(|letter| nodes[letter].1.pause());
    let everywhere = "abcd".chars().map(|letter| stage.grpc(letter).to_owned()).collect::<Vec<_>>().join(",");
    let (at_the_leader, removed) = (stage.grpc(leader).to_owned(), number.clone());
    let removing = tokio::spawn(async move { run(&["admin", "remove", &removed, "--endpoint", &at_the_leader]).await });
    eventually(|| async { (last_of_the_log(&stage, leader).await > before).then_some(()) }).await;
    assert!(!removing.is_finished(), "the leader is killed in the middle");
    let (killed, process) = nodes.remove(&leader).unwrap();
    drop(process);
    stay.iter().for_each(|letter| nodes[letter].1.resume());
    let ended = removing.await.unwrap();
    assert!(!ended.status.success(), "whoever was asked is dead");
    let again = ["admin", "remove", &number, "--endpoint", &everywhere];
    eventually(|| async { run(&again).await.status.success().then_some(()) }).await;
    let load = Load::begin(stage.client(&stay.iter().collect::<String>()));
    load.goes_on().await;
    drop(nodes.remove(leaves));

    let arguments: &[&str] = if killed <= 3 { &["node", "--initialize"] } else { &["node"] };
    nodes.insert(leader, (killed, stage.start_node(leader, killed, arguments)));
    let expected: Vec<u64> = nodes.values().map(|(number, _)| u64::try_from(*number).unwrap()).collect();
    let left: String = nodes.keys().collect();
    for letter in left.chars() {
        stage.ready(letter).await;
        eventually(|| async { (stage.voters(letter).await == expected).then_some(()) }).await;
    }
    load.goes_on().await;
    told.extend(load.end().await);
    all_stands(&stage.client(&left), &told).await;
    agree(&stage, &left).await;
}
