//! Asking several endpoints in turn, again and again within a budget.
//! In: endpoints (mirrors first), what to ask. Out: the first good answer, or the most telling error.
//! An endpoint that answers "no" is not asked again; one that cannot answer is, after a pause.
//! Never: goes on for ever, or checks content (the callers and `registry` do).

use super::progress::PullProgress;
use crate::digest::{Digest, RunningDigest};
use crate::manifest::LayerDescriptor;
use crate::registry::docker_config::Logins;
use crate::registry::endpoint::Endpoint;
use crate::registry::error::RegistryError;
use crate::registry::{Ask, Registries};
use crate::retry::Backoff;
use crate::unpack::pipeline::Chunk;
use std::future::Future;
use tokio::sync::mpsc::Sender;

/// What every question of one pull has in common.
pub(crate) struct Source<'a> {
    pub(crate) registries: &'a Registries,
    pub(crate) repository: &'a str,
    pub(crate) logins: &'a Logins,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) retry: crate::config::RetryConfig,
    pub(crate) progress: &'a (dyn Fn(PullProgress) + Send + Sync),
}

/// How much a download must bring before its failures are forgotten.
const PROGRESS_BYTES: u64 = 1 << 20;

/// Which endpoint is asked next, and when.
struct Turn<'a> {
    source: &'a Source<'a>,
    /// Indices of endpoints that have not said no.
    left: Vec<usize>,
    at: usize,
    backoff: Backoff,
}

impl<'a> Turn<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        let left = (0..source.endpoints.len()).collect();
        Self { source, left, at: 0, backoff: Backoff::new(&source.retry) }
    }

    fn ask(&self) -> Ask<'a> {
        let endpoint = &self.source.endpoints[self.left[self.at]];
        Ask { endpoint, repository: self.source.repository, logins: self.source.logins }
    }

    /// After a failure: returns when the next endpoint may be asked, or with the error to give up with.
    async fn next(&mut self, what: &str, error: RegistryError) -> Result<(), RegistryError> {
        if error.retriable() {
            self.at += 1;
            if self.at < self.left.len() {
                tracing::debug!(what, %error, "the next endpoint is asked");
                return Ok(());
            }
            self.at = 0;
            return self.pause(what, error).await;
        }
        self.left.remove(self.at);
        if self.left.is_empty() {
            return Err(error);
        }
        if self.at == self.left.len() {
            // The registry itself said no: a mirror that is down does not make it a maybe.
            return Err(error);
        }
        tracing::debug!(what, %error, "the next endpoint is asked");
        Ok(())
    }

    async fn pause(&mut self, what: &str, error: RegistryError) -> Result<(), RegistryError> {
        let Some(pause) = self.backoff.next(random(), error.retry_after()) else { return Err(error) };
        (self.source.progress)(PullProgress::Retrying {
            what: what.to_owned(),
            cause: words(&error),
            failures: self.backoff.failures(),
            pause,
        });
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// An error and its causes in one line.
pub(crate) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text.push_str(": ");
        text.push_str(&one.to_string());
        cause = one.source();
    }
    text
}

/// For spreading retries only; a fixed number would do no harm but for crowds.
fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    u64::from_le_bytes(bytes)
}

impl<'a> Source<'a> {
    /// The same, asked elsewhere.
    pub(crate) fn with_endpoints(&self, endpoints: Vec<Endpoint>) -> Source<'a> {
        Source {
            registries: self.registries,
            repository: self.repository,
            logins: self.logins,
            endpoints,
            retry: self.retry.clone(),
            progress: self.progress,
        }
    }

    /// Asks until someone answers.
    pub(crate) async fn ask<'s, T, F>(
        &'s self,
        what: &str,
        question: impl Fn(Ask<'s>) -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut turn = Turn::new(self);
        loop {
            match question(turn.ask()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => turn.next(what, error).await?,
            }
        }
    }
}

/// The download of one layer: one hash over all of it, however often it is cut and resumed.
pub(crate) struct Download<'a> {
    source: &'a Source<'a>,
    layer: &'a LayerDescriptor,
    turn: Turn<'a>,
    received: u64,
    /// `received` when a failure last counted.
    counted_at: u64,
    digest: Option<RunningDigest>,
}

/// Why a download returned without an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All of it is here and its digest is right.
    Verified,
    /// Whoever takes the bytes takes no more.
    NotWanted,
}

impl<'a> Download<'a> {
    pub(crate) fn new(source: &'a Source<'a>, layer: &'a LayerDescriptor) -> Self {
        Self {
            source,
            layer,
            turn: Turn::new(source),
            received: 0,
            counted_at: 0,
            digest: Some(RunningDigest::new()),
        }
    }

    /// Goes on until all bytes have come; they go to `to`, if given. May be called again to go on.
    pub(crate) async fn run(
        &mut self,
        to: Option<&Sender<Chunk>>,
        report: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Ended, RegistryError> {
        loop {
            match self.stream(to, report).await {
                Ok(Some(ended)) => return Ok(ended),
                Ok(None) => return self.verify(to).await,
                Err(error) => {
                    if self.received >= self.counted_at + PROGRESS_BYTES {
                        self.turn.backoff.progressed();
                        self.counted_at = self.received;
                    }
                    let what = format!("layer {}", self.layer.digest);
                    self.turn.next(&what, error).await?;
                }
            }
        }
    }

    /// One connection's worth; `None` when everything has come.
    async fn stream(
        &mut self,
        to: Option<&Sender<Chunk>>,
        report: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Option<Ended>, RegistryError> {
        let (digest, size) = (&self.layer.digest, self.layer.size);
        if self.received == size && size > 0 {
            return Ok(None);
        }
        let ask = self.turn.ask();
        let mut blob = self.source.registries.blob(ask, digest, size, self.received).await?;
        let cut = |received, source| {
            let host = ask.endpoint.host.clone();
            RegistryError::Cut { host, received, expected: size, source }
        };
        loop {
            let chunk = match blob.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if self.received == size => return Ok(None),
                Ok(None) => return Err(cut(self.received, None)),
                Err(RegistryError::Unreachable { source, .. }) => {
                    return Err(cut(self.received, Some(source)));
                }
                Err(error) => return Err(error),
            };
            if self.received + chunk.len() as u64 > size {
                return Err(blob.too_large(digest, size));
            }
            self.received += chunk.len() as u64;
            if let Some(running) = &mut self.digest {
                running.update(&chunk);
            }
            report(self.received);
            if let Some(to) = to
                && to.send(Chunk::Data(chunk)).await.is_err()
            {
                return Ok(Some(Ended::NotWanted));
            }
        }
    }

    async fn verify(&mut self, to: Option<&Sender<Chunk>>) -> Result<Ended, RegistryError> {
        let actual = self.digest.take().map_or_else(|| Digest::of(b""), RunningDigest::finish);
        if actual != self.layer.digest {
            let host = self.turn.ask().endpoint.host.clone();
            return Err(RegistryError::WrongDigest { host, digest: self.layer.digest.clone(), actual });
        }
        match to {
            // Only now may the layer count as whole.
            Some(to) if to.send(Chunk::End).await.is_err() => Ok(Ended::NotWanted),
            _ => Ok(Ended::Verified),
        }
    }

    /// The endpoint that sent last, for asking the others first when its content was wrong.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        self.turn.ask().endpoint
    }
}
