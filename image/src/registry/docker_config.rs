//! Logins from Docker's config.json.
//! In: the file. Out: `Logins`, by host. Only `auths` is used; credential helpers are programs, which
//! the agent does not run, and are named in the error of a refused pull.
//! Never: prints a secret (no Debug of one), writes the file.

use base64::Engine;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DockerConfigError {
    #[error("reading {} failed", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a Docker config.json", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{}: the auth of {host} is not base64 of user:password", path.display())]
    Auth { path: PathBuf, host: String },
}

/// One login.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token.
    Identity(String),
    /// A finished bearer token.
    Registry(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(secret)")
    }
}

/// Logins by host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logins {
    by_host: HashMap<String, Login>,
    helpers: HashMap<String, String>,
    default_helper: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawFile {
    #[serde(default)]
    auths: HashMap<String, RawAuth>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Logins {
    /// Reads the file; a file that is not there has no logins.
    pub(crate) fn read(path: &Path) -> Result<Self, DockerConfigError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(DockerConfigError::Read { path: path.to_owned(), source }),
        };
        let raw: RawFile = serde_json::from_slice(&bytes)
            .map_err(|source| DockerConfigError::Json { path: path.to_owned(), source })?;
        let mut by_host = HashMap::new();
        for (key, auth) in raw.auths {
            let login = login(auth)
                .map_err(|()| DockerConfigError::Auth { path: path.to_owned(), host: key.clone() })?;
            if let Some(login) = login {
                by_host.insert(host_of(&key).to_owned(), login);
            }
        }
        let helpers = raw.cred_helpers.into_iter().map(|(k, v)| (host_of(&k).to_owned(), v)).collect();
        Ok(Self { by_host, helpers, default_helper: raw.creds_store.filter(|s| !s.is_empty()) })
    }

    pub(crate) fn of(&self, host: &str) -> Option<&Login> {
        self.by_host.get(host_of(host))
    }

    /// A helper that would know a login that we do not.
    pub(crate) fn helper_of(&self, host: &str) -> Option<&str> {
        self.helpers.get(host_of(host)).or(self.default_helper.as_ref()).map(String::as_str)
    }
}

/// Keys are hosts or, from older times, addresses; Docker Hub has several names.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match key.split('/').next().unwrap_or(key) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

fn login(raw: RawAuth) -> Result<Option<Login>, ()> {
    if !raw.identitytoken.is_empty() {
        return Ok(Some(Login::Identity(raw.identitytoken)));
    }
    if !raw.registrytoken.is_empty() {
        return Ok(Some(Login::Registry(raw.registrytoken)));
    }
    if !raw.auth.is_empty() {
        let bytes = base64::engine::general_purpose::STANDARD.decode(raw.auth.trim()).map_err(|_| ())?;
        let text = String::from_utf8(bytes).map_err(|_| ())?;
        let (user, password) = text.split_once(':').ok_or(())?;
        let password = password.trim_end_matches('\0').to_owned();
        return Ok(Some(Login::Password { user: user.to_owned(), password }));
    }
    // An empty entry is what Docker leaves where a helper has the login.
    Ok((!raw.username.is_empty()).then_some(Login::Password { user: raw.username, password: raw.password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Logins, DockerConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        Logins::read(&path)
    }

    #[test]
    fn logins_of_all_kinds() {
        let logins = read(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpwOnc="}, "r:5000": {"username": "a", "password": "b"},
                "i": {"auth": "eDo=", "identitytoken": "t"}, "b": {"registrytoken": "r"}, "empty": {}},
               "credHelpers": {"ecr": "ecr-login"}, "HttpHeaders": {"x": "y"}}"#,
        )
        .unwrap();
        let password =
            |user: &str, password: &str| Login::Password { user: user.into(), password: password.into() };
        assert_eq!(logins.of("docker.io"), Some(&password("u", "p:w")));
        assert_eq!(logins.of("r:5000"), Some(&password("a", "b")));
        assert_eq!(logins.of("i"), Some(&Login::Identity("t".into())));
        assert_eq!(logins.of("b"), Some(&Login::Registry("r".into())));
        assert_eq!(logins.of("empty"), None);
        assert_eq!(logins.helper_of("ecr"), Some("ecr-login"));
        assert_eq!(logins.helper_of("other"), None);
        assert!(!format!("{logins:?}").contains("p:w"));
    }

    #[test]
    fn a_missing_file_has_no_logins_and_a_wrong_one_is_an_error() {
        assert!(Logins::read(Path::new("/nonexistent/config.json")).unwrap().of("x").is_none());
        assert!(matches!(read("{"), Err(DockerConfigError::Json { .. })));
        assert!(matches!(read(r#"{"auths":{"h":{"auth":"!"}}}"#), Err(DockerConfigError::Auth { .. })));
    }
}
