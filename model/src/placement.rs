//! What a caller asks of the place of a task: constraints that bind and strategies that choose.
//! In: types, fields and expressions as ECS spells them. Out: the same, read once and ready to be asked
//! thousands of times; or what is wrong with which. Owns: the text, which is what is stored.
//! Never: knows a container instance.
//! Source: Amazon ECS API reference, PlacementConstraint, PlacementStrategy, RunTask.

use crate::query::{CHARS_MAX, Expression};
use crate::score::Score;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Of one call (Amazon ECS API reference, RunTask).
pub const CONSTRAINTS_MAX: usize = 10;
/// Of one call.
pub const STRATEGIES_MAX: usize = 5;

/// A constraint as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstraintText {
    #[serde(rename = "type")]
    pub kind: String,
    /// Of a `memberOf`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expression: String,
}

/// A strategy as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrategyText {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// Of a `custom`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub expression: String,
}

/// Constraints and strategies as text: what records keep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlacementText {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<ConstraintText>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strategies: Vec<StrategyText>,
}

impl PlacementText {
    /// Nothing was asked for.
    pub fn is_empty(&self) -> bool {
        self.constraints.is_empty() && self.strategies.is_empty()
    }
}

/// Why a placement is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PlacementError {
    /// `placementConstraints[0].expression`.
    pub field: String,
    pub problem: String,
}

/// A constraint that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// No two tasks of a group on one instance.
    DistinctInstance,
    MemberOf(Expression),
}

/// What tasks are spread over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpreadField {
    /// `instanceId`, or `host`, which is the same.
    Instance,
    /// The values of an attribute; instances without it are one value more.
    Attribute(String),
}

/// What binpack fills up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackField {
    Cpu,
    Memory,
}

/// A strategy that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    Random,
    Spread(SpreadField),
    /// The least that is left of it.
    Binpack(PackField),
    /// The highest score.
    Custom(Score),
}

/// What a caller asked for, read; copies share it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement(Arc<Read>);

#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    text: PlacementText,
    constraints: Vec<Constraint>,
    strategies: Vec<Strategy>,
}

impl Placement {
    /// Reads all of it, or names the first that is wrong.
    pub fn read(text: PlacementText) -> Result<Self, PlacementError> {
        at_most("placementConstraints", text.constraints.len(), CONSTRAINTS_MAX)?;
        at_most("placementStrategy", text.strategies.len(), STRATEGIES_MAX)?;
        let constraints = text.constraints.iter().enumerate().map(constraint).collect::<Result<_, _>>()?;
        let strategies = text.strategies.iter().enumerate().map(strategy).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Read { text, constraints, strategies })))
    }

    /// As it was asked for.
    pub fn text(&self) -> &PlacementText {
        &self.0.text
    }

    pub fn constraints(&self) -> &[Constraint] {
        &self.0.constraints
    }

    /// The first decides; each of the others among those that the ones before leave equal.
    pub fn strategies(&self) -> &[Strategy] {
        &self.0.strategies
    }

    /// Whether a group may have only one task on an instance.
    pub fn is_distinct(&self) -> bool {
        self.0.constraints.contains(&Constraint::DistinctInstance)
    }
}

fn at_most(field: &str, count: usize, most: usize) -> Result<(), PlacementError> {
    if count <= most {
        return Ok(());
    }
    Err(PlacementError { field: field.to_owned(), problem: format!("must be at most {most}, got {count}") })
}

fn constraint((index, text): (usize, &ConstraintText)) -> Result<Constraint, PlacementError> {
    let wrong = |member: &str, problem: String| PlacementError {
        field: format!("placementConstraints[{index}].{member}"),
        problem,
    };
    match text.kind.as_str() {
        "distinctInstance" if text.expression.is_empty() => Ok(Constraint::DistinctInstance),
        "distinctInstance" => Err(wrong("expression", "distinctInstance takes none".to_owned())),
        "memberOf" => {
            let read = Expression::parse(&text.expression);
            read.map(Constraint::MemberOf).map_err(|error| wrong("expression", error.to_string()))
        }
        other => Err(wrong("type", format!("must be distinctInstance or memberOf, got {other:?}"))),
    }
}

fn strategy((index, text): (usize, &StrategyText)) -> Result<Strategy, PlacementError> {
    let wrong = |member: &str, problem: String| PlacementError {
        field: format!("placementStrategy[{index}].{member}"),
        problem,
    };
    if text.kind != "custom" && !text.expression.is_empty() {
        return Err(wrong("expression", format!("only a custom strategy takes one, not {:?}", text.kind)));
    }
    match (text.kind.as_str(), text.field.as_str()) {
        ("random", "") => Ok(Strategy::Random),
        ("random" | "custom", field) if !field.is_empty() => {
            Err(wrong("field", format!("{} takes none, got {field:?}", text.kind)))
        }
        ("spread", "instanceId" | "host") => Ok(Strategy::Spread(SpreadField::Instance)),
        ("spread", field) => match field.strip_prefix("attribute:").filter(|name| !name.is_empty()) {
            Some(name) => Ok(Strategy::Spread(SpreadField::Attribute(name.to_owned()))),
            None => Err(wrong("field", format!("must be instanceId, host or attribute:NAME, got {field:?}"))),
        },
        ("binpack", field) if field.eq_ignore_ascii_case("cpu") => Ok(Strategy::Binpack(PackField::Cpu)),
        ("binpack", field) if field.eq_ignore_ascii_case("memory") => {
            Ok(Strategy::Binpack(PackField::Memory))
        }
        ("binpack", field) => Err(wrong("field", format!("must be cpu or memory, got {field:?}"))),
        ("custom", _) => {
            if text.expression.chars().count() > CHARS_MAX {
                return Err(wrong("expression", format!("has at most {CHARS_MAX} characters")));
            }
            let read = Score::parse(&text.expression);
            read.map(Strategy::Custom).map_err(|error| wrong("expression", error.to_string()))
        }
        (other, _) => Err(wrong("type", format!("must be random, spread, binpack or custom, got {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Placement, PlacementError> {
        Placement::read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn what_ecs_takes_is_taken() {
        let read = read(
            r#"{"constraints":[{"type":"distinctInstance"},{"type":"memberOf","expression":"attribute:a == b"}],
                "strategies":[{"type":"spread","field":"attribute:ecs.availability-zone"},
                              {"type":"spread","field":"host"},{"type":"binpack","field":"MEMORY"},
                              {"type":"random"}]}"#,
        )
        .unwrap();
        assert!(read.is_distinct());
        assert_eq!(read.constraints().len(), 2);
        assert_eq!(read.strategies()[1], Strategy::Spread(SpreadField::Instance));
        assert_eq!(read.strategies()[2], Strategy::Binpack(PackField::Memory));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |json: &str| read(json).unwrap_err().field;
        assert_eq!(field(r#"{"constraints":[{"type":"near"}]}"#), "placementConstraints[0].type");
        let look_ahead = r#"{"constraints":[{"type":"memberOf","expression":"attribute:a =~ '(?=x)'"}]}"#;
        assert_eq!(field(look_ahead), "placementConstraints[0].expression");
        assert_eq!(field(r#"{"strategies":[{"type":"spread"}]}"#), "placementStrategy[0].field");
        assert_eq!(field(r#"{"strategies":[{"type":"random","field":"x"}]}"#), "placementStrategy[0].field");
        assert_eq!(
            field(r#"{"strategies":[{"type":"binpack","field":"disk"}]}"#),
            "placementStrategy[0].field"
        );
        assert_eq!(
            field(r#"{"strategies":[{"type":"custom","expression":"1 +"}]}"#),
            "placementStrategy[0].expression"
        );
        let many = format!(r#"{{"strategies":[{}]}}"#, [r#"{"type":"random"}"#; 6].join(","));
        assert_eq!(field(&many), "placementStrategy");
    }
}
