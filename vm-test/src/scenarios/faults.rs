//! Registries that fail: the task stops with CannotPullContainerError and the cause in words.

use super::Scenario;
use crate::node::shell_task;
use crate::world::World;
use anyhow::{Result, ensure};
use std::time::Duration;

pub(super) const ALL: &[Scenario] = &[
    ("registry_unknown_image", registry_unknown_image),
    ("registry_wrong_credentials", registry_wrong_credentials),
    ("registry_wrong_digest", registry_wrong_digest),
    ("registry_down", registry_down),
];

/// Retries with backoff come before giving up.
const PULL_LIMIT: Duration = Duration::from_secs(150);

/// Runs a task of an image that cannot be had; the reason must name CannotPullContainerError and one of the words.
fn cannot_pull(world: &World, image: &str, words: &[&str]) -> Result<()> {
    let node = world.node();
    let id = node.run(&shell_task("unpullable", image, "true"))?;
    let task = node.wait_for(&id, "STOPPED", PULL_LIMIT)?;
    let container = task.container("main")?["reason"].as_str().unwrap_or_default();
    let said = format!("{} {container}", task.stopped_reason());
    ensure!(said.contains("CannotPullContainerError"), "the reason is {said:?}");
    ensure!(words.iter().any(|word| said.to_lowercase().contains(word)), "none of {words:?} in {said:?}");
    ensure!(task.0["stopCode"] == "TaskFailedToStart", "{}", task.0);
    let half = node.guest.sh("find /var/lib/lighter/images -path '*tmp*' -type f | head -3")?;
    ensure!(half.is_empty(), "half-written files stay: {half}");
    Ok(())
}

fn registry_unknown_image(world: &mut World) -> Result<()> {
    cannot_pull(
        world,
        &format!("{}/no-such-image:1", world.registries.open()),
        &["knows no image", "not found"],
    )
}

fn registry_wrong_credentials(world: &mut World) -> Result<()> {
    let image = format!("{}/box:1", world.registries.closed());
    cannot_pull(world, &image, &["unauthorized", "credential", "authentication", "401", "login"])?;
    // With the right ones, as `docker login` writes them, the same image runs.
    let node = world.node();
    let login = crate::registry::docker_login(&world.registries.closed());
    node.guest.write("/root/.docker/config.json", &login)?;
    let task = node.run_until_stopped(&shell_task("pullable", &image, "exit 4"));
    node.guest.sh("rm -r /root/.docker")?;
    let task = task?;
    ensure!(task.exit_code("main")? == Some(4), "{}", task.0);
    Ok(())
}

fn registry_wrong_digest(world: &mut World) -> Result<()> {
    cannot_pull(world, &format!("{}/spoiled:1", world.registries.open()), &["digest"])
}

fn registry_down(world: &mut World) -> Result<()> {
    cannot_pull(world, &format!("{}/box:1", world.registries.dead()), &["refused", "connect", "reach"])
}
