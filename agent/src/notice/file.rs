//! The notice that an operator or a script gives: `<run_dir>/notice`, JSON as `lighter node notice`
//! writes it, gone after a reboot. In: the file. Out: at most one notice. Owns nothing.
//! Never: takes a file that is half written for none: it is renamed into place.

use super::NoticeSource;
use crate::errors::{Cause, words};
use futures_util::future::BoxFuture;
use lighter_model::node::Notice;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) struct FileSource {
    path: PathBuf,
}

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("notice")
}

impl FileSource {
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self { path: path(run_dir) }
    }

    fn read(&self) -> Result<Vec<Notice>, Cause> {
        match std::fs::read(&self.path) {
            Ok(text) => {
                let notice = serde_json::from_slice(&text);
                notice
                    .map(|notice| vec![notice])
                    .map_err(|error| words(format!("{} is no notice: {error}", self.path.display())))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl NoticeSource for FileSource {
    fn name(&self) -> &'static str {
        "file"
    }

    fn check(&mut self) -> BoxFuture<'_, Result<Vec<Notice>, Cause>> {
        // A file on tmpfs: reading it waits for nothing.
        Box::pin(std::future::ready(self.read()))
    }
}

/// Gives notice.
pub(crate) fn write(run_dir: &Path, notice: &Notice) -> io::Result<()> {
    let path = path(run_dir);
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, serde_json::to_vec_pretty(notice).map_err(io::Error::other)?)?;
    std::fs::rename(temporary, path)
}

/// Takes it back; that there is none is success.
pub(crate) fn remove(run_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(path(run_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
