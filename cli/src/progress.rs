//! What a person sees while tasks start: a line each that changes, and a bar for each image pull.
//! In: tasks as they change; pull progress from this machine's agent, if it is the one that pulls.
//! Out: standard error: bars on a terminal, a line for each change otherwise.
//! Owns: the streams to the agent, which end with it. Never: prints to standard output.

use crate::client;
use crate::{output, table, words};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lighter_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// A screen redraws some ten times a second; older progress is of no use.
const QUEUE: usize = 64;
/// Until the agent has begun to pull.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Shows tasks on their way.
pub struct Progress {
    shape: Shape,
    pulls: mpsc::Receiver<Pull>,
    /// Kept, so that `pulls` stays open while nothing is pulled.
    sender: mpsc::Sender<Pull>,
    watched: BTreeSet<String>,
}

enum Shape {
    None,
    /// The last line of each task.
    Lines(BTreeMap<String, String>),
    Bars(Bars),
}

struct Bars {
    all: MultiProgress,
    tasks: BTreeMap<String, ProgressBar>,
    /// By task and image.
    pulls: BTreeMap<(String, String), ProgressBar>,
}

/// Progress of one image of a task.
pub struct Pull {
    task_id: String,
    progress: v1::PullProgress,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let shape = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Shape::None,
            (false, false) => Shape::Lines(BTreeMap::new()),
            (false, true) => Shape::Bars(Bars {
                all: MultiProgress::new(),
                tasks: BTreeMap::new(),
                pulls: BTreeMap::new(),
            }),
        };
        let (sender, pulls) = mpsc::channel(QUEUE);
        Self { shape, pulls, sender, watched: BTreeSet::new() }
    }

    /// A task as it is now.
    pub fn task(&mut self, task: &v1::Task) {
        let line = line(task);
        match &mut self.shape {
            Shape::None => {}
            // The end is told with the result.
            Shape::Lines(_) if words::is_stopped(task) => {}
            Shape::Lines(last) => {
                if last.insert(task.task_id.clone(), line.clone()).as_deref() != Some(&line) {
                    output::note(&line);
                }
            }
            Shape::Bars(bars) => {
                bars.task(task, line);
                if self.watched.insert(task.task_id.clone()) {
                    follow_pulls(task.task_id.clone(), self.sender.clone());
                }
            }
        }
    }

    /// The next news of a pull; never returns when there is none.
    pub async fn next_pull(&mut self) -> Pull {
        match self.pulls.recv().await {
            Some(pull) => pull,
            None => std::future::pending().await,
        }
    }

    pub fn pull(&mut self, pull: &Pull) {
        if let Shape::Bars(bars) = &mut self.shape {
            bars.pull(pull);
        }
    }

    /// A remark between the bars.
    pub fn note(&mut self, text: &str) {
        match &self.shape {
            Shape::Bars(bars) => {
                // Fails only when standard error is closed.
                let _ = bars.all.println(text);
            }
            Shape::None | Shape::Lines(_) => output::note(text),
        }
    }

    /// Takes the bars away.
    pub fn finish(&mut self) {
        if let Shape::Bars(bars) = &self.shape {
            // Fails only when standard error is closed.
            let _ = bars.all.clear();
        }
    }
}

impl Bars {
    fn task(&mut self, task: &v1::Task, line: String) {
        let bar = self.tasks.entry(task.task_id.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(line);
        if words::is_stopped(task) {
            bar.finish();
        }
    }

    fn pull(&mut self, pull: &Pull) {
        let key = (pull.task_id.clone(), pull.progress.image.clone());
        let bar = self
            .pulls
            .entry(key)
            .or_insert_with(|| self.all.add(ProgressBar::new(0).with_style(pull_style())));
        bar.set_length(pull.progress.bytes_total);
        bar.set_position(pull.progress.bytes_done);
        bar.set_prefix(table::clean(&pull.progress.image));
        bar.set_message(format!("{}/{} layers", pull.progress.layers_done, pull.progress.layers_total));
        if pull.progress.finished {
            bar.finish_and_clear();
        }
    }
}

fn pull_style() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:!40} {bar:20} {binary_bytes}/{binary_total_bytes} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// `0123456789abcdef PENDING: pulling the image`.
fn line(task: &v1::Task) -> String {
    let id = task.task_id.get(..16).unwrap_or(&task.task_id);
    let status = words::task_status(task.last_status);
    let reason = if words::is_stopped(task) { &task.stopped_reason } else { &task.waiting_reason };
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    table::clean(&format!("{id} {status}{reason}"))
}

/// Asks this machine's agent how the pulls of a task go on; silent when it is not the one to ask.
fn follow_pulls(task_id: String, sender: mpsc::Sender<Pull>) {
    let socket =
        std::env::var_os("LIGHTER_AGENT_SOCKET").map_or("/run/lighter/agent.sock".into(), PathBuf::from);
    if !socket.exists() {
        return;
    }
    // Ends with the task's pulls, or with the receiver.
    tokio::spawn(async move {
        let Ok(mut agent) = client::connect_agent(&socket).await else { return };
        while !sender.is_closed() {
            let request = v1::StreamPullProgressRequest { task_id: task_id.clone() };
            match agent.stream_pull_progress(request).await {
                Ok(answer) => return pass_on(answer.into_inner(), &task_id, &sender).await,
                // The task has not come to its pulls yet, or is another node's.
                Err(status) if status.code() == tonic::Code::NotFound => tokio::time::sleep(ASK_AGAIN).await,
                Err(_) => return,
            }
        }
    });
}

async fn pass_on(mut stream: tonic::Streaming<v1::PullProgress>, task_id: &str, sender: &mpsc::Sender<Pull>) {
    while let Ok(Some(progress)) = stream.message().await {
        if sender.send(Pull { task_id: task_id.to_owned(), progress }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_task_says_what_for() {
        let task = v1::Task {
            task_id: "0".repeat(32),
            last_status: v1::TaskStatus::Pending as i32,
            waiting_reason: "pulling r/nginx:1".into(),
            ..Default::default()
        };
        assert_eq!(line(&task), "0000000000000000 PENDING: pulling r/nginx:1");
    }
}
