//! A compiled seccomp filter: from its file into the kernel. `compile` makes the file.
//! In: a BPF program. Out: a confined process. Never: changes a program.

use crate::sys::{self, Instruction};
use std::fs;
use std::io;
use std::path::Path;

/// A program ready to be installed.
pub(crate) struct Filter {
    program: Vec<Instruction>,
}

const INSTRUCTION_BYTES: usize = size_of::<Instruction>();

impl Filter {
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let program = instructions(&fs::read(path)?);
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "it is not a BPF program");
        Ok(Self { program: program.ok_or_else(invalid)? })
    }

    pub(crate) fn install(&self) -> io::Result<()> {
        sys::install_filter(&mut self.program.clone())
    }
}

/// struct sock_filter, linux/filter.h: u16 code, u8 jt, u8 jf, u32 k, in the byte order of the machine.
pub(crate) fn instructions(bytes: &[u8]) -> Option<Vec<Instruction>> {
    if bytes.is_empty() || !bytes.len().is_multiple_of(INSTRUCTION_BYTES) {
        return None;
    }
    let program = bytes.chunks_exact(INSTRUCTION_BYTES).map(|chunk| Instruction {
        code: u16::from_ne_bytes([chunk[0], chunk[1]]),
        jt: chunk[2],
        jf: chunk[3],
        k: u32::from_ne_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
    });
    Some(program.collect())
}
