//! stub
use crate::pull::{error::PullError, progress::PullProgress, PullOptions, PulledImage};
use crate::store::Inner;
use std::sync::Arc;
pub(crate) async fn pull(_i: &Arc<Inner>, _r: &str, _o: &PullOptions, _p: &(dyn Fn(PullProgress) + Send + Sync)) -> Result<PulledImage, PullError> { Err(PullError::Interrupted) }
