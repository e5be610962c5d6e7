//! stub
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError { #[error("stub")] Stub }
