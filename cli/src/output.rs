//! Where words go: results to standard output, everything else to standard error.
//! In: text and JSON. Out: bytes. Owns: the decision on colours.
//! Never: panics because the reader of a pipe has gone.

use crate::args::Format;
use crate::failure::Failure;
use serde_json::Value;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether values are printed as YAML; chosen once, before anything is printed.
static YAML: AtomicBool = AtomicBool::new(false);

/// YAML is JSON to the commands, and written otherwise.
pub fn choose(format: &mut Format) {
    if *format == Format::Yaml {
        YAML.store(true, Ordering::Relaxed);
        *format = Format::Json;
    }
}

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
    if YAML.load(Ordering::Relaxed) { print(&yaml(value)?) } else { line(&format!("{value:#}")) }
}

/// One of many values: a line of JSON, or a document of YAML.
pub fn json_line(value: &Value) -> Result<(), Failure> {
    if YAML.load(Ordering::Relaxed) {
        print(&format!("---\n{}", yaml(value)?))
    } else {
        line(&value.to_string())
    }
}

fn yaml(value: &Value) -> Result<String, Failure> {
    serde_norway::to_string(value)
        .map_err(|source| Failure::Files { what: "write the answer as YAML", source: source.into() })
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
