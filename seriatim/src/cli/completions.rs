//! `seriatim completions`: what a shell needs to complete this command line.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// Print completions for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  seriatim completions bash > ~/.local/share/bash-completion/completions/seriatim
  seriatim completions zsh > ~/.zfunc/_seriatim
  seriatim completions fish > ~/.config/fish/completions/seriatim.fish")]
pub(crate) struct CompletionsArguments {
    /// Which shell
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionsArguments) -> ExitCode {
    let mut command = Cli::command();
    clap_complete::generate(arguments.shell, &mut command, "seriatim", &mut std::io::stdout());
    ExitCode::SUCCESS
}
