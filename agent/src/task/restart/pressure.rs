//! How hard pressed the node is, from the kernel's pressure stall information.
//! In: /proc/pressure/cpu and memory. Out: percentages; none where the kernel has none (or psi=0), and
//! then restarts are limited by rate alone and first starts not at all. Owns nothing.
//! Never: an error; a file that cannot be read says nothing.
//! Source: Linux Documentation/accounting/psi.rst.

use std::fmt;
use std::path::Path;

/// Percent of the time in which something waited, rounded down; of the last ten seconds unless named.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    /// Some tasks waited for a CPU.
    pub cpu: Option<u8>,
    /// The same, over the last minute.
    pub cpu_minute: Option<u8>,
    /// Some tasks waited for memory.
    pub memory: Option<u8>,
    /// All tasks waited for memory at once.
    pub memory_full: Option<u8>,
}

pub(crate) fn read(directory: &Path) -> Pressure {
    let text = |file| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    let (cpu, memory) = (text("cpu"), text("memory"));
    Pressure {
        cpu: percent(&cpu, "some ", "avg10="),
        cpu_minute: percent(&cpu, "some ", "avg60="),
        memory: percent(&memory, "some ", "avg10="),
        memory_full: percent(&memory, "full ", "avg10="),
    }
}

/// `some avg10=12.34 avg60=… avg300=… total=…`
fn percent(text: &str, whose: &str, over: &str) -> Option<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix(whose))?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(over))?;
    value.split('.').next()?.parse().ok()
}

/// What presses, in words.
impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [
            ("CPU", self.cpu_minute, "of the last minute"),
            ("memory", self.memory, "of the last 10 s"),
            ("memory, all at once,", self.memory_full, "of the last 10 s"),
        ];
        let known = known.iter().filter_map(|(what, percent, time)| Some((what, (*percent)?, time)));
        let words: Vec<String> =
            known.map(|(what, percent, time)| format!("{what} {percent} % {time}")).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read_and_its_absence_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Pressure::default());
        let text = "some avg10=73.45 avg60=1.00 avg300=0.00 total=1\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        std::fs::write(dir.path().join("cpu"), text).unwrap();
        std::fs::write(dir.path().join("memory"), "nonsense").unwrap();
        let known = Pressure { cpu: Some(73), cpu_minute: Some(1), ..Pressure::default() };
        assert_eq!(read(dir.path()), known);
        assert_eq!(known.to_string(), "CPU 1 % of the last minute");
        std::fs::write(dir.path().join("memory"), text).unwrap();
        let known = read(dir.path());
        assert_eq!((known.memory, known.memory_full), (Some(73), Some(9)));
    }
}
