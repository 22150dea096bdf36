//! The command line as its users meet it.

use std::process::{Command, Output};

use ledger::ClusterId;
use serde_json::Value;

use crate::support::{CLUSTER, Cluster, commit, eventually, issue, key};

fn seriatim(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seriatim"));
    command.args(arguments);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

pub(crate) async fn run(arguments: &[&str]) -> Output {
    let mut command = seriatim(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[test]
fn pages_that_the_command_line_makes_are_up_to_date() {
    for (what, page) in [("--all", "errors.md"), ("--settings", "configuration.md")] {
        let made = text(&seriatim(&["explain", what, "--markdown"]).output().unwrap());
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(made, kept, "run: seriatim explain {what} --markdown > docs/{page}");
    }
}

#[test]
fn every_role_has_its_settings_listed() {
    let listed = seriatim(&["explain", "--settings", "--json"]).output().unwrap();
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&listed.stdout).unwrap();
    let keys = |role: &str| listed.iter().filter(|each| each["role"] == role).count();
    assert!(keys("node") > 10 && keys("validator") > 5 && keys("prover") > 5, "{listed:?}");
}

#[test]
fn a_number_or_a_name_is_explained_and_a_wrong_one_helped() {
    let by_number = seriatim(&["explain", "206"]).output().unwrap();
    assert_eq!(text(&by_number), text(&seriatim(&["explain", "inputspent"]).output().unwrap()));
    let wrong = seriatim(&["explain", "9999"]).output().unwrap();
    assert!(!wrong.status.success() && errors(&wrong).contains("explain --all"));
}

#[test]
fn a_flag_prevails_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("node.toml");
    std::fs::write(&file, "cluster = \"file\"\nid = 3").unwrap();
    let file = file.to_str().unwrap();
    let config = ["--config", file];
    for (flag, environment, with_file, expected) in [
        (Some("flag"), Some("environment"), true, Some("flag")),
        (None, Some("environment"), true, Some("environment")),
        (None, None, true, Some("file")),
        (Some("flag"), None, false, Some("flag")),
        (None, None, false, None),
    ] {
        let mut command = seriatim(&["node", "--print-config"]);
        command.env_remove("SERIATIM_CLUSTER");
        if with_file {
            command.args(config);
        }
        if let Some(flag) = flag {
            command.args(["--cluster", flag]);
        }
        if let Some(environment) = environment {
            command.env("SERIATIM_CLUSTER", environment);
        }
        let printed: toml::Table = text(&command.output().unwrap()).parse().unwrap();
        assert_eq!(printed.get("cluster").and_then(|cluster| cluster.as_str()), expected);
        assert_eq!(printed.contains_key("id"), with_file);
    }
}

#[test]
fn configuration_that_cannot_be_is_refused_with_advice() {
    let refused = seriatim(&["node", "--id", "4", "--members", "1=a:1,2=b:2"]).output().unwrap();
    assert!(!refused.status.success() && errors(&refused).contains("does not list this node"));
    let refused = seriatim(&["validator", "--listen", "0.0.0.0:0"]).output().unwrap();
    assert!(!refused.status.success() && errors(&refused).contains("--advertise"));
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(text(&seriatim(&["completions", shell]).output().unwrap()).contains("seriatim"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_the_cluster_and_change_it() {
    let cluster = Cluster::start(3).await;
    let endpoint = cluster.address(cluster.follower().await);
    let at = ["--endpoint", "127.0.0.1:1", "--endpoint", endpoint.as_str()];
    let shown = run(&[&["admin", "status"][..], &at].concat()).await;
    assert!(shown.status.success() && text(&shown).lines().filter(|line| line.contains("ready")).count() == 3);
    let seen = run(&[&["admin", "members", "--json"][..], &at].concat()).await;
    let members: Value = serde_json::from_str(&text(&seen)).unwrap();
    assert_eq!(members["members"].as_array().unwrap().len(), 3);
    let validator = key(7).party().to_string();
    let added = run(&[&["admin", "add-validator", &validator][..], &at].concat()).await;
    assert_eq!(text(&added), "1 added\n");
    let refused = run(&[&["admin", "require-certificates", "50", "--json"][..], &at].concat()).await;
    let problem: Value = serde_json::from_str(&text(&refused)).unwrap();
    assert!(!refused.status.success() && problem["code"] == 310 && errors(&refused).contains("What to do:"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_asked_how_it_is_and_joins_in_one_step() {
    let mut cluster = Cluster::start(3).await;
    cluster.start_node(4).await;
    let http = cluster.http(4).trim_start_matches("http://").to_owned();
    let told = |probe: &'static str, http: String| async move {
        let asked = run(&["health", probe, "--http", &http]).await;
        (asked.status.code(), text(&asked).trim().to_owned())
    };
    for (probe, code) in [("live", 0), ("startup", 0), ("ready", 1)] {
        assert_eq!(told(probe, http.clone()).await, (Some(code), "not initialized".to_owned()), "{probe}");
    }
    let (endpoint, address) = (cluster.address(1), cluster.address(4));
    let join = ["admin", "join", "4", address.as_str(), "--endpoint", endpoint.as_str()];
    for _again in 0..2 {
        let joined = run(&join).await;
        assert_eq!(text(&joined), "node 4 votes\n", "{}", errors(&joined));
    }
    eventually(|| async { (told("ready", http.clone()).await == (Some(0), "ready".to_owned())).then_some(()) }).await;
    let silent = run(&["health", "--http", "127.0.0.1:1"]).await;
    assert!(silent.status.code() == Some(1) && errors(&silent).contains("nothing serves HTTP at 127.0.0.1:1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_processes_are_made_once_and_let_in_by_their_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys/validator.key");
    let file = file.to_str().unwrap();
    let made = text(&run(&["key", file]).await);
    assert_eq!((made.len(), made == text(&run(&["key", file]).await)), (65, true));

    let cluster = Cluster::start(1).await;
    let endpoint = cluster.address(1);
    for (set, said) in
        [("add-validator", "1 added\n"), ("add-validator", "nothing to change\n"), ("add-prover", "1 added\n")]
    {
        let admitted = run(&["admin", set, "--key-file", file, "--endpoint", endpoint.as_str()]).await;
        assert_eq!(text(&admitted), said, "{}", errors(&admitted));
    }
    let configured = cluster.node(1).replica().state().configuration();
    let party = made.trim().parse().unwrap();
    assert!(configured.validators.keys.contains(&party) && configured.provers.keys.contains(&party));
    let missing = run(&["admin", "add-validator", "--key-file", "/nowhere", "--endpoint", endpoint.as_str()]).await;
    assert!(!missing.status.success() && errors(&missing).contains("/nowhere"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_verified_offline_in_every_form() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let transaction = issue(&client, &key(1), key(2).party(), 100).await;
    commit(&client, &transaction).await;
    let keys = cluster.node_keys();
    let receipt = eventually(|| async {
        let receipt = client.receipt(&transaction.id()).await.unwrap();
        receipt.verify(&ClusterId::of_name(CLUSTER), &keys, 3).is_ok().then_some(receipt)
    })
    .await;
    drop(cluster);

    let directory = tempfile::tempdir().unwrap();
    let bytes = ledger::identifier::canonical_bytes(&receipt);
    let forms: [(&str, Vec<u8>); 3] = [
        ("bytes", bytes.clone()),
        ("hex", hex::encode(&bytes).into_bytes()),
        ("json", node::json::receipt(&receipt).to_string().into_bytes()),
    ];
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    for (name, content) in forms {
        let file = directory.path().join(name);
        std::fs::write(&file, content).unwrap();
        let file = file.to_str().unwrap();
        let verify = ["verify", "receipt", file, "--cluster", CLUSTER, "--node-key", &keys.join(","), "--require", "3"];
        let proved = run(&verify).await;
        assert!(
            proved.status.success() && text(&proved).contains(&transaction.id().to_string()),
            "{}",
            errors(&proved)
        );
        let other = ["verify", "receipt", file, "--cluster", "another", "--node-key", &keys[0], "--json"];
        let refused = run(&other).await;
        let verdict: Value = serde_json::from_str(&text(&refused)).unwrap();
        assert!(!refused.status.success() && verdict["valid"] == false);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alice_and_bob_swap_from_the_command_line() {
    let cluster = Cluster::start(1).await;
    let directory = tempfile::tempdir().unwrap();
    let endpoint = cluster.address(1);
    let wallet = async |name: &str, command: &[&str]| {
        let file = directory.path().join(name);
        let begin = ["wallet", "--key", file.to_str().unwrap(), "--endpoint", endpoint.as_str()];
        let done = run(&[&begin[..], command].concat()).await;
        assert!(done.status.success(), "{command:?}: {}", errors(&done));
        text(&done).trim().to_owned()
    };
    let (alice, bob) = (wallet("alice", &["keygen"]).await, wallet("bob", &["keygen"]).await);
    assert_eq!(wallet("alice", &["address"]).await, alice);
    wallet("alice", &["issue", "CASH", "1000"]).await;
    wallet("bob", &["issue", "BOND", "50"]).await;
    let (cash, bond) = (format!("CASH@{alice}"), format!("BOND@{bob}"));
    wallet("alice", &["propose", &bob, "100", "CASH", "5", &bond]).await;
    let proposals: Value = serde_json::from_str(&wallet("bob", &["list-proposals", "--json"]).await).unwrap();
    let terms = proposals[0]["terms"]["id"].as_str().unwrap();
    wallet("bob", &["accept", terms]).await;
    wallet("alice", &["propose", &bob, "900", "CASH", "5", &bond]).await;
    let proposals: Value = serde_json::from_str(&wallet("alice", &["proposals", "--json"]).await).unwrap();
    wallet("alice", &["withdraw", proposals[0]["terms"]["id"].as_str().unwrap()]).await;
    wallet("bob", &["transfer", &alice, "30", &cash]).await;

    let balance: Value = serde_json::from_str(&wallet("alice", &["balance", "--json"]).await).unwrap();
    let free = |asset: &str| {
        let rows = balance.as_array().unwrap();
        rows.iter().find(|row| row["asset"] == asset).unwrap()["free"].clone()
    };
    assert_eq!((free(&cash), free(&bond)), ("930".into(), "5".into()));
    let history: Value = serde_json::from_str(&wallet("alice", &["history", "--json"]).await).unwrap();
    let net = |line: &Value| {
        let mut moved = line["net"].as_array().unwrap().iter();
        moved.find(|moved| moved["asset"] == cash).unwrap()["quantity"].as_str().unwrap().to_owned()
    };
    let nets: Vec<String> = history.as_array().unwrap().iter().map(net).collect();
    // issued, locked, settled, locked, withdrawn, received
    assert_eq!(nets, ["1000", "0", "-100", "0", "0", "30"]);
}
