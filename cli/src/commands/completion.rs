//! `lighter completion SHELL`: the script that a shell reads. Out: text on standard output.

use crate::args::Cli;
use crate::failure::Failure;
use crate::output;
use clap::CommandFactory;

pub fn run(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "lighter", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
