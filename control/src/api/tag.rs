//! TagResource, UntagResource, ListTagsForResource.
//! In: the name of a resource. Out: its tags. Never: reads what is not committed.

use super::Context;
use crate::core::audit::Asker;
use crate::core::tag::{TagResource, UntagResource, tags_of};
use crate::error::ApiError;
use lighter_model::tags::Tags;

/// Sets tags.
pub async fn tag(context: &Context, asker: Asker, wanted: TagResource) -> Result<(), ApiError> {
    context.change(asker, wanted).await
}

/// Takes tags away.
pub async fn untag(context: &Context, asker: Asker, wanted: UntagResource) -> Result<(), ApiError> {
    context.change(asker, wanted).await
}

/// The tags of a resource.
pub fn list(context: &Context, resource: &str) -> Result<Tags, ApiError> {
    context.view.read(|shown| tags_of(&shown.state, resource))
}
