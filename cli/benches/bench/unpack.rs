//! Unpacking one large gzip layer: our unpacker beside GNU tar, by image/examples/unpack_bench,
//! which makes a layer of about a gigabyte from /usr and times both on the same disk.
//! In: LIGHTER_UNPACK_BENCH, the built example. Out: seconds, medians.

use crate::processes::command_ok;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

pub(crate) struct Unpack {
    pub(crate) ours_s: f64,
    pub(crate) tar_s: f64,
    pub(crate) runs: usize,
}

/// The example's default.
const RUNS: usize = 3;

pub(crate) fn measure(scratch: &Path) -> Result<Unpack> {
    let program = std::env::var_os("LIGHTER_UNPACK_BENCH")
        .context("LIGHTER_UNPACK_BENCH names the unpack example; `make bench` sets it")?;
    let output = command_ok(Command::new(program).env("TMPDIR", scratch))?;
    let line =
        output.lines().rfind(|line| line.starts_with("unpack_seconds")).context("no unpack_seconds line")?;
    let numbers: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [ours_s, tar_s, ..] = numbers[..] else { anyhow::bail!("unexpected line {line:?}") };
    Ok(Unpack { ours_s, tar_s, runs: RUNS })
}
