//! Pages of lists: a bounded number of entries and a token that names the last one shown.
//! In: keys in order. Out: a page. Never: an offset: what comes and goes between two pages neither
//! repeats nor hides another entry.

use crate::core::quota::Quotas;
use crate::error::ApiError;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// One page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<String>,
    /// Empty on the last page.
    pub next_token: String,
}

/// Where a page begins and how long it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// 0 means the largest page.
    pub max_results: u32,
    pub next_token: String,
}

impl PageRequest {
    /// The most entries wanted.
    pub fn limit(&self, quotas: &Quotas) -> Result<usize, ApiError> {
        let wanted = if self.max_results == 0 { quotas.entries_per_page } else { self.max_results };
        quotas.page(wanted)?;
        Ok(wanted as usize)
    }

    /// The last key of the page before; `None` for the first page.
    pub fn after(&self) -> Result<Option<String>, ApiError> {
        if self.next_token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&self.next_token).ok();
        let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        key.map(Some).ok_or_else(|| ApiError::invalid("nextToken", "is not one of this list"))
    }

    /// The last key of the page before, as the list's own type.
    pub fn after_as<T: std::str::FromStr>(&self) -> Result<Option<T>, ApiError> {
        let wrong = |_| ApiError::invalid("nextToken", "is not one of this list");
        self.after()?.map(|key| key.parse().map_err(wrong)).transpose()
    }
}

/// Names the last entry shown.
pub fn token(key: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(key)
}

/// Fills a page from keys that begin after the last page.
pub fn fill(keys: impl Iterator<Item = String>, limit: usize) -> Page {
    let mut keys = keys.peekable();
    let items: Vec<String> = keys.by_ref().take(limit).collect();
    let next_token = match (items.last(), keys.peek()) {
        (Some(last), Some(_)) => token(last),
        _ => String::new(),
    };
    Page { items, next_token }
}
