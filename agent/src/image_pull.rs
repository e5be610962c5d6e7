//! One pull with everything around it: tries again what may pass, makes room once when there is none.
//! For tasks (`task::pull`) and for pulls before any task (`lighter image pull`).
//! In: what is wanted. Out: the image, or the last failure. May be dropped at any await: what was
//! fetched stays. Owns nothing. Never: retries what a retry cannot help, or retries for ever.

use crate::errors::chain;
use crate::facilities::{Image, PullFailure, PullOrder, PullWatcher};
use crate::image_cleanup;
use crate::task::TaskContext;
use crate::time::sleep;
use std::time::Duration;

/// Tries of one pull; the image crate has already retried each of its requests.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// `waits` hears why it waits before it tries again, and how long; then `None`.
pub(crate) async fn pull(
    context: &TaskContext,
    order: &PullOrder,
    watch: PullWatcher,
    waits: impl Fn(Option<(&PullFailure, Duration)>),
) -> Result<Image, PullFailure> {
    let mut pause = FIRST_PAUSE;
    let mut room_made = false;
    let mut attempt = 1;
    loop {
        let failure = match context.facilities.image.pull(order, watch.clone()).await {
            Ok(image) => return Ok(image),
            Err(failure) => failure,
        };
        if let Some(bytes) = failure.needs_room
            && !std::mem::replace(&mut room_made, true)
        {
            image_cleanup::make_room(context, bytes).await;
            continue;
        }
        if !failure.retriable || attempt >= ATTEMPTS {
            return Err(failure);
        }
        tracing::warn!(image = %order.reference, attempt, cause = %chain(&failure), "the pull failed; trying again");
        waits(Some((&failure, pause)));
        sleep(pause).await;
        waits(None);
        pause *= 2;
        attempt += 1;
    }
}
