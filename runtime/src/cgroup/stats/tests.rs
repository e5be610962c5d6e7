//! The parsers on texts as Linux 6.1 (v2) and 6.18 (v1) printed them.

use super::*;
use std::collections::BTreeMap;

fn files<'a>(texts: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    texts.iter().copied().collect()
}

const V2: [(&str, &str); 12] = [
    (
        "cpu.stat",
        "usage_usec 1523377\nuser_usec 1001\nsystem_usec 522376\nnr_periods 61\nnr_throttled 58\nthrottled_usec 4411893\nnr_bursts 0\nburst_usec 0\n",
    ),
    ("memory.current", "8941568\n"),
    ("memory.peak", "20971520\n"),
    ("memory.max", "20971520\n"),
    ("memory.swap.current", "0\n"),
    (
        "memory.stat",
        "anon 299008\nfile 7958528\nkernel 684032\nkernel_stack 16384\nshmem 4096\ninactive_anon 294912\nactive_file 2703360\ninactive_file 5251072\npgmajfault 12\n",
    ),
    ("memory.events", "low 0\nhigh 0\nmax 131\noom 3\noom_kill 2\noom_group_kill 0\n"),
    (
        "io.stat",
        "254:0 rbytes=8863744 wbytes=4096 rios=174 wios=1 dbytes=0 dios=0\n7:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n8:0 \n",
    ),
    (
        "cpu.pressure",
        "some avg10=72.84 avg60=31.02 avg300=8.11 total=4411893\nfull avg10=72.10 avg60=30.55 avg300=8.00 total=4399123\n",
    ),
    ("memory.pressure", "some avg10=0.51 avg60=0.20 avg300=0.04 total=7421\n"),
    ("pids.current", "3\n"),
    ("pids.max", "max\n"),
];

#[test]
fn a_v2_cgroup_is_read() {
    let files = files(&V2);
    let stats = v2(&|file| files.get(file).copied().unwrap_or_default().to_owned());
    assert_eq!(stats.cpu.usage_ns, 1_523_377_000);
    assert_eq!((stats.cpu.user_ns, stats.cpu.system_ns), (1_001_000, 522_376_000));
    assert_eq!((stats.cpu.periods, stats.cpu.throttled_periods), (61, 58));
    assert_eq!(stats.cpu.throttled_ns, 4_411_893_000);
    let memory = stats.memory;
    assert_eq!((memory.current_bytes, memory.peak_bytes), (8_941_568, Some(20 << 20)));
    assert_eq!(memory.limit_bytes, Some(20 << 20));
    assert_eq!((memory.anon_bytes, memory.file_bytes, memory.kernel_bytes), (299_008, 7_958_528, 684_032));
    assert_eq!((memory.inactive_file_bytes, memory.shmem_bytes), (5_251_072, 4096));
    assert_eq!((memory.oom_kills, memory.major_faults), (2, 12));
    assert_eq!(stats.io, IoStats { read_bytes: 8_863_754, write_bytes: 4116, reads: 175, writes: 3 });
    let cpu = stats.pressure.cpu.unwrap();
    assert_eq!((cpu.some_avg10_percent, cpu.full_avg10_percent), (72.84, 72.1));
    let memory = stats.pressure.memory.unwrap();
    assert_eq!((memory.some_avg10_percent, memory.full_avg10_percent), (0.51, 0.0));
    assert_eq!(stats.pressure.io, None, "no such file");
    assert_eq!((stats.pids, stats.pids_limit), (3, None));
}

const V1: [(&str, &str); 12] = [
    ("cpuacct/cpuacct.usage", "1523377123\n"),
    ("cpuacct/cpuacct.stat", "user 100\nsystem 52\n"),
    (
        "cpu/cpu.stat",
        "nr_periods 61\nnr_throttled 58\nthrottled_time 4411893000\nnr_bursts 0\nburst_time 0\n",
    ),
    ("memory/memory.usage_in_bytes", "8941568\n"),
    ("memory/memory.max_usage_in_bytes", "20971520\n"),
    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
    (
        "memory/memory.stat",
        "cache 1\nrss 2\nshmem 3\npgmajfault 0\ninactive_file 4\nhierarchical_memory_limit 9223372036854771712\ntotal_cache 573227008\ntotal_rss 72167424\ntotal_shmem 9170944\ntotal_swap 5\ntotal_pgmajfault 178656\ntotal_inactive_file 340213760\n",
    ),
    ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
    (
        "blkio/blkio.throttle.io_service_bytes_recursive",
        "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 12288\n8:0 Total 12288\n7:0 Read 4\nTotal 12292\n",
    ),
    ("blkio/blkio.throttle.io_serviced_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
    ("pids/pids.current", "3\n"),
    ("pids/pids.max", "200\n"),
];

#[test]
fn a_v1_cgroup_is_read() {
    let files = files(&V1);
    let stats = v1(&|controller, file| {
        files.get(format!("{controller}/{file}").as_str()).copied().unwrap_or_default().to_owned()
    });
    assert_eq!(stats.cpu.usage_ns, 1_523_377_123);
    assert_eq!((stats.cpu.user_ns, stats.cpu.system_ns), (1_000_000_000, 520_000_000));
    assert_eq!((stats.cpu.throttled_periods, stats.cpu.throttled_ns), (58, 4_411_893_000));
    let memory = stats.memory;
    assert_eq!((memory.limit_bytes, memory.peak_bytes), (None, Some(20 << 20)));
    assert_eq!((memory.anon_bytes, memory.file_bytes), (72_167_424, 573_227_008), "with what is below");
    assert_eq!((memory.inactive_file_bytes, memory.swap_bytes, memory.oom_kills), (340_213_760, 5, 1));
    assert_eq!(stats.io, IoStats { read_bytes: 4100, write_bytes: 8192, reads: 1, writes: 2 });
    assert_eq!(stats.pressure, PressureStats::default());
    assert_eq!((stats.pids, stats.pids_limit), (3, Some(200)));
}

#[test]
fn missing_or_broken_files_are_no_numbers() {
    let nothing = v2(&|_| String::new());
    assert_eq!(nothing, ContainerStats::default());
    assert_eq!(v1(&|_, _| "garbage\u{0} =\n".to_owned()).io, IoStats::default());
    assert_eq!(parse_pressure("some avg10=x"), None);
    assert_eq!(parse_host_cpu("cpu0 1 2"), HostCpu::default());
}

#[test]
fn the_machine_is_all_cpus_and_idle_time() {
    let text = "cpu  10 1 5 80 2 0 1 1 7 0\ncpu0 5 0 3 40 1 0 0 1 7 0\ncpu1 5 1 2 40 1 0 1 0 0 0\nintr 1 2 3\nctxt 5\n";
    assert_eq!(parse_host_cpu(text), HostCpu { total_ns: 1_000_000_000, online: 2 });
    let here = host_cpu();
    assert!(here.online >= 1 && here.total_ns > 0, "{here:?}");
}
