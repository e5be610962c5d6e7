//! dependsOn, healthCheck and restartPolicy: what is read, and what is refused by name.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use lighter_model::task_definition::input::{parse, to_json};
use lighter_model::task_definition::{DependencyCondition, OnUnhealthy, TaskDefinition};
use serde_json::{Value, json};

/// Containers `a` (essential), `b` (checked), `c`, each with more members.
fn definition(a: Value, b: Value, c: Value) -> Value {
    let container = |name: &str, essential: bool, more: Value| {
        let mut container = json!({"name": name, "image": "i", "memory": 6, "essential": essential});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        container
    };
    let mut checked = b;
    if checked.get("healthCheck").is_none() {
        checked["healthCheck"] = json!({"command": ["CMD", "/up"]});
    }
    json!({"family": "f", "containerDefinitions":
        [container("a", true, a), container("b", false, checked), container("c", false, c)]})
}

#[track_caller]
fn accepted(value: Value) -> TaskDefinition {
    let definition = parse(&value.to_string()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(parse(&to_json(&definition)).as_ref(), Ok(&definition), "round trip");
    definition
}

#[track_caller]
fn refused(field: &str, value: Value) -> String {
    let error = parse(&value.to_string()).expect_err("refused");
    let fields: Vec<&str> = error.problems().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, [field], "{error}");
    error.message().to_owned()
}

fn after(name: &str, condition: &str) -> Value {
    json!({"dependsOn": [{"containerName": name, "condition": condition}]})
}

#[test]
fn what_aws_documents_is_read() {
    let found = accepted(definition(
        json!({"dependsOn": [{"containerName": "b", "condition": "HEALTHY"}, {"containerName": "c", "condition": "SUCCESS"}]}),
        json!({"startTimeout": 120, "healthCheck": {"command": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"],
            "interval": 10, "timeout": 2, "retries": 5, "startPeriod": 20}}),
        json!({"restartPolicy": {"enabled": true, "ignoredExitCodes": [0, 143], "restartAttemptPeriod": 60}}),
    ));
    let [a, b, c] = &found.container_definitions[..] else { panic!() };
    assert_eq!(a.depends_on[1].condition, DependencyCondition::Success);
    let check = b.health_check.as_ref().unwrap();
    assert_eq!(
        (check.interval_s, check.retries, check.on_unhealthy),
        (Some(10), Some(5), OnUnhealthy::Report)
    );
    assert_eq!(b.start_timeout_s, Some(120));
    let policy = c.restart_policy.as_ref().unwrap();
    assert_eq!(
        (policy.enabled, &policy.ignored_exit_codes[..], policy.attempt_period_s),
        (true, &[0, 143][..], Some(60))
    );
}

#[test]
fn our_extensions_are_read_and_unfilled_skeletons_say_nothing() {
    let extended = json!({"healthCheck": {"fromImage": true, "retries": 1, "onUnhealthy": "restart"}});
    let found = accepted(definition(
        extended,
        json!({}),
        json!({"restartPolicy": {"enabled": true, "restartAttemptPeriod": 0}}),
    ));
    let check = found.container_definitions[0].health_check.clone().unwrap();
    assert!(check.from_image && check.on_unhealthy == OnUnhealthy::Restart && check.command.is_empty());
    let none = accepted(definition(json!({"healthCheck": {"command": ["NONE"]}}), json!({}), json!({})));
    assert!(!none.container_definitions[0].is_checked());
    let skeleton = json!({"healthCheck": {"command": [""], "interval": 0, "timeout": 0, "retries": 0, "startPeriod": 0},
        "restartPolicy": {"enabled": false, "ignoredExitCodes": [0], "restartAttemptPeriod": 0}, "dependsOn": [], "startTimeout": 0});
    let found = accepted(definition(skeleton, json!({}), json!({})));
    let a = &found.container_definitions[0];
    assert!(a.health_check.is_none() && a.restart_policy.is_none() && a.depends_on.is_empty());
}

#[test]
fn a_dependency_that_can_never_be_met_is_refused() {
    let d = "containerDefinitions";
    for (field, value) in [
        ("[0].dependsOn[0].containerName", definition(after("x", "START"), json!({}), json!({}))),
        ("[0].dependsOn[0].containerName", definition(after("a", "START"), json!({}), json!({}))),
        ("[0].dependsOn[0].condition", definition(after("c", "HEALTHY"), json!({}), json!({}))),
        ("[2].dependsOn[0].condition", definition(json!({}), json!({}), after("a", "COMPLETE"))),
        ("[2].dependsOn[0].condition", definition(json!({}), json!({}), after("a", "SUCCESS"))),
        ("[2].dependsOn[0].condition", definition(json!({}), json!({}), after("a", "STARTED"))),
        (
            "[0].dependsOn[0].condition",
            definition(after("b", "HEALTHY"), json!({"healthCheck": {"command": ["NONE"]}}), json!({})),
        ),
        (
            "[0].dependsOn[1]",
            definition(
                json!({"dependsOn": [{"containerName": "b", "condition": "START"}, {"containerName": "b", "condition": "START"}]}),
                json!({}),
                json!({}),
            ),
        ),
    ] {
        refused(&format!("{d}{field}"), value);
    }
}

#[test]
fn circles_are_refused_also_through_volumes() {
    let circle = definition(after("b", "START"), after("c", "START"), after("a", "START"));
    let error = parse(&circle.to_string()).unwrap_err();
    assert_eq!(error.problems().count(), 3, "{error}");
    assert!(error.message().contains("circle"), "{error}");
    let volumes =
        definition(after("b", "START"), json!({"volumesFrom": [{"sourceContainer": "a"}]}), json!({}));
    assert!(refused("containerDefinitions[0].dependsOn[0].containerName", volumes).contains("circle"));
    accepted(definition(
        json!({"dependsOn": [{"containerName": "b", "condition": "START"}, {"containerName": "c", "condition": "COMPLETE"}]}),
        after("c", "SUCCESS"),
        json!({}),
    ));
}

#[test]
fn a_health_check_that_makes_no_sense_is_refused() {
    let check = |check: Value| definition(json!({"healthCheck": check}), json!({}), json!({}));
    for (field, value) in [
        ("command", json!({"retries": 1})),
        ("command", json!({"command": ["curl"]})),
        ("command", json!({"command": ["CMD"]})),
        ("command", json!({"command": ["CMD-SHELL", "a", "b"]})),
        ("command", json!({"command": ["NONE", "a"]})),
        ("fromImage", json!({"command": ["CMD", "a"], "fromImage": true})),
        ("interval", json!({"command": ["CMD", "a"], "interval": 4})),
        ("timeout", json!({"command": ["CMD", "a"], "timeout": 61})),
        ("retries", json!({"command": ["CMD", "a"], "retries": 11})),
        ("startPeriod", json!({"command": ["CMD", "a"], "startPeriod": 301})),
        ("onUnhealthy", json!({"command": ["CMD", "a"], "onUnhealthy": "kill"})),
        ("cmd", json!({"cmd": []})),
    ] {
        refused(&format!("containerDefinitions[0].healthCheck.{field}"), check(value));
    }
    let policy = |policy: Value| definition(json!({"restartPolicy": policy}), json!({}), json!({}));
    for (field, value) in [
        ("enabled", json!({"restartAttemptPeriod": 60})),
        ("restartAttemptPeriod", json!({"enabled": true, "restartAttemptPeriod": 1801})),
        ("ignoredExitCodes", json!({"enabled": true, "ignoredExitCodes": vec![1; 51]})),
        ("ignoredExitCodes[0]", json!({"enabled": true, "ignoredExitCodes": [256]})),
    ] {
        refused(&format!("containerDefinitions[0].restartPolicy.{field}"), policy(value));
    }
}
