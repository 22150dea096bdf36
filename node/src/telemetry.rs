//! Log lines of a process, and what becomes of a panic.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Without a filter of their own, the network's crates would drown everything else. Openraft warns of each proposal whose
/// answer nobody waits for any more, and gateways do not wait for it: they see the entry applied. And of each heartbeat that
/// does not arrive, twenty times a second for each member that is gone; its replication says so once a second.
const FILTER_DEFAULT: &str = "info,openraft=warn,openraft::raft::responder=error,openraft::core::heartbeat=error,\
    h2=warn,hyper=warn,tonic=warn,tower=warn";
/// Environment variable with another filter, in the syntax of `tracing_subscriber::EnvFilter`.
pub const FILTER_VARIABLE: &str = "SERIATIM_LOG";

/// Sends log lines to standard error, once per process. A second call changes nothing.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // refused where the process (a test) has set up its own already
    drop(match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    });
}

/// A panic is a bug: it is logged, and the process ends before it can do harm.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(%panic, "this is a bug; please report it with these lines\n{backtrace}");
        std::process::abort();
    }));
}
