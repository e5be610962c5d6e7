//! stub
pub(crate) mod error;
pub(crate) mod docker_config;
pub(crate) struct Registries;
impl Registries { pub(crate) fn new(_c: &crate::config::ImageStoreConfig) -> Self { Self } }
