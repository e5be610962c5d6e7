//! A task's journal on disk: `<events_dir>/<task>.jsonl`, one JSON object a line, 0600.
//! In: events. Out: the same, after a restart too. Appended without a sync: a killed agent loses
//! nothing, a power cut may lose the last seconds. Bounded: twice `KEPT` lines, then the newest
//! `KEPT` replace the file. A line cut off by a crash is skipped when it is read.
//! Never: fails a task; a full disk is told once in the log.

use lighter_model::ids::TaskId;
use lighter_model::task_event::TaskEvent;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Lines kept of a task: a crash loop of a day at the highest backoff, or some twenty starts.
pub(crate) const KEPT: usize = 256;

/// See the file's header.
#[derive(Debug)]
pub(crate) struct EventFile {
    path: PathBuf,
    /// A failure was told; the next one is not.
    warned: bool,
}

impl EventFile {
    pub(crate) fn new(dir: &Path, task: &TaskId) -> Self {
        Self { path: dir.join(format!("{task}.jsonl")), warned: false }
    }

    /// The newest `KEPT` events, oldest first; none when there is no file.
    pub(crate) fn read(&self) -> Vec<TaskEvent> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        let events: Vec<TaskEvent> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let surplus = events.len().saturating_sub(KEPT);
        events.into_iter().skip(surplus).collect()
    }

    pub(crate) fn append(&mut self, event: &TaskEvent) {
        let result = Self::line(event).and_then(|line| self.open()?.write_all(&line));
        self.warn(result);
    }

    /// Writes the file anew.
    pub(crate) fn replace<'a>(&mut self, events: impl Iterator<Item = &'a TaskEvent>) {
        let temporary = self.path.with_extension("new");
        let write = || {
            let mut text = Vec::new();
            for event in events {
                text.extend(Self::line(event)?);
            }
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            options.open(&temporary)?.write_all(&text)?;
            std::fs::rename(&temporary, &self.path)
        };
        let result = write();
        self.warn(result);
    }

    fn line(event: &TaskEvent) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
        line.push(b'\n');
        Ok(line)
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        match options.open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(dir) = self.path.parent() {
                    // Texts of errors may quote what a definition holds.
                    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
                }
                options.open(&self.path)
            }
            other => other,
        }
    }

    fn warn(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.warned = false,
            Err(error) if !self.warned => {
                self.warned = true;
                tracing::warn!(path = %self.path.display(), cause = %error, "the task's journal is not written");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lighter_model::task_event::TaskEventKind;

    fn event(number: u64) -> TaskEvent {
        let text = format!("line {number}");
        TaskEvent { time_unix_ms: number, kind: TaskEventKind::Status, container: None, text, took_ms: None }
    }

    #[test]
    fn what_is_appended_is_read_and_a_torn_line_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let task = TaskId::from_parts(1, 0);
        let mut file = EventFile::new(&dir.path().join("events"), &task);
        assert!(file.read().is_empty());
        (0..3).for_each(|number| file.append(&event(number)));
        let path = dir.path().join("events").join(format!("{task}.jsonl"));
        let mut raw = OpenOptions::new().append(true).open(&path).unwrap();
        raw.write_all(b"{\"time_unix_ms\":3,\"ki").unwrap();
        assert_eq!(file.read(), [event(0), event(1), event(2)]);
        file.replace([event(7)].iter());
        assert_eq!(file.read(), [event(7)]);
        (0..300).for_each(|number| file.append(&event(number)));
        assert_eq!((file.read().len(), file.read()[KEPT - 1].time_unix_ms), (KEPT, 299));
    }
}
