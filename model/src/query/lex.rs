//! Text to tokens. In: the text. Out: tokens with the place of their first character.
//! A word ends at white space, a bracket, a comma or a quote, and before an operator that stands without spaces.
//! Never: looks at what a word means.

use super::QueryError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name, an operator in letters, or a literal.
    Word(String),
    /// Between single quotes; `\'` and `\\` stand for themselves.
    Quoted(String),
    /// `==`, `&&`, `(` and the like.
    Sign(&'static str),
}

#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub token: Token,
    /// Characters before it, plus one.
    pub at: usize,
}

/// Longer ones first: `!=` is not `!` and `=`.
const SIGNS: [&str; 17] =
    ["==", "!=", ">=", "<=", "=~", "!~", "&&", "||", ">", "<", "!", "(", ")", "[", "]", ",", "="];

pub(super) fn tokens(text: &str) -> Result<Vec<Placed>, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        if chars[at].is_whitespace() {
            at += 1;
            continue;
        }
        let (token, end) = match sign(&chars[at..]) {
            Some(sign) => (Token::Sign(sign), at + sign.len()),
            None if chars[at] == '\'' => quoted(&chars, at)?,
            None => word(&chars, at),
        };
        found.push(Placed { token, at: at + 1 });
        at = end;
    }
    Ok(found)
}

fn sign(chars: &[char]) -> Option<&'static str> {
    SIGNS.into_iter().find(|sign| sign.chars().enumerate().all(|(index, c)| chars.get(index) == Some(&c)))
}

fn quoted(chars: &[char], begin: usize) -> Result<(Token, usize), QueryError> {
    let mut text = String::new();
    let mut at = begin + 1;
    while let Some(&c) = chars.get(at) {
        match (c, chars.get(at + 1)) {
            ('\'', _) => return Ok((Token::Quoted(text), at + 1)),
            ('\\', Some(&escaped @ ('\'' | '\\'))) => {
                text.push(escaped);
                at += 2;
            }
            _ => {
                text.push(c);
                at += 1;
            }
        }
    }
    Err(QueryError { at: begin + 1, problem: "the quote is not closed".into() })
}

fn word(chars: &[char], begin: usize) -> (Token, usize) {
    let ends = |at: usize| {
        let rest = &chars[at..];
        rest[0].is_whitespace()
            || "()[],'".contains(rest[0])
            || sign(rest).is_some_and(|sign| sign.len() == 2)
            || "><".contains(rest[0])
    };
    let mut end = begin + 1;
    while end < chars.len() && !ends(end) {
        end += 1;
    }
    (Token::Word(chars[begin..end].iter().collect()), end)
}
