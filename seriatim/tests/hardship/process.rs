//! One node as a process: a cluster of itself.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use client::Client;
use serde_json::Value;
use tempfile::NamedTempFile;

/// A node that serves. Dropping it kills it.
pub(crate) struct NodeProcess {
    child: Child,
    log: NamedTempFile,
    pub(crate) grpc: String,
    pub(crate) http: String,
}

/// A node that ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Its log and its last words.
    pub(crate) errors: String,
}

impl NodeProcess {
    /// Starts node `id` of a cluster of one on the data in `directory`.
    pub(crate) fn start(directory: &Path, id: u64) -> Result<Self, Ended> {
        // not beside the data: that disk may be full
        let log = NamedTempFile::new().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_seriatim"))
            .args(["node", "--attached", "--ready-json", "--initialize", "--cluster", "test"])
            .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--id", &id.to_string(), "--data-dir", directory.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Ok(ready) = serde_json::from_str::<Value>(&line) else {
            return Err(Ended { status: child.wait().unwrap(), errors: fs::read_to_string(log.path()).unwrap() });
        };
        let place = |name: &str| ready[name].as_str().unwrap().to_owned();
        Ok(Self { grpc: place("grpc"), http: place("http"), child, log })
    }

    pub(crate) fn client(&self) -> Client {
        Client::builder().endpoint(&self.grpc).connect().unwrap()
    }

    /// What it keeps in memory now, in bytes (VmRSS of proc(5), in units of 1,024 bytes).
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
    }

    /// Whether it has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().unwrap()?;
        Some(Ended { status, errors: fs::read_to_string(self.log.path()).unwrap() })
    }

    /// Has it stop in order.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // it may have ended already
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
