//! Notices of EC2's instance metadata service: spot/instance-action and
//! events/maintenance/scheduled. In: a base URL. Out: the notices it tells. Owns: its token, in `Imds`.
//! Source: Amazon EC2 User Guide, "Spot Instance interruption notices", "Scheduled events".
//! Never: takes what cannot be read for no notice.

use super::{NoticeSource, moment};
use crate::errors::Cause;
use crate::imds::Imds;
use futures_util::future::BoxFuture;
use lighter_model::node::{Notice, NoticeKind};
use serde::Deserialize;

const SPOT: &str = "/latest/meta-data/spot/instance-action";
const MAINTENANCE: &str = "/latest/meta-data/events/maintenance/scheduled";

pub(crate) struct ImdsSource(Imds);

/// `{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`
#[derive(Deserialize)]
struct SpotAction {
    action: String,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    event_id: String,
    code: String,
    #[serde(default)]
    description: String,
    not_before: String,
    #[serde(default)]
    state: String,
}

impl ImdsSource {
    pub(crate) fn new(base: &str) -> Self {
        Self(Imds::new(base))
    }

    async fn all(&mut self) -> Result<Vec<Notice>, Cause> {
        let mut notices = Vec::new();
        if let Some(body) = self.0.get(SPOT).await? {
            notices.push(spot(&body)?);
        }
        if let Some(body) = self.0.get(MAINTENANCE).await? {
            let events: Vec<Event> = serde_json::from_str(&body)?;
            notices.extend(events.into_iter().filter(|event| stands(&event.state)).map(maintenance));
        }
        Ok(notices)
    }
}

fn stands(state: &str) -> bool {
    !matches!(state, "completed" | "canceled")
}

fn spot(body: &str) -> Result<Notice, Cause> {
    let SpotAction { action, time } = serde_json::from_str(body)?;
    Ok(Notice {
        id: format!("spot {action} {time}"),
        kind: NoticeKind::SpotInterruption,
        at_unix_ms: moment::rfc3339(&time).unwrap_or(0),
        detail: format!("{action} at {time}"),
        stop_tasks_at_unix_ms: None,
    })
}

fn maintenance(event: Event) -> Notice {
    let Event { event_id, code, description, not_before, .. } = event;
    let description = if description.is_empty() { code } else { description };
    Notice {
        id: format!("{event_id} {not_before}"),
        kind: NoticeKind::Maintenance,
        at_unix_ms: moment::day_first(&not_before).unwrap_or(0),
        detail: format!("{description}, not before {not_before}"),
        stop_tasks_at_unix_ms: None,
    }
}

impl NoticeSource for ImdsSource {
    fn name(&self) -> &'static str {
        "instance metadata service"
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<Notice>, Cause>> {
        Box::pin(self.all())
    }
}
