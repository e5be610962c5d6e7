//! The language against its documentation and against what people type; against its grammar in `grammar`.

mod grammar;

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
struct Instance {
    attributes: BTreeMap<&'static str, &'static str>,
    groups: Vec<&'static str>,
    connected: bool,
    version: &'static str,
    machine: Option<&'static str>,
    registered_at_s: i64,
    running: u64,
}

impl Queried for Instance {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).copied()
    }
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        self.groups.iter().any(|group| is(group))
    }
    fn agent_connected(&self) -> bool {
        self.connected
    }
    fn agent_version(&self) -> &str {
        self.version
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        self.machine
    }
    fn registered_at_s(&self) -> i64 {
        self.registered_at_s
    }
    fn running_tasks_count(&self) -> u64 {
        self.running
    }
}

fn instance() -> Instance {
    Instance {
        attributes: BTreeMap::from([
            ("ecs.instance-type", "t2.small"),
            ("ecs.availability-zone", "us-east-1a"),
            ("stack", "prod"),
            ("disks", "12"),
            ("ssd", ""),
        ]),
        groups: vec!["service:production", "batch"],
        connected: true,
        version: "1.9.2",
        machine: Some("i-0123"),
        // 2018-06-18T22:28:28Z
        registered_at_s: 1_529_360_908,
        running: 2,
    }
}

#[test]
fn expressions_hold_or_not_as_documented() {
    let table = [
        // The examples of the documentation.
        ("attribute:ecs.instance-type == t2.small", true),
        ("attribute:ecs.availability-zone in [us-east-1a, us-east-1b]", true),
        ("task:group == service:production", true),
        ("not(task:group == database)", true),
        ("runningTasksCount == 1", false),
        ("attribute:ecs.instance-type =~ t2.* and attribute:ecs.availability-zone != us-east-1d", true),
        ("agentVersion < 1.10.0", true),
        ("registeredAt > 2018-06-18", true),
        ("registeredAt >= 2018-06-18T22:28:28+00:00", true),
        ("registeredAt < 2018-06-18T22:28:28Z", false),
        ("registeredAt == 2018-06-18T22:28:28", true),
        ("ec2InstanceId in ['i-0123', 'i-4567']", true),
        ("agentConnected == true", true),
        // Words instead of signs.
        ("attribute:stack equals prod && runningTasksCount greater_than_equal 2", true),
        ("attribute:stack not_equals prod or runningTasksCount less_than 2", false),
        ("attribute:stack not_in [test, dev] and attribute:stack matches 'p.*d'", true),
        ("attribute:gone not_exists and attribute:stack not_matches x", true),
        // What is not there.
        ("attribute:gone exists", false),
        ("attribute:gone == prod", false),
        ("attribute:gone != prod", true),
        ("attribute:gone !in [prod]", true),
        ("attribute:gone !~ prod", true),
        ("attribute:gone > 1", false),
        ("attribute:ssd exists", true),
        ("attribute:ssd == ''", true),
        // Numbers, not letters; what is no number is never more nor less.
        ("attribute:disks > 9", true),
        ("attribute:stack > 9 or attribute:stack <= 9", false),
        // `and` binds more than `or`, `!` more than both.
        ("attribute:stack == prod or attribute:stack == x and attribute:stack == y", true),
        ("(attribute:stack == prod or attribute:stack == x) and attribute:stack == y", false),
        ("!attribute:stack == x and !(attribute:gone exists)", true),
        ("not not attribute:stack==prod", true),
        // A pattern matches all of it or nothing.
        ("attribute:stack =~ pro", false),
        ("attribute:stack =~ 'x|prod'", true),
        ("task:group !~ 'service:.*'", false),
        ("task:group exists", true),
    ];
    for (text, expected) in table {
        let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expression.matches(&instance()), expected, "{text}");
    }
    assert!(!Expression::parse("task:group exists").unwrap().matches(&Instance::default()));
}

#[test]
fn what_is_no_expression_is_refused_where_it_goes_wrong() {
    let deep = format!("{}attribute:a exists{}", "(".repeat(65), ")".repeat(65));
    let long = format!("attribute:a == {}", "x".repeat(CHARS_MAX));
    let table = [
        ("", 1, "expected one of attribute:NAME"),
        ("stack == prod", 1, "expected one of attribute:NAME"),
        ("attribute: == prod", 1, "expected one of attribute:NAME"),
        ("attribute:stack", 16, "expected one of == (equals)"),
        ("attribute:stack = prod", 17, "expected one of == (equals)"),
        ("attribute:stack !equals prod", 18, "expected one of == (equals)"),
        ("attribute:stack ==", 19, "expected a value"),
        ("attribute:stack == 'prod", 20, "not closed"),
        ("attribute:stack in prod", 20, "expected `[`"),
        ("attribute:stack in [a b]", 23, "expected `,` or `]`"),
        ("(attribute:stack exists", 24, "expected `)`"),
        ("attribute:stack exists prod", 24, "the end"),
        ("runningTasksCount > many", 1, "whole number"),
        ("runningTasksCount =~ 1", 1, "not by patterns"),
        ("registeredAt > yesterday", 1, "2018-06-18"),
        ("agentVersion > new", 1, "numbers with dots"),
        ("agentConnected > true", 1, "true or false"),
        ("task:group > 1", 1, "no order"),
        ("attribute:a > x", 1, "ordered by number"),
        ("attribute:a =~ '(?=x)'", 1, "look-around"),
        ("attribute:a =~ 'x)|(y'", 1, "cannot be used"),
        (deep.as_str(), 65, "within each other"),
        (long.as_str(), 2001, "at most 2000"),
    ];
    for (text, at, words) in table {
        let error = Expression::parse(text).expect_err(text);
        assert!(error.at == at && error.problem.contains(words), "{text:.60}: {error}");
    }
}

proptest! {
    /// Whatever is typed is read or refused with a place inside it, or just behind it.
    #[test]
    fn nothing_that_is_typed_stops_the_reader(text in "[a-z:!=<>~()\\[\\],' &|]{0,60}|\\PC{0,40}") {
        if let Err(error) = Expression::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.at));
        }
    }

    #[test]
    fn quotes_keep_every_character(value in "\\PC{0,20}") {
        let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
        let expression = Expression::parse(&format!("task:group == '{quoted}'"));
        let value: &'static str = Box::leak(value.into_boxed_str());
        let instance = Instance { groups: vec![value], ..Instance::default() };
        prop_assert!(expression.is_ok_and(|expression| expression.matches(&instance)));
    }
}
