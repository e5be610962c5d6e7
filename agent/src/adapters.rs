//! The facilities for real: the crates image, network and runtime behind the agent's traits.
//! In: the configuration. Out: `Facilities`. Owns nothing of its own; blocking openings run on
//! blocking threads. Never: decides.

mod image;
mod network;
mod runtime;

use crate::agent::StartError;
use crate::config::AgentConfig;
use crate::errors::Cause;
use crate::facilities::Facilities;
use std::sync::Arc;

/// Opens everything, for this machine.
pub(crate) async fn open(config: &AgentConfig) -> Result<Facilities, StartError> {
    let failed = |what| move |source: Cause| StartError::Facility { what, source };
    let subnet = crate::agent::subnet(config)?;
    let settings = config.clone();
    let runtime = blocking(move || runtime::RuntimeAdapter::open(&settings))
        .await
        .map_err(failed("the container runtime"))?;
    let settings = config.clone();
    let image =
        blocking(move || image::ImageAdapter::open(&settings)).await.map_err(failed("the image store"))?;
    let network = network::NetworkAdapter::open(config, subnet).map_err(failed("the network"))?;
    Ok(Facilities { image: Arc::new(image), network: Arc::new(network), runtime: Arc::new(runtime) })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Cause> + Send + 'static,
) -> Result<T, Cause> {
    tokio::task::spawn_blocking(work).await?
}
