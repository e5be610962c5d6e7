//! Seccomp profiles: from OCI's JSON to a BPF program in a file. Compiling takes as long as all the rest of a
//! start, so it is done once and not by libcontainer.
//! In: `linux.seccomp` (OCI config-linux.md). Out: a program of at most 4096 instructions, as short as
//! `dispatch` can make it. Never: accepts a rule that it cannot translate; a name this libseccomp does not know
//! stays denied.

mod dispatch;

use crate::seccomp::instructions;
use crate::sys::Instruction;
use libcontainer::oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Compiles the profile in `profile` into the file `filter`, which appears whole.
pub(crate) fn compile(profile: &Path, filter: &Path) -> Result<(), String> {
    let text = fs::read(profile).map_err(|error| format!("cannot read {}: {error}", profile.display()))?;
    let profile: LinuxSeccomp = serde_json::from_slice(&text)
        .map_err(|error| format!("{} is no seccomp profile: {error}", profile.display()))?;
    let context = context(&profile).map_err(|error| format!("the profile cannot be compiled: {error}"))?;
    let temporary = filter.with_extension(format!("{}.tmp", std::process::id()));
    let write = || -> io::Result<()> {
        let file = File::create(&temporary)?;
        context.export_bpf(&file).map_err(io::Error::other)?;
        if let Some(shorter) = instructions(&fs::read(&temporary)?).as_deref().and_then(dispatch::shorten) {
            fs::write(&temporary, bytes(&shorter))?;
        }
        fs::rename(&temporary, filter)
    };
    write().map_err(|error| format!("cannot write {}: {error}", filter.display()))
}

fn context(profile: &LinuxSeccomp) -> Result<ScmpFilterContext, Box<dyn std::error::Error>> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default)?;
    // A binary tree instead of a list: a handful of comparisons for each system call, not hundreds.
    // Old versions of the library cannot; the list is as strict.
    let _ = context.set_ctl_optimize(2);
    for wanted in profile.architectures().iter().flatten() {
        context.add_arch(architecture(*wanted)?)?;
    }
    for rule in profile.syscalls().iter().flatten() {
        add_rule(&mut context, rule, default)?;
    }
    Ok(context)
}

fn add_rule(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
) -> Result<(), Box<dyn std::error::Error>> {
    let action = action(rule.action(), rule.errno_ret())?;
    if action == default {
        return Ok(());
    }
    let comparisons: Vec<ScmpArgCompare> = rule.args().iter().flatten().map(compare).collect();
    for name in rule.names() {
        // Not known to this library: the kernel may know it, and it stays denied.
        let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
        if comparisons.is_empty() {
            context.add_rule(action, syscall)?;
        } else {
            context.add_rule_conditional(action, syscall, &comparisons)?;
        }
    }
    Ok(())
}

fn compare(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let value = argument.value();
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        // `value` is the mask and `valueTwo` what the masked argument must equal, as in runc.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(value), argument.value_two().unwrap_or(0))
        }
    };
    ScmpArgCompare::new(u32::try_from(argument.index()).unwrap_or(u32::MAX), operator, datum)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, String> {
    match action {
        LinuxSeccompAction::ScmpActAllow => Ok(ScmpAction::Allow),
        LinuxSeccompAction::ScmpActErrno => {
            let errno =
                errno.map_or(Ok(libc::EPERM), i32::try_from).map_err(|_| "errno out of range".to_owned())?;
            Ok(ScmpAction::Errno(errno))
        }
        LinuxSeccompAction::ScmpActKillProcess => Ok(ScmpAction::KillProcess),
        other => Err(format!("action {other} is not supported")),
    }
}

fn architecture(architecture: Arch) -> Result<ScmpArch, String> {
    match architecture {
        Arch::ScmpArchNative => Ok(ScmpArch::Native),
        Arch::ScmpArchX86 => Ok(ScmpArch::X86),
        Arch::ScmpArchX86_64 => Ok(ScmpArch::X8664),
        Arch::ScmpArchX32 => Ok(ScmpArch::X32),
        Arch::ScmpArchArm => Ok(ScmpArch::Arm),
        Arch::ScmpArchAarch64 => Ok(ScmpArch::Aarch64),
        other => Err(format!("architecture {other:?} is not supported")),
    }
}

fn bytes(program: &[Instruction]) -> Vec<u8> {
    let one = |Instruction { code, jt, jf, k }: &Instruction| {
        let ([a, b], [e, f, g, h]) = (code.to_ne_bytes(), k.to_ne_bytes());
        [a, b, *jt, *jf, e, f, g, h]
    };
    program.iter().flat_map(one).collect()
}
