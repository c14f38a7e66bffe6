//! `lsqc completions`: what a shell needs to complete lsqc's command line.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  lsqc completions bash > ~/.local/share/bash-completion/completions/lsqc
  lsqc completions zsh > ~/.zfunc/_lsqc
      where ~/.zfunc is in fpath
  lsqc completions fish > ~/.config/fish/completions/lsqc.fish";

/// The flags of `lsqc completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Runs it.
///
/// # Errors
/// If standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "lsqc", &mut script);
    Ok(terminal::print(&String::from_utf8_lossy(&script))?)
}
