//! Authorization: anonymous, basic, and bearer tokens from a token server.
//! In: a 401 and the logins. Out: an Authorization header, remembered until it expires.
//! Source: Docker registry "Token Authentication Specification" and "OAuth2 Token Authentication".
//! Never: sends a login unencrypted to a host that is not allowed by name, or shows one.

use super::challenge::{self, Challenge};
use super::docker_config::Login;
use super::error::RegistryError;
use super::{Ask, Registries};
use base64::Engine;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, Url};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Tokens live at least this long when the server does not say (its specification's words).
const DEFAULT_TOKEN_S: u64 = 60;
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// Headers that worked, by host and repository.
#[derive(Default)]
pub(crate) struct Tokens {
    by_scope: Mutex<HashMap<(String, String), (HeaderValue, Instant)>>,
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    pub(super) fn cached(&self, ask: Ask<'_>) -> Option<HeaderValue> {
        let key = (ask.endpoint.host.clone(), ask.repository.to_owned());
        let tokens = self.by_scope.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tokens.get(&key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    fn remember(&self, ask: Ask<'_>, value: &HeaderValue, seconds: u64) {
        let key = (ask.endpoint.host.clone(), ask.repository.to_owned());
        let mut tokens = self.by_scope.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        tokens.retain(|_, (_, until)| *until > now);
        // A token is given up a little before its end, so that a request under way is not refused.
        let until = now + Duration::from_secs(seconds.clamp(5, 3600) * 9 / 10);
        tokens.insert(key, (value.clone(), until));
    }
}

impl Registries {
    /// Answers a 401: the header to ask again with.
    pub(super) async fn authorize(
        &self,
        ask: Ask<'_>,
        client: &Client,
        refused: Response,
    ) -> Result<HeaderValue, RegistryError> {
        let offered: Vec<String> = refused
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        let challenge = challenge::choose(offered.iter().map(String::as_str));
        let login = ask.logins.of(&ask.endpoint.host);
        match (challenge, login) {
            (Some(Challenge::Bearer { .. }), Some(Login::Registry(token))) => {
                self.header(ask, &format!("Bearer {token}"))
            }
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let answer = self.token(ask, client, &realm, service, scope, login).await?;
                let seconds = answer.expires_in.unwrap_or(DEFAULT_TOKEN_S);
                let token = answer.token.or(answer.access_token).unwrap_or_default();
                let header = self.header(ask, &format!("Bearer {token}"))?;
                self.tokens.remember(ask, &header, seconds);
                Ok(header)
            }
            (Some(Challenge::Basic), Some(Login::Password { user, password })) => {
                let header = self.header(ask, &basic(user, password))?;
                self.tokens.remember(ask, &header, DEFAULT_TOKEN_S);
                Ok(header)
            }
            (Some(Challenge::Basic), _) => {
                Err(self.denied(ask, "it wants a user name and a password".into()))
            }
            (None, _) => {
                let message = self.error_message(refused, &ask.endpoint.host).await;
                Err(self.denied(ask, message))
            }
        }
    }

    /// A refusal in words, with what could be missing.
    pub(super) fn denied(&self, ask: Ask<'_>, message: String) -> RegistryError {
        let host = &ask.endpoint.host;
        let hint = match (ask.logins.of(host), ask.logins.helper_of(host)) {
            (Some(_), _) => "; the login for it was refused, or may not pull this image".to_owned(),
            (None, Some(helper)) => format!(
                "; its login is with the credential helper {helper:?}, which is not run: use docker login without it"
            ),
            (None, None) => "; there is no login for it, or the image does not exist".to_owned(),
        };
        RegistryError::Denied {
            host: host.clone(),
            repository: ask.repository.to_owned(),
            reason: format!("{message}{hint}"),
        }
    }

    fn header(&self, ask: Ask<'_>, text: &str) -> Result<HeaderValue, RegistryError> {
        let mut value = HeaderValue::from_str(text).map_err(|_| RegistryError::Protocol {
            host: ask.endpoint.host.clone(),
            problem: "its token or login has characters that cannot be sent".into(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(
        &self,
        ask: Ask<'_>,
        client: &Client,
        realm: &str,
        service: Option<String>,
        scope: Option<String>,
        login: Option<&Login>,
    ) -> Result<TokenAnswer, RegistryError> {
        let host = &ask.endpoint.host;
        let protocol = |problem: String| RegistryError::Protocol { host: host.clone(), problem };
        let url = Url::parse(realm).map_err(|e| protocol(format!("its token server {realm:?}: {e}")))?;
        if !self.clients.encrypted_or_allowed(&url) {
            let target = url.host_str().unwrap_or_default().to_owned();
            return Err(RegistryError::Unencrypted { host: host.clone(), target });
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", ask.repository));
        let request = token_request(client, url, service.as_deref(), &scope, login);
        let response = request.send().await.map_err(|e| self.clients.transport_error(host, e))?;
        let status = response.status();
        if !status.is_success() {
            let message = self.error_message(response, host).await;
            return Err(match status.is_client_error() && status.as_u16() != 429 {
                true => self.denied(ask, format!("its token server answered {status}: {message}")),
                false => RegistryError::Status {
                    host: host.clone(),
                    status: status.as_u16(),
                    message,
                    retry_after: None,
                },
            });
        }
        let body = self.clients.body(response, host, "token", MAX_TOKEN_BYTES).await?;
        let answer: TokenAnswer =
            serde_json::from_slice(&body).map_err(|_| protocol("its token server sent no token".into()))?;
        match answer.token.is_some() || answer.access_token.is_some() {
            true => Ok(answer),
            false => Err(protocol("its token server sent no token".into())),
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

/// A GET with the login as Basic, or, with a refresh token, a POST of a form.
fn token_request(
    client: &Client,
    mut url: Url,
    service: Option<&str>,
    scope: &str,
    login: Option<&Login>,
) -> RequestBuilder {
    if let Some(Login::Identity(refresh)) = login {
        let mut form = url.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", service.unwrap_or_default())
            .append_pair("client_id", "lighter")
            .append_pair("scope", scope)
            .append_pair("refresh_token", refresh);
        let body = form.query().unwrap_or_default().to_owned();
        return client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
    }
    if let Some(service) = service {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().append_pair("scope", scope);
    match login {
        Some(Login::Password { user, password }) => {
            let mut value =
                HeaderValue::from_str(&basic(user, password)).unwrap_or(HeaderValue::from_static(""));
            value.set_sensitive(true);
            client.get(url).header(AUTHORIZATION, value)
        }
        _ => client.get(url),
    }
}
