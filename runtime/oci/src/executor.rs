//! How the container's program replaces libcontainer's code: found in PATH as execvp(3) does,
//! refused in Docker's words, its signals as a fresh process has them, its seccomp filter in force, and a failed exec told to
//! the helper over a pipe that closes by itself when exec works.
//! In: the OCI spec. Out: the program, or the reason. Runs inside the container.
//! Never: libcontainer's own check, which wants the file to be executable for everyone.

use crate::seccomp::Filter;
use crate::{sys, terminal};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use lighter_shim_wire::INIT_PROGRAM;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::rc::Rc;

/// Marks an error text as one of the container's program, not of creating the container.
pub(crate) const MARK: &str = "exec: ";

#[derive(Clone)]
pub(crate) struct ContainerProgram {
    /// Hears of an exec that failed; closes when it works.
    failure: Rc<File>,
    filter: Option<Rc<Filter>>,
    /// The socket to the shim, for a program that gets a terminal.
    terminal: Option<Rc<File>>,
}

impl ContainerProgram {
    pub(crate) fn new(failure: Rc<File>, filter: Option<Rc<Filter>>, terminal: Option<Rc<File>>) -> Self {
        Self { failure, filter, terminal }
    }
}

impl Executor for ContainerProgram {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        find_program(spec).map(drop).map_err(ExecutorValidationError::ArgValidationError)
    }

    /// The environment goes to execve as it is in the spec, order and duplicates included.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        self.prepare(spec).map_err(|message| {
            let _ = (&*self.failure).write_all(message.as_bytes());
            ExecutorError::Other(message)
        })?;
        let program = find_program(spec).map_err(ExecutorError::Other)?;
        let texts = |list: &[String]| -> Vec<CString> {
            list.iter().filter_map(|text| CString::new(text.as_str()).ok()).collect()
        };
        let arguments = texts(arguments(spec));
        let environment = texts(environment(spec));
        let error = sys::execute(&program, &arguments, &environment);
        let name = arguments.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let message = refusal(&name, &error);
        let _ = (&*self.failure).write_all(message.as_bytes());
        Err(ExecutorError::Other(message))
    }
}

impl ContainerProgram {
    /// The last steps before the program: its filter must be in force, or it does not run.
    fn prepare(&self, spec: &Spec) -> Result<(), String> {
        sys::default_signals();
        if arguments(spec).first().is_some_and(|program| program == INIT_PROGRAM) {
            // The kernel drops what the first process of a pid namespace neither handles nor blocks
            // (pid_namespaces(7)): a stop signal must wait until it can be handed on.
            sys::block_signals();
        }
        if let Some(shim) = &self.terminal {
            terminal::take(shim).map_err(|error| format!("cannot open a terminal: {error}"))?;
        }
        let Some(filter) = &self.filter else { return Ok(()) };
        if spec.process().as_ref().and_then(|process| process.no_new_privileges()) != Some(true) {
            return Err("a seccomp filter needs no-new-privileges".to_owned());
        }
        filter.install().map_err(|error| format!("cannot install the seccomp filter: {error}"))
    }
}

fn arguments(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or(&[])
}

fn environment(spec: &Spec) -> &[String] {
    spec.process().as_ref().and_then(|process| process.env().as_deref()).unwrap_or(&[])
}

/// The path of the program, or why there is none in Docker's words.
fn find_program(spec: &Spec) -> Result<CString, String> {
    let name = arguments(spec).first().map(String::as_str).unwrap_or("");
    let text = |path: &str| CString::new(path).map_err(|_| format!("{MARK}{path:?}: contains a NUL byte"));
    if name.contains('/') {
        let path = text(name)?;
        return check(name).map_err(|error| refusal(name, &error)).map(|()| path);
    }
    let search = environment(spec).iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    let mut denied = None;
    for directory in search.split(':') {
        let path = if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        match check(&path) {
            Ok(()) if !name.is_empty() => return text(&path),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => denied = Some(error),
            Err(_) => {}
        }
    }
    Err(match denied {
        Some(error) => refusal(name, &error),
        None => format!("{MARK}{name:?}: executable file not found in $PATH"),
    })
}

fn check(path: &str) -> std::io::Result<()> {
    let c_path = CString::new(path)?;
    if std::fs::metadata(path)?.is_dir() {
        return Err(std::io::Error::from_raw_os_error(libc::EISDIR));
    }
    sys::may_execute(&c_path)
}

fn refusal(name: &str, error: &std::io::Error) -> String {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory",
        Some(libc::EACCES) => "permission denied",
        Some(libc::EISDIR) => "is a directory",
        Some(libc::ENOEXEC) => "exec format error",
        _ => return format!("{MARK}{name:?}: {error}"),
    };
    format!("{MARK}{name:?}: {why}")
}
