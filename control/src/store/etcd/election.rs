//! Who leads: a key bound to a lease, made only when it is not there.
//! In: a term floor. Out: a term, with the revision that fences all others. Owns: the task that
//! renews the lease, so that a commit that waits keeps nobody from renewing.
//! Never: counts the lease from an answer; a renewal counts from its sending.

use super::{CallError, EtcdStore, call};
use crate::store::lease::now_ms;
use crate::store::{Campaign, Leader, Lease};
use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::task::AbortHandle;

/// The leader key's value.
#[derive(Debug, Serialize, Deserialize)]
struct LeaderValue {
    id: String,
    endpoint: String,
    term: u64,
}

/// What a leader compares with every commit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leading {
    pub(super) term: u64,
    /// etcd's revision of the leader key as this leader wrote it.
    pub(super) fence: i64,
    pub(super) sequence: u64,
    /// etcd's revision of the sequence key; 0 while there is none.
    pub(super) sequence_revision: i64,
}

/// A lease that is renewed until it is dropped.
pub(super) struct Election {
    lease_id: i64,
    renewing: AbortHandle,
    /// Looks after etcd's room.
    looking: AbortHandle,
}

impl Drop for Election {
    fn drop(&mut self) {
        self.renewing.abort();
        self.looking.abort();
    }
}

/// The store's own keys as of one revision.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) revision: i64,
    pub(super) term: Option<(u64, i64)>,
    pub(super) sequence: Option<(u64, i64)>,
    pub(super) incarnation: Option<String>,
    pub(super) restoring: bool,
    leader: Option<(LeaderValue, i64)>,
}

impl Counters {
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.map_or(0, |(sequence, _)| sequence)
    }
    pub(super) fn has_leader(&self) -> bool {
        self.leader.is_some()
    }
    /// etcd's revision of the leader key; 0 when nobody leads.
    pub(super) fn fence(&self) -> i64 {
        self.leader.as_ref().map_or(0, |(_, revision)| *revision)
    }
}

pub(super) fn number(bytes: &[u8]) -> Result<u64, CallError> {
    let text = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| CallError::Strange { what: format!("{bytes:?} is not a number") })
}

impl EtcdStore {
    /// What a transaction reads to know how the store stands; in the order of `counters_of`.
    pub(super) fn counter_reads(&self) -> Vec<TxnOp> {
        let names = ["leader", "term", "sequence", "incarnation", "restoring"];
        names.iter().map(|name| TxnOp::get(self.key(name), None)).collect()
    }

    pub(super) async fn counters(&self) -> Result<Counters, CallError> {
        let answer = call(self.client()?.txn(Txn::new().and_then(self.counter_reads()))).await?;
        Self::counters_of(answer.header().map_or(0, |header| header.revision()), &answer.op_responses())
    }

    pub(super) fn counters_of(revision: i64, answers: &[TxnOpResponse]) -> Result<Counters, CallError> {
        let mut found = answers.iter().map(|answer| match answer {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| (kv.value().to_vec(), kv.mod_revision())),
            _ => None,
        });
        let mut next = || found.next().flatten();
        let mut counters = Counters { revision, ..Counters::default() };
        if let Some((value, at)) = next() {
            let value = serde_json::from_slice(&value)
                .map_err(|error| CallError::Strange { what: format!("the leader key: {error}") })?;
            counters.leader = Some((value, at));
        }
        counters.term = next().map(|(value, at)| Ok::<_, CallError>((number(&value)?, at))).transpose()?;
        counters.sequence =
            next().map(|(value, at)| Ok::<_, CallError>((number(&value)?, at))).transpose()?;
        counters.incarnation = next().and_then(|(value, _)| String::from_utf8(value).ok());
        counters.restoring = next().is_some();
        Ok(counters)
    }

    /// Where another leader serves, if there is one.
    pub(super) async fn other_leader(&mut self) -> Result<Option<String>, CallError> {
        let leader = self.counters().await?.leader;
        Ok(leader.filter(|(leader, _)| leader.id != self.me).map(|(leader, _)| leader.endpoint))
    }

    pub(super) async fn run_for_leader(&mut self, floor: u64) -> Result<Campaign, CallError> {
        self.leading = None;
        let counters = self.counters().await?;
        if counters.restoring {
            let what = "a restore was cut off: restore again".to_owned();
            return Err(CallError::Strange { what });
        }
        if let Some((leader, _)) = &counters.leader
            && leader.id != self.me
        {
            self.lease.end();
            let (endpoint, term) = (leader.endpoint.clone(), leader.term);
            return Ok(Campaign::Standby(Leader { endpoint, term }));
        }
        self.take_lead(floor, &counters).await
    }

    async fn take_lead(&mut self, floor: u64, counters: &Counters) -> Result<Campaign, CallError> {
        let mut client = self.client()?;
        let sent_at = now_ms();
        let granted = call(client.lease_grant(i64::from(self.settings.lease_seconds), None)).await?;
        let lease_id = granted.id();
        let granted = Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default());
        let term = floor.max(counters.term.map_or(0, |(term, _)| term) + 1);
        let value = LeaderValue { id: self.me.clone(), endpoint: self.endpoint.clone(), term };
        let value = serde_json::to_vec(&value)
            .map_err(|error| CallError::Strange { what: format!("the leader key: {error}") })?;
        let mut compares = vec![
            Compare::mod_revision(self.key("leader"), CompareOp::Equal, counters.fence()),
            Compare::mod_revision(
                self.key("term"),
                CompareOp::Equal,
                counters.term.map_or(0, |(_, revision)| revision),
            ),
        ];
        let mut puts = vec![
            TxnOp::put(self.key("leader"), value, Some(PutOptions::new().with_lease(lease_id))),
            TxnOp::put(self.key("term"), term.to_string(), None),
        ];
        if counters.incarnation.is_none() {
            compares.push(Compare::mod_revision(self.key("incarnation"), CompareOp::Equal, 0));
            puts.push(TxnOp::put(self.key("incarnation"), self.new_incarnation.clone(), None));
        }
        let txn = Txn::new().when(compares).and_then(puts).or_else(self.counter_reads());
        let answer = call(client.txn(txn)).await?;
        let revision = answer.header().map_or(0, |header| header.revision());
        if !answer.succeeded() {
            // Somebody was quicker; the lease runs out by itself if it cannot be revoked.
            let _ = call(client.lease_revoke(lease_id)).await;
            let now = Self::counters_of(revision, &answer.op_responses())?;
            let leader = now.leader.map(|(leader, _)| leader);
            let leader = leader.map(|leader| Leader { endpoint: leader.endpoint, term: leader.term });
            return Ok(Campaign::Standby(leader.unwrap_or_default()));
        }
        // The sequence as it stands now that nobody else can commit.
        let now = self.counters().await?;
        let (sequence, sequence_revision) = now.sequence.unwrap_or((0, 0));
        self.leading = Some(Leading { term, fence: revision, sequence, sequence_revision });
        self.lease.extend(sent_at, granted);
        let looking = super::space::watch(client.clone(), self.settings.clone(), self.room.clone());
        let looking = tokio::spawn(looking).abort_handle();
        let renewing = tokio::spawn(renew(client, lease_id, granted, self.lease.clone())).abort_handle();
        self.election = Some(Election { lease_id, renewing, looking });
        Ok(Campaign::Elected { term })
    }

    /// Gives the lead up, if it is held: the key goes with the lease.
    pub(super) async fn give_up(&mut self) -> Result<(), CallError> {
        self.leading = None;
        self.lease.end();
        let Some(election) = self.election.take() else { return Ok(()) };
        // Before the revocation: a renewal under way must not extend what is given up.
        election.renewing.abort();
        call(self.client()?.lease_revoke(election.lease_id)).await?;
        self.lease.end();
        Ok(())
    }
}

/// Renews until etcd says that the lease is over.
async fn renew(mut client: Client, lease_id: i64, granted: Duration, lease: Lease) {
    loop {
        tokio::time::sleep(granted / 5).await;
        let sent_at = now_ms();
        match call(client.lease_keep_alive(lease_id)).await {
            Ok(_) => lease.extend(sent_at, granted),
            Err(CallError::Etcd { source: etcd_client::Error::LeaseKeepAliveError(reason) }) => {
                tracing::warn!(%reason, "the lease of the leader is over");
                lease.end();
                return;
            }
            // The lease says how long that may go on.
            Err(error) => {
                tracing::warn!(cause = %crate::writer::Chain(&error), "the lease could not be renewed; trying again");
            }
        }
    }
}
