//! `lighter audit`: who looked into or changed which running task.
//! In: filters. Out: a table, newest first, or JSON.

use crate::args::{AuditArgs, Format, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::table::Table;
use crate::{output, time};
use lighter_proto::v1;
use serde_json::json;

/// The API's largest page.
const PAGE: u32 = 100;

pub async fn run(global: &Global, client: &mut Client, args: AuditArgs) -> Result<(), Failure> {
    let mut request = v1::ListAuditRequest {
        cluster: super::cluster(args.cluster),
        task: args.task.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        ..Default::default()
    };
    let mut records = Vec::new();
    while records.len() < args.limit as usize {
        request.max_results = PAGE.min(args.limit - u32::try_from(records.len()).unwrap_or(args.limit));
        let answer = client.list_audit(request.clone()).await;
        let answer = answer.map_err(Failure::rpc("list the audit"))?.into_inner();
        records.extend(answer.records);
        if answer.next_token.is_empty() {
            break;
        }
        request.next_token = answer.next_token;
    }
    if global.output == Format::Json {
        for record in &records {
            output::json_line(&of_record(record))?;
        }
        return Ok(());
    }
    let columns = ["TIME", "USER", "ACTION", "TASK", "CONTAINER", "COMMAND", "RESULT", "IN", "OUT"];
    let mut table = Table::new(&columns);
    for record in &records {
        table.row(row(record));
    }
    super::print_table(global, &table)
}

fn row(record: &v1::AuditRecord) -> [String; 9] {
    let task = record.task_id.get(..16).unwrap_or(&record.task_id);
    [
        // To the second, so that it fits; the JSON has the milliseconds.
        time::rfc3339(record.started_at_unix_ms).map(|time| format!("{}Z", &time[..19])).unwrap_or_default(),
        record.user.clone(),
        record.action.clone(),
        if task.is_empty() { "all".to_owned() } else { task.to_owned() },
        record.container.clone(),
        record.command.join(" "),
        if record.result.is_empty() { "goes on".to_owned() } else { record.result.clone() },
        record.bytes_in.to_string(),
        record.bytes_out.to_string(),
    ]
}

fn of_record(record: &v1::AuditRecord) -> serde_json::Value {
    json!({
        "sequence": record.sequence,
        "user": record.user,
        "address": record.address,
        "action": record.action,
        "cluster": record.cluster,
        "taskId": record.task_id,
        "container": record.container,
        "containerInstanceId": record.container_instance_id,
        "command": record.command,
        "startedAt": time::rfc3339(record.started_at_unix_ms),
        "endedAt": time::rfc3339(record.ended_at_unix_ms),
        "result": record.result,
        "bytesIn": record.bytes_in,
        "bytesOut": record.bytes_out,
    })
}
