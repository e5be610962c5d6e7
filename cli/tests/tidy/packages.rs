//! `cargo metadata` of the workspace: packages, who depends on whom. In: cargo, the lock file.
//! Out: names and edges. Never: touches the network or changes the lock file.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

/// Kinds of dependency, as cargo names them; `normal` has no name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Build,
    Dev,
}

/// What cargo knows of the packages that are compiled on this platform.
pub struct Packages {
    /// By id.
    packages: BTreeMap<String, Value>,
    members: BTreeSet<String>,
    /// Id, id of the dependency, kind.
    edges: Vec<(String, String, Kind)>,
}

impl Packages {
    /// Asks cargo once for all tests of the process.
    pub fn load() -> &'static Self {
        static PACKAGES: LazyLock<Packages> = LazyLock::new(Packages::ask_cargo);
        &PACKAGES
    }

    fn ask_cargo() -> Self {
        let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--offline", "--filter-platform", &platform])
            .current_dir(super::tree::root())
            .output()
            .expect("cargo metadata runs");
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut edges = Vec::new();
        for node in list(&all["resolve"]["nodes"]) {
            for dependency in list(&node["deps"]) {
                for kind in list(&dependency["dep_kinds"]) {
                    let kind = match kind["kind"].as_str() {
                        Some("build") => Kind::Build,
                        Some("dev") => Kind::Dev,
                        _ => Kind::Normal,
                    };
                    edges.push((text(&node["id"]), text(&dependency["pkg"]), kind));
                }
            }
        }
        let resolved: BTreeSet<String> =
            list(&all["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
        let packages = list(&all["packages"])
            .into_iter()
            .map(|package| (text(&package["id"]), package))
            .filter(|(id, _)| resolved.contains(id))
            .collect();
        Self { packages, members: list(&all["workspace_members"]).iter().map(text).collect(), edges }
    }

    pub fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().unwrap()
    }

    /// Ids of our packages.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(String::as_str)
    }

    /// Every package that is compiled, ours too: id and what its manifest says.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.packages.iter()
    }

    pub fn id_of_member(&self, name: &str) -> &str {
        self.members().find(|id| self.name(id) == name).unwrap_or_else(|| panic!("no package {name}"))
    }

    /// Names of the direct dependencies of these kinds.
    pub fn direct(&self, id: &str, kinds: &[Kind]) -> BTreeSet<&str> {
        let of = self.edges.iter().filter(|(from, _, kind)| from == id && kinds.contains(kind));
        of.map(|(_, to, _)| self.name(to)).collect()
    }

    /// Names of everything that is linked into the package: normal dependencies, and theirs.
    pub fn linked(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.id_of_member(name)];
        while let Some(id) = open.pop() {
            for (_, to, _) in self.edges.iter().filter(|(from, _, kind)| from == id && *kind == Kind::Normal)
            {
                if found.insert(to.as_str()) {
                    open.push(to);
                }
            }
        }
        found.into_iter().map(|id| self.name(id)).collect()
    }
}
