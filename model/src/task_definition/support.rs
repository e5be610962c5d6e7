//! What Lighter understands of ECS's `RegisterTaskDefinition` input: one row for every member.
//! In: nothing. Out: the rows that `input` walks a definition against, and docs/task-definition.md.
//! Owns: the list. Never: ignores a member; what is not supported is refused by its name.
//! Source: Amazon ECS API reference, RegisterTaskDefinition, ContainerDefinition, Volume.

use super::members::MEMBERS;
use std::fmt::Write as _;

/// A member of the input, named by its path; `[]` stands for every item of a list.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Like `containerDefinitions[].memory`.
    pub path: &'static str,
    pub shape: Shape,
    pub support: Support,
}

/// What the JSON of a member looks like.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Any text without a NUL byte; empty text counts as absent unless the member is required.
    Text,
    /// ECS's names: up to 255 letters, digits, hyphens and underscores.
    Name,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number within these bounds, both included.
    Whole {
        min: u64,
        max: u64,
    },
    /// Task-level `cpu`: units, or text like `1 vCPU`.
    CpuAmount,
    /// Task-level `memory`: MiB, or text like `0.5 GB`.
    MemoryAmount,
    /// A whole number, or -1 for no limit.
    Limit,
    /// Ports in a row, like `8000-8010`.
    PortRange,
    Flag,
    /// A list of whole numbers within these bounds.
    WholeList {
        min: u64,
        max: u64,
    },
    TextList,
    /// A list of texts of which empty ones count as absent, as in the skeletons of the AWS command line.
    WordList,
    /// A list of words out of these.
    ListOf(&'static [&'static str]),
    /// An object from text to text.
    TextMap,
    Object,
    /// A list of objects.
    List,
    /// Of no matter: the member is refused whole.
    Any,
}

/// Whether Lighter does what the member says.
#[derive(Debug, Clone, Copy)]
pub enum Support {
    Supported {
        required: bool,
        /// The name of a test function that shows it.
        test: &'static str,
    },
    /// Accepted where it only repeats what Lighter does anyway; checked, then not kept.
    Checked { test: &'static str },
    /// Refused by name unless it says nothing: null, false, 0, empty, or one of `harmless`.
    Refused {
        /// The words a person reads.
        why: &'static str,
        /// Values that only repeat the default.
        harmless: &'static [&'static str],
        /// The names that may appear inside it, at any depth.
        within: &'static [&'static str],
    },
}

/// The row of a path like `containerDefinitions[].memory`.
pub fn find(path: &str) -> Option<&'static Member> {
    MEMBERS.iter().find(|member| member.path == path)
}

/// The rows directly inside an object, named by its path (`""`, `containerDefinitions[]`, …).
pub fn members_of(object: &str) -> impl Iterator<Item = &'static Member> {
    MEMBERS.iter().filter(move |member| member.parent() == object)
}

impl Member {
    /// The path of the object it is in; empty at the top.
    pub fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
    /// Its own name.
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }
}

const HEAD: &str = "\
# Task definitions

<!-- Made from model/src/task_definition/members.rs by
     `LIGHTER_UPDATE_DOCS=1 cargo test -p lighter-model docs_page_is_up_to_date`; do not edit. -->

Lighter takes the input of `aws ecs register-task-definition` as it is. Every member that ECS knows is
listed here. A *supported* member does what ECS says, and the named test shows it. A *refused* one is
refused by name when the definition is registered, never ignored, unless it says nothing (null, false,
0, an empty text, list or object, or a value marked as the default), as in the skeletons that the AWS
command line prints. A member that is not listed does not exist and is refused as well.

";

const TAIL: &str = "
## What is checked as a whole

| rule | field named |
|---|---|
| at most 64 KiB, as ECS; JSON without repeated members | `taskDefinition`, or the member |
| 1 to 10 containers, at least one of them essential, no two of one name | `containerDefinitions`, `….name` |
| memory known: each container has `memory` or `memoryReservation`, or the task has `memory` | `….memory` |
| `memoryReservation` is not above `memory`; together the containers fit the task's `memory` and `cpu` | the member |
| no two containers (or mappings) want one host port of one protocol; in host mode ranges count | `….hostPort`, `….containerPortRange` |
| host network: `hostPort` is absent, 0 or equal to `containerPort` (and then is that port) | `….hostPort` |
| network mode `none`: no port mappings | `….portMappings` |
| each mapping has `containerPort` or `containerPortRange`; a range has no `hostPort`, and a task's ranges hold at most 500 ports | the member |
| every mount point names a volume of the definition; no two mounts of a container share a path | `….sourceVolume`, `….containerPath` |
| `volumesFrom` names another container of the task, and no container in the end itself | `….sourceContainer` |
| `dependsOn` names other containers, not in a circle (`volumesFrom` counts as START) | `….dependsOn[].containerName` |
| HEALTHY asks for a container with a health check, COMPLETE and SUCCESS for one that is not essential | `….dependsOn[].condition` |
| a health check has a `command`, or `fromImage` (ours: the image's HEALTHCHECK, which else does not count) | `….healthCheck` |
| `links`: another container of the task, network mode `bridge`, networking not disabled, no circle | `….links` |
| `disableNetworking`: no port mappings | `….portMappings` |
| `systemControls`: kernel parameters of the container's own namespaces; no `net.*` in host mode, no others with ipcMode `host` | `….namespace` |
| `ulimits`: no soft limit above its hard limit, none given twice | the member |
| `resourceRequirements`: `GPU` or another kind of device that nodes name, 1 to 64 of it, each kind once | the member |
| `usernsMode` `auto` (ours, see docs/user-namespaces.md): no container `privileged`; neither network, processes nor ipc of the host | the member |
| `maxSwap` above 0 needs `memory` | `….maxSwap` |
| `logConfiguration`: a driver and options of docs/logging.md; an option that the driver does not have is refused | `….logConfiguration.options.NAME` |
| paths in containers and of host volumes and devices are absolute and without `..` | the member |
";

/// The text of docs/task-definition.md.
pub fn markdown() -> String {
    let mut page = String::from(HEAD);
    for (title, object) in OBJECTS {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "## {title}\n\n| member | | |\n|---|---|---|");
        for member in members_of(object) {
            page.push_str(&row(member));
        }
        page.push('\n');
    }
    page.truncate(page.trim_end().len());
    page.push('\n');
    page.push_str(TAIL);
    page
}

const OBJECTS: &[(&str, &str)] = &[
    ("The task definition", ""),
    ("`tags[]`", "tags[]"),
    ("`containerDefinitions[]`", "containerDefinitions[]"),
    ("`containerDefinitions[].dependsOn[]`", "containerDefinitions[].dependsOn[]"),
    ("`containerDefinitions[].healthCheck`", "containerDefinitions[].healthCheck"),
    ("`containerDefinitions[].restartPolicy`", "containerDefinitions[].restartPolicy"),
    ("`containerDefinitions[].portMappings[]`", "containerDefinitions[].portMappings[]"),
    ("`containerDefinitions[].environment[]`", "containerDefinitions[].environment[]"),
    ("`containerDefinitions[].resourceRequirements[]`", "containerDefinitions[].resourceRequirements[]"),
    ("`containerDefinitions[].environmentFiles[]`", "containerDefinitions[].environmentFiles[]"),
    ("`containerDefinitions[].extraHosts[]`", "containerDefinitions[].extraHosts[]"),
    ("`containerDefinitions[].ulimits[]`", "containerDefinitions[].ulimits[]"),
    ("`containerDefinitions[].systemControls[]`", "containerDefinitions[].systemControls[]"),
    ("`containerDefinitions[].mountPoints[]`", "containerDefinitions[].mountPoints[]"),
    ("`containerDefinitions[].volumesFrom[]`", "containerDefinitions[].volumesFrom[]"),
    ("`containerDefinitions[].linuxParameters`", "containerDefinitions[].linuxParameters"),
    (
        "`containerDefinitions[].linuxParameters.capabilities`",
        "containerDefinitions[].linuxParameters.capabilities",
    ),
    (
        "`containerDefinitions[].linuxParameters.devices[]`",
        "containerDefinitions[].linuxParameters.devices[]",
    ),
    ("`containerDefinitions[].linuxParameters.tmpfs[]`", "containerDefinitions[].linuxParameters.tmpfs[]"),
    ("`containerDefinitions[].logConfiguration`", "containerDefinitions[].logConfiguration"),
    ("`volumes[]`", "volumes[]"),
    ("`volumes[].host`", "volumes[].host"),
    ("`volumes[].dockerVolumeConfiguration`", "volumes[].dockerVolumeConfiguration"),
    ("`runtimePlatform`", "runtimePlatform"),
];

fn row(member: &Member) -> String {
    let name = member.name();
    match member.support {
        Support::Supported { required, test } => {
            let required = if required { ", required" } else { "" };
            format!(
                "| `{name}` | **supported**{required}: {} | test `{test}` |\n",
                shape_in_words(member.shape)
            )
        }
        Support::Checked { test } => {
            let shape = shape_in_words(member.shape);
            format!("| `{name}` | **supported**, checked and not kept: {shape} | test `{test}` |\n")
        }
        Support::Refused { why, harmless, within } => {
            let mut words = String::from(why);
            if !harmless.is_empty() {
                let _ = write!(words, "; {} is the default and accepted", quoted(harmless));
            }
            if !within.is_empty() {
                let _ = write!(words, " (its members: {})", quoted(within));
            }
            format!("| `{name}` | refused | {words} |\n")
        }
    }
}

/// What a person may write there.
pub fn shape_in_words(shape: Shape) -> String {
    match shape {
        Shape::Text => "a text".into(),
        Shape::Name => "up to 255 letters, digits, hyphens and underscores".into(),
        Shape::OneOf(words) => format!("one of {}", quoted(words)),
        Shape::Whole { min, max: u64::MAX } => format!("a whole number, at least {min}"),
        Shape::Whole { min, max } => format!("a whole number from {min} to {max}"),
        Shape::WholeList { min, max } => format!("a list of whole numbers from {min} to {max}"),
        Shape::CpuAmount => "CPU units like `\"512\"`, or `\"0.5 vCPU\"`".into(),
        Shape::MemoryAmount => "MiB like `\"512\"`, or `\"0.5 GB\"`".into(),
        Shape::PortRange => "ports like `\"8000-8010\"`".into(),
        Shape::Flag => "true or false".into(),
        Shape::Limit => "a whole number, or -1 for no limit".into(),
        Shape::TextList | Shape::WordList => "a list of texts".into(),
        Shape::ListOf(words) => format!("a list out of {}", quoted(words)),
        Shape::TextMap => "an object from text to text".into(),
        Shape::Object => "an object, see below".into(),
        Shape::List => "a list of objects, see below".into(),
        Shape::Any => "anything".into(),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn docs_page_is_up_to_date() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/task-definition.md");
        if std::env::var_os("LIGHTER_UPDATE_DOCS").is_some() {
            std::fs::write(&page, markdown()).unwrap();
        }
        let found = std::fs::read_to_string(&page).unwrap();
        assert!(found == markdown(), "docs/task-definition.md is out of date: see its second line");
    }

    #[test]
    fn every_member_of_a_container_definition_is_listed_once() {
        // Amazon ECS API reference, ContainerDefinition.
        const ALL: [&str; 42] = [
            "command",
            "cpu",
            "credentialSpecs",
            "dependsOn",
            "disableNetworking",
            "dnsSearchDomains",
            "dnsServers",
            "dockerLabels",
            "dockerSecurityOptions",
            "entryPoint",
            "environment",
            "environmentFiles",
            "essential",
            "extraHosts",
            "firelensConfiguration",
            "healthCheck",
            "hostname",
            "image",
            "interactive",
            "links",
            "linuxParameters",
            "logConfiguration",
            "memory",
            "memoryReservation",
            "mountPoints",
            "name",
            "portMappings",
            "privileged",
            "pseudoTerminal",
            "readonlyRootFilesystem",
            "repositoryCredentials",
            "resourceRequirements",
            "restartPolicy",
            "secrets",
            "startTimeout",
            "stopTimeout",
            "systemControls",
            "ulimits",
            "user",
            "versionConsistency",
            "volumesFrom",
            "workingDirectory",
        ];
        // Lighter's own.
        const OURS: [&str; 1] = ["groups"];
        let listed: BTreeSet<&str> = members_of("containerDefinitions[]").map(Member::name).collect();
        let expected: BTreeSet<&str> = ALL.into_iter().chain(OURS).collect();
        assert_eq!(listed, expected);
        let paths: BTreeSet<&str> = MEMBERS.iter().map(|member| member.path).collect();
        assert_eq!(paths.len(), MEMBERS.len(), "a path is listed twice");
    }

    #[test]
    fn every_object_has_its_members_and_its_place_on_the_page() {
        let titles: BTreeSet<&str> = OBJECTS.iter().map(|(_, object)| *object).collect();
        let parents: BTreeSet<&str> = MEMBERS.iter().map(Member::parent).collect();
        assert_eq!(titles, parents);
        for member in MEMBERS {
            let inside = match (member.shape, member.support) {
                (_, Support::Refused { .. }) => continue,
                (Shape::Object, _) => member.path.to_owned(),
                (Shape::List, _) => format!("{}[]", member.path),
                _ => continue,
            };
            assert!(titles.contains(inside.as_str()), "{inside}");
        }
    }
}
