//! How much room etcd has, looked at while this control plane leads, and getting it back.
//! In: the members' status. Out: the store's `Room`. Owns: the task that looks.
//! etcd refuses everything once its quota is full (the alarm NOSPACE), the stop of a task as well: new
//! work is refused before that, while a tenth of the quota is left. What counts is what is in use: the
//! pages freed by a compaction are used again, though the file stays as large.
//! With the alarm on: history is given up, each member defragmented, and the alarm taken back when
//! that has made room. Never: takes the alarm back otherwise: it would come again with the next batch.
//! Source: etcd's maintenance guide, "Space quota".

use super::{CallError, EtcdSettings, call, connect};
use crate::store::Size;
use crate::store::room::{Level, Room, level};
use etcd_client::{AlarmAction, AlarmType, Client};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Between two defragmentations: each stops its member for as long as it takes.
const RECOVER: Duration = Duration::from_secs(60);
/// Of the quota, this part is for what runs.
const RESERVE: u64 = 10;

/// What one look has seen of the largest member.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// Of the file.
    file_bytes: u64,
    in_use_bytes: u64,
    revision: i64,
    alarm: bool,
}

/// Looks until it is aborted.
pub(super) async fn watch(client: Client, settings: EtcdSettings, room: Room) {
    let mut recovered = None;
    loop {
        if let Err(error) = look(&client, &settings, &room, &mut recovered).await {
            tracing::debug!(cause = %crate::writer::Chain(&error), "etcd's room is not known");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(
    client: &Client,
    settings: &EtcdSettings,
    room: &Room,
    recovered: &mut Option<Instant>,
) -> Result<(), CallError> {
    let mut client = client.clone();
    let seen = see(&mut client).await?;
    let limit = settings.limit_bytes;
    room.set_size(Size { used_bytes: seen.in_use_bytes, limit_bytes: limit });
    room.set(level_of(room.level(), seen, limit));
    if seen.alarm || (limit > 0 && seen.in_use_bytes > limit / 2) {
        // Standbys that were behind load everything anew: better than no store.
        match call(client.compact(seen.revision, None)).await {
            Err(CallError::Etcd { source: etcd_client::Error::GRpcStatus(status) })
                if status.code() == tonic::Code::OutOfRange => {}
            other => {
                other?;
            }
        }
    }
    if !seen.alarm {
        if room.level() > Level::Free {
            // etcd counts what was freed with its next write, and there may be no other.
            call(client.put(format!("{}look", settings.prefix), "", None)).await?;
        }
    } else if recovered.is_none_or(|at: Instant| at.elapsed() > RECOVER) {
        *recovered = Some(Instant::now());
        recover(&mut client, settings, seen).await?;
    }
    Ok(())
}

fn level_of(before: Level, seen: Seen, limit: u64) -> Level {
    match (seen.alarm, limit) {
        (true, _) => Level::Exhausted,
        (false, 0) => Level::Free,
        (false, limit) => level(before, limit.saturating_sub(seen.in_use_bytes), limit / RESERVE),
    }
}

async fn see(client: &mut Client) -> Result<Seen, CallError> {
    let status = call(client.status()).await?;
    let alarms = call(client.alarm(AlarmAction::Get, AlarmType::Nospace, None)).await?;
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    Ok(Seen {
        file_bytes: bytes(status.db_size()),
        in_use_bytes: bytes(status.raft_used_db_size()),
        revision: status.header().map_or(0, |header| header.revision()),
        alarm: alarms.alarms().iter().any(|alarm| alarm.alarm() == AlarmType::Nospace),
    })
}

async fn recover(client: &mut Client, settings: &EtcdSettings, before: Seen) -> Result<(), CallError> {
    // The compaction frees pages a moment after it was answered.
    tokio::time::sleep(LOOK).await;
    for endpoint in &settings.endpoints {
        let member = EtcdSettings { endpoints: vec![endpoint.clone()], ..settings.clone() };
        // It takes as long as it takes.
        connect(&member).await?.defragment().await?;
    }
    let after = see(client).await?;
    if after.file_bytes > before.file_bytes - before.file_bytes / RESERVE {
        return Ok(());
    }
    tracing::info!(
        before = before.file_bytes,
        after = after.file_bytes,
        "etcd has room again: its alarm is taken back"
    );
    // Of all members: the one that raised it is told by its number only in the answer above.
    let alarms = call(client.alarm(AlarmAction::Get, AlarmType::Nospace, None)).await?;
    for alarm in alarms.alarms() {
        let mut options = etcd_client::AlarmOptions::new();
        options.with_member(alarm.member_id());
        call(client.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_quota_is_for_what_runs_and_the_alarm_is_the_end() {
        let seen = |in_use_bytes, alarm| Seen { in_use_bytes, alarm, ..Seen::default() };
        assert_eq!(level_of(Level::Free, seen(900, false), 1_000), Level::Free);
        assert_eq!(level_of(Level::Free, seen(901, false), 1_000), Level::Reserve);
        assert_eq!(level_of(Level::Reserve, seen(880, false), 1_000), Level::Reserve);
        assert_eq!(level_of(Level::Reserve, seen(870, false), 1_000), Level::Free);
        assert_eq!(level_of(Level::Free, seen(1, true), 1_000), Level::Exhausted);
        assert_eq!(level_of(Level::Exhausted, seen(900, false), 0), Level::Free, "no limit is known");
    }
}
