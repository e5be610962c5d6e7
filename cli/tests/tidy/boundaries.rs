//! Walls inside the code: where proto meets model, where code may be unsafe, what a crate may not name.
//! ARCHITECTURE.md, "The crates"; STYLE.md, "Unsafe".

use super::tree::{Production, none, production, read};

/// Where proto and model meet besides the converters, and why. The list only shrinks.
const MEETINGS: &[(&str, &str)] = &[
    ("agent/src/join.rs", "the answer to a join is two ids and two certificates, kept at once"),
    ("agent/src/local_api.rs", "holds the resources that the node offers; convert.rs turns them"),
];

#[test]
fn proto_and_model_meet_in_the_converters_only() {
    let is_converter = |path: &str| path.ends_with("/convert.rs") || path.contains("/convert/");
    let both: Vec<String> = production()
        .iter()
        .filter(|Production { path, code }| {
            let proto = code.contains("lighter_proto");
            !is_converter(path) && proto && code.contains("lighter_model")
        })
        .map(|file| file.path.clone())
        .collect();
    let mut findings: Vec<String> =
        both.iter().filter(|path| !MEETINGS.iter().any(|(known, _)| known == path)).cloned().collect();
    for (known, _) in MEETINGS.iter().filter(|(known, _)| !both.iter().any(|path| path == known)) {
        findings.push(format!("{known} keeps them apart by now: take it off the list"));
    }
    none("only convert.rs sees proto and model together", &findings);
}

#[test]
fn unsafe_code_is_on_islands_that_architecture_md_names() {
    let map = read("ARCHITECTURE.md");
    let word = ["un", "safe"].concat();
    let is_unsafe = |code: &str| {
        code.match_indices(&word).any(|(at, _)| {
            let rest = &code[at + word.len()..];
            !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                && rest.starts_with([' ', '{', '('])
        })
    };
    let findings: Vec<String> = production()
        .iter()
        .filter(|Production { path, code }| is_unsafe(code) && !map.contains(&format!("`{path}`")))
        .map(|file| file.path.clone())
        .collect();
    none("unsafe code outside the islands that ARCHITECTURE.md lists", &findings);
}

/// (below this path, words it must not use in code, why)
const NEVER: &[(&str, &[&str], &str)] = &[
    (
        "model/src/",
        &["tokio", "tonic", "std::fs", "std::net::Tcp", "SystemTime::now", "Instant::now", "rand::"],
        "the model does no I/O",
    ),
    ("net/src/", &["Container"], "net knows no container"),
    ("net/src/", &["Command"], "nf_tables in process: no nft or iptables is started"),
    ("runtime/shim/src/", &["thread::spawn", "tokio", "libcontainer"], "the monitor has one thread"),
    ("agent/src/", &["libcontainer", "rtnetlink", "nix::mount", "libc::mount"], "behind the crates below it"),
    (
        "control/src/core/",
        &["HashMap", "HashSet", "SystemTime", "Instant::now", ".await", "f32", "f64", "rand::"],
        "the core is deterministic",
    ),
    (
        "cli/src/",
        &["lighter_model", "lighter_image", "lighter_net", "lighter_runtime"],
        "the command speaks the API",
    ),
];

#[test]
fn crates_do_not_name_what_they_must_not_know() {
    let mut findings = Vec::new();
    for Production { path, code } in production() {
        for (below, words, why) in NEVER {
            for word in words.iter().filter(|word| path.starts_with(below) && contains_word(code, word)) {
                findings.push(format!("{path}: {word} ({why})"));
            }
        }
    }
    none("a crate names what it must not know", &findings);
}

/// A word that is not the end or the beginning of a longer one.
fn contains_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        let open_end = word.ends_with(|c: char| !part(c));
        (!word.starts_with(part) || !before.is_some_and(part)) && (open_end || !after.is_some_and(part))
    })
}
