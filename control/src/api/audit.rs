//! ListAudit: who changed what, and who looked into which running task.
//! In: filters. Out: pages, newest first.

use super::page::{PageRequest, token};
use super::{Context, existing_cluster};
use crate::core::record::AuditRecord;
use crate::error::ApiError;
use std::sync::Arc;

/// What to list; empty texts match all.
#[derive(Debug, Clone)]
pub struct AuditFilter {
    pub cluster: String,
    /// An id, or the beginning of one; the task may be gone.
    pub task: String,
    pub user: String,
    pub page: PageRequest,
}

/// Some records, and where the next page begins.
#[derive(Debug, Clone)]
pub struct AuditPage {
    pub records: Vec<Arc<AuditRecord>>,
    /// Empty on the last page.
    pub next_token: String,
}

/// Lists records.
pub fn list(context: &Context, filter: &AuditFilter) -> Result<AuditPage, ApiError> {
    let limit = filter.page.limit(&context.quotas)?;
    let before: Option<u64> = filter.page.after_as()?;
    context.view.read(|shown| {
        let cluster = existing_cluster(shown, &filter.cluster)?;
        let wanted = |record: &&Arc<AuditRecord>| {
            (record.cluster.is_empty() || record.cluster == cluster.as_str())
                && record.task.starts_with(&filter.task)
                && (filter.user.is_empty() || record.user == filter.user)
        };
        let range = shown.state.audit.range(..before.unwrap_or(u64::MAX));
        let mut found = range.rev().map(|(_, record)| record).filter(wanted);
        let records: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let more = found.next().is_some();
        let last = records.last().map(|record| token(&record.sequence.to_string()));
        Ok(AuditPage { next_token: last.filter(|_| more).unwrap_or_default(), records })
    })
}
