//! One virtual machine: booted, or loaded from the saved one in about a second.
//! In: guest image, payload disk, wire. Out: a shell in it (`Guest`), power control.
//! Owns: the QEMU process and a folder for its disk and sockets; both go when it is dropped.
//! Never: installs or knows Lighter.

use crate::accel::Accel;
use crate::guest::Guest;
use crate::host;
use crate::hub::{self, Hub};
use crate::image::GuestImage;
use crate::payload;
use crate::qmp::{Qmp, forwarded_ssh_port};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Enough for the demonstration: registry, nginx, redis, control plane and agent.
const MEMORY_MIB: u32 = 1536;
/// A boot takes 20 s under emulation on a quiet machine.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// The name of the saved state inside the disk image.
const SAVED: &str = "booted";

pub struct Machine {
    pub guest: Guest,
    child: Child,
    qmp: Qmp,
    image: GuestImage,
    name: String,
    folder: TempDir,
}

/// What a machine is made from.
struct Parts<'a> {
    name: &'a str,
    image: &'a GuestImage,
    accel: Accel,
    payload: &'a Path,
    hub: Option<&'a Hub>,
}

impl Machine {
    /// A machine in the saved state: booted, idle, nothing installed. The clock is set and the payload mounted.
    pub fn load(name: &str, image: &GuestImage, payload: &Path, hub: Option<&Hub>) -> Result<Self> {
        let accel = Accel::choose(image)?;
        let saved = saved_disk(image, accel)?;
        let folder = tempfile::Builder::new().prefix(&host::temporary("machine")).tempdir()?;
        host::sh(&format!(
            "cp --reflink=auto --sparse=auto {} {}/disk",
            saved.display(),
            folder.path().display()
        ))?;
        let parts = Parts { name, image, accel, payload, hub };
        let machine = Self::start(&parts, folder, true)?;
        machine.guest.wait_up(Duration::from_secs(60)).with_context(|| machine.console_tail())?;
        machine.become_itself()?;
        Ok(machine)
    }

    fn boot(parts: &Parts) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(&host::temporary("machine")).tempdir()?;
        host::sh(&format!(
            "qemu-img create -q -f qcow2 -F raw -b {} {}/disk",
            parts.image.root().display(),
            folder.path().display()
        ))?;
        let machine = Self::start(parts, folder, false)?;
        machine.guest.wait_up(BOOT_LIMIT).with_context(|| machine.console_tail())?;
        Ok(machine)
    }

    fn start(parts: &Parts, folder: TempDir, load: bool) -> Result<Self> {
        let mut command = host::bound_to_us("qemu-system-x86_64");
        command.args(arguments(parts, folder.path()));
        if load {
            command.args(["-loadvm", SAVED]);
        }
        let errors = folder.path().join("qemu.txt");
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&errors)?);
        let mut child = command.spawn().context("start qemu-system-x86_64")?;
        let connected = Qmp::connect(&folder.path().join("qmp.sock"), Duration::from_secs(30))
            .and_then(|mut qmp| Ok((qmp.monitor("info usernet")?, qmp)));
        let (usernet, qmp) = match connected {
            Ok(answer) => answer,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error).context(std::fs::read_to_string(&errors).unwrap_or_default());
            }
        };
        let port = forwarded_ssh_port(&usernet).context("QEMU forwards no port to the guest")?;
        let guest = Guest::new(parts.name, port, &parts.image.key(), folder.path());
        let (name, image) = (parts.name.to_string(), parts.image.clone());
        Ok(Self { guest, child, qmp, image, name, folder })
    }

    /// A loaded machine has the clock and the names of the moment it was saved.
    fn become_itself(&self) -> Result<()> {
        let now = host::sh("date +%s.%N")?;
        let name = &self.name;
        self.guest.sh(&format!(
            "date -s @{now} >/dev/null; hostname {name}; echo {name} > /etc/hostname; \
             sed -i 's/lighter-vm/{name}/' /etc/hosts; \
             rm -f /etc/machine-id; systemd-machine-id-setup >/dev/null 2>&1; {}",
            payload::MOUNT
        ))?;
        Ok(())
    }

    /// Takes the power away and gives it back: memory is lost, what reached the disk stays.
    pub fn power_cut(&mut self) -> Result<()> {
        self.guest.disconnect();
        self.qmp.execute("system_reset", json!({}))?;
        self.guest.wait_up(BOOT_LIMIT).with_context(|| self.console_tail())?;
        self.guest.sh(payload::MOUNT).map(drop)
    }

    /// The last lines of the guest's console.
    pub fn console_tail(&self) -> String {
        let text = std::fs::read(self.folder.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let tail: Vec<&str> = text.lines().rev().take(20).collect();
        format!("{}: console, newest line first:\n{}", self.name, tail.join("\n"))
    }

    /// Stops the machine, keeps its state in its disk, and gives the disk to `keep`.
    fn save(mut self, keep: &Path) -> Result<()> {
        self.guest.sh("sync; echo 3 > /proc/sys/vm/drop_caches")?;
        self.guest.disconnect();
        self.qmp.execute("stop", json!({}))?;
        let words = self.qmp.monitor(&format!("savevm {SAVED}"))?;
        if !words.trim().is_empty() {
            bail!("savevm: {words}");
        }
        self.qmp.execute("quit", json!({}))?;
        self.child.wait()?;
        // Beside the target first: the temporary folder may be on another file system.
        let half = keep.with_extension("half");
        host::sh(&format!("cp --sparse=auto {}/disk {}", self.folder.path().display(), half.display()))?;
        std::fs::rename(&half, keep).context("put the saved machine in place")
    }

    pub fn image(&self) -> &GuestImage {
        &self.image
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.guest.disconnect();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The disk with the saved machine; made now if there is none for this image, accelerator and shape of machine.
fn saved_disk(image: &GuestImage, accel: Accel) -> Result<PathBuf> {
    // Groups that run at once find it missing at once; one of them makes it.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let version = host::sh("qemu-system-x86_64 --version | head -1 | tr -c 'a-zA-Z0-9.\\n' - | tail -c 24")?;
    let saved = image.folder.join(format!("{SAVED}-{}-{MEMORY_MIB}-{version}.qcow2", accel.as_str()));
    if saved.exists() {
        return Ok(saved);
    }
    eprintln!("vm-test: booting the guest once ({}) to save it", accel.as_str());
    let blank = payload::blank()?;
    let parts = Parts { name: "lighter-vm", image, accel, payload: blank.path(), hub: None };
    let machine = Machine::boot(&parts)?;
    machine.guest.until(120, "[ \"$(systemctl is-system-running)\" = running ]")?;
    machine.save(&saved)?;
    Ok(saved)
}

/// The shape of the machine must be the same when it is saved and when it is loaded.
fn arguments(parts: &Parts, folder: &Path) -> Vec<String> {
    let at = |name: &str| folder.join(name);
    let wire = match parts.hub {
        Some(hub) => hub.netdev("wire", &at("wire.sock")),
        None => hub::netdev("wire", &at("wire.sock"), &at("nobody.sock")),
    };
    let mut all: Vec<String> =
        ["-machine", "q35", "-smp", "2", "-nodefaults", "-no-user-config", "-display", "none"]
            .iter()
            .chain(parts.accel.arguments().iter())
            .map(ToString::to_string)
            .collect();
    let disk = at("disk");
    for (flag, value) in [
        ("-m", MEMORY_MIB.to_string()),
        ("-kernel", parts.image.kernel().display().to_string()),
        ("-initrd", parts.image.initrd().display().to_string()),
        ("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 loglevel=4 systemd.show_status=0".into()),
        // Nothing here outlives the run, so the host's disk need not be waited for.
        ("-drive", format!("if=none,id=d0,format=qcow2,cache=unsafe,file={}", disk.display())),
        ("-device", "virtio-blk-pci,drive=d0".into()),
        ("-drive", format!("if=none,id=d1,format=raw,readonly=on,file={}", parts.payload.display())),
        ("-device", "virtio-blk-pci,drive=d1".into()),
        ("-netdev", "user,id=n0,ipv6=off,hostfwd=tcp:127.0.0.1:0-:22".into()),
        ("-device", "virtio-net-pci,netdev=n0,romfile=".into()),
        ("-netdev", wire),
        ("-device", "virtio-net-pci,netdev=wire,romfile=".into()),
        ("-device", "virtio-rng-pci".into()),
        ("-serial", format!("file:{}", at("console").display())),
        ("-qmp", format!("unix:{},server,nowait", at("qmp.sock").display())),
    ] {
        all.extend([flag.to_string(), value]);
    }
    all
}
