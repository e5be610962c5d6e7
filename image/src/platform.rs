//! Which image of an index fits a machine.
//! In: the platform wanted and those on offer. Out: the index of the best one.
//! Source: OCI image spec, image-index.md; the order of variants is containerd's. Never: performs I/O.

use serde::{Deserialize, Serialize};
use std::fmt;

/// os, architecture and variant in Go's words: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was built for.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: variant.map(str::to_owned) }
    }

    /// How well `offer` runs on `self`: `None` not at all, else the larger the better.
    pub(crate) fn rank(&self, offer: &Platform) -> Option<u32> {
        if self.os != offer.os || self.architecture != offer.architecture {
            return None;
        }
        let want = level(&self.architecture, self.variant.as_deref())?;
        let have = level(&offer.architecture, offer.variant.as_deref())?;
        (have <= want).then_some(have)
    }
}

/// A variant as a number; machines run their own level and lower ones.
fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
    let default = match architecture {
        "arm64" => 8,
        "arm" => 7,
        _ => 1,
    };
    match variant {
        None | Some("") => Some(default),
        Some(text) => text.strip_prefix('v')?.split('.').next()?.parse().ok(),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform { os: parts.next().unwrap(), architecture: parts.next().unwrap(), variant: parts.next() }
    }

    #[test]
    fn a_machine_runs_its_own_and_lower_variants_and_prefers_its_own() {
        let v7 = platform("linux/arm/v7");
        assert_eq!(v7.rank(&platform("linux/arm/v8")), None);
        assert!(v7.rank(&platform("linux/arm/v7")) > v7.rank(&platform("linux/arm/v6")));
        assert_eq!(v7.rank(&platform("linux/arm")), v7.rank(&v7));
        assert!(platform("linux/arm64/v8").rank(&platform("linux/arm64")).is_some());
        assert_eq!(platform("linux/amd64").rank(&platform("linux/amd64/v3")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("windows/amd64")), None);
        assert_eq!(platform("linux/amd64").rank(&platform("unknown/unknown")), None);
    }
}
