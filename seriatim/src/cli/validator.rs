//! `seriatim validator`.

use std::process::ExitCode;

use ::node::config::{ValidatorConfig, ValidatorSettings};
use ::node::roles::RunningValidator;
use clap::Args;

use super::role::RoleArgs;

/// Run a validator, which checks transactions for nodes.
#[derive(Debug, Args)]
#[command(after_help = "\
Every option may also be given in the environment, as named above, or in a TOML file under the option's name.

A validator counts once its key is in the cluster's configuration; its log and --ready-json show the key:
    seriatim validator --cluster venue --nodes a:7400,b:7400,c:7400 --key-file validator.key
    seriatim admin add-validator KEY

It may be stopped and started at any time: nodes notice, and check themselves while no validator is there.")]
pub(super) struct ValidatorArgs {
    #[command(flatten)]
    role: RoleArgs<ValidatorSettings>,
}

impl ValidatorArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Some(config) = self.role.begin("validator", |config: &ValidatorConfig| config.log_format)? else {
            return Ok(ExitCode::SUCCESS);
        };
        let validator = RunningValidator::start(config).await?;
        super::tell_ready(validator.ready(), self.role.ready_json)?;
        super::asked_to_stop(self.role.attached).await;
        validator.stop().await;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}
