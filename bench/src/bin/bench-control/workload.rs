//! What the calls of one figure ask for. In: a kind, the number of a call. Out: a RunTask request.
//! All kinds place the same tasks on the same nodes; nothing but strategy, constraint and group differs.

use super::join::ZONES;
use anyhow::Result;
use lighter_proto::v1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The instance with the fewest tasks.
    Plain,
    Binpack,
    /// Over zones, then over instances.
    Spread,
    /// No two tasks of a group on one instance; so many make a group.
    Distinct {
        group: usize,
    },
    /// Each call in one zone; the zones take turns.
    MemberOf,
}

#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub family: String,
    /// Tasks of one call.
    pub count: usize,
    pub kind: Kind,
}

impl Workload {
    pub(crate) fn plain(family: &str, count: usize) -> Self {
        Self::of(family, count, Kind::Plain)
    }

    pub(crate) fn of(family: &str, count: usize, kind: Kind) -> Self {
        Self { family: family.to_owned(), count, kind }
    }

    /// The group of a call's tasks, as a number; 0 unless they must be on distinct instances.
    pub(crate) fn group(&self, call: usize) -> usize {
        match self.kind {
            Kind::Distinct { group } => call * self.count / group.max(self.count),
            _ => 0,
        }
    }

    /// The only zone for a call's tasks.
    pub(crate) fn zone(&self, call: usize) -> Option<&'static str> {
        (self.kind == Kind::MemberOf).then(|| ZONES[call % ZONES.len()])
    }

    pub(crate) fn request(&self, call: usize) -> Result<v1::RunTaskRequest> {
        let strategy = |kind: &str, field: &str| v1::PlacementStrategy {
            r#type: kind.to_owned(),
            field: field.to_owned(),
            ..Default::default()
        };
        let constraint =
            |kind: &str, expression: String| v1::PlacementConstraint { r#type: kind.to_owned(), expression };
        let mut request = v1::RunTaskRequest {
            task_definition: self.family.clone(),
            count: u32::try_from(self.count)?,
            ..Default::default()
        };
        match self.kind {
            Kind::Plain => {}
            Kind::Binpack => request.placement_strategy = vec![strategy("binpack", "memory")],
            Kind::Spread => {
                let zone = strategy("spread", "attribute:ecs.availability-zone");
                request.placement_strategy = vec![zone, strategy("spread", "instanceId")];
            }
            Kind::Distinct { .. } => {
                request.group = format!("batch-{}", self.group(call));
                request.placement_constraints = vec![constraint("distinctInstance", String::new())];
            }
            Kind::MemberOf => {
                let zone = self.zone(call).unwrap_or_default();
                let expression = format!("attribute:ecs.availability-zone == {zone}");
                request.placement_constraints = vec![constraint("memberOf", expression)];
            }
        }
        Ok(request)
    }
}
