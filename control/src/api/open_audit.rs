//! The audit record of something whose end nobody announces: a reader of logs or counters just goes
//! away. In: what begins. Out: a durable record, completed when this is dropped, wherever that is.
//! Owns one record. Never: lets anything flow before the record is durable.

use super::Context;
use crate::core::audit::{AuditEnded, AuditStarted};
use crate::error::ApiError;

/// Completes the record when it is dropped.
pub(super) struct OpenAudit {
    context: Context,
    sequence: u64,
    result: String,
}

impl OpenAudit {
    /// Returns when the record is durable.
    pub(super) async fn begin(context: &Context, record: AuditStarted) -> Result<Self, ApiError> {
        let sequence = context.writer.submit(record).await?;
        Ok(Self { context: context.clone(), sequence, result: "done".to_owned() })
    }

    /// What the record says when it did not end well.
    pub(super) fn failed(&mut self, error: &ApiError) {
        self.result = format!("failed: {error}");
    }
}

impl Drop for OpenAudit {
    fn drop(&mut self) {
        let (context, sequence) = (self.context.clone(), self.sequence);
        let result = std::mem::take(&mut self.result);
        // Without a runtime the control plane ends, and closes the record at its next start.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let record = AuditEnded { sequence, result, bytes_in: 0, bytes_out: 0 };
            if let Err(error) = context.writer.submit(record).await {
                tracing::warn!(%error, audit = sequence, "an audit record could not be completed");
            }
        });
    }
}
