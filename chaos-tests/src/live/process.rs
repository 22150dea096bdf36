//! One child process: started, stopped, frozen, killed, started again.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long a process may take to stop when asked to.
const STOP_MAX: Duration = Duration::from_secs(20);

/// A process and how it is started.
#[derive(Debug)]
pub(super) struct Process {
    /// The program, and what comes before it.
    command: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A process that does not run yet; its output goes to the end of `log`.
    pub(super) fn new(command: Vec<OsString>, log: PathBuf) -> Self {
        Self { command, log, child: None }
    }

    /// Starts it. It ends with this process: it watches for the end of its input.
    pub(super) fn start(&mut self, arguments: &[String]) -> io::Result<()> {
        let (program, before) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let output = || File::options().append(true).create(true).open(&self.log);
        let child = Command::new(program)
            .args(before)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output()?)
            .stderr(output()?)
            .kill_on_drop(true)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
            tracing::debug!(%error, ?signal, "a process is gone already");
        }
    }

    /// SIGKILL: it ends at once.
    pub(super) async fn kill(&mut self) {
        if let Some(mut child) = self.child.take()
            && let Err(error) = child.kill().await
        {
            tracing::warn!(%error, "a process cannot be killed");
        }
    }

    /// SIGSTOP: it stands still and keeps everything open.
    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM: it stops in order. False where it had to be killed.
    pub(super) async fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        let Some(child) = &mut self.child else { return true };
        let stopped = timeout(STOP_MAX, child.wait()).await.is_ok();
        self.kill().await;
        stopped
    }

    /// How it ended, if it ended by itself. It counts as not running from then on.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// The end of its log, for people.
    pub(super) fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}
