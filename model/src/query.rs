//! The cluster query language: expressions over what is known of a container instance, as placement constraints and
//! lists of instances use it.
//! In: text of at most 2,000 characters; an instance. Out: an expression, or where and why the text is none; whether
//! the instance matches. Owns: the compiled patterns. Never: guesses; what cannot be compared is refused when it is read.
//! Source: Amazon ECS Developer Guide, "Cluster query language". Where it says nothing:
//!
//! - `!=`, `!in` and `!~` are the exact opposites of `==`, `in` and `=~`, so they hold for what is not there.
//! - `>` and its kin compare attributes as numbers; one that is no number does not match.
//! - `task:group` names all groups of which a task is on the instance: `==` asks whether one of them is equal.
//! - Patterns are Rust's regular expressions (no look-around, no back-references) and must match the whole text.

mod compare;
mod lex;
mod parse;
#[cfg(test)]
mod tests;

pub use compare::Comparison;
use std::fmt;

/// Characters of an expression (Amazon ECS API reference, PlacementConstraint).
pub const CHARS_MAX: usize = 2000;
/// Parentheses and negations within each other.
const DEPTH_MAX: usize = 64;

/// What is asked of an instance.
pub trait Queried {
    /// `None`: it has no such attribute. An attribute without a value has an empty one.
    fn attribute(&self, name: &str) -> Option<&str>;
    /// Whether one of the groups of its tasks is as asked.
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool;
    fn agent_connected(&self) -> bool;
    fn agent_version(&self) -> &str;
    /// The id of the machine at its provider, where it has one.
    fn ec2_instance_id(&self) -> Option<&str>;
    /// Seconds since 1970.
    fn registered_at_s(&self) -> i64;
    fn running_tasks_count(&self) -> u64;
}

/// A set of instances.
pub trait Sets {
    fn nothing() -> Self;
    fn unite(&mut self, other: &Self);
    fn intersect(&mut self, other: &Self);
    /// Those that are not in it.
    fn invert(&mut self);
}

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {at}: {problem}")]
pub struct QueryError {
    /// Counted from 1.
    pub at: usize,
    pub problem: String,
}

/// An expression that was read.
#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    root: Node,
}

#[derive(Debug, Clone)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    Comparison(Comparison),
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let chars = text.chars().count();
        if chars > CHARS_MAX {
            let problem = format!("an expression has at most {CHARS_MAX} characters, this one {chars}");
            return Err(QueryError { at: CHARS_MAX + 1, problem });
        }
        let root = parse::parse(&lex::tokens(text)?, chars)?;
        Ok(Self { text: text.to_owned(), root })
    }

    pub fn matches(&self, instance: &impl Queried) -> bool {
        self.root.matches(instance)
    }

    /// The text that was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Answers for many instances at once: `leaf` makes the set of those for which a comparison holds.
    pub fn sets<S: Sets>(&self, leaf: &mut dyn FnMut(&Comparison) -> S) -> S {
        self.root.sets(leaf)
    }

    /// How many comparisons it makes.
    pub fn comparisons(&self) -> usize {
        self.root.comparisons()
    }

    /// Whether the answer for an instance changes with the tasks on it.
    pub fn depends_on_tasks(&self) -> bool {
        self.root.any_comparison(&|comparison| comparison.depends_on_tasks())
    }
}

impl Node {
    fn matches(&self, instance: &impl Queried) -> bool {
        match self {
            Self::Any(nodes) => nodes.iter().any(|node| node.matches(instance)),
            Self::All(nodes) => nodes.iter().all(|node| node.matches(instance)),
            Self::Not(node) => !node.matches(instance),
            Self::Comparison(comparison) => comparison.matches(instance),
        }
    }

    fn sets<S: Sets>(&self, leaf: &mut dyn FnMut(&Comparison) -> S) -> S {
        let mut joined = |nodes: &[Node], join: fn(&mut S, &S)| {
            let mut all = nodes.iter().map(|node| node.sets(leaf));
            // There are two at least: see `parse::alone`.
            let mut first = all.next().unwrap_or_else(S::nothing);
            all.for_each(|next| join(&mut first, &next));
            first
        };
        match self {
            Self::Any(nodes) => joined(nodes, S::unite),
            Self::All(nodes) => joined(nodes, S::intersect),
            Self::Not(node) => {
                let mut set = node.sets(leaf);
                set.invert();
                set
            }
            Self::Comparison(comparison) => leaf(comparison),
        }
    }

    fn comparisons(&self) -> usize {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().map(Self::comparisons).sum(),
            Self::Not(node) => node.comparisons(),
            Self::Comparison(_) => 1,
        }
    }

    fn any_comparison(&self, is: &dyn Fn(&Comparison) -> bool) -> bool {
        match self {
            Self::Any(nodes) | Self::All(nodes) => nodes.iter().any(|node| node.any_comparison(is)),
            Self::Not(node) => node.any_comparison(is),
            Self::Comparison(comparison) => is(comparison),
        }
    }
}

/// The text that was read, so that what a user wrote is what is shown.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}
