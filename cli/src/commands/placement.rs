//! Where tasks may go, and why they go nowhere: options of `run` and `service`, `strategy test`,
//! and the words for an explanation.
//! In: options, explanations of the control plane. Out: members of requests, text, JSON.
//! Never: decides where a task goes.

use crate::args::{Format, Global, PlacementArgs, StrategyCommand};
use crate::client::Client;
use crate::commands::task_definition;
use crate::failure::Failure;
use crate::table::{Table, clean};
use crate::{json, output};
use lighter_proto::v1;
use std::fmt::Write as _;

/// `memberOf:EXPRESSION`; what is no known type is the control plane's to refuse.
pub fn constraints(args: &PlacementArgs) -> Vec<v1::PlacementConstraint> {
    let one = |text: &String| {
        let (kind, expression) = text.split_once(':').unwrap_or((text, ""));
        v1::PlacementConstraint { r#type: kind.to_owned(), expression: expression.to_owned() }
    };
    args.constraint.iter().map(one).collect()
}

/// `spread:attribute:ecs.availability-zone`, `binpack:memory`, `random`, `custom:EXPRESSION`.
pub fn strategies(args: &PlacementArgs) -> Vec<v1::PlacementStrategy> {
    let one = |text: &String| {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (field, expression) = if kind == "custom" { ("", rest) } else { (rest, "") };
        v1::PlacementStrategy {
            r#type: kind.to_owned(),
            field: field.to_owned(),
            expression: expression.to_owned(),
        }
    };
    args.strategy.iter().map(one).collect()
}

/// Prints an explanation as the person wants it.
pub fn print(global: &Global, explanation: &v1::PlacementExplanation) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(&json::service::explanation(explanation));
    }
    output::line(&text(explanation))
}

/// Lines: the funnel, the closest one, the choices.
pub fn text(explanation: &v1::PlacementExplanation) -> String {
    let total = explanation.container_instances;
    let mut text = format!("{total} {} in the cluster", if total == 1 { "node" } else { "nodes" });
    let mut left = total;
    for filter in &explanation.filters {
        left = left.saturating_sub(filter.fell_out);
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {}: {} fell out, {left} left", clean(&filter.reason), filter.fell_out);
    }
    if !explanation.closest_container_instance_id.is_empty() {
        let named =
            [&explanation.closest_container_instance_name, &explanation.closest_container_instance_id];
        let name = named.into_iter().find(|name| !name.is_empty()).map_or("", String::as_str);
        let _ = write!(text, "\nthe closest, {}, {}", clean(name), clean(&explanation.closest_lacks));
    }
    for (place, choice) in explanation.choices.iter().enumerate() {
        let scores = match choice.scores.is_empty() {
            true => String::new(),
            false => format!(" ({})", clean(&choice.scores.join("; "))),
        };
        let _ =
            write!(text, "\ntask {} goes to {}{scores}", place + 1, clean(&choice.container_instance_name));
    }
    text
}

/// `lighter strategy test FILE`.
pub async fn strategy(global: &Global, client: &mut Client, command: StrategyCommand) -> Result<(), Failure> {
    let StrategyCommand::Test { file, task_definition, group, cluster } = command;
    let request = v1::TestPlacementStrategyRequest {
        cluster: super::cluster(cluster),
        expression: task_definition::read(&file)?.trim().to_owned(),
        task_definition,
        group,
    };
    let answer = client.test_placement_strategy(request).await;
    let scores = answer.map_err(Failure::rpc("test the expression"))?.into_inner().scores;
    if global.output == Format::Json {
        return output::json(&json::service::scores(&scores));
    }
    let mut table = Table::new(&["NODE", "SCORE", "REFUSED"]);
    for score in scores {
        let shown = if score.refused.is_empty() { millionths(score.millionths) } else { "-".to_owned() };
        table.row([score.container_instance_name, shown, score.refused]);
    }
    super::print_table(global, &table)
}

/// A fixed-point number without a float: `-1.5`.
fn millionths(value: i64) -> String {
    let (whole, part) = (value.unsigned_abs() / 1_000_000, value.unsigned_abs() % 1_000_000);
    let sign = if value < 0 { "-" } else { "" };
    let part = format!("{part:06}");
    match part.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        part => format!("{sign}{whole}.{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explanation_is_a_funnel_and_the_closest() {
        let explanation = v1::PlacementExplanation {
            container_instances: 5,
            filters: vec![
                v1::PlacementFilter { reason: "DRAINING".into(), fell_out: 1 },
                v1::PlacementFilter { reason: "RESOURCE:MEMORY".into(), fell_out: 4 },
            ],
            closest_container_instance_id: "c".into(),
            closest_container_instance_name: "node-2".into(),
            closest_lacks: "has insufficient memory available (128 MiB needed, 64 MiB left)".into(),
            choices: vec![],
        };
        assert_eq!(
            text(&explanation),
            "5 nodes in the cluster\n  DRAINING: 1 fell out, 4 left\n  RESOURCE:MEMORY: 4 fell out, 0 left\n\
             the closest, node-2, has insufficient memory available (128 MiB needed, 64 MiB left)"
        );
    }

    #[test]
    fn options_are_read_as_people_write_them() {
        let args = PlacementArgs {
            constraint: vec!["distinctInstance".into(), "memberOf:attribute:zone == a".into()],
            strategy: vec!["spread:attribute:zone".into(), "custom:remaining:cpu".into(), "random".into()],
        };
        let constraints = constraints(&args);
        assert_eq!(constraints[1].expression, "attribute:zone == a");
        let strategies = strategies(&args);
        assert_eq!(strategies[0].field, "attribute:zone");
        assert_eq!(strategies[1].expression, "remaining:cpu");
        assert_eq!((strategies[2].r#type.as_str(), strategies[2].field.as_str()), ("random", ""));
    }

    #[test]
    fn scores_are_exact() {
        for (value, text) in
            [(0, "0"), (1, "0.000001"), (-1_500_000, "-1.5"), (i64::MIN, "-9223372036854.775808")]
        {
            assert_eq!(millionths(value), text);
        }
    }
}
