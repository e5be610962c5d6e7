//! Reads a driver's options by name and keeps what is wrong. In: names and texts. Out: values;
//! problems. Pure. Never: leaves an option that nobody asked for.

use super::LogProblem;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

pub(super) struct Options<'a> {
    driver: &'a str,
    left: BTreeMap<&'a str, &'a str>,
    problems: Vec<LogProblem>,
}

/// More files than this are slow to look through.
const FILES_MAX: u32 = 100;
/// A smaller file would rotate with every few lines.
const SIZE_BYTES_MIN: u64 = 1024;

impl<'a> Options<'a> {
    pub(super) fn new(driver: &'a str, options: &'a BTreeMap<String, String>) -> Self {
        let left = options.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        Self { driver, left, problems: Vec::new() }
    }

    /// All that was wrong; what was not asked for is.
    pub(super) fn finish(mut self) -> Vec<LogProblem> {
        for name in std::mem::take(&mut self.left).into_keys() {
            let driver = self.driver;
            self.wrong(name, &format!("is not an option of log driver {driver} that is supported here"));
        }
        self.problems
    }

    pub(super) fn wrong(&mut self, name: &str, message: &str) {
        self.problems.push(LogProblem { field: format!("options.{name}"), message: message.to_owned() });
    }

    pub(super) fn text(&mut self, name: &str) -> Option<&'a str> {
        self.left.remove(name).filter(|text| !text.is_empty())
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(name, &error.to_string());
                None
            }
        }
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        match self.text(name) {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.wrong(name, "must be true or false");
                false
            }
        }
    }

    pub(super) fn one_of(&mut self, name: &str, known: &[&'static str]) -> Option<&'static str> {
        let text = self.text(name)?;
        let found = known.iter().find(|word| **word == text).copied();
        if found.is_none() {
            self.wrong(name, &format!("must be one of {}", known.join(", ")));
        }
        found
    }

    /// Docker's `mode`: output never blocks an application here.
    pub(super) fn mode(&mut self) {
        if self.text("mode").is_some_and(|mode| mode != "non-blocking") {
            self.wrong("mode", "must be non-blocking: a slow sink never blocks a container here");
        }
    }

    /// Docker's sizes: `512`, `64k`, `10m`, `1g`, each also with a `b` behind it.
    pub(super) fn size(&mut self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let bytes = size(text).filter(|bytes| *bytes >= SIZE_BYTES_MIN);
        if bytes.is_none() {
            self.wrong(name, "must be a size of at least 1k, like 512k, 10m or 1g");
        }
        bytes
    }

    pub(super) fn count(&mut self, name: &str) -> Option<u32> {
        let text = self.text(name)?;
        let count = text.parse().ok().filter(|count| (1..=FILES_MAX).contains(count));
        if count.is_none() {
            self.wrong(name, &format!("must be a number from 1 to {FILES_MAX}"));
        }
        count
    }

    /// Words between commas.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        let words = self.text(name).into_iter().flat_map(|text| text.split(','));
        words.map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
    }

    /// `Name=value,Other=value`.
    pub(super) fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for word in self.list(name) {
            match word.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) if is_token(key) && !value.chars().any(char::is_control) => {
                    pairs.push((key.to_owned(), value.to_owned()));
                }
                _ => self.wrong(name, "must be like Name=value,Other=value"),
            }
        }
        pairs
    }
}

/// The name of a header, RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match plain.as_bytes().last()? {
        b'k' => (&plain[..plain.len() - 1], 1 << 10),
        b'm' => (&plain[..plain.len() - 1], 1 << 20),
        b'g' => (&plain[..plain.len() - 1], 1 << 30),
        _ => (plain, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
