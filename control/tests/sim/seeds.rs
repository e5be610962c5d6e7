//! Which seeds are run, and what is printed of them.
//! In: the fixed set, the commit, `LIGHTER_SIM_SEEDS`, `_FIRST` and `LIGHTER_SIM_SEED` of `make sim`.
//! Out: verdicts. Never: a seed that cannot be run again.

use crate::model::{Race, Races};
use crate::run::{Outcome, run};
use lighter_control::wrong_edit::WrongEdit;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Seeds of each run beside the fixed ones, derived from the commit.
const OF_THE_COMMIT: u64 = 20;

/// Seeds that have found something, and some that stand for a kind of trouble; one a line.
fn fixed() -> Vec<u64> {
    let lines = include_str!("seeds.txt").lines();
    let seeds = lines.map(|line| line.split('#').next().unwrap().trim()).filter(|line| !line.is_empty());
    seeds.map(|seed| seed.parse().unwrap()).collect()
}

/// 20 seeds of the commit's hash; of the working tree's version where there is no commit.
fn of_the_commit() -> Vec<u64> {
    let hash = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output();
    let hash = hash.map_or_else(|_| env!("CARGO_PKG_VERSION").into(), |output| output.stdout);
    let first = crate::world::hash(0xcbf2_9ce4_8422_2325, &hash) >> 16;
    (0..OF_THE_COMMIT).map(|number| first + number).collect()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The wrong edit of `make sim EDIT=Name`.
fn edit() -> Option<WrongEdit> {
    let name = std::env::var("LIGHTER_SIM_EDIT").ok()?;
    Some(WrongEdit::ALL.iter().copied().find(|edit| format!("{edit:?}") == name).unwrap())
}

/// What `make sim SEEDS=n [FIRST=n]` asks for, else those of CI.
fn wanted() -> Vec<u64> {
    let first = number("LIGHTER_SIM_FIRST").unwrap_or(1);
    number("LIGHTER_SIM_SEEDS").map_or_else(all_of_ci, |count| (first..first + count).collect())
}

fn all_of_ci() -> Vec<u64> {
    fixed().into_iter().chain(of_the_commit()).collect()
}

/// The same, those first whose line names the edit: they are known to catch it.
fn against(edit: WrongEdit) -> Vec<u64> {
    let name = format!("{edit:?}");
    let lines = include_str!("seeds.txt").lines().filter(|line| line.contains(&name));
    let known = lines.filter_map(|line| line.split('#').next().unwrap().trim().parse().ok());
    known.chain(all_of_ci()).collect()
}

/// Runs seeds on all cores, in no order; each world has a thread of its own.
fn run_all(seeds: &[u64], edit: Option<WrongEdit>, stop_at_first: bool) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(*seed, edit, false);
                    if let Some(failure) = outcome.failure.as_ref().filter(|_| !stop_at_first) {
                        println!("seed {seed} FAILED: {failure}; again: make sim SEED={seed}");
                        let same = run(*seed, edit, false).digest == outcome.digest;
                        assert!(same, "seed {seed} gave another run when it was run again");
                        join_fixed(*seed, failure, edit);
                    }
                    if outcome.failure.is_some() && stop_at_first {
                        next.store(seeds.len(), Ordering::Relaxed);
                    }
                    outcomes.lock().unwrap().push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap()
}

/// A seed that failed in `make sim SEEDS=n` is one of the fixed set from now on.
fn join_fixed(seed: u64, failure: &str, edit: Option<WrongEdit>) {
    if edit.is_some() || number("LIGHTER_SIM_SEEDS").is_none() || fixed().contains(&seed) {
        return;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/seeds.txt");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    let failure: String = failure.chars().take(80).collect();
    writeln!(file, "{seed} # {failure}").unwrap();
}

fn report(outcomes: &[Outcome], began: Instant) {
    let failed: Vec<u64> = outcomes.iter().filter(|o| o.failure.is_some()).map(|o| o.seed).collect();
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} seeds, {} events, {} steps, {} simulated hours in {:.1} s; failed: {failed:?}",
        outcomes.len(),
        sum(|o| o.events),
        sum(|o| o.polls),
        sum(|o| o.simulated_ms) / 3_600_000,
        began.elapsed().as_secs_f64()
    );
    println!("races of services: {:?}", races(outcomes));
}

/// How often each came about, those that never did with 0.
fn races(outcomes: &[Outcome]) -> Races {
    let of = |race| outcomes.iter().filter_map(|outcome| outcome.races.get(&race)).sum();
    Race::ALL.into_iter().map(|race| (race, of(race))).collect()
}

#[test]
fn all_promises_hold_for_the_fixed_seeds_and_those_of_this_commit() {
    let began = Instant::now();
    let outcomes = run_all(&wanted(), edit(), false);
    report(&outcomes, began);
    let failed: Vec<_> = outcomes.iter().filter_map(|o| Some((o.seed, o.failure.as_ref()?))).collect();
    assert!(failed.is_empty(), "add the seed to control/tests/sim/seeds.txt and mend it: {failed:?}");
    // Of the fixed seeds alone, so that no commit finds them by luck.
    let (of_ci, fixed) = (number("LIGHTER_SIM_SEEDS").is_none() && edit().is_none(), fixed());
    let outcomes: Vec<Outcome> = outcomes.into_iter().filter(|o| fixed.contains(&o.seed)).collect();
    let never: Vec<Race> =
        races(&outcomes).into_iter().filter_map(|(race, n)| (n == 0).then_some(race)).collect();
    assert!(!of_ci || never.is_empty(), "no fixed seed brings about {never:?}");
}

#[test]
fn every_wrong_edit_is_caught_by_the_fixed_seeds_and_those_of_this_commit() {
    let mut missed = Vec::new();
    println!("{:22} {:>6} {:>20}  first broken promise", "wrong edit", "seeds", "caught by");
    let only = edit();
    for edit in WrongEdit::ALL.iter().copied().filter(|edit| only.is_none_or(|only| only == *edit)) {
        let outcomes = run_all(&against(edit), Some(edit), true);
        match outcomes.iter().find(|outcome| outcome.failure.is_some()) {
            Some(Outcome { seed, failure, .. }) => {
                let (name, words) = (format!("{edit:?}"), failure.as_deref().unwrap_or_default());
                println!("{name:22} {:>6} {seed:>20}  {words}", outcomes.len());
            }
            None => missed.push(edit),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// One seed with its whole trace: `make sim SEED=n`, and what another process is asked for below.
#[test]
fn a_seed_is_run_with_its_trace() {
    let seed = number("LIGHTER_SIM_SEED").unwrap_or(7);
    let outcome = run(seed, edit(), true);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}: digest {:016x}, {} events", outcome.digest, outcome.events);
    assert_eq!(outcome.failure, None);
}

#[test]
fn the_same_seed_gives_the_same_digest_in_two_processes() {
    // One with one control plane, one with restored snapshots, one whose leader is deposed.
    for seed in ["7", "4", "2007"] {
        let begin = || {
            let mut other = std::process::Command::new(std::env::current_exe().unwrap());
            other.args(["--exact", "seeds::a_seed_is_run_with_its_trace", "--nocapture"]);
            other.env("LIGHTER_SIM_SEED", seed).stdout(std::process::Stdio::piped()).spawn().unwrap()
        };
        let said = [begin(), begin()].map(|other| {
            let said = String::from_utf8(other.wait_with_output().unwrap().stdout).unwrap();
            let digest = said.lines().find(|line| line.starts_with(&format!("seed {seed}: digest")));
            digest.unwrap_or_else(|| panic!("no digest: {said}")).to_owned()
        });
        assert_eq!(said[0], said[1]);
    }
}

#[test]
fn no_wrong_edit_can_be_switched_on_in_a_release() {
    let profiles = include_str!("../../../Cargo.toml");
    assert!(!profiles.contains("debug-assertions"), "release would have the switch");
    let source = include_str!("../../src/wrong_edit.rs");
    assert!(source.contains("#[cfg(debug_assertions)]\npub fn switch("));
    assert!(source.contains("#[cfg(not(debug_assertions))]\npub(crate) const fn is("));
    let clock = include_str!("../../src/time.rs");
    assert!(clock.contains("#[cfg(debug_assertions)]\npub fn install("));
}
