//! Notices of EC2's instance metadata service, version 2: spot/instance-action and
//! events/maintenance/scheduled. In: a base URL. Out: the notices it tells.
//! Owns: the session token, asked for anew when it is refused.
//! Source: Amazon EC2 User Guide, "Spot Instance interruption notices", "Scheduled events", "IMDSv2".
//! Never: version 1, which answers without a token.

use super::http::{Answer, request};
use super::{NoticeSource, moment};
use crate::errors::{Cause, words};
use futures_util::future::BoxFuture;
use lighter_model::node::{Notice, NoticeKind};
use serde::Deserialize;

const TOKEN: &str = "/latest/api/token";
const SPOT: &str = "/latest/meta-data/spot/instance-action";
const MAINTENANCE: &str = "/latest/meta-data/events/maintenance/scheduled";
/// The longest the service grants.
const TOKEN_LIFE_S: &str = "21600";

pub(crate) struct ImdsSource {
    base: String,
    token: Option<String>,
}

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
        Self { base: base.to_owned(), token: None }
    }

    /// `None`: there is nothing at this path (404).
    async fn get(&mut self, path: &str) -> Result<Option<String>, Cause> {
        for fresh in [false, true] {
            let token = self.token(fresh).await?;
            let headers = [("X-aws-ec2-metadata-token", token.as_str())];
            let Answer { status, body } = request("GET", &self.base, path, &headers).await?;
            match status {
                200 => return Ok(Some(body)),
                404 => return Ok(None),
                401 => {}
                other => return Err(words(format!("the metadata service answered {path} with {other}"))),
            }
        }
        Err(words("the metadata service refuses its own token".to_owned()))
    }

    async fn token(&mut self, fresh: bool) -> Result<String, Cause> {
        if let Some(token) = self.token.as_ref().filter(|_| !fresh) {
            return Ok(token.clone());
        }
        let headers = [("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE_S)];
        let Answer { status, body } = request("PUT", &self.base, TOKEN, &headers).await?;
        if status != 200 {
            return Err(words(format!("the metadata service gives no token: {status}")));
        }
        Ok(self.token.insert(body.trim().to_owned()).clone())
    }

    async fn all(&mut self) -> Result<Vec<Notice>, Cause> {
        let mut notices = Vec::new();
        if let Some(body) = self.get(SPOT).await? {
            notices.push(spot(&body)?);
        }
        if let Some(body) = self.get(MAINTENANCE).await? {
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
