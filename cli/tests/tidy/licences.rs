//! Every package that is compiled has a licence that deny.toml allows.
//! In: deny.toml, cargo metadata. Out: packages that are not allowed; exceptions that nothing needs.

use super::packages::Packages;
use super::tree::{none, read};
use std::collections::BTreeMap;

/// What deny.toml says of licences.
#[derive(Debug, Default)]
struct Rules {
    allow: Vec<String>,
    /// Further licences of one crate.
    exceptions: BTreeMap<String, Vec<String>>,
    /// The licence of a crate whose manifest names none.
    clarified: BTreeMap<String, String>,
}

impl Rules {
    /// Reads the few shapes that deny.toml uses; a TOML parser is not worth a dependency here.
    fn read() -> Self {
        let text = read("deny.toml");
        let mut rules = Self::default();
        let (mut section, mut name) = ("", String::new());
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let quoted = || line.split('"').skip(1).step_by(2).map(str::to_owned);
            match line {
                _ if line.starts_with('[') => section = line,
                _ if line.starts_with("crate = ") => name = quoted().next().unwrap(),
                _ => match section {
                    "[licenses]" => rules.allow.extend(quoted()),
                    "[[licenses.exceptions]]" => {
                        rules.exceptions.entry(name.clone()).or_default().extend(quoted());
                    }
                    "[[licenses.clarify]]" if line.starts_with("expression") => {
                        rules.clarified.insert(name.clone(), quoted().next().unwrap());
                    }
                    _ => {}
                },
            }
        }
        rules
    }

    fn allows(&self, package: &str, licence: &str) -> bool {
        let excepted =
            self.exceptions.get(package).is_some_and(|more| more.iter().any(|name| name == licence));
        excepted || self.allow.iter().any(|name| name == licence)
    }
}

/// An SPDX expression: `AND` binds closer than `OR`; `/` is the old spelling of `OR`.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let expression = expression.replace('/', " OR ");
    let tokens: Vec<String> =
        expression.replace('(', " ( ").replace(')', " ) ").split_whitespace().map(str::to_owned).collect();
    let mut at = 0;
    let result = any_of(&tokens, &mut at, allowed);
    assert_eq!(at, tokens.len(), "not an SPDX expression: {expression}");
    result
}

fn any_of(tokens: &[String], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = all_of(tokens, at, allowed);
    while tokens.get(*at).is_some_and(|token| token == "OR") {
        *at += 1;
        result |= all_of(tokens, at, allowed);
    }
    result
}

fn all_of(tokens: &[String], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut result = one(tokens, at, allowed);
    while tokens.get(*at).is_some_and(|token| token == "AND") {
        *at += 1;
        result &= one(tokens, at, allowed);
    }
    result
}

fn one(tokens: &[String], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    if tokens[*at] == "(" {
        *at += 1;
        let result = any_of(tokens, at, allowed);
        assert_eq!(tokens[*at], ")");
        *at += 1;
        return result;
    }
    let mut name = tokens[*at].clone();
    *at += 1;
    if tokens.get(*at).is_some_and(|token| token == "WITH") {
        name = format!("{name} WITH {}", tokens[*at + 1]);
        *at += 2;
    }
    allowed(&name)
}

#[test]
fn every_package_has_a_licence_we_accept() {
    let rules = Rules::read();
    assert!(rules.allow.iter().any(|name| name == "MIT"), "deny.toml was not understood: {rules:?}");
    assert!(!rules.allow.iter().any(|name| name.contains("GPL")), "no GPL");
    let packages = Packages::load();
    let mut findings = Vec::new();
    for (_, package) in packages.all() {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().or(rules.clarified.get(name).map(String::as_str));
        match licence {
            Some(licence) if satisfied(licence, &|one| rules.allows(name, one)) => {}
            other => findings.push(format!("{name}: {other:?}")),
        }
    }
    for name in rules.exceptions.keys().chain(rules.clarified.keys()) {
        if !packages.all().any(|(_, package)| package["name"] == name.as_str()) {
            findings.push(format!("deny.toml makes an exception for {name}, which nothing uses"));
        }
    }
    none("a licence that deny.toml does not allow", &findings);
}

#[test]
fn spdx_expressions_are_understood() {
    let allowed = |name: &str| ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].contains(&name);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("MIT AND GPL-3.0", false),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND Zlib", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
    ] {
        assert_eq!(satisfied(expression, &allowed), expected, "{expression}");
    }
}
