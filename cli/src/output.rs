//! Where words go: results to standard output, everything else to standard error.
//! In: text and JSON. Out: bytes. Owns: the decision on colours.
//! Never: panics because the reader of a pipe has gone.

use crate::failure::Failure;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};

/// Prints text that ends with its own newline.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        Err(source) => Err(Failure::io("write to standard output", source)),
    }
}

pub fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// One value, indented.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// A remark that is no result.
pub fn note(text: &str) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether results may have colours.
pub fn colour() -> bool {
    allowed() && std::io::stdout().is_terminal()
}

/// Whether errors may have colours.
pub fn colour_errors() -> bool {
    allowed() && std::io::stderr().is_terminal()
}

/// <https://no-color.org>: set and not empty means none.
fn allowed() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
}
