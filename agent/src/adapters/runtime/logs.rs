//! A container's log as a stream. In: the directory, what is wanted. Out: lines until the end, or
//! until the container has ended when followed. Owns the reader while the stream is polled.
//! Never: reads ahead; a slow receiver slows nothing but itself.

use crate::errors::Cause;
use crate::facilities::{LogLine, LogOrigin, LogQuery};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use lighter_runtime::logs::{self, LogOptions, LogReader, LogStream};
use std::path::PathBuf;

pub(super) async fn read(
    directory: PathBuf,
    query: LogQuery,
) -> Result<BoxStream<'static, Result<LogLine, Cause>>, Cause> {
    let container = query.container.to_string();
    // Counting a tail reads all there is.
    let reader = super::super::blocking(move || open(&directory, query)).await?;
    let lines = stream::try_unfold((reader, container), |(mut reader, container)| async move {
        let line = reader.next().await?;
        Ok(line.map(|line| (convert(line, &container), (reader, container))))
    });
    Ok(lines.boxed())
}

fn open(directory: &std::path::Path, query: LogQuery) -> Result<LogReader, Cause> {
    if !directory.exists() && query.follow_until.is_none() {
        return Err(format!(
            "there is no log of task {} on this node; it is kept for a while after the task stopped",
            query.task
        )
        .into());
    }
    // A task that has not started yet has no directory to watch.
    std::fs::create_dir_all(directory)?;
    let options = LogOptions {
        tail: query.tail_lines.map(|lines| lines as usize),
        since_unix_ms: (query.since_unix_ms > 0).then_some(query.since_unix_ms),
        follow_until: query.follow_until,
    };
    Ok(logs::read(directory, &query.container, options)?)
}

fn convert(line: logs::LogLine, container: &str) -> LogLine {
    let origin = match line.stream {
        LogStream::Stdout => LogOrigin::Stdout,
        LogStream::Stderr => LogOrigin::Stderr,
        LogStream::Lighter => LogOrigin::Marker,
    };
    LogLine {
        container: container.to_owned(),
        time_unix_ns: i64::try_from(line.unix_ns).unwrap_or(i64::MAX),
        origin,
        line: line.text,
        partial: line.partial,
    }
}
