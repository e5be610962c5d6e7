//! How hard pressed the node is, from the kernel's pressure stall information.
//! In: /proc/pressure/cpu and memory. Out: percentages of the last ten seconds; none where the kernel
//! has none (or psi=0), and then restarts are limited by rate alone. Owns nothing.
//! Never: an error; a file that cannot be read says nothing.
//! Source: Linux Documentation/accounting/psi.rst.

use std::path::Path;

/// `some avg10` of cpu and memory, in percent, rounded down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub cpu: Option<u8>,
    pub memory: Option<u8>,
}

pub(crate) fn read(directory: &Path) -> Pressure {
    let of = |file| some_avg10(&std::fs::read_to_string(directory.join(file)).ok()?);
    Pressure { cpu: of("cpu"), memory: of("memory") }
}

/// `some avg10=12.34 avg60=… avg300=… total=…`
fn some_avg10(text: &str) -> Option<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    value.split('.').next()?.parse().ok()
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
        assert_eq!(read(dir.path()), Pressure { cpu: Some(73), memory: None });
    }
}
