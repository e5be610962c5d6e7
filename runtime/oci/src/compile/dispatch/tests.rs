//! The shorter program answers as libseccomp's does, by an interpreter of its own for both.

use super::shorten;
use crate::compile::context;
use crate::seccomp::instructions;
use crate::sys::Instruction;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// struct seccomp_data as 32-bit words: number, architecture, instruction pointer, six arguments.
type Data = [u32; 16];

/// Classic BPF as the kernel has it for seccomp (linux/filter.h).
fn run(program: &[Instruction], data: &Data) -> u32 {
    let (mut at, mut held) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => held = data[k as usize / 4],
            0x05 => at += k as usize,
            0x15 => jump(held == k),
            0x25 => jump(held > k),
            0x35 => jump(held >= k),
            0x45 => jump(held & k != 0),
            0x54 => held &= k,
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn compiled(profile: Value) -> Vec<Instruction> {
    let context = context(&serde_json::from_value(profile).unwrap()).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    context.export_bpf(&file).unwrap();
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    instructions(&bytes).unwrap()
}

fn around(values: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    values.into_iter().flat_map(|value| [value.wrapping_sub(1), value, value.wrapping_add(1)]).collect()
}

/// Every number that either program compares with and what is beside it, with every architecture, and with
/// arguments around each constant.
fn assert_same(old: &[Instruction], new: &[Instruction]) {
    let constants = around(old.iter().chain(new).map(|instruction| instruction.k).chain([0, u32::MAX]));
    let known = [0x4000_0003, 0xC000_003E];
    let wide = |value: &u32| *value > 0xffff || *value < 64;
    let arguments: Vec<u32> = constants.iter().copied().filter(wide).collect();
    for architecture in around(known) {
        for number in &constants {
            let mut data: Data = [0; 16];
            (data[0], data[1]) = (*number, architecture);
            assert_eq!(run(old, &data), run(new, &data), "{architecture:#x} {number}");
            for (value, at) in arguments.iter().flat_map(|value| [(*value, 4), (*value, 5)]) {
                data[at] = value;
                let (expected, found) = (run(old, &data), run(new, &data));
                assert_eq!(expected, found, "{architecture:#x} {number} {at} {value:#x}");
                data[at] = 0;
            }
        }
    }
}

fn architectures() -> Value {
    json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])
}

/// Docker's profile in small: long lists, every kind of condition, other errors.
fn profile() -> Value {
    let numbers = (0..450).filter(|number| number % 20 != 3 && ![41, 56, 135, 435].contains(number));
    let names: Vec<String> =
        numbers.filter_map(|number| libseccomp::ScmpSyscall::from(number).get_name().ok()).collect();
    let allow =
        |name: &str, args: Value| json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [args]});
    json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures(),
        "syscalls": [
            {"names": names, "action": "SCMP_ACT_ALLOW"},
            allow("personality", json!({"index": 0, "value": 0, "op": "SCMP_CMP_EQ"})),
            allow("personality", json!({"index": 0, "value": 0x20008, "op": "SCMP_CMP_EQ"})),
            allow("personality", json!({"index": 0, "value": 0xffff_ffff_u64, "op": "SCMP_CMP_EQ"})),
            allow("socket", json!({"index": 0, "value": 40, "op": "SCMP_CMP_NE"})),
            allow("clone", json!({"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"})),
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    })
}

#[test]
fn the_shorter_program_answers_the_same() {
    let old = compiled(profile());
    let new = shorten(&old).expect("libseccomp's own instructions");
    assert_same(&old, &new);
    assert!(new.len() * 3 < old.len(), "{} of {}", new.len(), old.len());
}

#[test]
fn a_list_without_conditions_and_a_deny_list_are_shortened_too() {
    for (default, action) in
        [("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"), ("SCMP_ACT_KILL_PROCESS", "SCMP_ACT_ALLOW")]
    {
        let names: Vec<String> =
            (0..60).filter_map(|number| libseccomp::ScmpSyscall::from(number).get_name().ok()).collect();
        let old = compiled(json!({
            "defaultAction": default, "architectures": architectures(),
            "syscalls": [{"names": names, "action": action}],
        }));
        assert_same(&old, &shorten(&old).unwrap());
    }
}

#[test]
fn what_is_not_understood_stays_as_it_is() {
    let program = |list: &[(u16, u8, u8, u32)]| -> Vec<Instruction> {
        list.iter().map(|(code, jt, jf, k)| Instruction { code: *code, jt: *jt, jf: *jf, k: *k }).collect()
    };
    for list in [
        // A number that is computed with, or tested by bits.
        program(&[(0x20, 0, 0, 0), (0x54, 0, 0, 1), (0x15, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]),
        program(&[(0x20, 0, 0, 0), (0x45, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]),
        // The other register, and memory.
        program(&[(0x20, 0, 0, 0), (0x07, 0, 0, 0), (0x06, 0, 0, 0)]),
        program(&[(0x20, 0, 0, 16), (0x02, 0, 0, 0), (0x06, 0, 0, 0)]),
        // No end.
        program(&[(0x20, 0, 0, 0)]),
        program(&[(0x05, 0, 0, 9), (0x06, 0, 0, 0)]),
        Vec::new(),
    ] {
        assert!(shorten(&list).is_none());
    }
}
