//! `seriatim node`.

use std::process::ExitCode;

use ::node::config::{NodeConfig, NodeSettings};
use ::node::roles::RunningNode;
use clap::Args;

use super::role::RoleArgs;

/// Run a member of the cluster.
#[derive(Debug, Args)]
#[command(after_help = "\
Every option may also be given in the environment, as named above, or in a TOML file under the option's name.

Examples:
  A cluster of one, at the default addresses:
    seriatim node --initialize
  The first of three nodes (give every node the same --members and --initialize):
    seriatim node --id 1 --cluster venue --members 1=a:7400,2=b:7400,3=c:7400 --initialize \\
                  --listen 0.0.0.0:7400 --http-listen 0.0.0.0:7480 --data-dir /var/lib/seriatim
  A node that joins later, asking the first members: start it, then `seriatim admin join 4 d:7400`:
    seriatim node --id 4 --cluster venue --members 1=a:7400,2=b:7400,3=c:7400 --listen 0.0.0.0:7400 --advertise d:7400

Exit codes: 0 stopped in order, 1 not started, 70 the node found that it cannot go on (its log says why).")]
pub(super) struct NodeArgs {
    #[command(flatten)]
    role: RoleArgs<NodeSettings>,
}

impl NodeArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Some(config) = self.role.begin("node", |config: &NodeConfig| config.log_format)? else {
            return Ok(ExitCode::SUCCESS);
        };
        let starting = RunningNode::start(config);
        let node = tokio::select! {
            started = starting => started?,
            () = super::asked_to_stop(self.role.attached) => return Ok(ExitCode::SUCCESS),
        };
        super::tell_ready(node.ready(), self.role.ready_json)?;
        tokio::select! {
            () = super::asked_to_stop(self.role.attached) => {
                node.stop().await;
                tracing::info!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            why = node.failed() => {
                tracing::error!(%why, "the node cannot go on");
                eprintln!("seriatim node: {why}");
                // at once: nothing more may be written or answered
                std::process::exit(super::EXIT_CANNOT_GO_ON);
            }
        }
    }
}
