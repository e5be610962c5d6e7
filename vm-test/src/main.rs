//! The command of the VM harness, and the runner of `make test` and `make demo`.
//! In: a subcommand. Out: lines for a person, exit code 0 only if everything passed.
//! Owns: nothing itself. Never: does more than choose what runs.

use anyhow::{Result, bail};
use lighter_vm_test::{demo, example_images, host, hub, image, machine, payload, scenarios, tiers};
use std::process::ExitCode;

const USAGE: &str =
    "usage: lighter-vm-test image | example-images | probe | scenarios [FILTER] | tiers [T0 T1 …]
  image      make the guest image now
  example-images  make the images of examples/ now
  probe      load two machines and say how long it took
  scenarios  run the scenarios whose group::name contains FILTER
  demo       what `make demo` shows
  shell      a machine with Lighter installed, and a shell in it (`shell bare`: without Lighter)
  tiers      build and run every tier of tests, or those named";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vm-test: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    host::sweep();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["image"] => image::GuestImage::ensure().map(|image| println!("{}", image.folder.display()))?,
        ["example-images"] => example_images::ensure().map(|folder| println!("{}", folder.display()))?,
        ["probe"] => probe()?,
        ["scenarios"] => return scenarios::run("").map(code),
        ["scenarios", filter] => return scenarios::run(filter).map(code),
        ["demo"] => return demo::run().map(code),
        ["shell"] => scenarios::shell()?,
        ["shell", "bare"] => bare_shell()?,
        ["tiers", wanted @ ..] => return tiers::run(wanted).map(code),
        _ => bail!("{USAGE}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn bare_shell() -> Result<()> {
    let image = image::GuestImage::ensure()?;
    let disk = payload::Payload::bare()?.disk()?;
    let machine = machine::Machine::load("bare", &image, disk.path(), None)?;
    machine.guest.interactive()
}

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows that the harness works on this host, without Lighter.
fn probe() -> Result<()> {
    let image = image::GuestImage::ensure()?;
    let disk = payload::Payload::bare()?.disk()?;
    let folder = tempfile::tempdir()?;
    let hub = hub::Hub::start(folder.path())?;
    let began = std::time::Instant::now();
    let a = machine::Machine::load("node1", &image, disk.path(), Some(&hub))?;
    println!(
        "loaded in {:.1} s: {}",
        began.elapsed().as_secs_f32(),
        a.guest.sh("uname -nr; date; ls /payload/guest")?
    );
    let b = machine::Machine::load("node2", &image, disk.path(), Some(&hub))?;
    for (machine, n) in [(&a, 1), (&b, 2)] {
        machine.guest.sh(&format!(
            "ip link set eth1 address 52:54:00:77:00:0{n}; ip addr add 192.168.77.{n}/24 dev eth1; ip link set eth1 up"
        ))?;
    }
    println!("{}", a.guest.until(20, "ping -c1 -W1 192.168.77.2 || busybox ping -c1 -W1 192.168.77.2")?);
    hub.end();
    Ok(())
}
