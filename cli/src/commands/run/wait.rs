//! Follows tasks from the call to their end: events as they come, a look at the tasks every second.
//! In: the tasks of a RunTask answer. Out: progress, a summary, one exit code.
//! Owns: the watch. A control plane that restarts meanwhile is waited for.
//! Never: ends a task, but with --rm when the person interrupts.

mod verdict;

use crate::args::{Format, Global};
use crate::client::Client;
use crate::commands::{ps, stop};
use crate::daemon::Interrupts;
use crate::failure::{self, Exit, Failure};
use crate::progress::Progress;
use crate::{json, names, output, words};
use lighter_proto::v1::{self, event::Subject};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tonic::Streaming;

/// Between two looks at the tasks, should the watch have missed something.
const LOOK: Duration = Duration::from_secs(1);
/// A control plane may be away for so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// timeout(1) and some shells send their signal twice, to the process and to its group.
const ONE_PRESS: Duration = Duration::from_secs(1);
/// What a shell reports of a program that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Tasks on their way.
pub struct Watch {
    cluster: String,
    format: Format,
    quiet: bool,
    /// `None` after it broke, until the next look.
    events: Option<Streaming<v1::Event>>,
    tasks: BTreeMap<String, v1::Task>,
    progress: Progress,
    /// From before the tasks on, so that Ctrl-C never leaves tasks that --rm should stop.
    interrupts: Interrupts,
    /// Since when the control plane does not answer.
    silent_since: Option<Instant>,
}

impl Watch {
    /// Begins to watch the cluster.
    pub async fn begin(global: &Global, client: &mut Client, cluster: String) -> Result<Self, Failure> {
        let interrupts = Interrupts::new()?;
        let events = Some(watch(client, &cluster).await?);
        let progress = Progress::new(global.quiet || global.output == Format::Json);
        let (format, quiet) = (global.output, global.quiet);
        Ok(Self {
            cluster,
            format,
            quiet,
            events,
            tasks: BTreeMap::new(),
            progress,
            silent_since: None,
            interrupts,
        })
    }

    /// Follows the tasks until all are STOPPED; the exit code is the first that is not 0.
    pub async fn until_the_end(
        &mut self,
        client: &mut Client,
        tasks: Vec<v1::Task>,
        rm: bool,
    ) -> Result<u8, Failure> {
        let order: Vec<String> = tasks.iter().map(|task| task.task_id.clone()).collect();
        for task in tasks {
            self.take(task);
        }
        if let Some(code) = self.follow(client, rm).await? {
            return Ok(code);
        }
        self.progress.finish();
        let ended: Vec<v1::Task> = order.iter().filter_map(|id| self.tasks.get(id)).cloned().collect();
        self.print(&ended)?;
        Ok(ended.iter().map(verdict::exit_code).find(|code| *code != 0).unwrap_or(0))
    }

    /// `Some` when the person left before the end.
    async fn follow(&mut self, client: &mut Client, rm: bool) -> Result<Option<u8>, Failure> {
        let mut looks = tokio::time::interval(LOOK);
        let mut interrupted: Option<Instant> = None;
        while self.tasks.values().any(|task| !words::is_stopped(task)) {
            tokio::select! {
                event = next(&mut self.events) => match event {
                    Some(event) => self.event(event),
                    None => self.events = None,
                },
                _ = looks.tick() => self.look(client).await?,
                pull = self.progress.next_pull() => self.progress.pull(&pull),
                () = self.interrupts.next() => {
                    let again = interrupted.is_some_and(|first| first.elapsed() > ONE_PRESS);
                    if again || !rm {
                        self.leave();
                        return Ok(Some(EXIT_INTERRUPTED));
                    }
                    if interrupted.is_none() {
                        interrupted = Some(Instant::now());
                        self.stop_all(client).await;
                    }
                }
            }
        }
        Ok(None)
    }

    fn event(&mut self, event: v1::Event) {
        if let Some(Subject::TaskStateChange(change)) = event.subject
            && let Some(task) = change.task
            && self.tasks.contains_key(&task.task_id)
        {
            self.take(task);
        }
    }

    /// Keeps the newer of what is known and what came.
    fn take(&mut self, task: v1::Task) {
        let newer = self.tasks.get(&task.task_id).is_none_or(|known| known.version <= task.version);
        if newer {
            self.progress.task(&task);
            self.tasks.insert(task.task_id.clone(), task);
        }
    }

    async fn look(&mut self, client: &mut Client) -> Result<(), Failure> {
        let open: Vec<String> = self
            .tasks
            .values()
            .filter(|task| !words::is_stopped(task))
            .map(|task| task.task_id.clone())
            .collect();
        let found = match names::describe_tasks(client, &self.cluster, open.clone()).await {
            Ok(found) => found,
            Err(failure) => return self.not_answered(failure),
        };
        self.silent_since = None;
        for id in open.iter().filter(|id| !found.iter().any(|task| &task.task_id == *id)) {
            if let Some(task) = self.tasks.get_mut(id) {
                task.last_status = v1::TaskStatus::Stopped as i32;
                task.stopped_reason = "the control plane knows this task no more".to_owned();
            }
        }
        for task in found {
            self.take(task);
        }
        if self.events.is_none() {
            // Without it the looks alone find the end, later.
            self.events = watch(client, &self.cluster).await.ok();
        }
        Ok(())
    }

    fn not_answered(&mut self, failure: Failure) -> Result<(), Failure> {
        let since = *self.silent_since.get_or_insert_with(|| {
            self.progress.note("the control plane does not answer; waiting for it");
            Instant::now()
        });
        let may_come_back = matches!(failure.exit(), Exit::Unavailable | Exit::Failed);
        if may_come_back && since.elapsed() < PATIENCE { Ok(()) } else { Err(failure) }
    }

    fn leave(&mut self) {
        self.progress.finish();
        let open: Vec<&str> = self
            .tasks
            .values()
            .filter(|task| !words::is_stopped(task))
            .map(|task| task.task_id.as_str())
            .collect();
        output::note(&format!(
            "no longer waiting; still there: {}\n  try: lighter stop {}",
            open.join(" "),
            open.join(" ")
        ));
    }

    async fn stop_all(&mut self, client: &mut Client) {
        self.progress.note("stopping (Ctrl-C again leaves them to themselves)");
        let open: Vec<String> = self
            .tasks
            .values()
            .filter(|task| !words::is_stopped(task))
            .map(|task| task.task_id.clone())
            .collect();
        for id in open {
            match stop::stop(client, &self.cluster, &id, "interrupted: lighter run --rm").await {
                Ok(task) => self.take(task),
                Err(failure) => {
                    failure::report(&failure);
                }
            }
        }
    }

    fn print(&self, ended: &[v1::Task]) -> Result<(), Failure> {
        if self.format == Format::Json {
            let tasks: Vec<_> = ended.iter().map(json::task).collect();
            return output::json(&json!({ "tasks": tasks }));
        }
        for task in ended {
            if self.quiet {
                output::line(&task.task_id)?;
                continue;
            }
            let end = ps::deciding_container(task).map(words::exit).unwrap_or_default();
            let end = if end.is_empty() { end } else { format!(", {end}") };
            output::line(&format!("{}  {}{end}", task.task_id, words::task_status(task.last_status)))?;
            if verdict::exit_code(task) != 0 {
                output::note(&verdict::explain(task));
            }
        }
        Ok(())
    }
}

async fn watch(client: &mut Client, cluster: &str) -> Result<Streaming<v1::Event>, Failure> {
    let request = v1::WatchEventsRequest { cluster: cluster.to_owned(), ..Default::default() };
    Ok(client.watch_events(request).await.map_err(Failure::rpc("watch the events"))?.into_inner())
}

/// The next event; `None` when the watch is over. Without a watch it never returns.
async fn next(events: &mut Option<Streaming<v1::Event>>) -> Option<v1::Event> {
    match events {
        Some(events) => events.message().await.ok().flatten(),
        None => std::future::pending().await,
    }
}
