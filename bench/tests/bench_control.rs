//! A run of `bench-control` with tiny numbers, so that the benchmark does not rot.
//! In: `lighter` beside the benchmark, as `cargo test --workspace` builds it; etcd. Out: control.json, read back.
//! Never: judges a time.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

#[test]
fn every_figure_of_a_tiny_cluster_is_measured_and_written() {
    let program = Path::new(env!("CARGO_BIN_EXE_bench-control"));
    let bin_dir = program.parent().unwrap();
    assert!(bin_dir.join("lighter").exists(), "cargo test --workspace builds lighter beside the benchmark");
    let out = tempfile::tempdir().unwrap();
    let ran = Command::new(program)
        .args(["measure", "--agents", "20", "--tasks", "400", "--runs", "1", "--callers", "8"])
        .args(["--rate", "400", "--outages", "1"])
        .args(["--only", "count10,count1,etcd,latency,memory,reconnect"])
        .env("LIGHTER_BIN_DIR", bin_dir)
        .env("LIGHTER_BENCH_DIR", out.path())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ran.status.success(), "{}\n{}", said(&ran.stdout), said(&ran.stderr));
    let figures: Vec<Value> =
        serde_json::from_slice(&std::fs::read(out.path().join("control.json")).unwrap()).unwrap();
    for name in [
        "placements_count10",
        "placements_count1",
        "placements_etcd",
        "assign_p99_ms",
        "control_rss_mib_5000",
        "reconnect_5000_seconds",
    ] {
        let figure = figures.iter().find(|figure| figure["name"] == name);
        let figure = figure.unwrap_or_else(|| panic!("{name} is missing: {figures:?}"));
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
        assert_eq!(figure["runs"].as_array().map(Vec::len), Some(1), "{figure}");
    }
}
