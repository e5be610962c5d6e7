//! The scenarios: groups of them, run in order on the machines of a group, two groups at once.
//! In: a filter on names. Out: one line a scenario and a closing line as cargo's test runner prints it.
//! Owns: nothing between runs. Never: goes on with a machine that a failed scenario may have spoiled.

mod cluster;
mod faults;
mod leak;
mod lifecycle;
mod limits;
mod ports;
mod power;
mod run;
mod service;
mod volumes;

use crate::host;
use crate::image::GuestImage;
use crate::payload::Payload;
use crate::registry::Registries;
use crate::tally::Tally;
use crate::world::{Shared, World, at_once};
use anyhow::Result;
use std::sync::Arc;
use std::time::Instant;

type Run = fn(&mut World) -> Result<()>;

/// A scenario: what a person would call it, and what it does.
pub type Scenario = (&'static str, Run);

struct Group {
    name: &'static str,
    machines: usize,
    scenarios: Vec<Scenario>,
}

/// Groups that run at once share the host's processors; the machines of one round are at most two.
fn rounds() -> Vec<Vec<Group>> {
    let tasks = [run::ALL, limits::ALL, volumes::ALL].concat();
    let lifecycle = [ports::ALL, lifecycle::ALL, leak::ALL].concat();
    let rest = [faults::ALL, power::ALL].concat();
    let nodes = [cluster::ALL, service::ALL].concat();
    vec![
        vec![
            Group { name: "tasks", machines: 1, scenarios: tasks },
            Group { name: "life", machines: 1, scenarios: lifecycle },
        ],
        vec![
            Group { name: "node", machines: 2, scenarios: nodes },
            Group { name: "faults", machines: 1, scenarios: rest },
        ],
    ]
}

/// Runs the scenarios whose `group::name` contains `filter`; whether all passed.
pub fn run(filter: &str) -> Result<bool> {
    let began = Instant::now();
    let (shared, _disk) = prepare()?;
    let mut sum = Tally::default();
    for round in rounds() {
        let jobs: Vec<Box<dyn FnOnce() -> Tally + Send>> = round
            .into_iter()
            .map(|group| chosen(group, filter))
            .filter(|group| !group.scenarios.is_empty())
            .map(|group| {
                let shared = shared.clone();
                Box::new(move || run_group(&shared, &group)) as Box<dyn FnOnce() -> Tally + Send>
            })
            .collect();
        for outcome in at_once(jobs) {
            sum = sum.plus(outcome.unwrap_or(Tally { failed: 1, ..Tally::default() }));
        }
    }
    let word = if sum.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.1}s",
        sum.passed,
        sum.failed,
        sum.skipped,
        began.elapsed().as_secs_f32()
    );
    Ok(sum.failed == 0 && sum.passed > 0)
}

/// One machine with Lighter running on it and the test registries beside it, for a person.
pub fn shell() -> Result<()> {
    let (shared, _disk) = prepare()?;
    let world = World::raise(&shared, "shell", 1)?;
    println!("the test image is {}", world.image());
    world.node().guest.interactive()
}

/// What every machine of this run is made from. The disk lives as long as the file.
fn prepare() -> Result<(Shared, tempfile::NamedTempFile)> {
    host::require(&["qemu-system-x86_64", "qemu-img", "mke2fs", "ssh", "timeout", "setpriv", "strip"])?;
    let image = GuestImage::ensure()?;
    let disk = Payload::with_lighter(&host::bin_dir())?.disk()?;
    let shared =
        Shared { image, payload: disk.path().to_path_buf(), registries: Arc::new(Registries::start()?) };
    Ok((shared, disk))
}

fn chosen(mut group: Group, filter: &str) -> Group {
    let name = group.name;
    group.scenarios.retain(|(scenario, _)| format!("{name}::{scenario}").contains(filter));
    group
}

fn run_group(shared: &Shared, group: &Group) -> Tally {
    let mut tally = Tally::default();
    let mut world = None;
    for (name, scenario) in &group.scenarios {
        let full = format!("{}::{name}", group.name);
        let began = Instant::now();
        let outcome = on_stage(shared, group, &mut world, *scenario);
        let seconds = began.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                println!("test {full} ... ok ({seconds:.1} s)");
                tally.passed += 1;
            }
            Err(error) => {
                println!("test {full} ... FAILED ({seconds:.1} s)\nfailures:\n---- {full}\n{error:#}");
                if let Some(world) = world.take() {
                    // The next scenario gets fresh machines; this one's are kept no longer than their words.
                    println!("{}", world.journals());
                }
                tally.failed += 1;
            }
        }
    }
    tally
}

/// Runs a scenario on the group's machines, which are raised if there are none, and then asks the oracle.
fn on_stage(shared: &Shared, group: &Group, world: &mut Option<World>, scenario: Run) -> Result<()> {
    if world.is_none() {
        let began = Instant::now();
        *world = Some(World::raise(shared, group.name, group.machines)?);
        println!(
            "{}: {} machine(s) ready in {:.1} s",
            group.name,
            group.machines,
            began.elapsed().as_secs_f32()
        );
    }
    match world {
        Some(world) => scenario(world).and_then(|()| world.settle()),
        None => Ok(()),
    }
}
