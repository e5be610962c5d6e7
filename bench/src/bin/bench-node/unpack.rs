//! Unpacking one large gzip layer: our unpacker beside GNU tar, by the program bench-unpack,
//! which makes a layer of about a gigabyte from /usr and times both on the same disk.
//! In: bench-unpack beside this program. Out: seconds, medians.

use crate::processes::command_ok;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

pub(crate) struct Unpack {
    pub(crate) ours_s: f64,
    pub(crate) tar_s: f64,
    pub(crate) runs: usize,
}

/// What bench-unpack does unless told otherwise.
const RUNS: usize = 3;

pub(crate) fn measure(scratch: &Path) -> Result<Unpack> {
    let program = std::env::current_exe()?.with_file_name("bench-unpack");
    let output = command_ok(Command::new(program).env("TMPDIR", scratch))?;
    let line =
        output.lines().rfind(|line| line.starts_with("unpack_seconds")).context("no unpack_seconds line")?;
    let numbers: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [ours_s, tar_s, ..] = numbers[..] else { anyhow::bail!("unexpected line {line:?}") };
    Ok(Unpack { ours_s, tar_s, runs: RUNS })
}
