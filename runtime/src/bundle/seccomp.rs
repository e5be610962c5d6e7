//! The compiled seccomp filter of a container. In: its capabilities. Out: a file that the helper
//! installs. There is one file for each different profile, named by its text, so a profile that was
//! compiled once is not compiled again. Compiling takes about 10 ms of processor time.
//! Never: changes a file in place; containers that start meanwhile keep the one they opened.

use super::BundleError;
use crate::config::RuntimeConfig;
use crate::spec::{self, SpecRequest};
use serde_json::Value;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The file of Docker's default capabilities; made by `Runtime::open`.
pub(crate) const DEFAULT: &str = "default";

/// The filter of a container; `None` for one that asks for none.
pub(super) fn filter(
    config: &RuntimeConfig,
    request: &SpecRequest<'_>,
) -> Result<Option<PathBuf>, BundleError> {
    let Some(profile) = spec::seccomp_profile(request)? else { return Ok(None) };
    if profile == spec::default_seccomp() {
        return Ok(Some(path(config, DEFAULT)));
    }
    let mut hasher = DefaultHasher::new();
    profile.to_string().hash(&mut hasher);
    let name = format!("{:016x}", hasher.finish());
    if path(config, &name).exists() {
        return Ok(Some(path(config, &name)));
    }
    let container = request.container.name.to_string();
    compile(config, &name, &profile).map(Some).map_err(|source| BundleError::Seccomp { container, source })
}

fn path(config: &RuntimeConfig, name: &str) -> PathBuf {
    config.seccomp_dir().join(format!("{name}.bpf"))
}

/// Has lighter-oci compile a profile; the file appears whole.
pub(crate) fn compile(config: &RuntimeConfig, name: &str, profile: &Value) -> io::Result<PathBuf> {
    let directory = tempfile_in(config)?;
    let (text, compiled) = (directory.join("profile.json"), directory.join("filter.bpf"));
    let made = || -> io::Result<PathBuf> {
        fs::write(&text, profile.to_string())?;
        let output =
            Command::new(&config.oci_path).arg("compile-seccomp").arg(&text).arg(&compiled).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let target = path(config, name);
        fs::rename(&compiled, &target)?;
        Ok(target)
    };
    let result = made();
    // What is left of it does not matter; the next start of the machine empties the run directory.
    let _ = fs::remove_dir_all(&directory);
    result
}

/// A directory of this call alone: bundles of several containers are written at once.
fn tempfile_in(config: &RuntimeConfig) -> io::Result<PathBuf> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = config.seccomp_dir().join(format!("work-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory)?;
    Ok(directory)
}
