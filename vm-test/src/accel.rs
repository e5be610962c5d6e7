//! KVM or emulation? `/dev/kvm` opening proves nothing, so a guest is booted under it once and the verdict kept.
//! In: LIGHTER_VM_ACCEL (kvm, tcg), the guest image. Out: the accelerator.
//! Owns: the file `accel` in the cache. Never: trusts the device node.

use crate::host;
use crate::image::GuestImage;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Under working KVM the kernel speaks within two seconds.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// The processor and accelerator arguments of QEMU.
    pub fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"],
        }
    }

    /// What to use: the variable, else the verdict of a probe boot.
    pub fn choose(image: &GuestImage) -> Result<Self> {
        match std::env::var("LIGHTER_VM_ACCEL").as_deref() {
            Ok("kvm") => return Ok(Self::Kvm),
            Ok("tcg") => return Ok(Self::Tcg),
            Ok(other) => bail!("LIGHTER_VM_ACCEL is `{other}`; it must be kvm or tcg"),
            Err(_) => {}
        }
        let remembered = host::cache_dir().join("accel");
        // The verdict belongs to this boot of this host.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        if let Some(accel) =
            std::fs::read_to_string(&remembered).ok().and_then(|t| remembered_for(&t, &boot_id))
        {
            return Ok(accel);
        }
        let accel = if Path::new("/dev/kvm").exists() && kvm_boots(image)? { Self::Kvm } else { Self::Tcg };
        std::fs::write(&remembered, format!("{} {boot_id}", accel.as_str()))?;
        Ok(accel)
    }
}

fn remembered_for(text: &str, boot_id: &str) -> Option<Accel> {
    let (accel, id) = text.trim().split_once(' ')?;
    (id == boot_id.trim()).then_some(if accel == "kvm" { Accel::Kvm } else { Accel::Tcg })
}

/// Boots the kernel under KVM and waits for its first word.
fn kvm_boots(image: &GuestImage) -> Result<bool> {
    let folder = tempfile::tempdir()?;
    let console = folder.path().join("console");
    let mut qemu = host::bound_to_us("qemu-system-x86_64")
        .args(["-machine", "q35", "-nodefaults", "-display", "none", "-m", "512", "-append", "console=ttyS0"])
        .args(Accel::Kvm.arguments())
        .arg("-kernel")
        .arg(image.kernel())
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + PROBE_LIMIT;
    let mut spoke = false;
    while !spoke && Instant::now() < deadline && qemu.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(50));
        spoke = std::fs::read_to_string(&console).is_ok_and(|text| text.contains("Linux version"));
    }
    let _ = qemu.kill();
    qemu.wait()?;
    Ok(spoke)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_of_another_boot_is_not_used() {
        assert_eq!(remembered_for("kvm abc\n", "abc\n"), Some(Accel::Kvm));
        assert_eq!(remembered_for("tcg abc", "abc"), Some(Accel::Tcg));
        assert_eq!(remembered_for("kvm abc", "def"), None);
        assert_eq!(remembered_for("", "def"), None);
    }
}
