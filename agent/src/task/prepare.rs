//! The order of everything that is made before a container starts. Two strands run side by side:
//! images (pull, root file systems) and place (shim, host ports, leases, attachments); then volumes
//! and bundles, while "launching" is being recorded.
//! In: the definition. Out: Prepared, or TearingDown with the reason in the record.
//! Owns nothing but the futures of the two strands; an order to stop ends a pull at once and lets
//! the short steps of the other strand finish. Never: leaves out a clean-up; `teardown` does all.

use super::journal::Journal;
use super::{
    Begun, Bundles, Held, TaskActor, TaskContext, TaskPhase, attach, bundle, environment, health, journal,
    pull, rootfs, told_to_stop, unable::Unable, volumes,
};
use crate::facilities::Image;
use crate::policy;
use crate::store::StoreError;
use crate::store::records::{ContainerRecord, HealthSettings, Step};
use crate::telemetry::families;
use crate::telemetry::task_log::TaskLog;
use crate::time::{sleep, unix_ms};
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::status::{ContainerStatus, StopCode, TaskStatus};
use lighter_model::task_definition::{TaskDefinition, UsernsMode};
use lighter_model::task_event::TaskEventKind;
use lighter_model::wait::WaitKind;
use lighter_runtime::MappedIds;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Why a task does not start, in ECS's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// `CannotPullContainerError: …`
    #[error("{0}")]
    Words(String),
    /// The other strand failed, or there is an order to stop.
    #[error("given up")]
    GaveUp,
}

impl Failure {
    pub(super) fn words(ecs_error: &str, text: impl std::fmt::Display) -> Self {
        Self::Words(format!("{ecs_error}: {text}"))
    }

    pub(super) fn store(error: &StoreError) -> Self {
        Self::words("ResourceInitializationError", crate::errors::chain(error))
    }
}

/// What the strand of images made.
pub(super) struct Images {
    pub(super) images: BTreeMap<ContainerName, Image>,
    pub(super) rootfs: BTreeMap<ContainerName, PathBuf>,
    /// Those without an image or a root file system.
    unable: Unable,
    started_at_unix_ms: u64,
    stopped_at_unix_ms: u64,
}

impl TaskActor {
    pub(super) async fn prepare(
        &mut self,
        definition: Arc<TaskDefinition>,
        begun: Option<Begun>,
    ) -> TaskPhase {
        let mut held = Held { definition: definition.clone(), link: None };
        if begun.is_none() {
            self.turn().await;
        }
        let failure = match self.try_prepare(&mut held, begun).await {
            Ok(bundles) => return TaskPhase::Prepared { held, bundles },
            Err(failure) => failure,
        };
        if let Failure::Words(reason) = failure {
            self.journal.stopping(Some(StopCode::TaskFailedToStart), reason);
        } else if let Some(order) = self.stop_order() {
            self.journal.stopping(order.code, order.reason);
        }
        // An earlier agent may have started some of the containers.
        if self.journal.live().is_empty() {
            TaskPhase::TearingDown { left: held }
        } else {
            TaskPhase::Stopping { held }
        }
    }

    async fn try_prepare(&mut self, held: &mut Held, begun: Option<Begun>) -> Result<Bundles, Failure> {
        let definition = held.definition.clone();
        let context = self.context.clone();
        policy::check(&definition, &context.config)
            .map_err(|refusal| Failure::words("ResourceInitializationError", refusal))?;
        if self.journal.record.containers.is_empty() {
            self.journal.record.containers = journal::new_containers(&definition);
        }
        if self.stop_order().is_some() {
            return Err(Failure::GaveUp);
        }
        self.journal.status(TaskStatus::Pending);
        self.journal.tell().await;
        let begun_at = Instant::now();
        let mapped = self.map_ids(&definition).await?;
        let (mut images, attached) = self.two_strands(held, begun, mapped.as_ref()).await?;
        tracing::debug!(task = %self.task(), after = ?begun_at.elapsed(), "images and network are there");
        self.context.pulls.forget(self.task());
        self.note_images(&definition, &mut images)?;
        let able = images.unable.without(&definition);
        let step = self.journal.log.step("volumes", None);
        let mounts = volumes::prepare(&context, self.task(), &able, &images, mapped.as_ref()).await;
        step.result(&mounts);
        let mounts = mounts?;
        let variables = {
            let context = context.clone();
            tokio::task::spawn_blocking(move || environment::read_all(&context.config, &able))
                .await
                .map_err(|_| Failure::GaveUp)??
        };
        if self.stop_order().is_some() {
            return Err(Failure::GaveUp);
        }
        self.journal.status(TaskStatus::Activating);
        // The record that says "launching" becomes durable while the bundles are written.
        let step = self.journal.log.step("bundle", None);
        let recorded = self.journal.commit_beside(Step::Launching);
        let parts = bundle::Parts {
            images: &images.images,
            rootfs: &images.rootfs,
            attached: &attached,
            mounts: &mounts,
            variables: &variables,
            unable: &images.unable,
        };
        let written = bundle::write_all(&context, &self.journal.record, &definition, &parts);
        let (recorded, written) = tokio::join!(recorded, written);
        tracing::debug!(task = %self.task(), after = ?begun_at.elapsed(), "bundles are written");
        let written = recorded
            .map_err(|error| Failure::store(&error))
            .and_then(|()| images.unable.keep(&definition, written));
        step.result(&written);
        self.do_without(&images.unable);
        written
    }

    /// Containers that will never start count as stopped.
    fn do_without(&mut self, unable: &Unable) {
        for (name, reason) in unable.reasons() {
            let container = self.journal.record.container_mut(name);
            let Some(container) = container.filter(|c| c.status == ContainerStatus::Pending) else {
                continue;
            };
            container.status = ContainerStatus::Stopped;
            container.reason = Some(reason.clone());
            self.journal.log.event(TaskEventKind::Exit, Some(name), reason.as_str());
        }
    }

    /// For a task with a user namespace; before anything that is made in it or for it.
    async fn map_ids(&mut self, definition: &TaskDefinition) -> Result<Option<MappedIds>, Failure> {
        if definition.userns_mode == UsernsMode::Host {
            return Ok(None);
        }
        let mapped = self.context.facilities.runtime.map_ids(self.task()).await;
        let mapped = mapped.map_err(|error| {
            let text = format!("usernsMode auto: {}", crate::errors::chain(error.as_ref()));
            Failure::words("ResourceInitializationError", text)
        })?;
        Ok(Some(mapped))
    }

    async fn two_strands(
        &mut self,
        held: &mut Held,
        begun: Option<Begun>,
        mapped: Option<&MappedIds>,
    ) -> Result<(Images, attach::AttachedAll), Failure> {
        let context = self.context.clone();
        let definition = held.definition.clone();
        let task = self.task().clone();
        let give_up = CancellationToken::new();
        let orders = pull::Orders {
            task: task.clone(),
            definition: &definition,
            image_digests: self.orders.borrow().image_digests.clone(),
            begun: begun.is_some(),
        };
        let images_there = CancellationToken::new();
        let images = async {
            let made = make_images(&context, &orders, mapped, &give_up).await;
            images_there.cancel();
            made.inspect_err(|_| give_up.cancel())
        };
        let journal = &mut self.journal;
        let place = async {
            let step = journal.log.step("network", None);
            let placed = attach::place(&context, journal, held, begun, &give_up).await;
            step.result(&placed);
            let placed = placed.inspect_err(|_| give_up.cancel())?;
            tell_waits(journal, &images_there).await;
            Ok(placed)
        };
        let mut orders = self.orders.clone();
        let stopped = async {
            tokio::select! {
                _ = told_to_stop(&mut orders) => give_up.cancel(),
                // The strands have ended, or fail on their own.
                () = give_up.cancelled() => {}
            }
            std::future::pending::<()>().await
        };
        let (images, attached) = tokio::select! {
            both = async { tokio::join!(images, place) } => both,
            () = stopped => return Err(Failure::GaveUp),
        };
        // A strand that gave up did so for the other's sake: the other's words are the reason.
        match (images, attached) {
            (Ok(images), Ok(attached)) => Ok((images, attached)),
            (Err(Failure::Words(words)), _) | (_, Err(Failure::Words(words))) => Err(Failure::Words(words)),
            _ => Err(Failure::GaveUp),
        }
    }

    fn note_images(&mut self, definition: &TaskDefinition, images: &mut Images) -> Result<(), Failure> {
        self.journal.record.pull_started_at_unix_ms = Some(images.started_at_unix_ms);
        self.journal.record.pull_stopped_at_unix_ms = Some(images.stopped_at_unix_ms);
        let context = self.context.clone();
        let containers = self.journal.record.containers.iter_mut();
        let noted = containers.filter_map(|container| {
            let image = images.images.get(&container.name)?;
            Some((container.name.clone(), note_image(&context, definition, container, image)))
        });
        let noted: Vec<_> = noted.collect();
        images.unable.keep(definition, noted)?;
        self.do_without(&images.unable);
        Ok(())
    }
}

fn note_image(
    context: &TaskContext,
    definition: &TaskDefinition,
    container: &mut ContainerRecord,
    image: &Image,
) -> Result<(), Failure> {
    container.image_digest.clone_from(&image.image_digest);
    container.stop_signal = context.facilities.runtime.stop_signal(&image.config).map_err(|error| {
        let text = format!("container {}: {}", container.name, crate::errors::chain(error.as_ref()));
        Failure::words("CannotCreateContainerError", text)
    })?;
    container.life.check = check(definition, container, image, context.pace.second_ms)?;
    Ok(())
}

/// How the container is checked; an image that was to say so and does not is an error.
fn check(
    definition: &TaskDefinition,
    record: &ContainerRecord,
    image: &Image,
    second_ms: u64,
) -> Result<Option<HealthSettings>, Failure> {
    let container = definition.container_definitions.iter().find(|c| c.name == record.name);
    let Some(wanted) = container.and_then(|container| container.health_check.as_ref()) else {
        return Ok(None);
    };
    let settings = health::settings(wanted, image.config.healthcheck.as_ref(), second_ms);
    if settings.is_none() && wanted.from_image {
        let text = format!(
            "container {}: healthCheck.fromImage is set, but the image {} has no HEALTHCHECK",
            record.name, record.image
        );
        return Err(Failure::words("CannotCreateContainerError", text));
    }
    Ok(settings)
}

async fn make_images(
    context: &TaskContext,
    orders: &pull::Orders<'_>,
    mapped: Option<&MappedIds>,
    give_up: &CancellationToken,
) -> Result<Images, Failure> {
    let task = &orders.task;
    let started_at_unix_ms = unix_ms();
    let log = context.telemetry.task(task);
    let step = log.step("pull", None);
    let images = tokio::select! {
        // Only a pull may take long, and only a pull may be dropped; what it has fetched is kept.
        () = give_up.cancelled() => return Err(Failure::GaveUp),
        images = pull::pull_all(context, orders) => images,
        () = say_slow_pull(&log, orders.definition) => return Err(Failure::GaveUp),
    };
    log.waits_over(&[WaitKind::Pull, WaitKind::PullRetry]);
    step.result(&images);
    count_pull(context, task, images.as_ref().is_ok_and(|images| images.values().all(Result::is_ok)));
    let mut unable = Unable::default();
    let images = unable.keep(orders.definition, images?)?;
    let stopped_at_unix_ms = unix_ms();
    let pulled_at = Instant::now();
    let step = log.step("rootfs", None);
    let rootfs = rootfs::prepare_all(context, task, &images, mapped).await;
    let rootfs = unable.keep(orders.definition, rootfs);
    step.result(&rootfs);
    let rootfs = rootfs?;
    tracing::debug!(%task, took = ?pulled_at.elapsed(), "root file systems are mounted");
    Ok(Images { images, rootfs, unable, started_at_unix_ms, stopped_at_unix_ms })
}

/// A pull that takes longer is worth a word of its own; one from the disk is over by then.
const SLOW_PULL: Duration = Duration::from_millis(500);

/// Notes that the task waits for a pull, when it does; never returns.
async fn say_slow_pull(log: &TaskLog, definition: &TaskDefinition) {
    sleep(SLOW_PULL).await;
    let images: BTreeSet<&str> = definition.container_definitions.iter().map(|c| c.image.as_str()).collect();
    let images = images.into_iter().collect::<Vec<_>>().join(", ");
    let ends_by = "all layers are here, or the registry says no";
    log.wait(WaitKind::Pull, None, format!("the pull of {images}"), None, ends_by);
    std::future::pending().await
}

fn count_pull(context: &TaskContext, task: &TaskId, ok: bool) {
    let (metrics, result) = (&context.telemetry.metrics, if ok { "ok" } else { "failed" });
    metrics.add(families::PULLS, &[("result", result)], 1.0);
    let steps = context.pulls.watch(task);
    let bytes: u64 = steps.map_or(0, |steps| steps.borrow().values().map(|step| step.bytes_done).sum());
    metrics.add(families::PULLED_BYTES, &[], bytes as f64);
}

/// Tells what the task waits for as long as the other strand is at its images. May be dropped.
async fn tell_waits(journal: &mut Journal, images_there: &CancellationToken) {
    loop {
        tokio::select! {
            // Both may be dropped: the next question finds the same.
            () = images_there.cancelled() => return,
            () = journal.log.waits_changed() => journal.tell().await,
        }
    }
}
