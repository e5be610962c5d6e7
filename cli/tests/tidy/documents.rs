//! Pages for people: the paths they name exist, the tests they cite exist.

use super::source::code;
use super::tree::{files, none, read, root, rust_files};

const PAGES: &[&str] = &["ARCHITECTURE.md", "README.md", "CHANGELOG.md"];

/// Texts between single backquotes; fenced blocks are left out.
fn quoted(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// Targets of `[words](target)` that are files.
fn linked(page: &str) -> Vec<String> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or_default().to_owned())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

/// A path of the checkout: its first part is there, or it looks like a file at the top.
fn is_path(text: &str, tops: &[String]) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b));
    let first = text.split('/').next().unwrap_or_default();
    let top = tops.iter().any(|top| top == first) && text.contains('/');
    let file =
        [".rs", ".md", ".toml", ".proto", ".sh"].iter().any(|end| text.ends_with(end)) && !text.contains('/');
    plain && !text.starts_with(['/', '.']) && (top || file)
}

#[test]
fn the_paths_that_pages_name_exist() {
    let all = files();
    let mut tops: Vec<String> =
        all.iter().filter_map(|path| path.split('/').next()).map(str::to_owned).collect();
    tops.dedup();
    let mut findings = Vec::new();
    let docs =
        all.iter().filter(|path| path.starts_with("docs/") && path.ends_with(".md")).map(String::as_str);
    for page in PAGES.iter().copied().chain(docs) {
        let text = read(page);
        if text.is_empty() {
            findings.push(format!("{page} is missing"));
        }
        let base = root().join(page).parent().unwrap().to_owned();
        for path in quoted(&text).iter().filter(|text| is_path(text, &tops)) {
            // A bare file name may be of any directory: `convert.rs`, `agent.toml`.
            let somewhere =
                !path.contains('/') && all.iter().any(|known| known.ends_with(&format!("/{path}")));
            if !root().join(path).exists() && !somewhere {
                findings.push(format!("{page} names `{path}`, which is not there"));
            }
        }
        for target in linked(&text).iter().filter(|target| !base.join(target).exists()) {
            findings.push(format!("{page} links to {target}, which is not there"));
        }
    }
    none("a page names what does not exist", &findings);
}

#[test]
fn the_tests_that_pages_cite_exist() {
    let mut functions = std::collections::BTreeSet::new();
    for path in rust_files() {
        functions
            .extend(super::source::functions(&code(&read(&path))).into_iter().map(|function| function.name));
    }
    let page = read("docs/task-definition.md");
    let cited: Vec<&str> = page.split("test `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(cited.len() > 20, "docs/task-definition.md cites its tests");
    let missing: Vec<String> =
        cited.iter().filter(|name| !functions.contains(**name)).map(ToString::to_string).collect();
    none("docs/task-definition.md cites tests that do not exist", &missing);
}
