//! `make test`: builds, runs every tier, prints the time of each and one closing line.
//! In: the names of tiers, or none for all. Out: exit code 0 only if all passed (and, in CI, none was skipped).
//! Owns: logs in `<target>/test-logs`, and the time each tier may take: past it the tier has failed and the
//! next one runs. Never: decides inside a tier what runs; the crates' own tests do.
//!
//! What belongs where (see the design's section 7):
//!   T0  unit and property tests beside the code, of every crate
//!   T1  tests/ of control, proto, cli, model, bench and the workspace rules: whole programs with fakes, no kernel objects
//!   T2  tests/ of net, image, runtime (shim and helper too), agent: real kernel objects, root
//!   T3  scenarios in virtual machines (this crate)
//!   T4  real clients, examples/ and the Vagrant description (tests/ of this crate)

use crate::bounded::{self, End};
use crate::host;
use crate::tally::{self, Tally};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Crates whose tests/ need no kernel objects: tier T1.
const T1: [&str; 6] = ["model", "proto", "archive", "control", "cli", "bench"];
/// Crates whose tests/ make kernel objects: tier T2.
const T2: [&str; 7] =
    ["image", "net", "runtime", "runtime/shim-wire", "runtime/shim", "runtime/oci", "agent"];
/// This crate's tests/: tier T4.
const T4: [&str; 1] = ["vm-test"];

/// Cold, on two loaded cores.
const BUILD_LIMIT: Duration = Duration::from_secs(25 * 60);

/// A tier and how it is run.
struct Tier {
    name: &'static str,
    what: &'static str,
    commands: Vec<Vec<String>>,
    /// For each command: several times what it takes on two idle cores.
    limit: Duration,
}

/// What a tier came to.
struct Outcome {
    name: &'static str,
    what: &'static str,
    took: Duration,
    tally: Tally,
    broken: bool,
}

/// Runs the tiers named, or all.
pub fn run(wanted: &[&str]) -> Result<bool> {
    let all = tiers()?;
    if let Some(unknown) = wanted.iter().find(|w| !all.iter().any(|t| t.name == **w)) {
        bail!("no tier `{unknown}`; there are {}", all.iter().map(|t| t.name).collect::<Vec<_>>().join(", "));
    }
    let chosen: Vec<Tier> =
        all.into_iter().filter(|t| wanted.is_empty() || wanted.contains(&t.name)).collect();
    let logs = host::target_dir().join("test-logs");
    std::fs::create_dir_all(&logs)?;
    let began = Instant::now();
    // Images need the disk and the network more than the processor, so they are made beside the build.
    let images = [("T3", "image"), ("T4", "example-images")]
        .into_iter()
        .filter(|(tier, _)| chosen.iter().any(|t| t.name == *tier))
        .map(|(_, what)| Ok((what, spawn_images(what, &logs)?)))
        .collect::<Result<Vec<_>>>()?;
    let build = build(&logs)?;
    println!("build: {} s", build.as_secs());
    for (what, mut child) in images {
        let status = child.wait()?;
        if !status.success() {
            print_tail(&logs.join(format!("{what}.txt")), 20);
            bail!("`{what}` could not be made");
        }
    }
    let outcomes = chosen.iter().map(|tier| run_tier(tier, &logs)).collect::<Result<Vec<_>>>()?;
    Ok(summary(build, began.elapsed(), &outcomes))
}

fn tiers() -> Result<Vec<Tier>> {
    let ours = std::env::current_exe()?.display().to_string();
    let unit = words("cargo test --workspace --lib --bins --no-fail-fast");
    Ok(vec![
        tier("T0", "pure and property tests", vec![unit], 5),
        tier("T1", "whole programs with fakes", integration(&T1), 8),
        tier("T2", "real kernel objects", integration(&T2), 8),
        tier("T3", "virtual machines", vec![vec![ours, "scenarios".into()]], 22),
        tier("T4", "real clients, examples, Vagrant", integration(&T4), 8),
    ])
}

fn tier(name: &'static str, what: &'static str, commands: Vec<Vec<String>>, minutes: u64) -> Tier {
    Tier { name, what, commands, limit: Duration::from_secs(60 * minutes) }
}

/// One cargo call for the tests/ folders of several crates; none if no crate has one yet.
/// Always the whole workspace, so that every call has the same features and nothing is built twice.
fn integration(folders: &[&str]) -> Vec<Vec<String>> {
    let mut targets: Vec<String> = folders.iter().flat_map(|folder| test_targets(folder)).collect();
    targets.sort();
    targets.dedup();
    if targets.is_empty() {
        return Vec::new();
    }
    let mut command = words("cargo test --workspace --no-fail-fast");
    command.extend(targets.into_iter().flat_map(|name| ["--test".to_string(), name]));
    vec![command]
}

/// Names of a crate's test targets: files in tests/, and directories there that have a main.rs.
fn test_targets(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(host::workspace().join(folder).join("tests"));
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    paths
        .filter(|path| path.extension().is_some_and(|x| x == "rs") || path.join("main.rs").is_file())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_string()))
        .collect()
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_string).collect()
}

/// Starts this program's command that makes images; its output goes to a log of that name.
fn spawn_images(what: &str, logs: &Path) -> Result<std::process::Child> {
    let log = File::create(logs.join(format!("{what}.txt")))?;
    Command::new(std::env::current_exe()?)
        .arg(what)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("start `{what}`"))
}

/// Compiles everything, so that the tiers' times are their own.
fn build(logs: &Path) -> Result<Duration> {
    let began = Instant::now();
    println!("build: the three binaries and every test");
    for (name, line) in
        [("build", "make --no-print-directory build"), ("build-tests", "cargo test --workspace --no-run")]
    {
        let log = logs.join(format!("{name}.txt"));
        if bounded::run(&words(line), &log, BUILD_LIMIT)? != End::Succeeded {
            print_tail(&log, 60);
            bail!("`{line}` failed; the whole output is in {}", log.display());
        }
    }
    Ok(began.elapsed())
}

fn run_tier(tier: &Tier, logs: &Path) -> Result<Outcome> {
    println!("{}: {} …", tier.name, tier.what);
    let began = Instant::now();
    let mut tally = Tally::default();
    let mut broken = false;
    for (index, command) in tier.commands.iter().enumerate() {
        let log = logs.join(format!("{}-{index}.txt", tier.name));
        let end = bounded::run(command, &log, tier.limit)?;
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let counted = Tally::of(&text);
        // A run that failed without a failed test did not compile, crashed, or did not end.
        broken |= end == End::Killed || end == End::Failed && counted.failed == 0;
        tally = tally.plus(counted);
        if end == End::Killed {
            println!("{}: killed after {} minutes", tier.name, tier.limit.as_secs() / 60);
            tally::unfinished(&text).iter().for_each(|test| println!("    did not end: {test}"));
        }
        if end != End::Succeeded {
            print_failures(&text, &log);
        }
    }
    if tier.commands.is_empty() {
        println!("{}: SKIPPED, it has no tests yet", tier.name);
        tally.skipped += 1;
    }
    let took = began.elapsed();
    println!("{}: {} in {} s", tier.name, tally.line(), took.as_secs());
    Ok(Outcome { name: tier.name, what: tier.what, took, tally, broken })
}

/// What failed, with its output: from each `failures:` section, or the end of the log.
fn print_failures(text: &str, log: &Path) {
    let mut shown = 0;
    let mut inside = false;
    for line in text.lines() {
        inside = (inside || line.trim() == "failures:") && !line.starts_with("test result:");
        if (inside || line.starts_with("error") || line.contains("FAILED")) && shown < 400 {
            println!("    {line}");
            shown += 1;
        }
    }
    if shown == 0 {
        print_tail(log, 40);
    }
    println!("    (the whole output is in {})", log.display());
}

fn print_tail(log: &Path, lines: usize) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    for line in &all[all.len().saturating_sub(lines)..] {
        println!("    {line}");
    }
}

/// Prints the table and the closing line; whether the whole run passed.
fn summary(build: Duration, whole: Duration, outcomes: &[Outcome]) -> bool {
    println!("\n{:<6}{:<28}{:>8}{:>8}{:>9}{:>8}", "tier", "what", "passed", "failed", "skipped", "time");
    println!("{:<6}{:<28}{:>8}{:>8}{:>9}{:>6} s", "", "build", "", "", "", build.as_secs());
    for o in outcomes {
        let (t, s) = (o.tally, o.took.as_secs());
        println!("{:<6}{:<28}{:>8}{:>8}{:>9}{:>6} s", o.name, o.what, t.passed, t.failed, t.skipped, s);
    }
    println!("whole run: {} s", whole.as_secs());
    let mut sum = outcomes.iter().fold(Tally::default(), |sum, o| sum.plus(o.tally));
    // A tier that broke before its tests counts as one failure, so that the line never reads as a pass.
    sum.failed += u32::try_from(outcomes.iter().filter(|o| o.broken).count()).unwrap_or(u32::MAX);
    let ci = std::env::var("CI").is_ok_and(|v| v == "true");
    if ci && sum.skipped > 0 {
        println!("skipped tests fail the run because CI=true");
    }
    println!("{}", sum.line());
    sum.failed == 0 && sum.passed > 0 && !(ci && sum.skipped > 0)
}
