//! `seriatim dev` as a child process, and its processes' HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A cluster that runs. Dropping it kills its parent, whose end its processes notice.
pub(crate) struct DevCluster {
    child: Child,
    pub(crate) addresses: Value,
}

impl DevCluster {
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_seriatim"))
            .args(["dev", "--json"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, addresses: serde_json::from_str(&line).unwrap() }
    }

    /// Where the processes of one kind listen.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let list = self.addresses[name].as_array().unwrap();
        list.iter().map(|address| address.as_str().unwrap().to_owned()).collect()
    }

    /// Stops it as its user would; it verifies every attestation before it ends.
    pub(crate) fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a process answers to a GET: the status and the body; nothing where it does not listen yet.
pub(crate) fn ask(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    // of this version, an answer comes in one piece
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((status, body.to_owned()))
}

/// The same where the answer has to be good.
pub(crate) fn get(address: &str, path: &str) -> Option<String> {
    let (status, body) = ask(address, path)?;
    assert_eq!(status, 200, "{path}: {body}");
    Some(body)
}
