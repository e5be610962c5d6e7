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
        let wrong = |problem: &str| InvalidReference { text: text.to_owned(), problem: problem.to_owned() };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse::<Digest>().map_err(|e| wrong(&e.to_string()))?))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to a port.
        let last = name.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name[last..].rfind(':') {
            Some(colon) => (&name[..last + colon], Some(&name[last + colon + 1..])),
            None => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("the tag must be 1 to 128 letters, digits, dots, hyphens or underscores"));
        }
        let (host, repository) = split_host(name);
        if !is_host(host) {
            return Err(wrong("the host is not a host name with an optional port"));
        }
        if !is_repository(&repository) {
            return Err(wrong(
                "the name must be lower-case letters and digits, parts of it joined by . _ __ - or /",
            ));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { host: host.to_owned(), repository, tag, digest })
    }
}

/// The first part is a host if it looks like one: with a dot, a port, or `localhost`.
fn split_host(name: &str) -> (&str, String) {
    match name.split_once('/') {
        Some(("index.docker.io" | "docker.io", rest)) if !rest.contains('/') => {
            ("docker.io", format!("library/{rest}"))
        }
        Some(("index.docker.io", rest)) => ("docker.io", rest.to_owned()),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let address = |inner: &str| inner.parse::<std::net::Ipv6Addr>().is_ok();
    let name_good = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(inner) => address(inner),
        None => !name.is_empty() && name.bytes().all(plain),
    };
    name_good && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// Source: OCI distribution-spec, "Pulling manifests", the grammar of <name>.
fn is_repository(repository: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separator = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    let part = |part: &str| {
        let inner = part.trim_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let edges =
            part.bytes().next().is_some_and(alphanumeric) && part.bytes().last().is_some_and(alphanumeric);
        edges
            && inner
                .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                .all(|s| s.is_empty() || separator(s))
    };
    repository.len() <= 255 && repository.split('/').all(part)
}

fn is_tag(tag: &str) -> bool {
    let first = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
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
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("index.docker.io/me/a", "docker.io/me/a:latest".to_owned()),
            ("[::1]:5000/a.b__c--d/e", "[::1]:5000/a.b__c--d/e:latest".to_owned()),
            (&format!("r.example/a@{digest}"), format!("r.example/a@{digest}")),
            (&format!("r.example/a:t@{digest}"), format!("r.example/a:t@{digest}")),
        ] {
            assert_eq!(text.parse::<ImageReference>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn nonsense_is_refused_with_its_text() {
        for text in [
            "",
            "UPPER/case",
            "a b",
            "../../etc/passwd",
            "r/a@sha512:00",
            "r/a:",
            "a/../b",
            "a//b",
            "a/",
            "/a",
            "a:t/x:",
            "a___b",
            "-a",
            "a-",
            "h.x:99999/a",
            "h.x:p/a",
            "a:-t",
            "a?b",
            "r.x/a@",
            "[::1/a",
            "a@sha256:00",
            "é",
        ] {
            let error = text.parse::<ImageReference>().unwrap_err();
            assert_eq!(error.text, text);
        }
    }
}
