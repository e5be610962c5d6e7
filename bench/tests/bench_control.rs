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
        .args(["--rate", "400", "--outages", "1", "--service-tasks", "40", "--decision-nodes", "50"])
        .args(["--only", "count10,count1,binpack,spread,distinct,member-of,etcd,latency,memory,reconnect"])
        .args(["--only", "rolling,drain,decision"])
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
        "placements_binpack_5000",
        "placements_spread_5000",
        "placements_distinct_instance_5000",
        "placements_member_of_5000",
        "placements_etcd",
        "assign_p99_ms",
        "control_rss_mib_5000",
        "reconnect_5000_seconds",
        "rolling_update_1000_seconds",
        "drain_tenth_seconds",
        "decision_us_50",
        "decision_p99_us_50",
    ] {
        let figure = figures.iter().find(|figure| figure["name"] == name);
        let figure = figure.unwrap_or_else(|| panic!("{name} is missing: {figures:?}"));
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
        assert_eq!(figure["runs"].as_array().map(Vec::len), Some(1), "{figure}");
    }
    let words = |name: &str| {
        let figure = figures.iter().find(|figure| figure["name"] == name).unwrap();
        figure["runs"][0]["words"].as_str().unwrap().to_owned()
    };
    let packed = words("placements_binpack_5000");
    assert!(packed.contains("of 20 nodes used"), "{packed}");
    let spread = words("placements_spread_5000");
    assert!(spread.contains("skew of zones 1, of nodes with room 1"), "{spread}");
}
