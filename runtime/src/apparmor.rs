//! AppArmor on this node: whether it is in force, which profiles it has loaded, and the one that
//! containers get that ask for none (packaging/apparmor/lighter-default).
//! In: securityfs. Out: names; a verdict for the self-test. Source: apparmor(7), apparmor.d(5).
//! Never: loads a profile; the distribution's apparmor_parser does, at boot and at installation.

use std::fs;
use std::path::Path;

/// The profile of every container that is not privileged and names no other, where it is loaded.
pub const DEFAULT_PROFILE: &str = "lighter-default";

/// The loaded profiles, like `docker-default (enforce)`; there when AppArmor is on.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// What a container without wishes is confined by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confinement {
    /// The kernel has no AppArmor, or it is off.
    Off,
    /// AppArmor is on and has no profile of ours.
    NotLoaded,
    /// A container ran under the profile, which refuses what it forbids.
    InForce,
    /// The profile is loaded and a container did not run under it, but under this.
    Escaped { found: String },
}

/// The loaded profiles; `None`: this machine has no AppArmor.
pub fn loaded() -> Option<Vec<String>> {
    read(Path::new(PROFILES))
}

fn read(path: &Path) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0.to_owned())).collect())
}

/// From the loaded profiles and what a container has read in its own /proc/self/attr.
pub(crate) fn judge(loaded: Option<&[String]>, current: &str) -> Confinement {
    let Some(loaded) = loaded else { return Confinement::Off };
    if !loaded.iter().any(|name| name == DEFAULT_PROFILE) {
        return Confinement::NotLoaded;
    }
    match current == format!("{DEFAULT_PROFILE} (enforce)") {
        true => Confinement::InForce,
        false => Confinement::Escaped { found: current.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_with_their_own_names() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("profiles");
        assert_eq!(read(&path), None);
        fs::write(&path, "lighter-default (enforce)\nman (a) (complain)\n").unwrap();
        assert_eq!(read(&path).unwrap(), ["lighter-default", "man (a)"]);
    }

    #[test]
    fn only_an_enforced_profile_is_in_force() {
        let loaded = [DEFAULT_PROFILE.to_owned()];
        assert_eq!(judge(None, "lighter-default (enforce)"), Confinement::Off);
        assert_eq!(judge(Some(&[]), "unconfined"), Confinement::NotLoaded);
        assert_eq!(judge(Some(&loaded), "lighter-default (enforce)"), Confinement::InForce);
        for found in ["unconfined", "lighter-default (complain)", ""] {
            let escaped = Confinement::Escaped { found: found.to_owned() };
            assert_eq!(judge(Some(&loaded), found), escaped);
        }
    }
}
