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
    fn a_failing_script_carries_its_words() {
        let error = sh("echo broken >&2; exit 3").unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }
}
