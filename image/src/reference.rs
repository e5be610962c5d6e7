//! Image references as people write them, made whole: `nginx` is `docker.io/library/nginx:latest`.
//! In: text. Out: `ImageReference`, or what is wrong with the text. Never: asks a registry.

use crate::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// Host, repository, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// `host[:port]` as written; `docker.io` when none was.
    pub host: String,
    /// Like `library/nginx`.
    pub repository: String,
    pub tag: Option<String>,
    /// When given it decides, whatever the tag says.
    pub digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference ({problem})")]
pub struct InvalidReference {
    pub text: String,
    pub problem: String,
}

impl FromStr for ImageReference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let wrong = |problem: String| InvalidReference { text: text.to_owned(), problem };
        let parsed: oci_spec::distribution::Reference =
            text.parse().map_err(|e: oci_spec::distribution::ParseError| wrong(e.to_string()))?;
        let digest = match parsed.digest() {
            Some(digest) => Some(digest.parse::<Digest>().map_err(|e| wrong(e.to_string()))?),
            None => None,
        };
        let tag = match (parsed.tag(), &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Self {
            host: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            tag,
            digest,
        })
    }
}

impl ImageReference {
    /// What stands after `/manifests/` in the registry's address.
    pub(crate) fn manifest_name(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => "latest",
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_made_whole() {
        let digest = Digest::of(b"x");
        for (text, whole) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("library/nginx:1", "docker.io/library/nginx:1".to_owned()),
            ("me/app", "docker.io/me/app:latest".to_owned()),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t".to_owned()),
            (&format!("r.example/a@{digest}"), format!("r.example/a@{digest}")),
            (&format!("r.example/a:t@{digest}"), format!("r.example/a:t@{digest}")),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in ["", "UPPER/case", "a b", "../../etc/passwd", "r/a@sha512:00", "r/a:"] {
            let error = text.parse::<ImageReference>().unwrap_err();
            assert_eq!(error.text, text);
        }
    }
}
