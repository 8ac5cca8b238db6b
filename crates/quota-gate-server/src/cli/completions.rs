//! `quota-gate completions` and `quota-gate man`: files that a package installs besides the program.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::{Cli, output};

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// Shell to print completions for.
    shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct Man {
    /// Directory to write to, for example /usr/local/share/man/man1.
    dir: PathBuf,
}

pub(super) fn completions(arguments: &Completions) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "quota-gate", &mut text);
    output::bytes(&text);
    ExitCode::SUCCESS
}

/// Writes a page for the program, and one for each command.
pub(super) fn man(Man { dir }: &Man) -> anyhow::Result<ExitCode> {
    let cannot = || format!("cannot write manual pages into {}", dir.display());
    fs::create_dir_all(dir).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), dir).with_context(cannot)?;
    Ok(ExitCode::SUCCESS)
}
