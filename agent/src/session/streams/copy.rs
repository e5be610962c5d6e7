//! Files into a container and out of it.

use super::convert::{CopyIn, End, Fault, Wanted};
use super::{Gone, Pipe};
use crate::task::TaskContext;

fn refused() -> Result<Result<End, Fault>, Gone> {
    Ok(Err(Fault::new("NOT_SUPPORTED", "this agent copies no files yet")))
}

pub(super) async fn copy_in(
    _context: &TaskContext,
    _wanted: &Wanted,
    _order: CopyIn,
    _pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    refused()
}

pub(super) async fn copy_out(
    _context: &TaskContext,
    _wanted: &Wanted,
    _path: String,
    _follow_link: bool,
    _pipe: &mut Pipe,
) -> Result<Result<End, Fault>, Gone> {
    refused()
}
