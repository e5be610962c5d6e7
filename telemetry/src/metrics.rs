//! The numbers of a daemon, in Prometheus' text form.
//! In: additions, values, observations. Out: the text that is scraped.
//! Owns: the series. Every family is declared once, with its help; a family holds at most
//! `SERIES_MAX` series, what would be more is counted in `lighter_metrics_series_dropped_total` and
//! not kept, so that no label can fill the memory.
//! Source: Prometheus, "Exposition formats", text format 0.0.4.
//! Never: waits; the lock is held for one map operation or one rendering.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Series of one family at most.
pub const SERIES_MAX: usize = 1000;

/// What a scrape is answered with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const DROPPED: &str = "lighter_metrics_series_dropped_total";

/// What kind of number a family is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    Gauge,
    /// Upper bounds in growing order, without +Inf.
    Histogram(&'static [f64]),
}

/// A family of series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Kind,
}

/// Names and values, in the order they are shown.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

type Key = Vec<(&'static str, String)>;

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(f64),
    Buckets { counts: Vec<u64>, sum: f64, count: u64 },
}

#[derive(Debug)]
struct Series {
    family: Family,
    values: BTreeMap<Key, Value>,
}

#[derive(Debug, Default)]
struct State {
    families: BTreeMap<&'static str, Series>,
    dropped: u64,
}

/// All series of a daemon; clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Mutex<State>>);

impl Metrics {
    pub fn new(families: &[Family]) -> Self {
        let series = |family: &Family| (family.name, Series { family: *family, values: BTreeMap::new() });
        Self(Arc::new(Mutex::new(State { families: families.iter().map(series).collect(), dropped: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a counter.
    pub fn add(&self, name: &'static str, labels: Labels<'_>, amount: f64) {
        self.change(name, labels, |value| {
            if let Value::Number(number) = value {
                *number += amount;
            }
        });
    }

    /// Sets a gauge.
    pub fn set(&self, name: &'static str, labels: Labels<'_>, amount: f64) {
        self.change(name, labels, |value| *value = Value::Number(amount));
    }

    /// Replaces a family whole: series that are not in `rows` are gone.
    pub fn replace(&self, name: &'static str, rows: Vec<(Vec<(&'static str, String)>, f64)>) {
        let mut state = self.state();
        let dropped = rows.len().saturating_sub(SERIES_MAX) as u64;
        state.dropped += dropped;
        if let Some(series) = state.families.get_mut(name) {
            let kept = rows.into_iter().take(SERIES_MAX);
            series.values = kept.map(|(key, amount)| (key, Value::Number(amount))).collect();
        }
    }

    /// Adds an observation to a histogram.
    pub fn observe(&self, name: &'static str, labels: Labels<'_>, amount: f64) {
        let bounds = match self.state().families.get(name).map(|series| series.family.kind) {
            Some(Kind::Histogram(bounds)) => bounds,
            _ => return,
        };
        self.change(name, labels, |value| {
            if let Value::Buckets { counts, sum, count } = value {
                *sum += amount;
                *count += 1;
                if let Some(at) = bounds.iter().position(|bound| amount <= *bound) {
                    counts[at] += 1;
                }
            }
        });
    }

    fn change(&self, name: &'static str, labels: Labels<'_>, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        let Some(series) = state.families.get_mut(name) else {
            debug_assert!(false, "the family {name} is not declared");
            return;
        };
        let key: Key = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        if series.values.len() >= SERIES_MAX && !series.values.contains_key(&key) {
            state.dropped += 1;
            return;
        }
        let fresh = match series.family.kind {
            Kind::Histogram(bounds) => Value::Buckets { counts: vec![0; bounds.len()], sum: 0.0, count: 0 },
            _ => Value::Number(0.0),
        };
        change(series.values.entry(key).or_insert(fresh));
    }

    /// The text of a scrape. Families without a series are left out.
    pub fn render(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        for series in state.families.values().filter(|series| !series.values.is_empty()) {
            heading(&mut text, series.family);
            for (key, value) in &series.values {
                render_series(&mut text, series.family, key, value);
            }
        }
        let help = "Series that were not kept because their family was full.";
        heading(&mut text, Family { name: DROPPED, help, kind: Kind::Counter });
        let _ = writeln!(text, "{DROPPED} {}", state.dropped);
        text
    }
}

fn heading(text: &mut String, family: Family) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(text, "# HELP {} {}\n# TYPE {} {kind}", family.name, family.help, family.name);
}

fn render_series(text: &mut String, family: Family, key: &Key, value: &Value) {
    let name = family.name;
    match (value, family.kind) {
        (Value::Number(number), _) => {
            let _ = writeln!(text, "{name}{} {number}", braces(key, None));
        }
        (Value::Buckets { counts, sum, count }, Kind::Histogram(bounds)) => {
            let mut below = 0;
            for (bound, in_bucket) in bounds.iter().zip(counts) {
                below += in_bucket;
                let _ = writeln!(text, "{name}_bucket{} {below}", braces(key, Some(&bound.to_string())));
            }
            let _ = writeln!(text, "{name}_bucket{} {count}", braces(key, Some("+Inf")));
            let _ = writeln!(text, "{name}_sum{} {sum}", braces(key, None));
            let _ = writeln!(text, "{name}_count{} {count}", braces(key, None));
        }
        (Value::Buckets { .. }, _) => {}
    }
}

/// `{name="value",…}`, or nothing when there is no label.
fn braces(key: &Key, bound: Option<&str>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
    let mut labels: Vec<String> =
        key.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    labels.extend(bound.map(|bound| format!("le=\"{bound}\"")));
    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) }
}

#[cfg(test)]
mod tests;
