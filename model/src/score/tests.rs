//! The grammar and the arithmetic of scores, against numbers that are obviously right.

use super::*;
use proptest::prelude::*;

/// An instance with round numbers.
struct Node1;

impl Queried for Node1 {
    fn attribute(&self, name: &str) -> Option<&str> {
        [("disk", "ssd"), ("price", "0.25"), ("a-b", "7")]
            .into_iter()
            .find(|(own, _)| *own == name)
            .map(|(_, v)| v)
    }
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        is("service:web")
    }
    fn agent_connected(&self) -> bool {
        true
    }
    fn agent_version(&self) -> &str {
        "1.2.3"
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        None
    }
    fn registered_at_s(&self) -> i64 {
        1_000
    }
    fn running_tasks_count(&self) -> u64 {
        3
    }
}

impl Scored for Node1 {
    fn remaining_cpu(&self) -> i64 {
        512
    }
    fn remaining_memory(&self) -> i64 {
        1_024
    }
    fn remaining_gpus(&self) -> i64 {
        1
    }
    fn total_cpu(&self) -> i64 {
        2_048
    }
    fn total_memory(&self) -> i64 {
        4_096
    }
    fn total_gpus(&self) -> i64 {
        2
    }
    fn group_tasks(&self) -> i64 {
        2
    }
    fn group_zone_tasks(&self) -> i64 {
        5
    }
}

fn score(text: &str) -> Result<i64, Refused> {
    Score::parse(text).unwrap().of(&Node1)
}

#[test]
fn every_subject_and_function() {
    for (text, millionths) in [
        ("remaining:cpu / total:cpu", 250_000),
        ("1 + 2 * 3 - -4", 11_000_000),
        ("(1 + 2) * 3", 9_000_000),
        ("7 / 2", 3_500_000),
        ("-1 / 3", -333_333),
        ("attribute:price * 4", 1_000_000),
        ("attribute:a-b - 1", 6_000_000),
        ("min(remaining:memory, 10) + max(1, 2)", 12_000_000),
        ("if({attribute:disk == 'ssd'}, 5, 1)", 5_000_000),
        ("{attribute:disk =~ 's{2}d'} + {task:group == other}", 1_000_000),
        ("{attribute:disk == '}'} + {task:group == service:web}", 1_000_000),
        ("group:tasks + group:zoneTasks + runningTasksCount", 10_000_000),
        ("registeredAt + agentConnected", 1_001_000_000),
        ("remaining:gpus + total:gpus + total:memory", 4_099_000_000),
    ] {
        assert_eq!(score(text), Ok(millionths), "{text}");
    }
}

#[test]
fn what_has_no_value_refuses_the_instance() {
    assert_eq!(score("1 / (group:tasks - 2)"), Err(Refused::DivisionByZero));
    assert_eq!(score("attribute:disk"), Err(Refused::NoNumber { name: "disk".to_owned() }));
    assert_eq!(score("attribute:none"), Err(Refused::NoNumber { name: "none".to_owned() }));
    assert_eq!(score("9000000000000 * 2"), Err(Refused::Overflow));
    assert_eq!(score("9000000000000 + 9000000000000"), Err(Refused::Overflow));
    assert_eq!(score("if(1, 2, 1 / 0)"), Ok(2_000_000), "what is not asked for refuses nothing");
}

#[test]
fn what_is_none_is_refused_with_its_place() {
    for (text, at) in [
        ("", 1),
        ("1 +", 4),
        ("1 2", 3),
        ("(1", 3),
        ("min(1)", 6),
        ("nonsense", 1),
        ("1.2345678", 1),
        ("99999999999999", 1),
        ("{attribute:a}", 13),
        ("{attribute:a == b", 1),
    ] {
        assert_eq!(Score::parse(text).unwrap_err().at, at, "{text}: {}", Score::parse(text).unwrap_err());
    }
}

#[test]
fn it_is_bounded() {
    let sum = |terms: usize| vec!["1"; terms].join("+");
    assert!(Score::parse(&sum(128)).is_ok(), "128 numbers and 127 signs");
    assert!(Score::parse(&sum(129)).is_err());
    assert!(Score::parse(&format!("{}1{}", "(".repeat(60), ")".repeat(60))).is_ok());
    assert!(Score::parse(&format!("{}1{}", "(".repeat(100), ")".repeat(100))).is_err());
    assert!(Score::parse(&"-".repeat(1_000)).is_err());
}

/// An expression with what it comes to, as a fraction in 128 bits would.
fn any_sum() -> impl Strategy<Value = (String, Option<i64>)> {
    let leaf = (-1_000i64..1_000).prop_map(|number| match number < 0 {
        true => (format!("(-{})", -number), Some(number * SCALE)),
        false => (number.to_string(), Some(number * SCALE)),
    });
    leaf.prop_recursive(6, 64, 2, |inner| {
        (inner.clone(), inner, 0usize..6).prop_map(|((left, a), (right, b), which)| {
            let narrow = |wide: i128| i64::try_from(wide).ok();
            let value = a.zip(b).and_then(|(a, b)| {
                let (a, b) = (i128::from(a), i128::from(b));
                match which {
                    0 => narrow(a + b),
                    1 => narrow(a - b),
                    2 => narrow(a * b / i128::from(SCALE)),
                    3 if b == 0 => None,
                    3 => narrow(a * i128::from(SCALE) / b),
                    4 => narrow(a.min(b)),
                    _ => narrow(a.max(b)),
                }
            });
            let text = match which {
                0..4 => format!("({left}) {} ({right})", ["+", "-", "*", "/"][which]),
                4 => format!("min({left}, {right})"),
                _ => format!("max({left},{right})"),
            };
            (text, value)
        })
    })
}

proptest! {
    #[test]
    fn arithmetic_is_that_of_wide_integers((text, value) in any_sum()) {
        // Longer ones than are allowed are refused, not wrong.
        if let Ok(read) = Score::parse(&text) {
            prop_assert_eq!(read.of(&Node1).ok(), value);
        }
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_place_in_it(text in "[a-z0-9+*/(){}',. :=-]{0,80}") {
        match Score::parse(&text) {
            Ok(read) => drop(read.of(&Node1)),
            Err(error) => prop_assert!(error.at >= 1 && error.at <= text.chars().count() + 1),
        }
    }
}
