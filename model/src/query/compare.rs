//! One comparison: a subject, an operator, values; made so that asking an instance allocates nothing.
//! In: words; an instance. Out: whether it holds, or why the words are no comparison.
//! Never: compares what has no order (`task:group > 3` is refused when it is read).

use super::Queried;
use regex::Regex;
use std::cmp::Ordering;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, PrimitiveDateTime};

/// Bytes of a compiled pattern: many times what a pattern for names needs.
const PATTERN_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Attribute(String),
    TaskGroup,
    AgentConnected,
    AgentVersion,
    Ec2InstanceId,
    RegisteredAt,
    RunningTasksCount,
}

impl Subject {
    pub(super) const NAMES: &str = "attribute:NAME, task:group, agentConnected, agentVersion, ec2InstanceId, \
         registeredAt, runningTasksCount";

    pub(super) fn named(word: &str) -> Option<Self> {
        Some(match word {
            "task:group" => Self::TaskGroup,
            "agentConnected" => Self::AgentConnected,
            "agentVersion" => Self::AgentVersion,
            "ec2InstanceId" => Self::Ec2InstanceId,
            "registeredAt" => Self::RegisteredAt,
            "runningTasksCount" => Self::RunningTasksCount,
            _ => Self::Attribute(word.strip_prefix("attribute:").filter(|name| !name.is_empty())?.to_owned()),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    Equal,
    In,
    Exists,
    Matches,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator {
    pub relation: Relation,
    pub negated: bool,
}

impl Operator {
    pub(super) const NAMES: &str = "== (equals), != (not_equals), > (greater_than), >= (greater_than_equal), \
         < (less_than), <= (less_than_equal), exists, !exists (not_exists), in, !in (not_in), =~ (matches), \
         !~ (not_matches)";

    pub(super) fn named(word: &str) -> Option<Self> {
        let (relation, negated) = match word {
            "==" | "equals" => (Relation::Equal, false),
            "!=" | "not_equals" => (Relation::Equal, true),
            ">" | "greater_than" => (Relation::Greater, false),
            ">=" | "greater_than_equal" => (Relation::GreaterOrEqual, false),
            "<" | "less_than" => (Relation::Less, false),
            "<=" | "less_than_equal" => (Relation::LessOrEqual, false),
            "exists" => (Relation::Exists, false),
            "not_exists" => (Relation::Exists, true),
            "in" => (Relation::In, false),
            "not_in" => (Relation::In, true),
            "=~" | "matches" => (Relation::Matches, false),
            "!~" | "not_matches" => (Relation::Matches, true),
            _ => return None,
        };
        Some(Self { relation, negated })
    }

    /// What stands after a `!` of its own: `!exists` and `!in`.
    pub(super) fn negation_of(word: &str) -> Option<Self> {
        let operator = Self::named(word)?;
        (!operator.negated && ["exists", "in"].contains(&word)).then_some(Self { negated: true, ..operator })
    }
}

/// What is asked of the subject's value.
#[derive(Debug, Clone)]
enum Test {
    Exists,
    OneOf(Vec<String>),
    Pattern(Regex),
    Number(Order, f64),
    /// Counts, and times in seconds.
    Whole(Order, Vec<i64>),
    Version(Order, Vec<Version>),
    Flag(bool),
}

/// How a value stands to the ones given; only `Equal` has several.
#[derive(Debug, Clone, Copy)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    fn of(relation: Relation) -> Self {
        match relation {
            Relation::Greater => Self::Greater,
            Relation::GreaterOrEqual => Self::GreaterOrEqual,
            Relation::Less => Self::Less,
            Relation::LessOrEqual => Self::LessOrEqual,
            Relation::Equal | Relation::In | Relation::Exists | Relation::Matches => Self::Equal,
        }
    }

    fn holds(self, found: Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
        }
    }
}

/// The numbers of a version; what follows them (`-rc1`) is not compared. Missing ones are 0.
#[derive(Debug, Clone)]
struct Version(Vec<u64>);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next()?;
        numbers.split('.').map(|number| number.parse().ok()).collect::<Option<_>>().map(Self)
    }

    fn compare(&self, other: &Self) -> Ordering {
        let length = self.0.len().max(other.0.len());
        let number = |of: &Self, index: usize| of.0.get(index).copied().unwrap_or(0);
        (0..length)
            .map(|index| number(self, index).cmp(&number(other, index)))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// A subject, an operator and what it is compared with.
#[derive(Debug, Clone)]
pub struct Comparison {
    subject: Subject,
    negated: bool,
    test: Test,
    key: String,
}

impl Comparison {
    pub(super) fn new(subject: Subject, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let key = format!("{subject:?} {operator:?} {values:?}");
        let test = test(&subject, operator.relation, values)?;
        Ok(Self { subject, negated: operator.negated, test, key })
    }

    /// The same for comparisons that ask the same.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it asks for the groups of tasks.
    pub fn asks_groups(&self) -> bool {
        self.subject == Subject::TaskGroup
    }

    /// Of one that asks for groups: whether a group is as asked, before that is negated.
    pub fn group(&self, group: &str) -> bool {
        self.text(group)
    }

    /// Whether it holds where what it asks does not.
    pub fn is_negated(&self) -> bool {
        self.negated
    }

    /// Whether the answer changes with the tasks of the instance.
    pub fn depends_on_tasks(&self) -> bool {
        matches!(self.subject, Subject::TaskGroup | Subject::RunningTasksCount)
    }

    /// Whether it holds.
    pub fn matches(&self, instance: &impl Queried) -> bool {
        self.holds(instance) != self.negated
    }

    fn holds(&self, instance: &impl Queried) -> bool {
        match &self.subject {
            Subject::Attribute(name) => instance.attribute(name).is_some_and(|value| self.text(value)),
            Subject::TaskGroup => instance.any_task_group(&mut |group| self.text(group)),
            Subject::AgentVersion => self.text(instance.agent_version()),
            Subject::Ec2InstanceId => instance.ec2_instance_id().is_some_and(|id| self.text(id)),
            Subject::AgentConnected => {
                matches!(self.test, Test::Flag(wanted) if wanted == instance.agent_connected())
            }
            Subject::RegisteredAt => self.whole(instance.registered_at_s()),
            Subject::RunningTasksCount => {
                self.whole(i64::try_from(instance.running_tasks_count()).unwrap_or(i64::MAX))
            }
        }
    }

    fn text(&self, value: &str) -> bool {
        match &self.test {
            Test::Exists => true,
            Test::OneOf(wanted) => wanted.iter().any(|wanted| wanted == value),
            Test::Pattern(pattern) => pattern.is_match(value),
            Test::Number(order, than) => {
                let number = value.parse::<f64>().ok();
                number.and_then(|number| number.partial_cmp(than)).is_some_and(|found| order.holds(found))
            }
            Test::Version(order, wanted) => Version::parse(value)
                .is_some_and(|version| wanted.iter().any(|wanted| order.holds(version.compare(wanted)))),
            Test::Whole(..) | Test::Flag(_) => false,
        }
    }

    fn whole(&self, value: i64) -> bool {
        match &self.test {
            Test::Exists => true,
            Test::Whole(order, wanted) => wanted.iter().any(|wanted| order.holds(value.cmp(wanted))),
            _ => false,
        }
    }
}

/// What is asked, or why it cannot be.
fn test(subject: &Subject, relation: Relation, values: Vec<String>) -> Result<Test, String> {
    let order = Order::of(relation);
    match (subject, relation) {
        (Subject::AgentConnected, Relation::Equal) => flag(&values),
        (Subject::AgentConnected, _) => {
            Err("agentConnected is compared by == or != with true or false".into())
        }
        (_, Relation::Exists) => Ok(Test::Exists),
        (Subject::RegisteredAt | Subject::RunningTasksCount, Relation::Matches) => {
            Err("times and counts are compared by ==, !=, <, <=, >, >=, in; not by patterns".into())
        }
        (Subject::RegisteredAt, _) => all(
            &values,
            time,
            "a time is written 2018-06-18, 2018-06-18T22:28:28 or with Z or +00:00 behind it",
        )
        .map(|times| Test::Whole(order, times)),
        (Subject::RunningTasksCount, _) => {
            all(&values, |text| text.parse::<u32>().ok().map(i64::from), "a count is a whole number")
                .map(|counts| Test::Whole(order, counts))
        }
        (_, Relation::Matches) => pattern(&values),
        (Subject::AgentVersion, _) => {
            all(&values, Version::parse, "a version is numbers with dots between them")
                .map(|versions| Test::Version(order, versions))
        }
        (_, Relation::Equal | Relation::In) => Ok(Test::OneOf(values)),
        (Subject::Attribute(_), _) => {
            let finite = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
            let numbers = all(&values, finite, "attributes are ordered by number")?;
            Ok(Test::Number(order, numbers.first().copied().unwrap_or_default()))
        }
        _ => Err("this has no order: ==, !=, in, !in, =~, !~, exists and !exists can be asked".into()),
    }
}

fn all<T>(values: &[String], read: impl Fn(&str) -> Option<T>, rule: &str) -> Result<Vec<T>, String> {
    let read = |value: &String| read(value).ok_or_else(|| format!("{value:?}: {rule}"));
    values.iter().map(read).collect()
}

fn flag(values: &[String]) -> Result<Test, String> {
    let flags = all(values, |text| text.parse().ok(), "agentConnected is true or false")?;
    Ok(Test::Flag(flags.first().copied().unwrap_or_default()))
}

fn pattern(values: &[String]) -> Result<Test, String> {
    let text = values.first().map_or("", String::as_str);
    // Read alone first: `a)(b` must not become one by what is put around it.
    let limited = |text: &str| regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
    let whole = limited(text).and_then(|_| limited(&format!("^(?:{text})$")));
    whole.map(Test::Pattern).map_err(|error| format!("the pattern cannot be used: {error}"))
}

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const SECOND: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");

/// Seconds since 1970; without an offset the time is UTC.
fn time(text: &str) -> Option<i64> {
    let exact = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339);
    let second = |text| PrimitiveDateTime::parse(text, SECOND).map(PrimitiveDateTime::assume_utc);
    let day = |text| Date::parse(text, DAY).map(|day| day.midnight().assume_utc());
    exact.or_else(|_| second(text)).or_else(|_| day(text)).ok().map(OffsetDateTime::unix_timestamp)
}
