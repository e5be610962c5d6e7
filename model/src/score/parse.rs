//! Text to a scoring expression.
//!
//! ```text
//! sum     := product (("+" | "-") product)*
//! product := one (("*" | "/") one)*
//! one     := "-" one | "(" sum ")" | number | "{" query "}" | subject
//!          | ("min" | "max") "(" sum "," sum ")" | "if" "(" sum "," sum "," sum ")"
//! ```
//! In: the text. Out: the tree, or the first character that does not fit. Never: recurses deeper than `DEPTH_MAX`,
//! or makes more than `NODES_MAX` nodes.

use super::{NODES_MAX, Node, Operator, Subject, millionths};
use crate::query::{CHARS_MAX, Expression, QueryError};

/// Parentheses, signs and functions within each other.
const DEPTH_MAX: usize = 64;

pub(super) fn parse(text: &str) -> Result<Node, QueryError> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > CHARS_MAX {
        let problem = format!("an expression has at most {CHARS_MAX} characters, this one {}", chars.len());
        return Err(QueryError { at: CHARS_MAX + 1, problem });
    }
    let mut parser = Parser { chars: &chars, at: 0, nodes: 0, depth: 0 };
    let root = parser.sum()?;
    match parser.peek() {
        None => Ok(root),
        Some(_) => Err(parser.wrong("expected + - * / or the end")),
    }
}

struct Parser<'a> {
    chars: &'a [char],
    at: usize,
    nodes: usize,
    depth: usize,
}

impl Parser<'_> {
    fn wrong(&self, problem: impl Into<String>) -> QueryError {
        QueryError { at: self.at + 1, problem: problem.into() }
    }

    /// The next character that is no white space.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn must(&mut self, wanted: char) -> Result<(), QueryError> {
        if self.take(wanted) { Ok(()) } else { Err(self.wrong(format!("expected `{wanted}`"))) }
    }

    fn count(&mut self, nodes: usize) -> Result<(), QueryError> {
        self.nodes += nodes;
        match self.nodes <= NODES_MAX {
            true => Ok(()),
            false => Err(self.wrong(format!("more than {NODES_MAX} nodes of syntax"))),
        }
    }

    fn both(&mut self, operator: Operator, left: Node, right: Node) -> Result<Node, QueryError> {
        self.count(1)?;
        Ok(Node::Both(operator, Box::new((left, right))))
    }

    fn sum(&mut self) -> Result<Node, QueryError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Some('+') => Operator::Plus,
                Some('-') => Operator::Minus,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.product()?;
            left = self.both(operator, left, right)?;
        }
    }

    fn product(&mut self) -> Result<Node, QueryError> {
        let mut left = self.one()?;
        loop {
            let operator = match self.peek() {
                Some('*') => Operator::Times,
                Some('/') => Operator::Over,
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.one()?;
            left = self.both(operator, left, right)?;
        }
    }

    fn one(&mut self) -> Result<Node, QueryError> {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong(format!("more than {DEPTH_MAX} within each other")));
        }
        self.depth += 1;
        let node = match self.peek() {
            Some('-') => {
                self.at += 1;
                self.count(1)?;
                Node::Minus(Box::new(self.one()?))
            }
            Some('(') => {
                self.at += 1;
                let inside = self.sum()?;
                self.must(')')?;
                inside
            }
            Some('{') => self.query()?,
            Some(c) if c.is_ascii_digit() => self.number()?,
            Some(_) => self.named()?,
            None => return Err(self.wrong("expected a number, a subject, a function, `{`, `(` or `-`")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let rest = self.chars[self.at..].iter();
        let word: String = rest.take_while(|c| belongs(**c)).collect();
        self.at += word.chars().count();
        word
    }

    fn number(&mut self) -> Result<Node, QueryError> {
        let begin = self.at;
        self.count(1)?;
        let word = self.word(|c| c.is_ascii_digit() || c == '.');
        let wrong = "a number has at most six digits behind the point and is below 9,223,372,036,854";
        millionths(&word)
            .map(Node::Number)
            .ok_or_else(|| QueryError { at: begin + 1, problem: wrong.to_owned() })
    }

    /// A subject or a function. Names of attributes may hold `-`, `.`, `/` and `\`: such an operator needs a space
    /// before it.
    fn named(&mut self) -> Result<Node, QueryError> {
        let begin = self.at;
        let word = self.word(|c| c.is_ascii_alphanumeric() || "_:-./\\".contains(c));
        self.count(1)?;
        match word.as_str() {
            "min" | "max" => {
                let operator = if word == "min" { Operator::Min } else { Operator::Max };
                let [left, right] = self.arguments()?;
                Ok(Node::Both(operator, Box::new((left, right))))
            }
            "if" => {
                let [condition, then, otherwise] = self.arguments()?;
                Ok(Node::If(Box::new((condition, then, otherwise))))
            }
            _ => Subject::named(&word).map(Node::Subject).ok_or_else(|| QueryError {
                at: begin + 1,
                problem: format!("expected a number, min, max, if, {{a query}} or one of {}", Subject::NAMES),
            }),
        }
    }

    fn arguments<const N: usize>(&mut self) -> Result<[Node; N], QueryError> {
        self.must('(')?;
        let mut nodes = Vec::with_capacity(N);
        for index in 0..N {
            if index > 0 {
                self.must(',')?;
            }
            nodes.push(self.sum()?);
        }
        self.must(')')?;
        nodes.try_into().map_err(|_| self.wrong("expected another argument"))
    }

    /// Between braces; one that stands in quotes belongs to the text there.
    fn query(&mut self) -> Result<Node, QueryError> {
        let begin = self.at + 1;
        let (mut end, mut quoted) = (begin, false);
        loop {
            match self.chars.get(end) {
                None => return Err(self.wrong("the brace is not closed")),
                Some('}') if !quoted => break,
                Some('\\') if quoted => end += 1,
                Some('\'') => quoted = !quoted,
                Some(_) => {}
            }
            end += 1;
        }
        let text: String = self.chars[begin..end].iter().collect();
        let query = Expression::parse(&text)
            .map_err(|error| QueryError { at: begin + error.at, problem: error.problem })?;
        self.count(query.comparisons())?;
        self.at = end + 1;
        Ok(Node::Query(query))
    }
}
