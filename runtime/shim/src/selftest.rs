//! The program that the agent's self-test runs inside a container: it tries what must not work and
//! prints one `name=value` line for each. In: `--block MAJOR:MINOR` of a real block device of the
//! host, if there is one. Out: lines on stdout. Never: judges; `lighter_runtime::self_test` does.

use crate::sys;
use std::ffi::CStr;
use std::fs;

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| format!("cannot read /proc/self/status: {error}"))?;
    for key in ["Seccomp", "NoNewPrivs", "CapEff", "CapBnd", "SigBlk", "SigIgn"] {
        let value =
            status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":")).unwrap_or("").trim();
        println!("{key}={value}");
    }
    // Without AppArmor neither can be read; the second is that of kernels before 5.8.
    let profile = fs::read_to_string("/proc/self/attr/apparmor/current")
        .or_else(|_| fs::read_to_string("/proc/self/attr/current"));
    println!("apparmor={}", profile.unwrap_or_default().trim_end());
    println!("keyctl_denied={}", sys::keyctl_is_denied());
    println!("clone_newuser_denied={}", sys::clone_newuser_is_denied());
    println!("null_writable={}", fs::write("/dev/null", "x").is_ok());
    match block_device(arguments) {
        Some((major, minor)) => println!("block_device_open={}", block_device_opens(major, minor)),
        None => println!("block_device_open=untried"),
    }
    println!("kcore_hidden={}", fs::metadata("/proc/kcore").map_or(true, |meta| meta.len() == 0));
    println!("sysrq_writable={}", fs::OpenOptions::new().write(true).open("/proc/sysrq-trigger").is_ok());
    Ok(())
}

fn block_device(arguments: &[String]) -> Option<(u32, u32)> {
    let at = arguments.iter().position(|word| word == "--block")?;
    let (major, minor) = arguments.get(at + 1)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `no: mknod` or `no: open` with the error, or `yes`.
fn block_device_opens(major: u32, minor: u32) -> String {
    const PATH: &CStr = c"/dev/lighter-self-test";
    if let Err(error) = sys::make_device(PATH, libc::S_IFBLK | 0o600, major, minor) {
        return format!("no: mknod: {error}");
    }
    let opened = fs::File::open("/dev/lighter-self-test");
    let _ = fs::remove_file("/dev/lighter-self-test");
    match opened {
        Ok(_) => "yes".to_owned(),
        Err(error) => format!("no: open: {error}"),
    }
}
