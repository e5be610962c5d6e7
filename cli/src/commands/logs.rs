//! `lighter logs`: the output of a task's containers, each stream to the same stream here.
//! In: a name of the task, bounds. Out: lines; markers of the log itself go to standard error.
//! A follower whose stream breaks asks again and goes on after the last line it has printed.
//! Never: takes a node that went away for the end of a log.

mod place;

use crate::args::{Format, Global, LogsArgs};
use crate::client::Client;
use crate::failure::{Failure, is_break};
use crate::{duration, json, names, output, time};
use lighter_proto::v1;
use place::Place;
use std::io::Write;
use std::time::Duration;
use tonic::{Status, Streaming};

pub async fn run(global: &Global, client: &mut Client, args: LogsArgs) -> Result<(), Failure> {
    let cluster = super::cluster(args.task.cluster);
    let since_unix_ms = match &args.since {
        None => 0,
        Some(text) => duration::parse_since(text, time::now_unix_ms())
            .map_err(|message| Failure::Refused { message, next: "--since 10m".to_owned() })?,
    };
    let task = names::task(client, &cluster, &args.task.task).await?;
    let prefix = args.container.is_none() && task.containers.len() > 1;
    let request = v1::StreamTaskLogsRequest {
        cluster,
        task: task.task_id,
        container: args.container.unwrap_or_default(),
        follow: args.follow,
        tail_lines: args.tail,
        since_unix_ms,
    };
    let show = Show { json: global.output == Format::Json, prefix, timestamps: args.timestamps };
    let containers = if request.container.is_empty() { task.containers.len() } else { 1 };
    follow(client, request, containers, show).await
}

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
struct Show {
    json: bool,
    prefix: bool,
    timestamps: bool,
}

/// Before asking again; longer each time nothing came.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

async fn follow(
    client: &mut Client,
    first: v1::StreamTaskLogsRequest,
    containers: usize,
    show: Show,
) -> Result<(), Failure> {
    let what = "read the logs";
    let mut place = Place::default();
    // The first question is asked once: what is wrong with it is wrong for good.
    let mut stream = client.stream_task_logs(first.clone()).await.map_err(Failure::rpc(what))?.into_inner();
    let mut pause = FIRST_PAUSE;
    loop {
        let broken = match read(&mut stream, &mut place, show, &mut pause).await? {
            None => return Ok(()),
            Some(status) => status,
        };
        if !first.follow || !is_break(&broken) {
            return Err(Failure::rpc(what)(broken));
        }
        // Who has closed standard error does not want to know.
        let _ =
            writeln!(std::io::stderr(), "[lighter] the log broke off ({}); asking again", broken.message());
        stream = loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match client.stream_task_logs(place.resume(&first, containers)).await {
                Ok(answer) => break answer.into_inner(),
                Err(status) if is_break(&status) => {}
                Err(status) => return Err(Failure::rpc(what)(status)),
            }
        };
    }
}

/// Prints what comes; the status the stream broke off with, if it did.
async fn read(
    stream: &mut Streaming<v1::StreamTaskLogsResponse>,
    place: &mut Place,
    show: Show,
    pause: &mut Duration,
) -> Result<Option<Status>, Failure> {
    loop {
        let lines = match stream.message().await {
            Ok(Some(answer)) => answer.lines,
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        };
        for line in &lines {
            if !place.is_new(line) {
                continue;
            }
            *pause = FIRST_PAUSE;
            if show.json {
                output::json_line(&json::log_line(line))?;
            } else {
                write(line, show.prefix, show.timestamps)?;
            }
        }
    }
}

/// Bytes as the container wrote them, after a prefix when it is not clear whose they are.
fn write(line: &v1::LogLine, prefix: bool, timestamps: bool) -> Result<(), Failure> {
    let mut text = Vec::new();
    if timestamps {
        text.extend_from_slice(time::rfc3339(line.time_unix_ns / 1_000_000).unwrap_or_default().as_bytes());
        text.push(b' ');
    }
    if prefix {
        text.extend_from_slice(format!("{} | ", line.container).as_bytes());
    }
    let marker = line.source == v1::LogSource::Marker as i32;
    if marker {
        text.extend_from_slice(b"[lighter] ");
    }
    text.extend_from_slice(&line.line);
    // A piece of a long line is followed by the next piece; with prefixes each stands alone.
    if !line.partial || prefix || timestamps {
        text.push(b'\n');
    }
    let to_stdout = !marker && line.source != v1::LogSource::Stderr as i32;
    let written = if to_stdout {
        let mut out = std::io::stdout().lock();
        out.write_all(&text).and_then(|()| out.flush())
    } else {
        std::io::stderr().lock().write_all(&text)
    };
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
        Err(source) => Err(Failure::io("write the log", source)),
    }
}
