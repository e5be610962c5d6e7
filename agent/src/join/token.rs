//! The text of a join token: `lighter1.<base64url sha256 of the CA>.<token id>.<secret>`.
//! In: text. Out: the pin, and the text to send. Owns nothing; pure.
//! Never: prints the secret.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::str::FromStr;

/// A join token, taken apart as far as the node needs it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the CA certificate's DER form.
    pub ca_sha256: [u8; 32],
    /// The whole text, as the control plane wants it.
    pub(crate) text: String,
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("ca_sha256", &URL_SAFE_NO_PAD.encode(self.ca_sha256))
            .finish_non_exhaustive()
    }
}

/// What of a token is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it must begin with \"lighter1.\"")]
    Version,
    #[error("it must have four parts separated by dots, it has {parts}")]
    Parts { parts: usize },
    #[error("its second part is not the SHA-256 of a certificate")]
    Pin,
    #[error("its {part} is empty")]
    Empty { part: &'static str },
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.split('.').collect();
        if parts.first() != Some(&"lighter1") {
            return Err(TokenError::Version);
        }
        let [_, pin, id, secret] = parts.as_slice() else {
            return Err(TokenError::Parts { parts: parts.len() });
        };
        let pin = URL_SAFE_NO_PAD.decode(pin).map_err(|_| TokenError::Pin)?;
        let ca_sha256 = pin.try_into().map_err(|_| TokenError::Pin)?;
        for (part, value) in [("token id", id), ("secret", secret)] {
            if value.is_empty() {
                return Err(TokenError::Empty { part });
            }
        }
        Ok(Self { ca_sha256, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_apart_and_its_secret_is_not_printed() {
        let pin = URL_SAFE_NO_PAD.encode([7u8; 32]);
        let token: JoinToken = format!("lighter1.{pin}.abc.s3cret").parse().unwrap();
        assert_eq!(token.ca_sha256, [7; 32]);
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn wrong_tokens_say_what_is_wrong() {
        let pin = URL_SAFE_NO_PAD.encode([7u8; 32]);
        let parse = |text: String| text.parse::<JoinToken>().unwrap_err();
        assert_eq!(parse(String::new()), TokenError::Version);
        assert_eq!(parse(format!("lighter1.{pin}")), TokenError::Parts { parts: 2 });
        assert_eq!(parse("lighter1.AAAA.id.secret".into()), TokenError::Pin);
        assert_eq!(parse(format!("lighter1.{pin}..secret")), TokenError::Empty { part: "token id" });
    }
}
