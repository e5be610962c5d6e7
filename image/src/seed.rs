//! stub
use std::path::Path;
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seeded { pub entries: u64, pub bytes: u64 }
#[derive(Debug, thiserror::Error)]
pub enum SeedError { #[error("stub")] Stub }
pub fn seed_volume(_rootfs: &Path, _container_path: &str, _dest: &Path) -> Result<Seeded, SeedError> { Err(SeedError::Stub) }
