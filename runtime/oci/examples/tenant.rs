//! For tests only: runs one program in a container with libcontainer's own exec, as the standard the
//! shim's is compared with. In: `STATE_ROOT CONTAINER PROCESS.json FILTER.bpf`. Out: what the program
//! writes. Never: installed.
// Shares the helper's modules, of which it needs a part.
#![allow(dead_code)]

#[path = "../src/executor.rs"]
mod executor;
#[path = "../src/seccomp.rs"]
mod seccomp;
#[path = "../src/sys.rs"]
mod sys;
#[path = "../src/terminal.rs"]
mod terminal;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use std::fs::File;
use std::path::Path;
use std::rc::Rc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [state_root, container, process, filter] = words.as_slice() else {
        return Err("usage: tenant STATE_ROOT CONTAINER PROCESS.json FILTER.bpf".into());
    };
    let filter = seccomp::Filter::load(Path::new(filter))?;
    let stderr = Rc::new(File::options().write(true).open("/dev/stderr")?);
    // The signals as the helper's main function leaves them, and no groups of root's.
    sys::take_standard_input("/dev/null")?;
    ContainerBuilder::new(container.clone(), SyscallType::default())
        .with_executor(executor::ContainerProgram::new(stderr, Some(Rc::new(filter)), None))
        .with_root_path(Path::new(state_root))?
        .as_tenant()
        .with_process(Some(process))
        .with_detach(false)
        .build()?;
    Ok(())
}
