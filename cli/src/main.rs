//! The `lighter` command: every command of a person, and both daemons.
//! In: arguments, LIGHTER_* variables, standard input. Out: tables or JSON on standard output, words on
//! standard error, an exit code that means something (`failure::ExitCodes`).
//! Owns: one tokio runtime. Never: holds logic that a second client would need; that is the API's.

// A binary: `pub` says what a module offers to the others.
#![allow(unreachable_pub)]

mod allocator;
mod args;
mod client;
mod commands;
mod daemon;
mod detach;
mod duration;
mod failure;
mod json;
mod names;
mod output;
mod patience;
mod progress;
mod stream;
mod table;
mod terminal;
mod time;
mod words;

use args::Cli;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any TLS: one provider of cryptography in the process. An error means it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut cli = Cli::parse();
    output::choose(&mut cli.global.output);
    daemon::start_logging(cli.command.is_daemon());
    let runtime = match allocator::runtime(cli.command.runs_an_agent()) {
        Ok(runtime) => runtime,
        Err(source) => return failure::report(&failure::Failure::io("start the async runtime", source)),
    };
    let outcome = runtime.block_on(commands::run(cli));
    // Reading standard input may block a thread for ever; nothing of ours waits for it.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(failure) => failure::report(&failure),
    }
}
