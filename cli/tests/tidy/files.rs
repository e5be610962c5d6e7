//! Sizes, headers and names of source files. STYLE.md, "Files".

use super::source::functions;
use super::tree::{Production, none, production, read, rust_files};

const FILE_LINES_MAX: usize = 900;
const FUNCTION_LINES_MAX: usize = 70;
/// `path::function` of functions that are longer, with their length. The list only shrinks: a function
/// that grows, or that is short by now, fails the test.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

#[test]
fn files_are_short() {
    let long = |path: &String| {
        let lines = read(path).lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"))
    };
    none("a file is too long", &rust_files().iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    let mut needed = Vec::new();
    for Production { path, code } in production() {
        for function in functions(code) {
            if function.lines <= FUNCTION_LINES_MAX {
                continue;
            }
            let name = format!("{path}::{}", function.name);
            match LONG_FUNCTIONS.iter().find(|(known, _)| *known == name) {
                Some((_, lines)) if function.lines <= *lines => needed.push(name),
                _ => findings.push(format!(
                    "{path}:{}: {} has {} lines, at most {FUNCTION_LINES_MAX}",
                    function.line, function.name, function.lines
                )),
            }
        }
    }
    for (known, _) in LONG_FUNCTIONS {
        if !needed.iter().any(|name| name == known) {
            findings.push(format!("{known} is short by now: take it off the list"));
        }
    }
    none("a function is too long", &findings);
}

#[test]
fn modules_are_foo_rs_beside_foo() {
    let named_mod: Vec<String> = rust_files().into_iter().filter(|path| path.ends_with("/mod.rs")).collect();
    none("foo.rs with foo/ beside it, never mod.rs", &named_mod);
}

#[test]
fn every_file_begins_with_its_contract() {
    let production: Vec<&String> = production().iter().map(|file| &file.path).collect();
    let without = |path: &String| {
        let text = read(path);
        let header = text.lines().take_while(|line| line.starts_with("//!"));
        let words: usize = header.map(|line| line.split_whitespace().count() - 1).sum();
        // A test's name says what goes in and out; a product's file says it in words.
        let enough = if production.contains(&path) { 8 } else { 3 };
        (words < enough).then(|| format!("{path}: begins with {:?}", text.lines().next().unwrap_or_default()))
    };
    let findings: Vec<String> = rust_files().iter().filter_map(without).collect();
    none("a file begins with //! lines: what it is for, in, out, owns, never", &findings);
}
