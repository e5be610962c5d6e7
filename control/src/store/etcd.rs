//! The store for several machines: etcd (version 3.4 or newer), through its v3 API.
//! In: endpoints and a prefix. Out: a `Store`. Owns: the keys below the prefix, one lease.
//! Keys: `leader` (bound to the lease), `term`, `sequence`, `incarnation`, `r/<key of a record>`; `look`
//! is written to have etcd count its room.
//! Each commit is one transaction that compares the leader key and the sequence key as this leader
//! wrote them and writes the next sequence: that fences, orders and shows gaps.
//! Never: takes a time-out for a failure: such a transaction was seen to land afterwards.

mod commit;
mod election;
mod follow;
mod mending;
mod read;
mod refusal;
mod space;

use super::{Batch, Campaign, CommitOutcome, Followed, Lease, Loaded, Reader, Room, Size, Store, StoreError};
use election::{Election, Leading};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use follow::Watching;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// One call to etcd; it answers in milliseconds or is in trouble.
const CALL: Duration = Duration::from_secs(2);
/// Well below etcd's limit of 1.5 MiB a request with records of 1 KiB; more than 128 go in nested transactions.
const BATCH_RECORDS: usize = 512;
/// HTTP/2 pings find a member that went away without a word.
const PING: Duration = Duration::from_secs(2);

const ADVICE: &str = "raise etcd's --quota-backend-bytes and store.limit_mib, or wait until stopped tasks \
                      are collected; new work is accepted again by itself";

/// Where etcd is and how to speak with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port`, all members.
    pub endpoints: Vec<String>,
    /// All keys begin with it; ends with a slash.
    pub prefix: String,
    /// PEM files: the CA of etcd's certificates, our certificate, its key.
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// How long after a leader's last word another may lead; etcd's least is 2 s.
    pub lease_seconds: u32,
    /// Of the database; 0: unknown.
    pub limit_bytes: u64,
}

/// A store in etcd. It connects with its first call.
pub struct EtcdStore {
    settings: EtcdSettings,
    /// Given to the store when it has none.
    new_incarnation: String,
    /// Random: finds its own leader key again after a lost answer.
    me: String,
    endpoint: String,
    lease: Lease,
    room: Room,
    client: Option<Client>,
    leading: Option<Leading>,
    election: Option<Election>,
    /// The sequence that was loaded last, and etcd's revision then.
    loaded: Option<(u64, i64)>,
    watching: Option<Watching>,
    /// History up to here may be given up at the next compaction.
    compact_to: i64,
    compacted_at: Instant,
    /// Calls block on it, and the lease is renewed on it meanwhile. `None` only while dropping.
    runtime: Option<Runtime>,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Why a call to etcd gave no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("etcd did not answer within {} s", CALL.as_secs())]
    TimeOut,
    #[error("etcd refused")]
    Etcd {
        #[source]
        source: etcd_client::Error,
    },
    #[error("{member} and this control plane do not take each other's certificates")]
    Tls {
        member: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the file {path:?} cannot be read")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{what}")]
    Strange { what: String },
}

impl From<etcd_client::Error> for CallError {
    fn from(source: etcd_client::Error) -> Self {
        Self::Etcd { source }
    }
}

fn read_error(source: CallError) -> StoreError {
    match source.may_mend() {
        true => StoreError::Unreachable { source: Box::new(source) },
        false => StoreError::Read { source: Box::new(source) },
    }
}

fn write_error(source: CallError) -> StoreError {
    match source.may_mend() {
        true => StoreError::Unreachable { source: Box::new(source) },
        false => StoreError::Write { source: Box::new(source) },
    }
}

/// One call with its time limit.
async fn call<T>(answer: impl Future<Output = Result<T, etcd_client::Error>>) -> Result<T, CallError> {
    Ok(tokio::time::timeout(CALL, answer).await.map_err(|_| CallError::TimeOut)??)
}

impl EtcdStore {
    /// Makes the store's end; nothing is sent yet. `random` is of this process alone.
    pub fn new(settings: EtcdSettings, new_incarnation: &str, random: &str) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd")
            .enable_all()
            .build()
            .map_err(|source| StoreError::Read { source: Box::new(source) })?;
        Ok(Self {
            settings,
            new_incarnation: new_incarnation.to_owned(),
            me: random.to_owned(),
            endpoint: String::new(),
            lease: Lease::none(),
            room: Room::new(ADVICE),
            client: None,
            leading: None,
            election: None,
            loaded: None,
            watching: None,
            compact_to: 0,
            compacted_at: Instant::now(),
            runtime: Some(runtime),
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.settings.prefix)
    }

    /// Runs calls on the store's own runtime, on which the lease is renewed all the while.
    fn block<T>(
        &mut self,
        calls: impl AsyncFnOnce(&mut Self) -> Result<T, CallError>,
    ) -> Result<T, CallError> {
        let Some(runtime) = self.runtime.take() else {
            return Err(CallError::Strange { what: "the store is closed".to_owned() });
        };
        let result = runtime.block_on(async {
            if self.client.is_none() {
                self.client = Some(connect(&self.settings).await?);
            }
            calls(self).await
        });
        self.runtime = Some(runtime);
        result
    }

    /// What there is to say about a call without a clear answer.
    fn clearer(&self, error: CallError) -> CallError {
        match &self.runtime {
            Some(runtime) if error.may_mend() => {
                runtime.block_on(refusal::refusal(&self.settings)).unwrap_or(error)
            }
            _ => error,
        }
    }

    fn client(&self) -> Result<Client, CallError> {
        let missing = || CallError::Strange { what: "not connected".to_owned() };
        self.client.clone().ok_or_else(missing)
    }
}

async fn connect(settings: &EtcdSettings) -> Result<Client, CallError> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CALL)
        .with_keep_alive(PING, PING)
        .with_keep_alive_while_idle(true);
    if settings.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        options = options.with_tls(tls(settings)?);
    }
    call(Client::connect(&settings.endpoints, Some(options))).await
}

fn tls(settings: &EtcdSettings) -> Result<TlsOptions, CallError> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|source| CallError::File { path: path.clone(), source });
    let mut tls = TlsOptions::new();
    if let Some(ca) = &settings.ca {
        tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(tls)
}

impl Drop for EtcdStore {
    fn drop(&mut self) {
        // May be dropped where blocking is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Reader for EtcdStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        Store::load(self, "")
    }
}

impl Store for EtcdStore {
    fn campaign(&mut self, term_floor: u64) -> Result<Campaign, StoreError> {
        self.block(async |store| store.run_for_leader(term_floor).await).map_err(write_error)
    }

    fn load(&mut self, prefix: &str) -> Result<Loaded, StoreError> {
        let loaded = self.block(async |store| store.read_all(prefix).await);
        loaded.map_err(|error| read_error(self.clearer(error)))
    }

    fn commit(&mut self, term: u64, sequence: u64, batch: &Batch) -> CommitOutcome {
        let outcome = self.block(async |store| Ok(store.write(term, sequence, batch).await));
        outcome.unwrap_or(CommitOutcome::Unknown)
    }

    fn follow(&mut self, after: u64, limit: Duration) -> Result<Followed, StoreError> {
        self.block(async |store| store.watch_on(after, limit).await).map_err(read_error)
    }

    fn lease(&self) -> Lease {
        self.lease.clone()
    }

    fn room(&self) -> Room {
        self.room.clone()
    }

    fn advertise(&mut self, endpoint: &str) {
        endpoint.clone_into(&mut self.endpoint);
    }

    fn batch_records(&self) -> usize {
        BATCH_RECORDS
    }

    fn resign(&mut self) {
        if let Err(error) = self.block(async |store| store.give_up().await) {
            tracing::warn!(cause = %crate::writer::Chain(&error), "the lead is given up by its lease alone");
        }
    }

    fn restore(&mut self, content: &Loaded) -> Result<(), StoreError> {
        let leader = self.block(async |store| store.other_leader().await).map_err(read_error)?;
        if let Some(leader) = leader {
            return Err(StoreError::InUse { what: format!("the control plane at {leader:?} leads") });
        }
        self.block(async |store| store.replace(content).await).map_err(write_error)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(Self::new(self.settings.clone(), &self.new_incarnation, "")?))
    }

    fn compact(&mut self) -> Result<(), StoreError> {
        self.block(async |store| store.give_back().await).map_err(write_error)
    }

    fn size(&mut self) -> Result<Size, StoreError> {
        let limit_bytes = self.settings.limit_bytes;
        let used = self.block(async |store| {
            let status = call(store.client()?.status()).await?;
            Ok(u64::try_from(status.db_size()).unwrap_or_default())
        });
        Ok(Size { used_bytes: used.map_err(read_error)?, limit_bytes })
    }
}
