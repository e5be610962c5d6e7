//! Tests of the configuration: unknown keys are named, precedence, what is refused.
//! In: files in a temporary directory. Out: assertions. Never: the real /etc.

use super::{AgentConfig, AllowHostPaths, ConfigOverrides};
use crate::errors::chain;
use std::path::PathBuf;

fn load(text: &str, overrides: &ConfigOverrides) -> Result<AgentConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    AgentConfig::load(Some(&path), overrides).map_err(|error| chain(&error))
}

#[test]
fn an_empty_file_gives_the_defaults_and_everything_dangerous_is_off() {
    let config = load("", &ConfigOverrides::default()).unwrap();
    assert_eq!(config, AgentConfig::default());
    assert!(!config.allow_privileged && !config.allow_devices && !config.allow_host_namespaces);
    assert_eq!(config.allow_host_paths, AllowHostPaths::All(false));
    assert_eq!(config.log_dir(), PathBuf::from("/var/lib/lighter/logs"));
    assert_eq!(config.socket(), PathBuf::from("/run/lighter/agent.sock"));
}

#[test]
fn an_unknown_key_is_refused_by_name_and_line() {
    let error = load("bridge = \"b0\"\nalow_privileged = true\n", &ConfigOverrides::default()).unwrap_err();
    assert!(error.contains("alow_privileged") && error.contains("line 2"), "{error}");
    let error = load("[registries.\"r:5000\"]\nhtpp = true\n", &ConfigOverrides::default()).unwrap_err();
    assert!(error.contains("htpp"), "{error}");
    let error = load("[logs]\nfiles = 3\n", &ConfigOverrides::default()).unwrap_err();
    assert!(error.contains("files"), "{error}");
}

#[test]
fn flags_go_before_variables_before_the_file() {
    let env =
        [("LIGHTER_BRIDGE", "env0"), ("LIGHTER_DATA_DIR", "/env"), ("LIGHTER_HOST", "x"), ("PATH", "y")];
    let mut overrides = ConfigOverrides::from_env(env.map(|(k, v)| (k.to_owned(), v.to_owned())));
    overrides.set("bridge", "flag0", "--bridge");
    overrides.set("allow_host_paths", "[\"/srv\"]", "--allow-host-paths");
    overrides.set("logs.files_max", "7", "--log-files");
    let config = load("bridge = \"file0\"\ndata_dir = \"/file\"\nrun_dir = \"/r\"\n", &overrides).unwrap();
    assert_eq!(config.bridge, "flag0");
    assert_eq!(config.data_dir, PathBuf::from("/env"));
    assert_eq!(config.run_dir, PathBuf::from("/r"));
    assert_eq!(config.allow_host_paths, AllowHostPaths::Below(vec!["/srv".into()]));
    assert_eq!((config.logs.files_max, config.logs.file_mib_max), (7, 10));
}

#[test]
fn wrong_values_name_their_origin() {
    let mut overrides = ConfigOverrides::default();
    overrides.set("reserve_memory_mib", "much", "--reserve-memory-mib");
    let error = load("", &overrides).unwrap_err();
    assert!(error.contains("--reserve-memory-mib"), "{error}");
    let mut overrides = ConfigOverrides::default();
    overrides.set("nonsense", "1", "--nonsense");
    assert!(load("", &overrides).unwrap_err().contains("--nonsense"));
    assert!(load("data_dir = \"x\"", &ConfigOverrides::default()).unwrap_err().starts_with("data_dir"));
}

#[test]
fn plaintext_is_only_for_this_machine() {
    let endpoint = |text: &str| load(&format!("control_endpoint = {text:?}"), &ConfigOverrides::default());
    for good in [
        "https://c:7400",
        "unix:/run/c.sock",
        "http://127.0.0.1:7400",
        "http://[::1]:7400",
        "http://localhost:1",
        "https://a:7443,https://b:7443",
    ] {
        endpoint(good).unwrap();
    }
    for bad in
        ["http://10.0.0.1:7400", "c:7400", "http://127.0.0.1.example:80", "https://a:1,http://10.0.0.1:1"]
    {
        assert!(endpoint(bad).unwrap_err().contains("control_endpoint"), "{bad}");
    }
}

#[test]
fn every_key_of_the_struct_can_be_overridden() {
    let error = load("zzz = 1", &ConfigOverrides::default()).unwrap_err();
    let listed = error.split("expected one of").nth(1).unwrap();
    for key in listed.split('`').skip(1).step_by(2) {
        assert!(ConfigOverrides::keys().iter().any(|known| known.split('.').next() == Some(key)), "{key}");
    }
}
