//! Tokens to an expression.
//!
//! ```text
//! any        := all (("||" | "or") all)*
//! all        := one (("&&" | "and") one)*
//! one        := ("!" | "not") one | "(" any ")" | comparison
//! comparison := subject operator [literal | "[" literal ("," literal)* "]"]
//! ```
//! In: tokens. Out: the tree, or the first token that does not fit. Never: recurses deeper than `DEPTH_MAX`.

use super::compare::{Comparison, Operator, Relation, Subject};
use super::lex::{Placed, Token};
use super::{DEPTH_MAX, Node, QueryError};

pub(super) fn parse(tokens: &[Placed], chars: usize) -> Result<Node, QueryError> {
    let mut parser = Parser { tokens, next: 0, end: chars + 1, depth: 0 };
    let root = parser.any()?;
    match parser.tokens.get(parser.next) {
        None => Ok(root),
        Some(_) => Err(parser.wrong("expected `and`, `or` or the end")),
    }
}

struct Parser<'a> {
    tokens: &'a [Placed],
    next: usize,
    /// The place behind the last character.
    end: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|placed| &placed.token)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |placed| placed.at)
    }

    fn wrong(&self, problem: impl Into<String>) -> QueryError {
        QueryError { at: self.place(), problem: problem.into() }
    }

    /// Takes the next token if it is this sign or this word.
    fn take(&mut self, sign: &str, word: &str) -> bool {
        let found = match self.peek() {
            Some(Token::Sign(found)) => *found == sign,
            Some(Token::Word(found)) => found == word,
            _ => false,
        };
        self.next += usize::from(found);
        found
    }

    fn any(&mut self) -> Result<Node, QueryError> {
        let mut nodes = vec![self.all()?];
        while self.take("||", "or") {
            nodes.push(self.all()?);
        }
        Ok(alone(nodes, Node::Any))
    }

    fn all(&mut self) -> Result<Node, QueryError> {
        let mut nodes = vec![self.one()?];
        while self.take("&&", "and") {
            nodes.push(self.one()?);
        }
        Ok(alone(nodes, Node::All))
    }

    fn one(&mut self) -> Result<Node, QueryError> {
        if self.depth == DEPTH_MAX {
            return Err(self.wrong(format!("more than {DEPTH_MAX} within each other")));
        }
        self.depth += 1;
        let node = if self.take("!", "not") {
            Node::Not(Box::new(self.one()?))
        } else if self.take("(", "") {
            let inside = self.any()?;
            if !self.take(")", "") {
                return Err(self.wrong("expected `)`"));
            }
            inside
        } else {
            Node::Comparison(self.comparison()?)
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Comparison, QueryError> {
        let at = self.place();
        let subject = match self.peek() {
            Some(Token::Word(word)) => Subject::named(word),
            _ => None,
        };
        let Some(subject) = subject else {
            return Err(self.wrong(format!("expected one of {}", Subject::NAMES)));
        };
        self.next += 1;
        let operator = self.operator()?;
        let arguments = match operator.relation {
            Relation::Exists => Vec::new(),
            Relation::In => self.list()?,
            _ => vec![self.literal()?],
        };
        Comparison::new(subject, operator, arguments).map_err(|problem| QueryError { at, problem })
    }

    fn operator(&mut self) -> Result<Operator, QueryError> {
        let wrong = |parser: &Self| parser.wrong(format!("expected one of {}", Operator::NAMES));
        // `!exists` and `!in` are two tokens.
        let negated = matches!(self.peek(), Some(Token::Sign("!")));
        self.next += usize::from(negated);
        let named = match self.peek() {
            Some(Token::Sign(text)) if !negated => Operator::named(text),
            Some(Token::Word(text)) if negated => Operator::negation_of(text),
            Some(Token::Word(text)) => Operator::named(text),
            _ => None,
        };
        let operator = named.ok_or_else(|| wrong(self))?;
        self.next += 1;
        Ok(operator)
    }

    fn list(&mut self) -> Result<Vec<String>, QueryError> {
        if !self.take("[", "") {
            return Err(self.wrong("expected `[`"));
        }
        let mut arguments = vec![self.literal()?];
        while self.take(",", "") {
            arguments.push(self.literal()?);
        }
        if !self.take("]", "") {
            return Err(self.wrong("expected `,` or `]`"));
        }
        Ok(arguments)
    }

    fn literal(&mut self) -> Result<String, QueryError> {
        let text = match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => text.clone(),
            _ => return Err(self.wrong("expected a value; one with special characters stands in 'quotes'")),
        };
        self.next += 1;
        Ok(text)
    }
}

fn alone(mut nodes: Vec<Node>, of: fn(Vec<Node>) -> Node) -> Node {
    match nodes.pop() {
        Some(only) if nodes.is_empty() => only,
        last => of(nodes.into_iter().chain(last).collect()),
    }
}
