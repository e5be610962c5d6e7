//! How large and how many a node's words may be: what it says goes into records, events and every watcher.
//! In: what came. Out: the same, cut, or a refusal. What a person reads is cut; what counts is refused.
//! Never: ends the session of an honest node, whose longest report has some tens of KiB.

use super::wrong;
use crate::error::ApiError;
use lighter_proto::v1;
use prost::Message;

/// Of a report: ten containers with a hundred ports each, 1 KiB of a probe's output and a reason.
const REPORT_BYTES_MAX: usize = 128 << 10;
/// Of what a node says of itself: resources, devices, attributes, notices.
const STATE_BYTES_MAX: usize = 256 << 10;
/// Of a text for people.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Of a word that identifies something.
const WORD_BYTES_MAX: usize = 255;
/// Containers, waits, features, notices.
const ITEMS_MAX: usize = 256;
/// Far from where adding to it could leave the number's range.
const GENERATION_MAX: u64 = 1 << 62;

pub(super) fn report(report: &v1::TaskReport) -> Result<(), ApiError> {
    at_most("bytes of a report", report.encoded_len(), REPORT_BYTES_MAX)?;
    at_most("containers", report.containers.len(), ITEMS_MAX)?;
    at_most("waits", report.waits.len(), ITEMS_MAX)
}

pub(super) fn state(state: &v1::NodeState) -> Result<(), ApiError> {
    at_most("bytes of a node's state", state.encoded_len(), STATE_BYTES_MAX)?;
    at_most("notices", state.notices.len(), ITEMS_MAX)
}

pub(super) fn hello(hello: &v1::NodeHello) -> Result<(), ApiError> {
    at_most("features", hello.features.len(), ITEMS_MAX)?;
    let words = [&hello.agent_version, &hello.boot_id, &hello.agent_run_id, &hello.incarnation];
    let groups = hello.tasks.iter().map(|task| &task.group);
    words.into_iter().chain(&hello.features).chain(groups).try_for_each(|text| word(text))
}

pub(super) fn word(text: &str) -> Result<(), ApiError> {
    at_most("bytes of a word", text.len(), WORD_BYTES_MAX)
}

pub(super) fn generation(number: u64) -> Result<(), ApiError> {
    if number <= GENERATION_MAX { Ok(()) } else { Err(wrong(format!("{number} is no generation"))) }
}

/// The beginning of a text for people.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('\u{2026}');
    }
    text
}

fn at_most(what: &str, there_are: usize, most: usize) -> Result<(), ApiError> {
    if there_are <= most { Ok(()) } else { Err(wrong(format!("{there_are} {what}; {most} are allowed"))) }
}
