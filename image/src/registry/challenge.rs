//! Reads WWW-Authenticate headers.
//! In: header values of a 401. Out: the strongest challenge we can answer.
//! Source: RFC 9110 section 11.6.1; Docker registry token authentication. Never: performs I/O.

use std::collections::BTreeMap;

/// How the registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Bearer if offered, else Basic, else nothing we know.
pub(crate) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = false;
    for header in headers {
        for (scheme, mut params) in parse(header) {
            if scheme.eq_ignore_ascii_case("bearer") {
                if let Some(realm) = params.remove("realm") {
                    let (service, scope) = (params.remove("service"), params.remove("scope"));
                    return Some(Challenge::Bearer { realm, service, scope });
                }
            } else if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            }
        }
    }
    basic.then_some(Challenge::Basic)
}

/// `Bearer realm="…",service="…", Basic realm="…"` → schemes with their parameters.
fn parse(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return found;
        }
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = rest[end..].trim_start();
        let Some(after) = rest.strip_prefix('=') else {
            found.push((word.to_owned(), BTreeMap::new()));
            continue;
        };
        let (value, left) = value(after.trim_start());
        rest = left;
        if let Some((_, params)) = found.last_mut() {
            params.insert(word.to_ascii_lowercase(), value);
        }
    }
}

/// A token or a quoted string, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_as_registries_send_them() {
        let bearer =
            r#"Bearer realm="https://auth.example/token?x=1,2",service="r",scope="repository:a/b:pull""#;
        assert_eq!(
            choose([bearer].into_iter()),
            Some(Challenge::Bearer {
                realm: "https://auth.example/token?x=1,2".into(),
                service: Some("r".into()),
                scope: Some("repository:a/b:pull".into()),
            })
        );
        assert_eq!(choose(["basic realm=\"a \\\"b\\\"\""].into_iter()), Some(Challenge::Basic));
        let both = r#"Basic realm="x", Bearer realm="https://t""#;
        assert!(matches!(choose([both].into_iter()), Some(Challenge::Bearer { .. })));
        assert_eq!(choose(["Negotiate"].into_iter()), None);
        assert_eq!(choose(["Bearer service=\"no realm\""].into_iter()), None);
    }

    proptest! {
        #[test]
        fn any_header_is_survived(text in "\\PC{0,200}") {
            choose([text.as_str()].into_iter());
        }
    }
}
