//! The files of the checkout. In: its root. Out: paths and texts. Never: follows links, or looks into
//! build directories.

use super::source::{code, without_tests};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Paths of all text files, relative to the root, with `/`, sorted.
pub fn files() -> Vec<String> {
    let mut found = Vec::new();
    collect(&root(), "", &mut found);
    assert!(found.len() > 50, "the checkout is not here: {found:?}");
    found.sort();
    found
}

fn collect(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap();
        // A build directory says so itself, whatever its name; `.git` is a file in a linked worktree.
        let ours = !["target", ".git", ".cache", ".vagrant"].contains(&name.as_str());
        if !ours || entry.path().join("CACHEDIR.TAG").exists() {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), found);
        } else if kind.is_file() {
            found.push(path);
        }
    }
}

/// The text of a file; empty when it is not UTF-8.
pub fn read(path: &str) -> String {
    std::fs::read(root().join(path)).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// All Rust files.
pub fn rust_files() -> Vec<String> {
    files().into_iter().filter(|path| path.ends_with(".rs")).collect()
}

/// A file of a product: its path, and its code without comments, literals and modules of tests.
pub struct Production {
    pub path: String,
    pub code: String,
}

/// Rust files of products and builds; not those of tests and benchmarks, nor the harness in vm-test/.
pub fn production() -> &'static [Production] {
    static PRODUCTION: LazyLock<Vec<Production>> = LazyLock::new(read_production);
    &PRODUCTION
}

fn read_production() -> Vec<Production> {
    let tests = test_modules();
    let is_test = |path: &String| {
        let beside = ["/tests/", "/examples/"].iter().any(|part| path.contains(part));
        let module =
            tests.iter().any(|base| *path == format!("{base}.rs") || path.starts_with(&format!("{base}/")));
        beside || module || path.starts_with("vm-test/") || path.starts_with("bench/")
    };
    let files = rust_files().into_iter().filter(|path| !is_test(path));
    files.map(|path| Production { code: without_tests(&code(&read(&path))), path }).collect()
}

/// Modules in files of their own that only tests have: `#[cfg(test)] mod name;`, without `.rs`.
fn test_modules() -> Vec<String> {
    let mut found = Vec::new();
    for path in rust_files() {
        let folder = match path.strip_suffix("/lib.rs").or_else(|| path.strip_suffix("/main.rs")) {
            Some(folder) => folder.to_owned(),
            None => path.trim_end_matches(".rs").to_owned(),
        };
        let text = code(&read(&path));
        for rest in text.split("#[cfg(test)]").skip(1) {
            let declaration = rest.trim_start().split([';', '{']).next().unwrap_or_default();
            let ends = rest.trim_start()[declaration.len()..].starts_with(';');
            if let Some(name) =
                declaration.split_whitespace().skip_while(|word| *word != "mod").nth(1).filter(|_| ends)
            {
                found.push(format!("{folder}/{name}"));
            }
        }
    }
    found
}

/// Fails with all of the findings, one a line.
#[track_caller]
pub fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}
