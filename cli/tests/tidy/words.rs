//! Words that have no place in the checkout: work left without an issue, paths of one machine.

use super::tree::{files, none, production, read};

#[test]
fn work_left_to_do_names_its_issue() {
    // Put together here, so that this file does not find itself.
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X:"].concat()];
    let mut findings = Vec::new();
    for path in files() {
        for (index, line) in read(&path).lines().enumerate() {
            let marked = marks.iter().any(|mark| line.contains(mark.as_str()));
            let numbered = line.split('#').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            if marked && !numbered {
                findings.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none("a note about work left to do carries the number of its issue (#12)", &findings);
}

#[test]
fn no_paths_of_one_machine() {
    let paths = [["/wo", "rk/"].concat(), ["/root/.car", "go"].concat()];
    let mut findings = Vec::new();
    for path in files().iter().filter(|path| *path != "Cargo.lock") {
        for (index, line) in read(path).lines().enumerate() {
            // `/workspace` and `overlay/work` are other words.
            let own = |found: &str| {
                line.match_indices(found).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "}{_-.)".contains(c))
                })
            };
            if paths.iter().any(|found| own(found)) {
                findings.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none("a path of one machine", &findings);
}

#[test]
fn production_code_does_not_panic_on_purpose() {
    let banned = [".unwrap()", ".expect(", "todo!(", "unimplemented!(", "dbg!("];
    let mut findings = Vec::new();
    for file in production().iter().filter(|file| file.path.contains("/src/")) {
        let path = &file.path;
        for (index, line) in file.code.lines().enumerate() {
            if banned.iter().any(|word| line.contains(word)) {
                findings.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    none("no unwrap, expect or todo outside tests", &findings);
}
