//! Log lines and traces of a process, and what becomes of a panic.

mod spans;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

use crate::config::LogFormat;

pub use spans::{SpanCounts, init_traces, shut_down_traces, span_counts};

/// Without a filter of their own, the network's crates would drown everything else. Openraft warns of each proposal whose
/// answer nobody waits for any more, and gateways do not wait for it: they see the entry applied. And of each heartbeat that
/// does not arrive, twenty times a second for each member that is gone; its replication says so once a second.
const FILTER_DEFAULT: &str = "info,openraft=warn,openraft::raft::responder=error,openraft::core::heartbeat=error,\
    h2=warn,hyper=warn,tonic=warn,tower=warn,opentelemetry=warn";
/// Environment variable with directives that are added to these, in the syntax of `tracing_subscriber::EnvFilter`. Where it
/// asks for less than warnings of everything, these are left out.
pub const FILTER_VARIABLE: &str = "SERIATIM_LOG";

/// Sends log lines to standard error, once per process. A second call changes nothing.
pub fn init(format: LogFormat) {
    let said = std::env::var(FILTER_VARIABLE).unwrap_or_default();
    let filter = filter(&said);
    let ignored = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // refused where the process (a test) has set up its own already
    drop(match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    });
    if let Some(error) = ignored {
        tracing::warn!("{FILTER_VARIABLE}={said} is ignored: {error}. For example: info,node::gateway=debug");
    }
}

/// The default, where nothing else is said of a target.
fn filter(said: &str) -> Result<EnvFilter, ParseError> {
    // an empty text would count as a level
    let levels = said.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    let of_everything = levels.filter_map(|directive| directive.parse::<LevelFilter>().ok()).next_back();
    if of_everything.is_some_and(|level| level < LevelFilter::WARN) {
        return EnvFilter::try_new(said);
    }
    EnvFilter::try_new(format!("{FILTER_DEFAULT},{said}").trim_end_matches(','))
}

/// A panic is a bug: it is logged, and the process ends before it can do harm.
pub fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        tracing::error!(%panic, "this is a bug; please report it with these lines\n{backtrace}");
        std::process::abort();
    }));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_said_of_a_target_goes_before_the_default() {
        let directives =
            |said| -> Vec<String> { filter(said).unwrap().to_string().split(',').map(str::to_owned).collect() };
        let default = directives("");
        assert!(default.contains(&"info".to_owned()) && default.contains(&"h2=warn".to_owned()), "{default:?}");
        let louder = directives("debug,h2=trace");
        assert!(!louder.contains(&"info".to_owned()) && !louder.contains(&"h2=warn".to_owned()), "{louder:?}");
        for directive in ["debug", "h2=trace", "openraft=warn"] {
            assert!(louder.contains(&directive.to_owned()), "{louder:?} lacks {directive}");
        }
        assert_eq!(directives("error"), ["error"], "nobody is louder than all are to be");
        assert_eq!(directives("off"), ["off"]);
        assert!(filter("info,foo==x").is_err());
    }
}
