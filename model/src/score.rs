//! The scoring expression of a custom placement strategy: arithmetic over what is known of a container instance.
//! In: text of at most 256 nodes of syntax; an instance. Out: a score in millionths, or why the instance gets none.
//! Never: uses a float, loops or grows: the same instance has the same score everywhere and for ever.
//!
//! Numbers are 64-bit integers that count millionths. Products and quotients are made in 128 bits, cut off towards
//! zero and checked; what does not fit into 64 bits, a division by zero, and an attribute that is missing or no
//! number refuse the instance.

mod parse;
#[cfg(test)]
mod tests;

use crate::query::{Expression, Queried, QueryError};
use std::fmt;

/// What the number 1 is kept as.
pub const SCALE: i64 = 1_000_000;
/// Nodes of syntax of an expression; each comparison of a query is one.
pub const NODES_MAX: usize = 256;

/// What a score asks besides the query language's subjects.
pub trait Scored: Queried {
    /// CPU units that no task takes.
    fn remaining_cpu(&self) -> i64;
    /// MiB.
    fn remaining_memory(&self) -> i64;
    fn remaining_gpus(&self) -> i64;
    fn total_cpu(&self) -> i64;
    fn total_memory(&self) -> i64;
    fn total_gpus(&self) -> i64;
    /// Tasks of the group to be placed on the instance.
    fn group_tasks(&self) -> i64;
    /// The same on all instances of its availability zone.
    fn group_zone_tasks(&self) -> i64;
}

/// Why an instance gets no score.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("overflow")]
    Overflow,
    #[error("division by zero")]
    DivisionByZero,
    #[error("attribute:{name} is missing or no number")]
    NoNumber { name: String },
}

/// An expression that was read.
#[derive(Debug, Clone)]
pub struct Score {
    text: String,
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    /// In millionths.
    Number(i64),
    Subject(Subject),
    /// 1 where it holds, else 0.
    Query(Expression),
    Minus(Box<Node>),
    Both(Operator, Box<(Node, Node)>),
    /// The second where the first is not 0, else the third.
    If(Box<(Node, Node, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Attribute(String),
    RegisteredAt,
    RunningTasksCount,
    AgentConnected,
    RemainingCpu,
    RemainingMemory,
    RemainingGpus,
    TotalCpu,
    TotalMemory,
    TotalGpus,
    GroupTasks,
    GroupZoneTasks,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Plus,
    Minus,
    Times,
    Over,
    Min,
    Max,
}

impl Score {
    /// Reads an expression; the grammar is in docs/placement.md.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        Ok(Self { text: text.to_owned(), root: parse::parse(text)? })
    }

    /// The score in millionths.
    pub fn of(&self, instance: &impl Scored) -> Result<i64, Refused> {
        self.root.of(instance)
    }

    /// The text that was read.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A whole number in millionths.
fn whole(number: i64) -> Result<i64, Refused> {
    number.checked_mul(SCALE).ok_or(Refused::Overflow)
}

impl Node {
    fn of(&self, instance: &impl Scored) -> Result<i64, Refused> {
        match self {
            Self::Number(millionths) => Ok(*millionths),
            Self::Subject(subject) => subject.of(instance),
            Self::Query(query) => whole(i64::from(query.matches(instance))),
            Self::Minus(node) => node.of(instance)?.checked_neg().ok_or(Refused::Overflow),
            Self::Both(operator, nodes) => operator.of(nodes.0.of(instance)?, nodes.1.of(instance)?),
            Self::If(nodes) => match nodes.0.of(instance)? {
                0 => nodes.2.of(instance),
                _ => nodes.1.of(instance),
            },
        }
    }
}

impl Operator {
    fn of(self, left: i64, right: i64) -> Result<i64, Refused> {
        let narrow = |wide: i128| i64::try_from(wide).map_err(|_| Refused::Overflow);
        let (wide_left, wide_right, scale) = (i128::from(left), i128::from(right), i128::from(SCALE));
        match self {
            Self::Plus => left.checked_add(right).ok_or(Refused::Overflow),
            Self::Minus => left.checked_sub(right).ok_or(Refused::Overflow),
            Self::Times => narrow(wide_left * wide_right / scale),
            Self::Over if right == 0 => Err(Refused::DivisionByZero),
            Self::Over => narrow(wide_left * scale / wide_right),
            Self::Min => Ok(left.min(right)),
            Self::Max => Ok(left.max(right)),
        }
    }
}

impl Subject {
    const NAMES: &str = "attribute:NAME, registeredAt, runningTasksCount, agentConnected, remaining:cpu, \
         remaining:memory, remaining:gpus, total:cpu, total:memory, total:gpus, group:tasks, group:zoneTasks";

    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "registeredAt" => Self::RegisteredAt,
            "runningTasksCount" => Self::RunningTasksCount,
            "agentConnected" => Self::AgentConnected,
            "remaining:cpu" => Self::RemainingCpu,
            "remaining:memory" => Self::RemainingMemory,
            "remaining:gpus" => Self::RemainingGpus,
            "total:cpu" => Self::TotalCpu,
            "total:memory" => Self::TotalMemory,
            "total:gpus" => Self::TotalGpus,
            "group:tasks" => Self::GroupTasks,
            "group:zoneTasks" => Self::GroupZoneTasks,
            _ => Self::Attribute(word.strip_prefix("attribute:").filter(|name| !name.is_empty())?.to_owned()),
        })
    }

    fn of(&self, instance: &impl Scored) -> Result<i64, Refused> {
        match self {
            Self::Attribute(name) => {
                let number = instance.attribute(name).and_then(millionths);
                number.ok_or_else(|| Refused::NoNumber { name: name.clone() })
            }
            Self::RegisteredAt => whole(instance.registered_at_s()),
            Self::RunningTasksCount => {
                whole(i64::try_from(instance.running_tasks_count()).unwrap_or(i64::MAX))
            }
            Self::AgentConnected => whole(i64::from(instance.agent_connected())),
            Self::RemainingCpu => whole(instance.remaining_cpu()),
            Self::RemainingMemory => whole(instance.remaining_memory()),
            Self::RemainingGpus => whole(instance.remaining_gpus()),
            Self::TotalCpu => whole(instance.total_cpu()),
            Self::TotalMemory => whole(instance.total_memory()),
            Self::TotalGpus => whole(instance.total_gpus()),
            Self::GroupTasks => whole(instance.group_tasks()),
            Self::GroupZoneTasks => whole(instance.group_zone_tasks()),
        }
    }
}

/// A decimal number with at most six digits behind the point, in millionths; `None`: none, or too large.
fn millionths(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (before, behind) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !all_digits(before) || !all_digits(behind) || behind.len() > 6 {
        return None;
    }
    let fraction: i64 = format!("{behind:0<6}").parse().ok()?;
    let number = before.parse::<i64>().ok()?.checked_mul(SCALE)?.checked_add(fraction)?;
    Some(if negative { -number } else { number })
}

/// The text that was read, so that what a user wrote is what is shown.
impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Score {}
