//! Reads everything below a prefix as of one revision of etcd, page by page.
//! In: a prefix. Out: what is there. Never: mixes two revisions.

use super::{CallError, EtcdStore, call};
use crate::store::Loaded;
use etcd_client::GetOptions;

/// Records of one page.
const PAGE: i64 = 1_000;
/// A page of the largest records.
const PAGE_BYTES: usize = 256 << 20;

impl EtcdStore {
    pub(super) async fn read_all(&mut self, prefix: &str) -> Result<Loaded, CallError> {
        let counters = self.counters().await?;
        let mut client = self.client()?.kv_client().max_decoding_message_size(PAGE_BYTES);
        let root = self.key("r/");
        let mut start = format!("{root}{prefix}").into_bytes();
        let end = after_prefix(&start);
        let mut records = Vec::new();
        loop {
            let options =
                GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(counters.revision);
            let mut page = call(client.get(start, Some(options))).await?;
            let more = page.more();
            for kv in page.take_kvs() {
                let (key, value) = kv.into_key_value();
                let key = String::from_utf8(key.get(root.len()..).unwrap_or_default().to_vec());
                let key = key.map_err(|_| CallError::Strange { what: "a key that is no text".to_owned() })?;
                records.push((key, value));
            }
            match records.last() {
                Some((last, _)) if more => start = format!("{root}{last}\0").into_bytes(),
                _ => break,
            }
        }
        if prefix.is_empty() {
            self.loaded = Some((counters.sequence(), counters.revision));
        }
        Ok(Loaded {
            term: counters.term.map_or(0, |(term, _)| term),
            sequence: counters.sequence(),
            incarnation: counters.incarnation.unwrap_or_else(|| self.new_incarnation.clone()),
            records,
        })
    }
}

/// The end of the range of all keys with this prefix, which ends in no 0xff.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
