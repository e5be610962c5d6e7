//! Why a task goes where it goes, or nowhere: what each instance lacks, filter by filter, and the closest of them.
//! In: the rows of a cluster and what is asked. Out: lacks, counts and words; the words are ECS's.
//! Never: decides: the scheduler does, by sets of rows; a test holds the two to the same answer.

use crate::core::columns::{Nodes, RowInstance};
use crate::scheduler::choose::{Ask, best, feasible};
use crate::scheduler::placement::{NO_INSTANCES, place};
use crate::scheduler::strategy::Scores;
use lighter_model::ids::ContainerInstanceId;
use lighter_model::placement::{Constraint, PackField, SpreadField, Strategy};
use lighter_model::resources::GPU;
use lighter_model::score::SCALE;
use lighter_model::status::ContainerInstanceStatus;

/// The first thing that keeps a task off an instance, in the order in which it is asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    Agent,
    NotActive {
        status: &'static str,
    },
    /// By name; or words for an agent that ends exclusive tasks.
    Attributes {
        missing: Vec<String>,
    },
    MemberOf {
        expression: String,
    },
    DistinctInstance {
        group: String,
    },
    Cpu {
        wanted: u64,
        left: u64,
    },
    Memory {
        wanted: u64,
        left: u64,
    },
    Ports {
        taken: Vec<String>,
    },
    Devices {
        kind: String,
        wanted: u32,
        left: u32,
    },
    /// For this task, which waits at the head of the queue.
    Kept {
        task: String,
    },
}

impl Lack {
    /// ECS's failure reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Agent => "AGENT",
            Self::NotActive { .. } => "INACTIVE",
            Self::Attributes { .. } | Self::MemberOf { .. } | Self::DistinctInstance { .. } => "ATTRIBUTE",
            Self::Cpu { .. } => "RESOURCE:CPU",
            Self::Memory { .. } => "RESOURCE:MEMORY",
            Self::Ports { .. } => "RESOURCE:PORTS",
            Self::Devices { kind, .. } if kind == GPU => "RESOURCE:GPU",
            Self::Devices { .. } => "RESOURCE:DEVICES",
            Self::Kept { .. } => "QUEUE",
        }
    }

    /// The filter it falls out by.
    pub fn filter(&self) -> String {
        match self {
            Self::NotActive { status } => (*status).to_owned(),
            Self::MemberOf { expression } => format!("memberOf({expression})"),
            Self::DistinctInstance { .. } => "distinctInstance".to_owned(),
            other => other.reason().to_owned(),
        }
    }

    /// What is wrong with the instance, exactly in the words of ECS's service events.
    pub fn event_words(&self) -> String {
        match self {
            Self::Attributes { .. } | Self::MemberOf { .. } | Self::DistinctInstance { .. } => {
                "is missing an attribute required by your task".to_owned()
            }
            Self::Cpu { .. } => "has insufficient CPU units available".to_owned(),
            Self::Memory { .. } => "has insufficient memory available".to_owned(),
            Self::Ports { .. } => "is already using a port required by your task".to_owned(),
            other => format!("encountered error \"{}\"", other.reason()),
        }
    }

    /// The same with names and numbers; where ECS has no words or says less, our own.
    pub fn words(&self) -> String {
        let ecs = self.event_words();
        match self {
            Self::Agent => "has an agent that is not connected".to_owned(),
            Self::NotActive { status } => format!("is {status}"),
            Self::Attributes { missing } => format!("{ecs} ({})", missing.join(", ")),
            Self::MemberOf { expression } => {
                format!("does not satisfy the placement constraint memberOf({expression})")
            }
            Self::DistinctInstance { group } => {
                format!("has a task of {group} already, against the placement constraint distinctInstance")
            }
            Self::Cpu { wanted, left } => format!("{ecs} ({wanted} needed, {left} left)"),
            Self::Memory { wanted, left } => format!("{ecs} ({wanted} MiB needed, {left} MiB left)"),
            Self::Ports { taken } => format!("{ecs} ({})", taken.join(", ")),
            Self::Devices { kind, wanted, left } => {
                format!("has insufficient {kind} resources available ({wanted} needed, {left} left)")
            }
            Self::Kept { task } => {
                format!("is kept free for task {task}, which waits at the head of the queue")
            }
        }
    }

    /// How far the instance came, and then how much it lacks: the closest has the greatest rank.
    fn rank(&self) -> (usize, i128) {
        let short = |wanted: u64, left: u64| -i128::from(wanted.saturating_sub(left));
        match self {
            Self::Agent => (0, 0),
            Self::NotActive { .. } => (1, 0),
            Self::Attributes { missing } => (2, -(missing.len() as i128)),
            Self::MemberOf { .. } => (3, 0),
            Self::DistinctInstance { .. } => (4, 0),
            Self::Cpu { wanted, left } => (5, short(*wanted, *left)),
            Self::Memory { wanted, left } => (6, short(*wanted, *left)),
            Self::Ports { taken } => (7, -(taken.len() as i128)),
            Self::Devices { wanted, left, .. } => (8, short((*wanted).into(), (*left).into())),
            Self::Kept { .. } => (9, 0),
        }
    }
}

/// What one row lacks; `None`: it would take the task.
pub fn lack(nodes: &Nodes, ask: &Ask<'_>, row: usize) -> Option<Lack> {
    let record = nodes.record(row);
    if !record.connected {
        return Some(Lack::Agent);
    }
    if record.status != ContainerInstanceStatus::Active && !nodes.open().get(row) {
        return Some(Lack::NotActive { status: record.status.as_str() });
    }
    lacks_property(nodes, ask, row).or_else(|| lacks_resource(nodes, ask, row)).or_else(|| {
        let head = ask.head.filter(|head| head.is_delayed(nodes, ask, row))?;
        Some(Lack::Kept { task: head.task().to_string() })
    })
}

fn lacks_property(nodes: &Nodes, ask: &Ask<'_>, row: usize) -> Option<Lack> {
    let record = nodes.record(row);
    let mut missing: Vec<String> = match record.is_capable(ask.required) {
        true => Vec::new(),
        false => {
            let own = &record.node_attributes;
            ask.required.iter().filter(|name| !own.contains_key(*name)).cloned().collect()
        }
    };
    missing.extend((ask.leases && !record.leases).then(|| "an agent that ends exclusive tasks".to_owned()));
    if !missing.is_empty() {
        return Some(Lack::Attributes { missing });
    }
    let constraints = ask.placement.constraints();
    let failed = constraints.iter().find_map(|constraint| match constraint {
        Constraint::MemberOf(expression) => (!expression.matches(&RowInstance { nodes, row }))
            .then(|| Lack::MemberOf { expression: expression.text().to_owned() }),
        Constraint::DistinctInstance => None,
    });
    failed.or_else(|| {
        let taken = ask.placement.is_distinct() && nodes.groups().on(ask.group, row).wanted > 0;
        taken.then(|| Lack::DistinctInstance { group: ask.group.to_owned() })
    })
}

fn lacks_resource(nodes: &Nodes, ask: &Ask<'_>, row: usize) -> Option<Lack> {
    let wanted = ask.resources;
    let left = |spare: i64, reserve: u64| u64::try_from(spare).unwrap_or(0).saturating_sub(reserve);
    let cpu_left = left(nodes.spare_cpu_units()[row], ask.reserve.cpu_units.into());
    let memory_left = left(nodes.spare_memory_mib()[row], ask.reserve.memory_mib);
    if u64::from(wanted.cpu_units) > cpu_left {
        return Some(Lack::Cpu { wanted: wanted.cpu_units.into(), left: cpu_left });
    }
    if wanted.memory_mib > memory_left {
        return Some(Lack::Memory { wanted: wanted.memory_mib, left: memory_left });
    }
    let taken = wanted.host_ports.iter().filter(|port| nodes.port(port).is_some_and(|rows| rows.get(row)));
    let taken: Vec<String> = taken.map(|port| format!("{}/{}", port.port, port.protocol.as_str())).collect();
    if !taken.is_empty() {
        return Some(Lack::Ports { taken });
    }
    wanted.devices.iter().find_map(|(kind, wanted)| {
        let left = nodes.free_devices(row, kind);
        (*wanted > left).then(|| Lack::Devices { kind: kind.clone(), wanted: *wanted, left })
    })
}

/// What became of the instances of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explanation {
    pub container_instances: usize,
    /// Filters that some fell out by, in the order they were asked, with how many.
    pub filters: Vec<(String, usize)>,
    /// The one that lacked least, and what it lacks in words; `None` when one was found or there are none.
    pub closest: Option<(ContainerInstanceId, String, String)>,
    pub choices: Vec<Choice>,
}

/// Where a task would go, and what each strategy said of the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub instance: ContainerInstanceId,
    pub name: String,
    pub scores: Vec<String>,
}

/// Explains where so many tasks would go; the rows are the caller's copy and take the tasks as they are chosen.
pub fn explain(mut nodes: Nodes, ask: &Ask<'_>, count: u32) -> Explanation {
    let mut explanation = Explanation { container_instances: nodes.len(), ..Explanation::default() };
    filters(&nodes, ask, &mut explanation);
    for index in 0..count {
        let ask = Ask { luck: ask.luck.wrapping_add(index.into()), ..*ask };
        let rows = feasible(&nodes, &ask);
        let row = match ask.placement.strategies() {
            [] => place(nodes.tasks(), |row| rows.get(row)),
            _ => best(&nodes, &ask, rows),
        };
        let Some(row) = row else {
            if index > 0 {
                filters(&nodes, &ask, &mut explanation);
            }
            return explanation;
        };
        let (instance, name) = (nodes.id(row).clone(), nodes.record(row).name.clone());
        explanation.choices.push(Choice { instance, name, scores: scores(&nodes, &ask, row) });
        nodes.pretend(row, ask.group, ask.resources);
    }
    explanation
}

/// Counts what each filter takes, and finds the closest instance if all fall out.
fn filters(nodes: &Nodes, ask: &Ask<'_>, explanation: &mut Explanation) {
    let lacks: Vec<(usize, Lack)> =
        (0..nodes.len()).filter_map(|row| Some((row, lack(nodes, ask, row)?))).collect();
    let mut counts: Vec<(usize, String, usize)> = Vec::new();
    for (_, lack) in &lacks {
        let filter = lack.filter();
        match counts.iter_mut().find(|(_, known, _)| *known == filter) {
            Some((_, _, count)) => *count += 1,
            None => counts.push((lack.rank().0, filter, 1)),
        }
    }
    counts.sort();
    explanation.filters = counts.into_iter().map(|(_, filter, count)| (filter, count)).collect();
    explanation.closest = None;
    if lacks.len() == nodes.len() {
        // The first of those that rank highest has the lowest id.
        let closest = lacks.iter().rev().max_by_key(|(_, lack)| lack.rank());
        explanation.closest = closest
            .map(|(row, lack)| (nodes.id(*row).clone(), nodes.record(*row).name.clone(), lack.words()));
    }
}

/// Why no instance takes a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unable {
    /// None of the cluster is ACTIVE.
    NoInstances,
    /// The ACTIVE one that lacks least, of those the one with the lowest id.
    Closest(ContainerInstanceId, Lack),
    /// One takes it by now.
    Room,
}

impl Unable {
    /// Of the first so many ACTIVE instances.
    pub fn of(nodes: &Nodes, ask: &Ask<'_>, most: usize) -> Self {
        let is_candidate = |row: &usize| nodes.record(*row).status == ContainerInstanceStatus::Active;
        Self::among(nodes, ask, (0..nodes.len()).filter(is_candidate).take(most))
    }

    /// Of this instance alone.
    pub fn on(nodes: &Nodes, ask: &Ask<'_>, instance: &ContainerInstanceId) -> Self {
        Self::among(nodes, ask, nodes.row(instance).into_iter())
    }

    fn among(nodes: &Nodes, ask: &Ask<'_>, rows: impl Iterator<Item = usize>) -> Self {
        let mut closest: Option<(usize, Lack)> = None;
        for row in rows {
            let Some(lack) = lack(nodes, ask, row) else { return Self::Room };
            if closest.as_ref().is_none_or(|(_, least)| lack.rank() > least.rank()) {
                closest = Some((row, lack));
            }
        }
        closest.map_or(Self::NoInstances, |(row, lack)| Self::Closest(nodes.id(row).clone(), lack))
    }

    /// Exactly as ECS's service events go on after "because".
    pub fn event(&self) -> String {
        self.told(Lack::event_words)
    }

    /// The same with names and numbers.
    pub fn words(&self) -> String {
        self.told(Lack::words)
    }

    fn told(&self, words: impl Fn(&Lack) -> String) -> String {
        let begin = "no container instance met all of its requirements.";
        match self {
            Self::NoInstances => format!("{begin} Reason: {NO_INSTANCES}"),
            Self::Closest(instance, lack) => {
                format!("{begin} The closest matching (container-instance {instance}) {}.", words(lack))
            }
            Self::Room => "there is room by now.".to_owned(),
        }
    }
}

/// What each strategy says of a row.
fn scores(nodes: &Nodes, ask: &Ask<'_>, row: usize) -> Vec<String> {
    let strategies = ask.placement.strategies().iter();
    let words = strategies.map(|strategy| {
        let scores = Scores::new(nodes, ask.group, strategy);
        let key = scores.key(row).unwrap_or(i64::MAX);
        match strategy {
            Strategy::Random => "random".to_owned(),
            Strategy::Spread(SpreadField::Instance) => format!("spread instanceId: {key} tasks"),
            Strategy::Spread(SpreadField::Attribute(name)) => {
                let value = nodes.record(row).attribute(name).map_or("(none)", |value| value);
                format!("spread attribute:{name}={value}: {key} tasks")
            }
            Strategy::Binpack(PackField::Cpu) => format!("binpack cpu: {key} units left"),
            Strategy::Binpack(PackField::Memory) => format!("binpack memory: {key} MiB left"),
            Strategy::Custom(_) => match scores.score(row) {
                Ok(score) => format!("custom: {}", in_words(score)),
                Err(refused) => format!("custom: {refused}"),
            },
        }
    });
    words.collect()
}

/// Millionths as a decimal number.
pub fn in_words(millionths: i64) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    let (whole, rest) = (millionths.unsigned_abs() / SCALE as u64, millionths.unsigned_abs() % SCALE as u64);
    let text = format!("{sign}{whole}.{rest:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
