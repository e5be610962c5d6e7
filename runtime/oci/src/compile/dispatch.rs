//! The same filter in a third of the instructions: each system call's number leads to what it comes to by a
//! search over ranges of numbers, where libseccomp compares every number for itself. The kernel checks,
//! simulates and compiles a filter anew for every process that installs one, so its length is paid for at
//! each start of a container and at each probe.
//! In: a program of libseccomp. Out: one that answers the same for every architecture, number and argument;
//! `None` for a program that is not read completely, which then stays as it is. Pure.
//! Source: linux/filter.h, linux/seccomp.h; Documentation/userspace-api/seccomp_filter.rst.
//! Never: decides about a system call; tests of arguments are taken over as they are.

use crate::sys::Instruction;
use std::collections::BTreeSet;

const LOAD: u16 = 0x20;
const GO: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Of an instruction's code; jumps and arithmetic.
const CLASS: u16 = 0x07;
const JUMP: u16 = 0x05;
const ALU: u16 = 0x04;

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// What the program knows where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Nothing,
    Number,
    Architecture,
    /// An argument, or something computed: it is not looked into.
    Other,
    /// It depends on the way here.
    Unknown,
}

/// From these numbers on, in order, the first from 0.
type Ranges<T> = Vec<(u32, T)>;

/// What is left of the program for one system call: what tests its arguments, and what it comes to.
type Code = Vec<Instruction>;

/// More is no test of arguments that anyone writes.
const CODE_MAX: usize = 200;

/// The program, shorter.
pub(super) fn shorten(program: &[Instruction]) -> Option<Vec<Instruction>> {
    let (numbers, architectures) = borders(program)?;
    let mut table: Ranges<Ranges<Code>> = Vec::new();
    for architecture in architectures {
        let mut ranges = Vec::new();
        for number in &numbers {
            push(&mut ranges, *number, residue(program, (architecture, *number), 0, None)?);
        }
        push(&mut table, architecture, ranges);
    }
    let shorter = emit(&table)?;
    (shorter.len() < program.len()).then_some(shorter)
}

fn push<T: Same>(ranges: &mut Ranges<T>, from: u32, what: T) {
    if ranges.last().is_none_or(|(_, last)| !last.is_same(&what)) {
        ranges.push((from, what));
    }
}

/// libc's instruction cannot be compared.
trait Same {
    fn is_same(&self, other: &Self) -> bool;
}

impl Same for Instruction {
    fn is_same(&self, other: &Self) -> bool {
        (self.code, self.jt, self.jf, self.k) == (other.code, other.jt, other.jf, other.k)
    }
}

impl Same for u32 {
    fn is_same(&self, other: &Self) -> bool {
        self == other
    }
}

impl<A: Same, B: Same> Same for (A, B) {
    fn is_same(&self, other: &Self) -> bool {
        self.0.is_same(&other.0) && self.1.is_same(&other.1)
    }
}

impl<T: Same> Same for Vec<T> {
    fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().zip(other).all(|(one, two)| one.is_same(two))
    }
}

/// Where the answer may change: what numbers and architectures are compared with, and what follows each.
fn borders(program: &[Instruction]) -> Option<(BTreeSet<u32>, BTreeSet<u32>)> {
    let (mut numbers, mut architectures) = (BTreeSet::from([0]), BTreeSet::from([0]));
    // Jumps only lead forward, so one pass knows what each instruction finds; `None`: never reached.
    let mut found: Vec<Option<Holds>> = vec![None; program.len() + 1];
    *found.first_mut()? = Some(Holds::Nothing);
    for (at, instruction) in program.iter().enumerate() {
        let Some(mut holds) = found[at] else { continue };
        match instruction.code {
            LOAD => {
                holds = match instruction.k {
                    NUMBER => Holds::Number,
                    ARCHITECTURE => Holds::Architecture,
                    _ => Holds::Other,
                }
            }
            EQUAL | GREATER | AT_LEAST => {
                let borders = [Some(instruction.k), instruction.k.checked_add(1)].into_iter().flatten();
                match holds {
                    Holds::Number => numbers.extend(borders),
                    Holds::Architecture => architectures.extend(borders),
                    Holds::Other => {}
                    Holds::Nothing | Holds::Unknown => return None,
                }
            }
            RETURN | GO => {}
            // Computed from an argument; from anything else it could not be told by ranges.
            _ if holds == Holds::Other => {}
            _ => return None,
        }
        for next in successors(program, at)? {
            let known = found.get_mut(next)?;
            *known = Some(if known.is_none_or(|known| known == holds) { holds } else { Holds::Unknown });
        }
    }
    Some((numbers, architectures))
}

/// Where the program may go on; `None` for what is not an instruction of libseccomp.
fn successors(program: &[Instruction], at: usize) -> Option<Vec<usize>> {
    let Instruction { code, jt, jf, k } = program[at];
    let next = at + 1;
    let list = match code {
        RETURN => Vec::new(),
        LOAD => vec![next],
        GO => vec![next + usize::try_from(k).ok()?],
        EQUAL | GREATER | AT_LEAST => vec![next + usize::from(jt), next + usize::from(jf)],
        // With a constant only: nothing else is kept between instructions.
        code if code & CLASS == ALU && code & 0x08 == 0 => vec![next],
        code if code & CLASS == JUMP && code & 0x08 == 0 => {
            vec![next + usize::from(jt), next + usize::from(jf)]
        }
        _ => return None,
    };
    list.iter().all(|next| *next < program.len()).then_some(list)
}

/// The program for one system call from `at` on. `held` is what was loaded, if that is known.
fn residue(program: &[Instruction], call: (u32, u32), mut at: usize, mut held: Option<u32>) -> Option<Code> {
    let (architecture, number) = call;
    let mut code = Code::new();
    while code.len() <= CODE_MAX {
        let step = *program.get(at)?;
        at += 1;
        let (yes, no) = (at + usize::from(step.jt), at + usize::from(step.jf));
        match (step.code, held) {
            (RETURN, _) => {
                code.push(step);
                return Some(code);
            }
            (GO, _) => at += usize::try_from(step.k).ok()?,
            (LOAD, _) => {
                held = match step.k {
                    NUMBER => Some(number),
                    ARCHITECTURE => Some(architecture),
                    _ => {
                        code.push(step);
                        None
                    }
                }
            }
            (EQUAL, Some(held)) => at = if held == step.k { yes } else { no },
            (GREATER, Some(held)) => at = if held > step.k { yes } else { no },
            (AT_LEAST, Some(held)) => at = if held >= step.k { yes } else { no },
            (_, Some(_)) => return None,
            (test, None) if test & CLASS == JUMP => {
                let (yes, no) = (residue(program, call, yes, None)?, residue(program, call, no, None)?);
                if !yes.is_same(&no) {
                    code.push(Instruction { jt: 0, jf: u8::try_from(yes.len()).ok()?, ..step });
                    code.extend(yes);
                }
                code.extend(no);
                return (code.len() <= CODE_MAX).then_some(code);
            }
            (_, None) => code.push(step),
        }
    }
    None
}

fn emit(table: &Ranges<Ranges<Code>>) -> Option<Vec<Instruction>> {
    let of_architecture = |(from, numbers): &(u32, Ranges<Code>)| {
        let code = match numbers.as_slice() {
            [(_, only)] => only.clone(),
            _ => [vec![instruction(LOAD, NUMBER)], search(numbers)?].concat(),
        };
        Some((*from, code))
    };
    let architectures: Ranges<Code> = table.iter().map(of_architecture).collect::<Option<_>>()?;
    Some([vec![instruction(LOAD, ARCHITECTURE)], search(&architectures)?].concat())
}

fn instruction(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// One search has conditional jumps only, which reach over 255 instructions.
const RANGES_MAX: usize = 200;

/// The range of the value that was loaded leads to its code.
fn search(ranges: &[(u32, Code)]) -> Option<Code> {
    if ranges.len() > RANGES_MAX {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let from = high.first()?.0;
        let (low, high) = (search(low)?, search(high)?);
        let over = instruction(GO, u32::try_from(low.len()).ok()?);
        let which = Instruction { code: AT_LEAST, jt: 0, jf: 1, k: from };
        return Some([vec![which, over], low, high].concat());
    }
    let mut codes: Vec<&Code> = Vec::new();
    for (_, code) in ranges {
        if !codes.iter().any(|known| known.is_same(code)) {
            codes.push(code);
        }
    }
    let index = |code: &Code| codes.iter().position(|known| known.is_same(code));
    let leaves: Vec<(u32, usize)> =
        ranges.iter().map(|(from, code)| Some((*from, index(code)?))).collect::<Option<_>>()?;
    let mut nodes = Vec::new();
    branch(&leaves, u32::MAX, leaves.len() - 1, &mut nodes);
    lay_out(nodes, &codes)
}

/// The tests of a binary search, each before those that follow it. Where one ends it leads to `jt` or `jf`,
/// which are relative only when all are known: `tests` plus the number of the code.
fn branch(leaves: &[(u32, usize)], end: u32, tests: usize, out: &mut Vec<(u32, usize, usize)>) -> usize {
    if let [(_, code)] = leaves {
        return tests + code;
    }
    let at = middle(leaves, end);
    let (low, high) = leaves.split_at(at);
    let from = leaves[at].0;
    let here = out.len();
    out.push((from, 0, 0));
    let no = branch(low, from, tests, out);
    let yes = branch(high, end, tests, out);
    out[here] = (from, yes, no);
    here
}

/// Linux numbers its system calls from 0 to here, and the kernel tries each when a filter is installed.
const NUMBERS_TRIED: u32 = 512;

/// Where the tries are halved; between the first and the last.
fn middle(leaves: &[(u32, usize)], end: u32) -> usize {
    let ends = leaves.iter().skip(1).map(|(from, _)| *from).chain([end]);
    let weights: Vec<u32> = leaves
        .iter()
        .zip(ends)
        .map(|((from, _), end)| end.min(NUMBERS_TRIED).saturating_sub(*from) + 1)
        .collect();
    let all: u32 = weights.iter().sum();
    let (mut low, mut best) = (0, (u32::MAX, 1));
    for (at, weight) in weights.iter().enumerate().take(leaves.len() - 1) {
        low += weight;
        best = best.min((low.abs_diff(all - low), at + 1));
    }
    best.1
}

/// Tests, then the codes: a single instruction in its place, more of them behind.
fn lay_out(tests: Vec<(u32, usize, usize)>, codes: &[&Code]) -> Option<Code> {
    let count = tests.len();
    let mut out = Code::new();
    for (here, (from, yes, no)) in tests.into_iter().enumerate() {
        let over = |target: usize| u8::try_from(target - here - 1).ok();
        out.push(Instruction { code: AT_LEAST, jt: over(yes)?, jf: over(no)?, k: from });
    }
    let mut behind = Code::new();
    for (index, code) in codes.iter().enumerate() {
        match code.as_slice() {
            [only] => out.push(*only),
            longer => {
                let over = count + codes.len() + behind.len() - (count + index) - 1;
                out.push(instruction(GO, u32::try_from(over).ok()?));
                behind.extend(longer);
            }
        }
    }
    out.extend(behind);
    Some(out)
}

#[cfg(test)]
mod tests;
