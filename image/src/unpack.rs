//! stub
#[derive(Debug, thiserror::Error)]
pub enum UnpackError { #[error("stub")] Stub }
impl UnpackError { pub(crate) fn io(&self) -> Option<&std::io::Error> { None } }
