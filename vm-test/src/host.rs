//! The host's side: where things are, and how its commands are run.
//! In: environment (CARGO_TARGET_DIR, LIGHTER_BIN_DIR), command lines. Out: paths and outputs.
//! Owns: nothing. Never: knows a guest or QEMU.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The checkout this program was built from.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR` or `target/`.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => workspace().join(dir),
        None => workspace().join("target"),
    }
}

/// Where the guest image and the saved machine are kept between runs.
pub fn cache_dir() -> PathBuf {
    target_dir().join("vm-cache")
}

/// The three shipped binaries: `LIGHTER_BIN_DIR` or `target/bin`.
pub fn bin_dir() -> PathBuf {
    match std::env::var_os("LIGHTER_BIN_DIR") {
        Some(dir) => workspace().join(dir),
        None => target_dir().join("bin"),
    }
}

/// The beginning of the names of our temporary files: `lighter-vm-test-<pid>-<what>-`.
const TEMPORARY: &str = "lighter-vm-test-";

/// A prefix for a temporary file or folder of this run.
pub fn temporary(what: &str) -> String {
    format!("{TEMPORARY}{}-{what}-", std::process::id())
}

/// Removes what runs that were killed left behind: their process is gone, their files are not.
pub fn sweep() {
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(TEMPORARY).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let path = entry.path();
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// Runs a shell script on the host and returns its standard output, trimmed; a failure carries stderr.
pub fn sh(script: &str) -> Result<String> {
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start bash for: {script}"))?;
    if !out.status.success() {
        bail!("`{script}` ended with {}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_string())
}

/// A command that is killed by the kernel when the thread that started it ends.
pub fn bound_to_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]).stdin(Stdio::null());
    command
}

/// Fails with a clear word if one of the programs is not installed.
pub fn require(programs: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs.iter().copied().filter(|p| !installed(p)).collect();
    if !missing.is_empty() {
        bail!("not installed: {}; `make deps` installs what is needed", missing.join(", "));
    }
    Ok(())
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|dir| dir.join(program).exists())
}

/// A text in single quotes for the shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_keeps_quotes_and_dollars() {
        let text = "it's $HOME `x` \"y\"";
        assert_eq!(sh(&format!("printf %s {}", quoted(text))).unwrap(), text);
    }

    #[test]
    fn files_of_dead_runs_are_swept_and_those_of_living_ones_stay() {
        // Above the kernel's highest process id.
        let dead = std::env::temp_dir().join(format!("{TEMPORARY}4194305-x-"));
        std::fs::write(&dead, "").unwrap();
        let ours = tempfile::Builder::new().prefix(&temporary("x")).tempfile().unwrap();
        sweep();
        assert!(!dead.exists() && ours.path().exists());
    }

    #[test]
    fn a_failing_script_carries_its_words() {
        let error = sh("echo broken >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }
}
