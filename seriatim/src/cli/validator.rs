//! `seriatim validator`.

use std::path::PathBuf;
use std::process::ExitCode;

use ::node::config::{ValidatorConfig, ValidatorSettings, read_file};
use ::node::roles::RunningValidator;
use ::node::telemetry;
use clap::Args;

/// Run a validator, which checks transactions for nodes.
#[derive(Debug, Args)]
#[command(after_help = "\
Every option may also be given in the environment, as named above, or in a TOML file under the option's name.

A validator counts once its key is in the cluster's configuration; its log and --ready-json show the key:
    seriatim validator --cluster venue --nodes a:7400,b:7400,c:7400 --key-file validator.key
    seriatim admin add-validator KEY

It may be stopped and started at any time: nodes notice, and check themselves while no validator is there.")]
pub(super) struct ValidatorArgs {
    /// TOML file with settings
    #[arg(long, env = "SERIATIM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print addresses and key as one line of JSON once the validator serves
    #[arg(long)]
    ready_json: bool,
    /// Stop when standard input ends: whoever started this process holds its other end
    #[arg(long)]
    attached: bool,
    /// Print the settings that result from flags, environment and file, as TOML, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: ValidatorSettings,
}

impl ValidatorArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let settings = self.settings.or(file);
        if self.print_config {
            print!("{}", toml::to_string(&settings)?);
            return Ok(ExitCode::SUCCESS);
        }
        let config = ValidatorConfig::try_from(settings)?;
        telemetry::init(config.log_format);
        let validator = RunningValidator::start(config).await?;
        super::tell_ready(validator.ready(), self.ready_json)?;
        super::asked_to_stop(self.attached).await;
        validator.stop().await;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}
