//! What starting a node, a validator and a prover have in common.

use std::path::PathBuf;

use ::node::config::{ConfigFault, LogFormat, Settings, read_file};
use ::node::telemetry;
use clap::Args;

/// Options of every process that serves.
#[derive(Debug, Args)]
pub(super) struct RoleArgs<S: Args> {
    /// TOML file with settings
    #[arg(long, env = "SERIATIM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print addresses and key as one line of JSON once the process serves
    #[arg(long)]
    pub(super) ready_json: bool,
    /// Stop when standard input ends: whoever started this process holds its other end
    #[arg(long)]
    pub(super) attached: bool,
    /// Print the settings that result from flags, environment and file, as TOML, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: S,
}

impl<S: Args + Settings> RoleArgs<S> {
    /// What the process is to run with, its log and traces begun; none where it was only to be printed.
    ///
    /// # Errors
    /// Where the file cannot be read, or settings are missing or contradict each other.
    pub(super) fn begin<C>(&self, role: &str, log_format: impl Fn(&C) -> LogFormat) -> anyhow::Result<Option<C>>
    where
        C: TryFrom<S, Error = ConfigFault>,
    {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let settings = self.settings.clone().or(file);
        if self.print_config {
            print!("{}", toml::to_string(&settings)?);
            return Ok(None);
        }
        let config = C::try_from(settings)?;
        telemetry::init(log_format(&config));
        telemetry::init_traces(role);
        Ok(Some(config))
    }
}
