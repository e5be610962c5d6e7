//! Spans to an OpenTelemetry collector, by OTLP over gRPC.
//! In: finished spans. Out: exports of up to `BATCH` spans. Owns: the queue and one tokio task.
//! A collector that is slow, wrong or gone costs spans, which are counted, and nothing else: the
//! queue is bounded and `Tracer::finish` never waits.
//! Source: opentelemetry-proto 1.x, collector/trace/v1 and trace/v1; field numbers in `otlp`.
//! Never: a span that is not finished; sampling: a start of a task is a handful of spans.

mod otlp;

use otlp::Exporter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Spans of some hundred starts, about 1 MiB; a collector that is further behind is as good as gone.
const QUEUE: usize = 4096;
const BATCH: usize = 256;
/// How long spans are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(1);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// A piece of work that is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    /// Zeros: the root.
    pub parent_span_id: [u8; 8],
    pub name: String,
    pub start_unix_ns: u64,
    pub end_unix_ns: u64,
    pub attributes: Vec<(&'static str, String)>,
    /// Why it failed; `None` when it did not.
    pub error: Option<String>,
}

/// Takes finished spans. Clones share the queue.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: Option<mpsc::Sender<Span>>,
    dropped: Arc<AtomicU64>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self::off()
    }
}

impl Tracer {
    /// Keeps nothing.
    pub fn off() -> Self {
        Self { queue: None, dropped: Arc::default() }
    }

    /// Sends to `endpoint` (`http://host:4317`), in the name of `service`, until `leaving`.
    pub fn start(
        endpoint: &str,
        service: &'static str,
        instance: &str,
        leaving: CancellationToken,
    ) -> Result<Self, tonic::transport::Error> {
        let channel = tonic::transport::Endpoint::from_shared(endpoint.to_owned())?
            .connect_timeout(EXPORT_TIMEOUT)
            .timeout(EXPORT_TIMEOUT)
            .connect_lazy();
        let (queue, spans) = mpsc::channel(QUEUE);
        let tracer = Self::with_queue(queue);
        let exporter = Exporter::new(channel, service, instance);
        // Ends when the daemon leaves; what is queued then gets one last export.
        tokio::spawn(export(exporter, spans, tracer.dropped.clone(), leaving));
        Ok(tracer)
    }

    /// Gives finished spans to whoever reads the queue.
    pub fn with_queue(queue: mpsc::Sender<Span>) -> Self {
        Self { queue: Some(queue), dropped: Arc::default() }
    }

    /// Whether anybody wants spans.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes a finished span; drops it when the queue is full.
    pub fn finish(&self, span: Span) {
        if let Some(queue) = &self.queue
            && queue.try_send(span).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans that did not reach the collector.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn export(
    mut exporter: Exporter,
    mut spans: mpsc::Receiver<Span>,
    dropped: Arc<AtomicU64>,
    leaving: CancellationToken,
) {
    let mut said = false;
    loop {
        let mut batch = Vec::new();
        let first = tokio::select! {
            // A channel keeps what was not taken.
            () = leaving.cancelled() => spans.try_recv().ok(),
            first = spans.recv() => first,
        };
        let Some(first) = first else { return };
        batch.push(first);
        tokio::select! {
            () = leaving.cancelled() => {}
            () = tokio::time::sleep(GATHER) => {}
        }
        while batch.len() < BATCH {
            let Ok(next) = spans.try_recv() else { break };
            batch.push(next);
        }
        let count = batch.len() as u64;
        match exporter.export(batch).await {
            Ok(()) => said = false,
            Err(error) => {
                dropped.fetch_add(count, Ordering::Relaxed);
                // Once for each time it goes away, not once a batch.
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(cause = %error, "traces do not reach the collector; they are dropped until it answers");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
