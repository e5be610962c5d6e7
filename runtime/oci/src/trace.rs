//! Keeps the first error that libcontainer traces. Its error values lose their causes when they
//! cross from the container's process to the helper ("failed to prepare rootfs"); its trace does
//! not. In: trace events of level ERROR, also of forked children. Out: the first one's text.
//! Never: writes to standard error, which is the container's.

use crate::sys;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

struct FirstError {
    file: File,
}

/// Begins to listen; the file is shared with children that are forked later.
pub(crate) fn install() -> Option<File> {
    let file = sys::anonymous_file().ok()?;
    let copy = file.try_clone().ok()?;
    tracing::subscriber::set_global_default(FirstError { file }).ok()?;
    Some(copy)
}

/// The deepest error, which is traced first.
pub(crate) fn first_error(file: Option<File>) -> Option<String> {
    let mut file = file?;
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.lines().next().map(str::to_owned)
}

impl Subscriber for FirstError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}\n", line.message, line.fields).replace(['\r'], " ");
        let one_line = text.trim_end().replace('\n', " ");
        let _ = (&self.file).write_all(format!("{one_line}\n").as_bytes());
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            let _ = write!(self.fields, ", {}: {value:?}", field.name());
        }
    }
}
