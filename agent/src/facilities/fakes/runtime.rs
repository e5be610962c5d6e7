//! Shims of the fake machine. In: tasks, bundles, signals. Out: containers that behave as
//! `World::programs` says. Owns nothing. Never: a process.

use super::{ContainerState, Machine, Program, ShimState};
use crate::errors::Cause;
use crate::facilities::{
    Answer, BindFailure, Bundle, BundleOrder, ContainerPhase, Found, LeaseAnswer, LogLine, LogOrigin,
    LogQuery, Probe, RuntimeFacility, Shim, ShimLink, ShimStatus, StartFailure, StartFault, Started,
};
use crate::time::BootInstant;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use lighter_model::exit::ExitStatus;
use lighter_model::ids::{ContainerName, TaskId};
use lighter_model::image_config::ImageConfig;
use lighter_model::report::KernelLimits;
use lighter_model::resources::{HostPort, IdRange};
use lighter_model::task_definition::TaskDefinition;
use lighter_runtime::{
    ContainerStats, ExecError, ExecOrder, ExecSession, LeaseOrder, Leased, MappedIds, ProbeOutcome,
    WindowSize,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

struct FakeShim {
    machine: Machine,
    task: TaskId,
}

impl Machine {
    fn link(&self, task: &TaskId) -> ShimLink {
        let events = self.with(|world| world.listen(task));
        ShimLink { shim: Arc::new(FakeShim { machine: self.clone(), task: task.clone() }), events }
    }
}

fn status(shim: &ShimState) -> ShimStatus {
    let containers = shim.containers.iter().map(|(name, state)| {
        let phase = match state {
            ContainerState::Running { pid } => {
                ContainerPhase::Running(Started { pid: *pid, limits: KernelLimits::default() })
            }
            ContainerState::Exited(exit) => ContainerPhase::Exited(exit.clone()),
        };
        (name.clone(), phase)
    });
    ShimStatus { containers: containers.collect(), ports: shim.ports.iter().copied().collect() }
}

impl RuntimeFacility for Machine {
    fn map_ids<'a>(&'a self, task: &'a TaskId) -> Answer<'a, MappedIds> {
        Box::pin(async move {
            let mapped = self.call("map_ids", task.to_string(), |world| {
                world.mapped.insert(task.clone());
                Ok(())
            });
            mapped.await?;
            let ids = IdRange { first: 1 << 16, count: 1 << 16 };
            Ok(MappedIds { ids, layers: PathBuf::from("/layers") })
        })
    }

    fn make_netns<'a>(&'a self, task: &'a TaskId, _path: &'a Path) -> Answer<'a, ()> {
        Box::pin(async move {
            let made = self.call("make_netns", task.to_string(), |world| {
                world.mapped.contains(task).then_some(()).ok_or_else(|| "the task has no ids".to_owned())
            });
            Ok(made.await?)
        })
    }

    fn start_shim<'a>(&'a self, task: &'a TaskId, _definition: &'a TaskDefinition) -> Answer<'a, ShimLink> {
        Box::pin(async move {
            // The shim lives from the effect on, whether or not the agent hears of it.
            let started = self.call("start_shim", task.to_string(), |world| {
                if world.shims.contains_key(task) {
                    world.offences.push(format!("a second shim for {task}"));
                }
                world.shims.insert(task.clone(), ShimState { alive: true, ..ShimState::default() });
                Ok(())
            });
            started.await?;
            Ok(self.link(task))
        })
    }

    fn adopt<'a>(&'a self, task: &'a TaskId) -> Answer<'a, Found> {
        Box::pin(async move {
            let link = self.link(task);
            let found = self.call("adopt", task.to_string(), |world| {
                Ok(match world.shims.get_mut(task) {
                    None => Found::Nothing,
                    Some(shim) if shim.silent => return Err("it does not answer".to_owned()),
                    Some(shim) if shim.alive => Found::Alive { link, status: status(shim) },
                    Some(shim) => {
                        // Killed by cgroup: what ran has no exit on record.
                        let exits = shim.containers.iter().filter_map(|(name, state)| match state {
                            ContainerState::Exited(exit) => Some((name.clone(), exit.clone())),
                            ContainerState::Running { .. } => None,
                        });
                        Found::Ended { exits: exits.collect() }
                    }
                })
            });
            Ok(found.await?)
        })
    }

    fn list_tasks(&self) -> Answer<'_, Vec<TaskId>> {
        Box::pin(async move { Ok(self.with(|world| world.shims.keys().cloned().collect())) })
    }

    fn remove_task<'a>(&'a self, task: &'a TaskId) -> Answer<'a, ()> {
        Box::pin(async move {
            let removed = self.call("remove_task", task.to_string(), |world| {
                world.shims.remove(task);
                world.mapped.remove(task);
                Ok(())
            });
            Ok(removed.await?)
        })
    }

    fn set_frozen<'a>(&'a self, task: &'a TaskId, frozen: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let set = self.call("set_frozen", format!("{task} {frozen}"), |world| {
                match world.shims.get_mut(task) {
                    Some(shim) => shim.frozen = frozen,
                    None if frozen => return Err("it has no cgroup".to_owned()),
                    None => {}
                }
                Ok(())
            });
            Ok(set.await?)
        })
    }

    fn set_limits<'a>(
        &'a self,
        task: &'a TaskId,
        definition: &'a TaskDefinition,
        containers: &'a [ContainerName],
    ) -> Answer<'a, Vec<(ContainerName, KernelLimits)>> {
        Box::pin(async move {
            let set = self.call("set_limits", task.to_string(), |_| {
                let wanted = definition.container_definitions.iter().filter(|c| containers.contains(&c.name));
                let limits = wanted.map(|c| {
                    let memory_max_bytes = c.memory_mib.map(|mib| mib << 20);
                    (c.name.clone(), KernelLimits { memory_max_bytes, ..KernelLimits::default() })
                });
                Ok(limits.collect())
            });
            Ok(set.await?)
        })
    }

    fn write_bundle<'a>(&'a self, order: &'a BundleOrder) -> Answer<'a, Bundle> {
        Box::pin(async move {
            let written =
                self.call("write_bundle", format!("{}/{}", order.task, order.container), |_| Ok(()));
            written.await?;
            Ok(Bundle { own: Arc::new(()) })
        })
    }

    fn open_bundle<'a>(&'a self, task: &'a TaskId, container: &'a ContainerName) -> Answer<'a, Bundle> {
        Box::pin(async move {
            let opened = self.call("open_bundle", format!("{task}/{container}"), |_| Ok(()));
            opened.await?;
            Ok(Bundle { own: Arc::new(()) })
        })
    }

    fn stop_signal(&self, image: &ImageConfig) -> Result<i32, Cause> {
        Ok(if image.stop_signal.as_deref() == Some("SIGQUIT") { 3 } else { 15 })
    }

    fn stats<'a>(
        &'a self,
        task: &'a TaskId,
        container: Option<&'a ContainerName>,
    ) -> Answer<'a, Option<ContainerStats>> {
        Box::pin(async move {
            let read = self.call("stats", task.to_string(), |world| {
                let Some(shim) = world.shims.get(task) else { return Ok(None) };
                let there = container.is_none_or(|name| shim.containers.contains_key(name));
                let stats = ContainerStats { pids: 1, ..ContainerStats::default() };
                Ok(there.then_some(stats))
            });
            Ok(read.await?)
        })
    }

    fn read_logs(&self, query: LogQuery) -> Answer<'static, BoxStream<'static, Result<LogLine, Cause>>> {
        let container = query.container.to_string();
        let lines = (0..3).map(move |number| {
            let line = format!("line {number}").into_bytes();
            Ok(LogLine {
                container: container.clone(),
                time_unix_ns: number,
                origin: LogOrigin::Stdout,
                line,
                partial: false,
            })
        });
        let until = query.follow_until;
        // As the real one: a follower gets no end before the container has ended.
        let end = stream::once(async move {
            if let Some(mut until) = until {
                let _ = until.wait_for(|ended| *ended).await;
            }
        });
        let end = end.filter_map(|()| std::future::ready(None));
        Box::pin(async move { Ok(stream::iter(lines).chain(end).boxed()) })
    }

    fn self_test(&self) -> BoxFuture<'_, Vec<Probe>> {
        Box::pin(async { Vec::new() })
    }
}

impl FakeShim {
    fn of(&self, container: &ContainerName) -> String {
        format!("{}/{container}", self.task)
    }

    /// As in the kernel: what joins a cgroup that stands still stands still.
    fn start_hangs(&self, container: &ContainerName) -> bool {
        self.machine.with(|world| {
            let killed = world.signals.contains(&(self.task.clone(), container.clone(), 9));
            let frozen = world.shims.get(&self.task).is_some_and(|shim| shim.frozen);
            (frozen || world.program(container) == Program::HangsAtStart) && !killed
        })
    }

    fn gone() -> String {
        "the connection to the task's shim is lost".to_owned()
    }
}

impl Shim for FakeShim {
    fn bind_ports<'a>(&'a self, ports: &'a [HostPort]) -> Answer<'a, (), BindFailure> {
        Box::pin(async move {
            let mut taken = ports.first().copied();
            let bound = self.machine.call("bind_ports", self.task.to_string(), |world| {
                for port in ports {
                    let ours = world.shims.values().any(|shim| shim.ports.contains(port));
                    if ours || world.foreign_ports.contains(port) {
                        taken = Some(*port);
                        return Err("Address already in use".to_owned());
                    }
                }
                let shim = world.shims.get_mut(&self.task).ok_or_else(Self::gone)?;
                shim.ports.extend(ports);
                Ok(())
            });
            let result = bound.await;
            result.map_err(|text| BindFailure {
                port: taken.unwrap(),
                in_use: text.contains("already in use"),
                source: text.into(),
            })
        })
    }

    fn start<'a>(
        &'a self,
        container: &'a ContainerName,
        _bundle: &'a Bundle,
    ) -> Answer<'a, Started, StartFailure> {
        Box::pin(async move {
            while self.start_hangs(container) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let started = self.machine.call("start", self.of(container), |world| {
                let program = world.program(container);
                if program == Program::HangsAtStart {
                    return Err("the helper ended by signal 9".to_owned());
                }
                if program == Program::CannotStart {
                    return Err("exec /bin/nothing: no such file or directory".to_owned());
                }
                let pid = world.new_pid();
                *world.starts.entry((self.task.clone(), container.clone())).or_default() += 1;
                let shim =
                    world.shims.get_mut(&self.task).filter(|shim| shim.alive).ok_or_else(Self::gone)?;
                if shim.lease_over {
                    return Err("the task's lease is over".to_owned());
                }
                if shim.containers.insert(container.clone(), ContainerState::Running { pid }).is_some() {
                    world.offences.push(format!("{container} was started twice"));
                }
                if let Program::Exits { code, oom } = program {
                    let status = if oom { ExitStatus::Signaled(9) } else { ExitStatus::Exited(code) };
                    world.exit(&self.task, container, status, oom);
                }
                Ok(Started { pid, limits: KernelLimits::default() })
            });
            let failed = |text: String| StartFailure {
                container: container.clone(),
                fault: StartFault::CannotStart,
                source: text.into(),
            };
            started.await.map_err(failed)
        })
    }

    fn signal<'a>(&'a self, container: &'a ContainerName, signal: i32) -> Answer<'a, ()> {
        Box::pin(async move {
            let signalled = self.machine.call("signal", self.of(container), |world| {
                world.signals.push((self.task.clone(), container.clone(), signal));
                let frozen = world.shims.get(&self.task).is_some_and(|shim| shim.frozen);
                if frozen && signal != 9 {
                    world.offences.push(format!("{container} stands still and got signal {signal}"));
                }
                if let Program::Runs { on_stop } = world.program(container) {
                    world.exit(&self.task, container, ExitStatus::Exited(on_stop), false);
                }
                Ok(())
            });
            Ok(signalled.await?)
        })
    }

    fn kill<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ()> {
        Box::pin(async move {
            let killed = self.machine.call("kill", self.of(container), |world| {
                world.signals.push((self.task.clone(), container.clone(), 9));
                world.exit(&self.task, container, ExitStatus::Signaled(9), false);
                Ok(())
            });
            Ok(killed.await?)
        })
    }

    fn probe<'a>(
        &'a self,
        container: &'a ContainerName,
        argv: &'a [String],
        timeout: Duration,
    ) -> Answer<'a, ProbeOutcome> {
        Box::pin(super::exec::probe(&self.machine, &self.task, container, argv, timeout))
    }

    fn exec<'a>(
        &'a self,
        container: &'a ContainerName,
        order: &'a ExecOrder,
        terminal: Option<WindowSize>,
        _stdin: bool,
    ) -> Answer<'a, ExecSession, ExecError> {
        let words = order.argv.join(" ");
        Box::pin(super::exec::session(&self.machine, "exec", &self.task, container, words, terminal))
    }

    fn attach<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ExecSession, ExecError> {
        Box::pin(super::exec::session(&self.machine, "attach", &self.task, container, String::new(), None))
    }

    fn lease<'a>(&'a self, order: &'a LeaseOrder) -> Answer<'a, LeaseAnswer> {
        Box::pin(async move {
            let leased = self.machine.call("lease", self.task.to_string(), |world| {
                let shim =
                    world.shims.get_mut(&self.task).filter(|shim| shim.alive).ok_or_else(Self::gone)?;
                if shim.old {
                    return Ok(LeaseAnswer::CannotKeep);
                }
                if !shim.lease_over {
                    shim.lease_ends_ms = shim.lease_ends_ms.max(order.ends_at_boot_ms);
                    shim.lease_over = shim.lease_ends_ms > 0 && BootInstant::now().ms() >= shim.lease_ends_ms;
                }
                let ends_at_boot_ms = (shim.lease_ends_ms > 0).then_some(shim.lease_ends_ms);
                Ok(LeaseAnswer::Kept(Leased { ends_at_boot_ms, over: shim.lease_over }))
            });
            Ok(leased.await?)
        })
    }

    fn remove_container<'a>(&'a self, container: &'a ContainerName) -> Answer<'a, ()> {
        Box::pin(async move {
            let removed = self.machine.call("remove_container", self.of(container), |world| {
                let Some(shim) = world.shims.get_mut(&self.task) else { return Ok(()) };
                match shim.containers.get(container) {
                    Some(ContainerState::Running { .. }) => Err("it runs".to_owned()),
                    _ => {
                        shim.containers.remove(container);
                        Ok(())
                    }
                }
            });
            Ok(removed.await?)
        })
    }

    fn shutdown(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let ended = self.machine.call("shutdown", self.task.to_string(), |world| {
                if let Some(shim) = world.shims.get_mut(&self.task) {
                    (shim.alive, shim.ports) = (false, Default::default());
                    shim.listeners.clear();
                }
                Ok(())
            });
            Ok(ended.await?)
        })
    }
}
