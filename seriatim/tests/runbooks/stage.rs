//! The machines of a page on this one, and its commands as they stand there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::clients::{eventually, in_time};

pub(crate) const LEDGER: &str = "venue";
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_seriatim");
/// The shortest silence of a leader after which a patient node begins an election.
const ELECTION_TIMEOUT_MIN_MS: u64 = 3_000;
pub(crate) const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(ELECTION_TIMEOUT_MIN_MS);
/// The longest one: `node/src/roles/node.rs` makes it of the shortest.
pub(crate) const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(ELECTION_TIMEOUT_MIN_MS * 16 / 13);
/// Nodes, and a validator.
const LETTERS: &str = "abcdefv";

/// Where a machine of the page is on this one.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) grpc: String,
    pub(crate) http: String,
    pub(crate) data: PathBuf,
}

/// A process, killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    /// Has it stand still, connections open, until it is let go on or killed.
    pub(crate) fn pause(&self) {
        kill_process(Pid::from_child(&self.0), Signal::STOP).unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(Pid::from_child(&self.0), Signal::CONT).unwrap();
    }

    /// Has it stop in order, as whoever runs services does; it has to succeed.
    pub(crate) async fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || self.0.wait().unwrap());
        let status = in_time(ended).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The machines of a page, by their letters.
pub(crate) struct Stage {
    page: &'static str,
    directory: TempDir,
    pub(crate) places: BTreeMap<char, Place>,
    /// What every process finds in its environment.
    environment: Vec<(&'static str, String)>,
    /// What else stands for something on the page, and for what.
    pub(crate) words: Vec<(&'static str, String)>,
    pub(crate) ran: BTreeSet<String>,
}

impl Stage {
    pub(crate) fn new(page: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners = free_ports(2 * LETTERS.len());
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
        let place = |(letter, pair): (char, &[String])| {
            let data = directory.path().join(letter.to_string());
            (letter, Place { grpc: pair[0].clone(), http: pair[1].clone(), data })
        };
        let places = LETTERS.chars().zip(addresses.chunks(2)).map(place).collect();
        Self { page, directory, places, environment: Vec::new(), words: Vec::new(), ran: BTreeSet::new() }
    }

    /// The same for nodes that begin no election merely because this machine has no time for them.
    pub(crate) fn patient(page: &'static str) -> Self {
        let patience = ELECTION_TIMEOUT_MIN_MS.to_string();
        Self { environment: vec![("SERIATIM_ELECTION_TIMEOUT_MS", patience)], ..Self::new(page) }
    }

    /// What is started from now on is a program that knows no newer version of the protocol, or the real one.
    pub(crate) fn program_of(&mut self, version: Option<&'static str>) {
        const VARIABLE: &str = "SERIATIM_PROTOCOL_NEWEST";
        self.environment.retain(|(name, _)| *name != VARIABLE);
        self.environment.extend(version.map(|version| (VARIABLE, version.to_owned())));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn grpc(&self, letter: char) -> &str {
        &self.places[&letter].grpc
    }

    pub(crate) fn client(&self, letters: &str) -> Client {
        // whatever is sent again at the end of a test is still valid
        self.client_of(letters, Duration::from_secs(3_600))
    }

    /// A client whose transactions are valid for so long.
    pub(crate) fn client_of(&self, letters: &str, validity: Duration) -> Client {
        let endpoints = letters.chars().map(|letter| self.grpc(letter).to_owned());
        Client::builder().endpoints(endpoints).validity(validity).connect().unwrap()
    }

    /// A line of the page, with this machine's addresses and directories for the page's.
    pub(crate) fn arguments(&mut self, host: char, line: &str) -> Vec<String> {
        let line = self.line(host, line);
        line.strip_prefix("seriatim ").unwrap().split(' ').map(str::to_owned).collect()
    }

    /// Fetches what a line of the page fetches, once it is there, into the file that the line names.
    pub(crate) async fn fetched(&mut self, line: &str) {
        let line = self.line('d', line);
        let (from, file) = line.strip_prefix("curl -s http://").unwrap().split_once(" >").unwrap();
        let (address, path) = from.split_once('/').unwrap();
        let body = eventually(|| async { served(address, &format!("/{path}")) }).await;
        fs::write(file, body).unwrap();
    }

    fn line(&mut self, host: char, line: &str) -> String {
        assert!(self.page.lines().any(|there| there == line), "the page has no line: {line}");
        self.ran.insert(line.to_owned());
        let here = |name: &str| self.path(name).display().to_string();
        let (own, validator) = (&self.places[&host], &self.places[&'v']);
        let mut text = line.to_owned();
        for (there, this) in &self.words {
            text = text.replace(there, this);
        }
        for (there, this) in [
            ("/backups/", here("backups/")),
            ("/var/lib/seriatim", own.data.display().to_string()),
            ("validator.key", here("validator.key")),
            ("new.key", here("new.key")),
            ("head.json", here("head.json")),
            (" >replay.copy", format!(" >{}", here("replay.copy"))),
            ("--replay-copy replay.copy", format!("--replay-copy {}", here("replay.copy"))),
            ("0.0.0.0:7400", own.grpc.clone()),
            ("0.0.0.0:7480", own.http.clone()),
            ("127.0.0.1:7480", own.http.clone()),
            ("0.0.0.0:7500", validator.grpc.clone()),
            ("0.0.0.0:7580", validator.http.clone()),
            ("d:7500", validator.grpc.clone()),
        ] {
            text = text.replace(there, &this);
        }
        for (letter, place) in &self.places {
            text = text.replace(&format!("{letter}:7400"), &place.grpc);
            text = text.replace(&format!("http://{letter}:7480"), &format!("http://{}", place.http));
        }
        text
    }

    /// Runs a line of the page to its end, on a machine.
    pub(crate) async fn run_on(&mut self, host: char, line: &str) -> Output {
        let mut command = {
            let arguments = self.arguments(host, line);
            self.command(arguments)
        };
        in_time(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
    }

    /// The same where it has to succeed, on a machine of which it does not matter which; gives what it printed.
    pub(crate) async fn done(&mut self, line: &str) -> String {
        // no line that ends by itself names the machine that it runs on, except of a restore, which runs on d
        self.done_on('d', line).await
    }

    pub(crate) async fn done_on(&mut self, host: char, line: &str) -> String {
        let output = self.run_on(host, line).await;
        assert!(output.status.success(), "{line}: {}", errors(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same for a line that may be refused for a while, and which the page has repeated.
    pub(crate) async fn done_in_the_end(&mut self, line: &str) -> String {
        let arguments = self.arguments('d', line);
        let ended = eventually(|| async {
            let output = seriatim(arguments.clone()).await;
            output.status.success().then_some(output)
        });
        String::from_utf8(ended.await.stdout).unwrap()
    }

    /// Starts a line of the page that goes on until it is stopped.
    pub(crate) fn start(&mut self, host: char, line: &str) -> Running {
        let arguments = self.arguments(host, line);
        self.spawn(&host.to_string(), arguments)
    }

    pub(crate) fn spawn(&self, name: &str, arguments: Vec<String>) -> Running {
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut command = self.command(arguments);
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(crate) fn command(&self, arguments: Vec<String>) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts one of the first three nodes, on a, b and c.
    pub(crate) fn start_first(&self, number: usize, more: &[&str]) -> Running {
        let letter = LETTERS.chars().nth(number - 1).unwrap();
        let arguments = [&["node", "--initialize"], more].concat();
        self.start_node(letter, number, &arguments)
    }

    /// Starts a node that is told of the first three.
    pub(crate) fn start_node(&self, letter: char, number: usize, arguments: &[&str]) -> Running {
        let first: Vec<&Place> = "abc".chars().map(|letter| &self.places[&letter]).collect();
        let members: Vec<String> = (1..).zip(&first).map(|(node, place)| format!("{node}={}", place.grpc)).collect();
        let place = &self.places[&letter];
        let (number, data, members) = (number.to_string(), place.data.display().to_string(), members.join(","));
        let own = [
            &["--cluster", LEDGER, "--id", &number, "--data-dir", &data, "--advertise", &place.grpc][..],
            &["--listen", &place.grpc, "--http-listen", &place.http, "--members", &members],
        ];
        let arguments = [arguments, &own.concat()].concat();
        self.spawn(&format!("node-{number}"), arguments.into_iter().map(str::to_owned).collect())
    }

    /// Waits until a machine's node is ready; gives its status.
    pub(crate) async fn ready(&self, letter: char) -> Value {
        eventually(|| async { self.is_ready(letter).await.then_some(()) }).await;
        self.status(letter).await
    }

    pub(crate) async fn is_ready(&self, letter: char) -> bool {
        run(&["health", "ready", "--http", &self.places[&letter].http]).await.status.success()
    }

    /// Waits until every one of these machines' nodes is ready; gives the machine of the one that leads.
    pub(crate) async fn led(&self, letters: &str) -> char {
        for letter in letters.chars() {
            self.ready(letter).await;
        }
        eventually(|| async {
            for letter in letters.chars() {
                if self.status(letter).await["role"] == "leader" {
                    return Some(letter);
                }
            }
            None
        })
        .await
    }

    /// A node's own status.
    pub(crate) async fn status(&self, letter: char) -> Value {
        let shown = run(&["admin", "status", "--json", "--endpoint", self.grpc(letter)]).await;
        assert!(shown.status.success(), "{}", errors(&shown));
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let nodes = shown["nodes"].as_array().unwrap();
        let mut members = nodes.iter().flat_map(|node| node["members"].as_array().into_iter().flatten());
        let own = members.find(|member| member["address"] == self.grpc(letter)).unwrap()["node"].clone();
        nodes.iter().find(|node| node["node"] == own).unwrap().clone()
    }

    /// The numbers of the nodes that vote, as a node knows them.
    pub(crate) async fn voters(&self, letter: char) -> Vec<u64> {
        let status = self.status(letter).await;
        let members = status["members"].as_array().unwrap().iter();
        members.filter(|member| member["voter"] == true).map(|member| member["node"].as_u64().unwrap()).collect()
    }

    /// Every command of the page was run: a test of a page ends with this.
    pub(crate) fn all_ran(&self) {
        let commands: BTreeSet<String> = commands_of(self.page).into_iter().map(str::to_owned).collect();
        assert_eq!(self.ran, commands, "every command of the page was run, and no other counts as one");
    }
}

/// The commands of a page: the lines between ```` ```sh ```` and ```` ``` ````.
pub(crate) fn commands_of(page: &str) -> Vec<&str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside {
            commands.push(line);
        }
    }
    commands
}

/// What a process serves over HTTP; none where it does not answer, or refuses.
pub(crate) fn served(address: &str, path: &str) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: here\r\n\r\n").as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let is_well = answer.split(|byte| *byte == b' ').nth(1) == Some(b"200");
    is_well.then(|| answer.split_off(body))
}

/// Listeners at free ports that no outgoing connection is given, also while the process behind one is away.
fn free_ports(count: usize) -> Vec<TcpListener> {
    let drawn = RandomState::new().build_hasher().finish() % 12_000;
    let ports = (20_000..32_000_u16).cycle().skip(usize::try_from(drawn).unwrap());
    ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect()
}

pub(crate) async fn seriatim(arguments: Vec<String>) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    in_time(tokio::task::spawn_blocking(move || command.output().unwrap())).await.unwrap()
}

pub(crate) async fn run(arguments: &[&str]) -> Output {
    seriatim(arguments.iter().map(|argument| (*argument).to_owned()).collect()).await
}

pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
