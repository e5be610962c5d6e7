//! Enough of Rust's lexer to look at code without being fooled by comments and texts.
//! In: a source text. Out: the same lines with comments and literals blanked; functions with lengths.
//! Never: expands macros; what a macro makes is not measured.

/// The code alone: every comment, text and character literal is spaces, lines stay where they are.
pub fn code(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            code.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => find(chars, at, |c| c == '\n'),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => text_end(chars, at + 1),
        '\'' => char_end(chars, at),
        'r' | 'b' | 'c' if !follows_word(chars, at) => raw_text_end(chars, at),
        _ => at,
    }
}

fn find(chars: &[char], from: usize, stop: impl Fn(char) -> bool) -> usize {
    (from..chars.len()).find(|index| stop(chars[*index])).unwrap_or(chars.len())
}

fn follows_word(chars: &[char], at: usize) -> bool {
    at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut index) = (0, at);
    while index + 1 < chars.len() {
        match (chars[index], chars[index + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                index += 1;
                continue;
            }
        }
        index += 2;
        if depth == 0 {
            return index;
        }
    }
    chars.len()
}

fn text_end(chars: &[char], mut index: usize) -> usize {
    while index < chars.len() {
        match chars[index] {
            '\\' => index += 2,
            '"' => return index + 1,
            _ => index += 1,
        }
    }
    chars.len()
}

/// A lifetime has no closing quote right behind its first character.
fn char_end(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => find(chars, at + 3, |c| c == '\'') + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `c"…"`; `b'x'` is left to its quote.
fn raw_text_end(chars: &[char], at: usize) -> usize {
    let mut index = at;
    let mut raw = false;
    while let Some('r' | 'b' | 'c') = chars.get(index) {
        raw |= chars[index] == 'r';
        index += 1;
    }
    let hashes = chars[index..].iter().take_while(|c| **c == '#').count();
    if chars.get(index + hashes) != Some(&'"') || index - at > 2 || (hashes > 0 && !raw) {
        return at;
    }
    index += hashes + 1;
    if !raw {
        return text_end(chars, index);
    }
    while index < chars.len() {
        if chars[index] == '"'
            && chars[index + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return index + 1 + hashes;
        }
        index += 1;
    }
    chars.len()
}

/// A function: its name, the line it begins on (from 1) and how many lines it takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// Every function with a body in code made by `code`.
pub fn functions(code: &str) -> Vec<Function> {
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        if start > 0 && (bytes[start - 1].is_ascii_alphanumeric() || bytes[start - 1] == b'_') {
            continue;
        }
        let name: String =
            code[start + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        // A declaration ends before any brace; `fn(` types have no name.
        let Some(open) = code[start..].find(['{', ';']).map(|offset| start + offset) else { continue };
        if name.is_empty() || bytes[open] == b';' {
            continue;
        }
        let line = 1 + code[..start].matches('\n').count();
        let lines = 1 + code[start..block_end(code, open)].matches('\n').count();
        found.push(Function { name, line, lines });
    }
    found
}

/// The position behind the brace that closes the one at `open`.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The code without modules of tests: `#[cfg(test)] mod … { … }` is blanked.
pub fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    while let Some(start) = kept.find("#[cfg(test)]") {
        let rest = &kept[start..];
        let end = match rest.find(['{', ';']) {
            Some(offset) if rest.as_bytes()[offset] == b'{' => block_end(&kept, start + offset),
            Some(offset) => start + offset + 1,
            None => kept.len(),
        };
        let blank: String = kept[start..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(start..end, &blank);
    }
    kept
}

#[test]
fn comments_and_literals_are_blanked() {
    let source = r##"let a = "fn x() {"; // fn y() {
/* { /* { */ */ let b = r#"}"{"#; let c = '{'; let d: &'static str = b"{"; let e = '\''; let f = br"{";
fn real<'a>(x: &'a str) -> char { '}' }"##;
    let code = code(source);
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.matches('{').count(), 1);
    assert_eq!(code.matches('}').count(), 1);
    assert_eq!(functions(&code), [Function { name: "real".into(), line: 3, lines: 1 }]);
}

#[test]
fn functions_are_measured_and_tests_left_out() {
    let source = "fn a() {\n    if x { y }\n}\ntrait T { fn b(&self); }\n#[cfg(test)]\nmod tests {\n    fn c() {\n    }\n}\n";
    let measured = functions(&without_tests(&code(source)));
    assert_eq!(measured, [Function { name: "a".into(), line: 1, lines: 3 }]);
}
