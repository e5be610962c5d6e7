//! `make demo`: makes the images, then runs packaging/demo/demo.sh, here or in a machine booted for it.
//! In: the release binaries. Out: what happens, as it happens. Owns: a machine, where one is needed.
//! Never: does itself what the script does; the script is the demonstration.

use crate::host;
use crate::image::GuestImage;
use crate::machine::Machine;
use crate::payload::Payload;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// At most ten minutes after the build, by the contract; the script itself takes about two.
const LIMIT_S: u32 = 560;

const AFTERWARDS: &str = "
To go on:
  make shell                 a machine with Lighter on it, to play with
  make install               install it on this machine (cgroup v2), then:
    sudo systemctl start lighter-control
    sudo lighter agent join https://127.0.0.1:7443 --token $(sudo lighter token create -q)
    sudo systemctl enable --now lighter-tasks lighter-agent
    sudo lighter run task-definition.json --wait
  lighter --help             every command
  make test                  every test, the virtual machines included";

/// Whether the demonstration succeeded.
pub fn run() -> Result<bool> {
    let images = tempfile::Builder::new().prefix(&host::temporary("images")).tempdir()?;
    println!("Making images from Debian's nginx and redis packages …");
    host::sh(&format!(
        "{}/packaging/demo/images.sh {} nginx redis",
        host::workspace().display(),
        images.path().display()
    ))?;
    let passed = match obstacle() {
        None => {
            println!("This host has cgroup v2 and systemd: the demonstration runs here.");
            here(images.path())?
        }
        Some(obstacle) => {
            println!(
                "This host {obstacle}: the demonstration runs in a virtual machine that is booted for it."
            );
            in_a_machine(images.path())?
        }
    };
    let passed = passed && service()?;
    if passed {
        println!("{AFTERWARDS}");
    }
    Ok(passed)
}

/// A service on two nodes, which are network namespaces of this machine whatever its cgroups are.
fn service() -> Result<bool> {
    println!("\nA service of three replicas on two nodes, in network namespaces of this machine …");
    let script = host::workspace().join("packaging/demo/service.sh");
    let status = Command::new(&script).env("BIN_DIR", host::bin_dir()).status();
    Ok(status.with_context(|| format!("start {}", script.display()))?.success())
}

/// Why the demonstration cannot run on this host; `None` if it can.
fn obstacle() -> Option<&'static str> {
    let controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    if !["cpu", "memory", "pids", "io"].iter().all(|c| controllers.split_whitespace().any(|have| have == *c))
    {
        return Some("has no cgroup v2 controllers");
    }
    (!Path::new("/run/systemd/system").exists()).then_some("is not run by systemd")
}

fn here(images: &Path) -> Result<bool> {
    let status = Command::new(host::workspace().join("packaging/demo/demo.sh"))
        .env("BIN_DIR", host::bin_dir())
        .env("IMAGES", images)
        .status()
        .context("start demo.sh")?;
    Ok(status.success())
}

fn in_a_machine(images: &Path) -> Result<bool> {
    let payload = Payload::with_lighter(&host::bin_dir())?;
    payload.add(images, "images")?;
    let disk = payload.disk()?;
    let machine = Machine::load("demo", &GuestImage::ensure()?, disk.path(), None)?;
    let colour = if std::io::IsTerminal::is_terminal(&std::io::stdout()) { "DEMO_COLOUR=yes" } else { "" };
    let code = machine.guest.stream(
        LIMIT_S,
        &format!("{colour} BIN_DIR=/payload/bin IMAGES=/payload/images /payload/packaging/demo/demo.sh"),
    )?;
    Ok(code == 0)
}
