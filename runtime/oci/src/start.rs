//! Create, check, start: the whole work of the helper. In: a `HelperRequest`. Out: `Created` with
//! the limits the kernel has, before the container's program runs; then success or the failure.
//! A limit that is not as asked kills the container before its program runs.
//! Never: leaves libcontainer's state behind after a failure that it can see.

use crate::executor::{self, ContainerProgram};
use crate::seccomp::Filter;
use crate::{Shim, limits, stage, sys, trace};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::syscall::syscall::SyscallType;
use lighter_shim_wire::helper::{HelperCreated, HelperFailed};
use lighter_shim_wire::{FailureKind, HelperReport, HelperRequest};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

/// `terminal`: the program gets one of the container's own.
pub(crate) fn create_and_start(
    request: &HelperRequest,
    shim: &mut Shim,
    terminal: bool,
) -> Result<(), HelperFailed> {
    let traced = trace::install();
    // The shim has no container of this name: what is here is left from a start that failed.
    let _ = std::fs::remove_dir_all(Path::new(&request.state_root).join(&request.container_id));
    let fail = |kind, message: String| HelperFailed { kind, message };
    let (read, write) = sys::pipe()
        .map_err(|error| fail(FailureKind::CannotCreate, format!("cannot make a pipe: {error}")))?;
    let write = Rc::new(write);
    let filter = load_filter(request).map_err(|message| fail(FailureKind::CannotCreate, message))?;
    let socket = terminal.then(|| shim.share()).transpose();
    let socket = socket
        .map_err(|error| fail(FailureKind::CannotCreate, format!("cannot share the socket: {error}")))?;
    let program = ContainerProgram::new(Rc::clone(&write), filter, socket);
    give_streams(request);
    let keep = [Path::new(&request.bundle), Path::new(&request.state_root)];
    let staged =
        stage::prepare(keep[0], &keep).map_err(|message| fail(FailureKind::CannotCreate, message))?;
    let bundle = staged.as_deref().unwrap_or(keep[0]);
    let mut container = build(request, bundle, program).map_err(|error| creation_failure(&error, traced))?;
    drop(write);
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    let in_force = limits::in_force(&request.cgroup);
    shim.report(&HelperReport::Created(HelperCreated { pid, limits: in_force }));
    if let Some(difference) = request.expected.difference(&in_force) {
        let _ = container.delete(true);
        return Err(fail(FailureKind::Limits, format!("a limit is not in force: {difference}")));
    }
    container.start().map_err(|error| fail(FailureKind::CannotStart, chain(&error)))?;
    match exec_failure(read) {
        None => Ok(()),
        Some(message) => Err(fail(FailureKind::CannotStart, message)),
    }
}

/// Programs open /dev/stdout anew, which only the owner of a pipe may: the container's user. Without
/// it the program runs all the same.
fn give_streams(request: &HelperRequest) {
    let Ok(spec) = Spec::load(Path::new(&request.bundle).join("config.json")) else { return };
    let Some(process) = spec.process() else { return };
    let namespaced = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_ref());
    let wanted = process.user().uid();
    let uid = match namespaced {
        Some(mappings) => mappings.iter().find_map(|mapping| {
            let offset = wanted.checked_sub(mapping.container_id())?;
            (offset < mapping.size()).then(|| mapping.host_id() + offset)
        }),
        None => Some(wanted),
    };
    let owner = uid.map(rustix::fs::Uid::from_raw);
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let is_pipe = rustix::fs::fstat(stream).is_ok_and(|stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo
        });
        if is_pipe {
            let _ = rustix::fs::fchown(stream, owner, None);
        }
    }
}

fn load_filter(request: &HelperRequest) -> Result<Option<Rc<Filter>>, String> {
    let Some(path) = &request.seccomp_filter else { return Ok(None) };
    let filter = Filter::load(Path::new(path))
        .map_err(|error| format!("cannot read the seccomp filter {path}: {error}"))?;
    Ok(Some(Rc::new(filter)))
}

/// create: the container's first process waits, confined, for the start.
fn build(
    request: &HelperRequest,
    bundle: &Path,
    program: ContainerProgram,
) -> Result<Container, LibcontainerError> {
    ContainerBuilder::new(request.container_id.clone(), SyscallType::default())
        .with_executor(program)
        .with_root_path(Path::new(&request.state_root))?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        // The container becomes the shim's child, which alone may wait for it.
        .as_sibling(true)
        .build()
}

/// What the container's process said of a failed exec. The pipe closes when exec works.
fn exec_failure(mut read: File) -> Option<String> {
    let mut text = String::new();
    match read.read_to_string(&mut text) {
        Ok(_) if text.is_empty() => None,
        Ok(_) => Some(text),
        Err(error) => Some(format!("cannot tell whether the program runs: {error}")),
    }
}

/// How libcontainer begins what it adds when it could not remove a cgroup at once; the agent does.
const CLEANUP: &str = ". error during cleanup";

/// A program that is not there is the user's mistake, all else is a failed creation.
fn creation_failure(error: &LibcontainerError, traced: Option<File>) -> HelperFailed {
    let text = chain(error);
    if let Some(at) = text.find(executor::MARK) {
        let said = text[at..].split(CLEANUP).next().unwrap_or_default();
        return HelperFailed { kind: FailureKind::CannotStart, message: said.to_owned() };
    }
    let message = match trace::first_error(traced) {
        Some(first) if !text.contains(&first) => format!("{text}: {first}"),
        _ => text,
    };
    HelperFailed { kind: FailureKind::CannotCreate, message }
}

/// An error with its causes; libcontainer repeats some of them, which is left out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}
