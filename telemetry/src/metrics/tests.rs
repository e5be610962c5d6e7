//! The text against a strict reader of the format, written from its description.

use super::*;
use std::collections::BTreeSet;

const FAMILIES: &[Family] = &[
    Family { name: "starts_total", help: "Starts.", kind: Kind::Counter },
    Family { name: "tasks", help: "Tasks now.", kind: Kind::Gauge },
    Family { name: "step_seconds", help: "Steps.", kind: Kind::Histogram(&[0.01, 0.1, 1.0]) },
];

/// Name, labels, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Every sample; panics on anything the format does not allow.
fn parse(text: &str) -> Vec<Sample> {
    let name_like = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    let mut typed: BTreeSet<String> = BTreeSet::new();
    let mut samples = Vec::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(name_like(words[1]) && !words[2].is_empty(), "{line}");
            match words[0] {
                "HELP" => assert!(!typed.contains(words[1]), "HELP comes first: {line}"),
                "TYPE" => {
                    assert!(["counter", "gauge", "histogram"].contains(&words[2]), "{line}");
                    assert!(typed.insert(words[1].to_owned()), "a family stands once: {line}");
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let (name, labels) = match series.split_once('{') {
            None => (series, Vec::new()),
            Some((name, rest)) => (name, labels(rest.strip_suffix('}').unwrap())),
        };
        assert!(name_like(name), "{line}");
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        assert!(typed.contains(name) || typed.contains(family.unwrap_or("")), "no TYPE before {line}");
        samples.push((name.to_owned(), labels, value));
    }
    samples
}

fn labels(mut text: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap();
        let (mut value, mut chars) = (String::new(), rest.char_indices());
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => break at,
                (_, other) => value.push(other),
            }
        };
        all.push((name.to_owned(), value));
        text = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
    all
}

#[test]
fn the_text_is_what_the_format_says() {
    let metrics = Metrics::new(FAMILIES);
    metrics.add("starts_total", &[("result", "a \"quoted\" \\ name\nof two lines")], 2.0);
    metrics.add("starts_total", &[("result", "ok")], 1.0);
    metrics.set("tasks", &[], 3.0);
    for seconds in [0.005, 0.05, 0.05, 7.0] {
        metrics.observe("step_seconds", &[("step", "pull")], seconds);
    }
    let samples = parse(&metrics.render());
    let value = |name: &str, label: Option<&str>| {
        let of = |labels: &[(String, String)]| label.is_none_or(|l| labels.iter().any(|(_, v)| v == l));
        samples.iter().find(|(n, labels, _)| n == name && of(labels)).map(|(_, _, value)| *value)
    };
    assert_eq!(value("starts_total", Some("a \"quoted\" \\ name\nof two lines")), Some(2.0));
    assert_eq!(value("tasks", None), Some(3.0));
    let buckets: Vec<f64> =
        samples.iter().filter(|(n, _, _)| n == "step_seconds_bucket").map(|(_, _, v)| *v).collect();
    assert_eq!(buckets, [1.0, 3.0, 3.0, 4.0]);
    assert_eq!(
        (value("step_seconds_count", None), value("step_seconds_sum", None)),
        (Some(4.0), Some(7.105))
    );
}

#[test]
fn a_family_does_not_grow_without_bound() {
    let metrics = Metrics::new(FAMILIES);
    for number in 0..SERIES_MAX + 5 {
        metrics.add("starts_total", &[("task", &number.to_string())], 1.0);
    }
    metrics.add("starts_total", &[("task", "0")], 1.0);
    let samples = parse(&metrics.render());
    assert_eq!(samples.iter().filter(|(name, _, _)| name == "starts_total").count(), SERIES_MAX);
    assert_eq!(samples.iter().find(|(name, _, _)| name == DROPPED).unwrap().2, 5.0);
    metrics.replace("tasks", vec![(vec![("status", "RUNNING".to_owned())], 1.0)]);
    metrics.replace("tasks", vec![(vec![("status", "STOPPED".to_owned())], 2.0)]);
    let tasks: Vec<_> = parse(&metrics.render()).into_iter().filter(|(name, _, _)| name == "tasks").collect();
    assert_eq!(tasks.len(), 1);
}
