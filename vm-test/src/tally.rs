//! Counting: reads the closing lines of cargo's test runner and of our own scenarios.
//! In: output text. Out: passed, failed, skipped. Owns: nothing. Never: runs anything.

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u32,
    pub failed: u32,
    pub skipped: u32,
}

impl Tally {
    /// Adds up every `test result:` line of an output. An ignored test counts as skipped.
    pub fn of(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines().filter_map(|l| l.trim().strip_prefix("test result:")) {
            sum = sum.plus(Self {
                passed: number(line, "passed"),
                failed: number(line, "failed"),
                skipped: number(line, "ignored"),
            });
        }
        sum
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// The closing line that CI reads.
    pub fn line(self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The tests that the runner said take long and of which no end was told.
pub fn unfinished(output: &str) -> Vec<&str> {
    let tests = || output.lines().filter_map(|line| line.trim().strip_prefix("test "));
    let mut slow: Vec<&str> =
        tests().filter_map(|line| Some(line.split_once(" has been running for")?.0)).collect();
    slow.sort_unstable();
    slow.dedup();
    slow.retain(|name| {
        !tests().any(|line| line.strip_prefix(name).is_some_and(|end| end.starts_with(" ... ")))
    });
    slow
}

/// The number before a word in `ok. 3 passed; 0 failed; …`.
fn number(line: &str, word: &str) -> u32 {
    let words: Vec<&str> = line.split_whitespace().collect();
    words
        .windows(2)
        .find(|pair| pair[1].trim_end_matches(';') == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_the_closing_lines_of_several_crates() {
        let output = "running 2 tests\ntest a ... ok\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: FAILED. 5 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.00s\n";
        let tally = Tally::of(output);
        assert_eq!(tally, Tally { passed: 7, failed: 3, skipped: 1 });
        assert_eq!(tally.line(), "7 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn the_tests_without_an_end_are_named() {
        let output = "test a ... ok\ntest b has been running for over 60 seconds\n\
            test c has been running for over 60 seconds\ntest b ... ok\ntest d ... FAILED\n";
        assert_eq!(unfinished(output), ["c"]);
        assert!(unfinished("test result: ok. 1 passed\n").is_empty());
    }

    #[test]
    fn an_output_without_tests_counts_nothing() {
        assert_eq!(Tally::of("error: could not compile"), Tally::default());
    }
}
