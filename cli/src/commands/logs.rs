//! `lighter logs`: the output of a task's containers, each stream to the same stream here.
//! In: a name of the task, bounds. Out: lines; markers of the log itself go to standard error.

use crate::args::{Format, Global, LogsArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::{duration, json, names, output, time};
use lighter_proto::v1;
use std::io::Write;

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
    let what = "read the logs";
    let mut stream = client.stream_task_logs(request).await.map_err(Failure::rpc(what))?.into_inner();
    while let Some(answer) = stream.message().await.map_err(Failure::rpc(what))? {
        for line in &answer.lines {
            if global.output == Format::Json {
                output::line(&json::log_line(line).to_string())?;
            } else {
                write(line, prefix, args.timestamps)?;
            }
        }
    }
    Ok(())
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
