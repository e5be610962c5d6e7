//! `lighter top`: what containers use now, refreshed in place.
//! In: samples of counters, of one node each. Out: a table of rates, or JSON lines, once an interval
//! however many nodes there are. Owns the sample before, of which rates are made.
//! Never: more rows than fit the screen when it refreshes in place; leaves a node out and says nothing.

use crate::args::{Format, Global, TopArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::{Table, WIDTH_MAX};
use crate::{names, output, terminal, words};
use lighter_proto::v1;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tonic::Streaming;

/// What fails when a call does.
const WHAT: &str = "read the counters";

/// How long `--once` waits for a node, beside the two samples that rates are made of.
const PATIENCE: Duration = Duration::from_secs(5);

/// A container of a task.
type Key = (String, String);

/// Counters of a container, and what became of them since the look before.
#[derive(Debug, Clone)]
struct Seen {
    now: v1::ContainerStats,
    before: Option<v1::ContainerStats>,
}

/// Everything seen last; containers that were not in their node's last sample are gone.
#[derive(Debug, Default)]
struct Board {
    seen: BTreeMap<Key, Seen>,
}

/// What a container does in a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Rates {
    /// Of one core.
    cpu_percent: Option<f64>,
    received: Option<f64>,
    sent: Option<f64>,
    read: Option<f64>,
    written: Option<f64>,
}

fn key(stats: &v1::ContainerStats) -> Key {
    (stats.task_id.clone(), stats.container.clone())
}

fn rates(seen: &Seen) -> Rates {
    let Some(before) = &seen.before else { return Rates::default() };
    let now = &seen.now;
    let seconds = now.read_at_ns.saturating_sub(before.read_at_ns) as f64 / 1e9;
    // A counter that fell belongs to a container that began anew.
    let rate = |now: Option<u64>, before: Option<u64>| {
        let grown = now?.checked_sub(before?)?;
        (seconds > 0.0).then(|| grown as f64 / seconds)
    };
    Rates {
        cpu_percent: rate(now.cpu_usage_ns, before.cpu_usage_ns).map(|ns| ns / 1e7),
        received: rate(now.network_received_bytes, before.network_received_bytes),
        sent: rate(now.network_sent_bytes, before.network_sent_bytes),
        read: rate(now.io_read_bytes, before.io_read_bytes),
        written: rate(now.io_write_bytes, before.io_write_bytes),
    }
}

impl Board {
    /// Takes one node's sample in.
    fn take(&mut self, sample: v1::StatsSample, node: &str) {
        let mut found = BTreeMap::new();
        for stats in sample.containers {
            let before = self.seen.remove(&key(&stats)).map(|seen| seen.now);
            found.insert(key(&stats), Seen { now: stats, before });
        }
        self.seen.retain(|_, seen| seen.now.container_instance_id != node);
        self.seen.extend(found);
    }

    fn complete(&self) -> bool {
        self.seen.values().all(|seen| seen.before.is_some())
    }
}

pub async fn run(global: &Global, client: &mut Client, args: TopArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.cluster);
    let task = match &args.task {
        Some(text) => names::task(client, &cluster, text).await?.task_id,
        None => String::new(),
    };
    let awaited = match args.once && task.is_empty() {
        true => connected(client, &cluster).await?,
        false => BTreeMap::new(),
    };
    let interval_ms = u32::try_from(args.interval.as_millis()).unwrap_or(u32::MAX);
    let request = v1::WatchStatsRequest { cluster, task, interval_ms };
    let samples = client.watch_stats(request).await.map_err(Failure::rpc(WHAT))?.into_inner();
    if args.once {
        return once(global, samples, awaited, args.interval * 2 + PATIENCE).await;
    }
    live(global, samples, args.interval).await
}

/// The nodes that can be asked: names by id.
async fn connected(client: &mut Client, cluster: &str) -> Result<BTreeMap<String, String>, Failure> {
    let nodes = names::nodes(client, cluster, String::new()).await?;
    let connected = nodes.into_iter().filter(|node| node.agent_connected);
    Ok(connected.map(|node| (node.container_instance_id, node.name)).collect())
}

/// Prints when every node awaited has told of its containers twice, or the patience is over.
async fn once(
    global: &Global,
    mut samples: Streaming<v1::StatsSample>,
    mut awaited: BTreeMap<String, String>,
    patience: Duration,
) -> Result<(), Failure> {
    let mut board = Board::default();
    let gathered = tokio::time::timeout(patience, gather(&mut samples, &mut board, &mut awaited)).await;
    if let Ok(gathered) = gathered {
        gathered?;
    }
    for name in awaited.values() {
        output::note(&format!("node {name} has not told its counters; its containers are not shown"));
    }
    match global.output {
        Format::Json => output::json_line(&as_json(&board)),
        _ => show(global, &board, false, 0).map(|_| ()),
    }
}

/// Until nothing is missing or the stream ends. Takes those out of `awaited` that have answered.
async fn gather(
    samples: &mut Streaming<v1::StatsSample>,
    board: &mut Board,
    awaited: &mut BTreeMap<String, String>,
) -> Result<(), Failure> {
    while let Some(sample) = samples.message().await.map_err(Failure::rpc(WHAT))? {
        let node = sample.container_instance_id.clone();
        board.take(sample, &node);
        awaited.remove(&node);
        if awaited.is_empty() && board.complete() {
            break;
        }
    }
    Ok(())
}

/// Prints again and again until the stream ends.
async fn live(
    global: &Global,
    mut samples: Streaming<v1::StatsSample>,
    interval: Duration,
) -> Result<(), Failure> {
    let in_place = global.output != Format::Json && std::io::stdout().is_terminal();
    let (mut board, mut lines) = (Board::default(), 0);
    // Samples of one node come a little early as well as late.
    let pause = interval * 4 / 5;
    let mut printed: Option<Instant> = None;
    while let Some(sample) = samples.message().await.map_err(Failure::rpc(WHAT))? {
        let node = sample.container_instance_id.clone();
        board.take(sample, &node);
        if printed.is_some_and(|at| at.elapsed() < pause) {
            continue;
        }
        printed = Some(Instant::now());
        if global.output == Format::Json {
            output::json_line(&as_json(&board))?;
        } else {
            lines = show(global, &board, in_place, lines)?;
        }
    }
    Ok(())
}

/// Prints the table over the one before; how many lines it has.
fn show(global: &Global, board: &Board, in_place: bool, before: usize) -> Result<usize, Failure> {
    let width = (global.output != Format::Wide).then_some(WIDTH_MAX);
    let text = table(board).render(width, output::colour());
    let lines: Vec<&str> = text.lines().collect();
    if !in_place {
        output::print(&text)?;
        return Ok(lines.len());
    }
    let room = terminal::size().map_or(lines.len(), |(rows, _)| rows as usize - 1);
    let lines = &lines[..lines.len().min(room.max(2))];
    // Up to where the last table began, and clear from there to the end of the screen.
    let up = if before > 0 { format!("\u{1b}[{before}A\r\u{1b}[J") } else { String::new() };
    output::print(&format!("{up}{}\n", lines.join("\n")))?;
    Ok(lines.len())
}

fn table(board: &Board) -> Table {
    let mut table = Table::new(&[
        "TASK",
        "CONTAINER",
        "CPU %",
        "MEMORY",
        "LIMIT",
        "PIDS",
        "NET I/O /s",
        "DISK I/O /s",
        "PSI c/m/i %",
    ]);
    for seen in board.seen.values() {
        table.row(row(seen));
    }
    table
}

fn row(seen: &Seen) -> [String; 9] {
    let (now, rates) = (&seen.now, rates(seen));
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), words::bytes);
    let flow = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => format!("{} / {}", words::bytes(a as u64), words::bytes(b as u64)),
        _ => "-".to_owned(),
    };
    let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.0}"));
    [
        now.task_id.get(..16).unwrap_or(&now.task_id).to_owned(),
        now.container.clone(),
        rates.cpu_percent.map_or("-".to_owned(), |percent| format!("{percent:.1}")),
        size(now.memory_bytes),
        now.memory_limit_bytes.map_or("none".to_owned(), words::bytes),
        now.pids.map_or("-".to_owned(), |pids| pids.to_string()),
        flow(rates.received, rates.sent),
        flow(rates.read, rates.written),
        [now.cpu_some_avg10, now.memory_some_avg10, now.io_some_avg10].map(share).join("/"),
    ]
}

fn as_json(board: &Board) -> serde_json::Value {
    let containers: Vec<_> = board.seen.values().map(of_container).collect();
    json!({ "containers": containers })
}

fn of_container(seen: &Seen) -> serde_json::Value {
    let (now, rates) = (&seen.now, rates(seen));
    json!({
        "taskId": now.task_id,
        "container": now.container,
        "containerInstanceId": now.container_instance_id,
        "cpuPercent": rates.cpu_percent,
        "cpuUsageNs": now.cpu_usage_ns,
        "cpuThrottledNs": now.cpu_throttled_ns,
        "memoryBytes": now.memory_bytes,
        "memoryPeakBytes": now.memory_peak_bytes,
        "memoryLimitBytes": now.memory_limit_bytes,
        "memoryAnonBytes": now.memory_anon_bytes,
        "memoryFileBytes": now.memory_file_bytes,
        "pids": now.pids,
        "networkReceivedBytes": now.network_received_bytes,
        "networkSentBytes": now.network_sent_bytes,
        "ioReadBytes": now.io_read_bytes,
        "ioWriteBytes": now.io_write_bytes,
        "pressure": {
            "cpuSome": now.cpu_some_avg10,
            "memorySome": now.memory_some_avg10,
            "memoryFull": now.memory_full_avg10,
            "ioSome": now.io_some_avg10,
            "ioFull": now.io_full_avg10,
        },
    })
}

/// `500ms`, `2s`: as the API takes it.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = match text.strip_suffix("ms").map(str::parse) {
        Some(Ok(ms)) => Duration::from_millis(ms),
        _ => crate::duration::parse(text)?,
    };
    if interval < Duration::from_millis(200) { Err("at least 200ms".to_owned()) } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(container: &str, at_s: u64, cpu_s: u64) -> v1::ContainerStats {
        v1::ContainerStats {
            task_id: "t".into(),
            container: container.into(),
            container_instance_id: "n".into(),
            read_at_ns: at_s * 1_000_000_000,
            cpu_usage_ns: Some(cpu_s * 1_000_000_000),
            ..Default::default()
        }
    }

    fn sample(containers: Vec<v1::ContainerStats>) -> v1::StatsSample {
        v1::StatsSample { containers, container_instance_id: "n".into(), ..Default::default() }
    }

    #[test]
    fn rates_are_of_two_samples_and_what_is_gone_goes() {
        let mut board = Board::default();
        board.take(sample(vec![stats("a", 1, 1), stats("b", 1, 1)]), "n");
        assert!(!board.complete());
        board.take(sample(vec![stats("a", 3, 2)]), "n");
        assert!(board.complete());
        assert_eq!(board.seen.len(), 1);
        let rates = rates(board.seen.values().next().unwrap());
        assert_eq!(rates.cpu_percent, Some(50.0));
        assert_eq!(rates.received, None);
        // A container that began anew has no rate yet.
        board.take(sample(vec![stats("a", 4, 0)]), "n");
        assert_eq!(super::rates(board.seen.values().next().unwrap()).cpu_percent, None);
    }

    #[test]
    fn intervals_are_checked() {
        assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert!(interval("100ms").is_err() && interval("x").is_err());
    }
}
