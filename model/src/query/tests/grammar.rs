//! Sentences of the grammar, written down here a second time, as a generator that knows nothing of the reader; what
//! they mean is worked out slowly and asked of random instances. What lies outside the grammar is refused.
//!
//! ```text
//! any        := all (("||" | "or") all)*
//! all        := one (("&&" | "and") one)*
//! one        := ("!" | "not")* ("(" any ")" | comparison)
//! comparison := subject operator [literal | "[" literal ("," literal)* "]"]
//! ```

use super::*;
use std::collections::BTreeSet;

/// A random instance that owns what it says.
#[derive(Debug, Clone)]
struct Node {
    attributes: BTreeMap<String, String>,
    groups: Vec<String>,
    connected: bool,
    version: &'static str,
    machine: Option<String>,
    registered_at_s: i64,
    running: u64,
}

impl Queried for Node {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.get(name).map(String::as_str)
    }
    fn any_task_group(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        self.groups.iter().any(|group| is(group))
    }
    fn agent_connected(&self) -> bool {
        self.connected
    }
    fn agent_version(&self) -> &str {
        self.version
    }
    fn ec2_instance_id(&self) -> Option<&str> {
        self.machine.as_deref()
    }
    fn registered_at_s(&self) -> i64 {
        self.registered_at_s
    }
    fn running_tasks_count(&self) -> u64 {
        self.running
    }
}

/// Numbers as attributes have them, in thousandths; `None`: none.
const NUMBERS: [(&str, Option<i64>); 9] = [
    ("1", Some(1_000)),
    ("2.5", Some(2_500)),
    ("-3", Some(-3_000)),
    ("1e2", Some(100_000)),
    ("007", Some(7_000)),
    ("+2.50", Some(2_500)),
    ("nan", None),
    ("1.2.3", None),
    ("", None),
];
/// With its numbers; `None`: no version.
const VERSIONS: [(&str, Option<[u64; 3]>); 7] = [
    ("1.9.2", Some([1, 9, 2])),
    ("1.10", Some([1, 10, 0])),
    ("1.10.0", Some([1, 10, 0])),
    ("v2", Some([2, 0, 0])),
    ("2.0.0-rc1", Some([2, 0, 0])),
    ("dev", None),
    ("", None),
];
/// In seconds since 1970.
const TIMES: [(&str, i64); 5] = [
    ("2018-06-18", 1_529_280_000),
    ("2018-06-18T22:28:28", 1_529_360_908),
    ("2018-06-18T22:28:28Z", 1_529_360_908),
    ("2018-06-18T22:28:28+00:00", 1_529_360_908),
    ("2018-06-19T00:28:28+02:00", 1_529_360_908),
];
/// Words of the language, characters of it, and none of either.
const TEXTS: [&str; 14] = [
    "a",
    "b",
    "ab",
    "ba",
    "prod",
    "and",
    "not",
    "exists",
    "in",
    "a b",
    "it's",
    "a,[b]",
    "(a)==\\",
    "service:web",
];
const ATTRIBUTES: [&str; 4] = ["stack", "ecs.instance-type", "a/b_c", "and"];

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abc]{0,3}",
        2 => proptest::sample::select(TEXTS.as_slice()).prop_map(ToOwned::to_owned),
        1 => proptest::sample::select(NUMBERS.as_slice()).prop_map(|(text, _)| text.to_owned()),
    ]
}

fn any_node() -> impl Strategy<Value = Node> {
    let name = proptest::sample::select(ATTRIBUTES.as_slice()).prop_map(ToOwned::to_owned);
    (
        proptest::collection::btree_map(name, any_text(), 0..4),
        proptest::collection::vec(any_text(), 0..3),
        any::<bool>(),
        proptest::sample::select(VERSIONS.as_slice()),
        proptest::option::of(any_text()),
        (proptest::sample::select(TIMES.as_slice()), -1i64..2),
        0u64..4,
    )
        .prop_map(|(attributes, groups, connected, version, machine, (time, off), running)| Node {
            attributes,
            groups,
            connected,
            version: version.0,
            machine,
            registered_at_s: time.1 + off,
            running,
        })
}

/// A pattern of the kinds that all languages of patterns have.
#[derive(Debug, Clone)]
enum Pattern {
    One(char),
    Any,
    Class(Vec<char>, bool),
    Then(Box<(Pattern, Pattern)>),
    Or(Box<(Pattern, Pattern)>),
    /// With the sign: `*`, `+` or `?`.
    Times(Box<Pattern>, char),
}

fn any_pattern() -> impl Strategy<Value = Pattern> {
    let letter = || proptest::sample::select(['a', 'b', 'c'].as_slice());
    let class = (proptest::collection::vec(letter(), 1..3), any::<bool>());
    let leaf = prop_oneof![
        4 => letter().prop_map(Pattern::One),
        1 => Just(Pattern::Any),
        1 => class.prop_map(|(letters, negated)| Pattern::Class(letters, negated)),
    ];
    leaf.prop_recursive(4, 12, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|two| Pattern::Then(Box::new(two))),
            two.prop_map(|two| Pattern::Or(Box::new(two))),
            (inner, proptest::sample::select(['*', '+', '?'].as_slice()))
                .prop_map(|(one, sign)| Pattern::Times(Box::new(one), sign)),
        ]
    })
}

impl Pattern {
    fn write(&self) -> String {
        match self {
            Self::One(letter) => letter.to_string(),
            Self::Any => ".".to_owned(),
            Self::Class(letters, negated) => {
                format!("[{}{}]", if *negated { "^" } else { "" }, letters.iter().collect::<String>())
            }
            Self::Then(two) => format!("{}{}", two.0.write(), two.1.write()),
            Self::Or(two) => format!("(?:{}|{})", two.0.write(), two.1.write()),
            Self::Times(one, sign) => format!("(?:{}){sign}", one.write()),
        }
    }

    /// Where it may have ended when it began at one of these places.
    fn ends(&self, text: &[char], from: &BTreeSet<usize>) -> BTreeSet<usize> {
        let step = |is: &dyn Fn(char) -> bool| {
            from.iter().filter(|at| text.get(**at).is_some_and(|c| is(*c))).map(|at| at + 1).collect()
        };
        match self {
            Self::One(letter) => step(&|c| c == *letter),
            Self::Any => step(&|c| c != '\n'),
            Self::Class(letters, negated) => step(&|c| letters.contains(&c) != *negated),
            Self::Then(two) => two.1.ends(text, &two.0.ends(text, from)),
            Self::Or(two) => &two.0.ends(text, from) | &two.1.ends(text, from),
            Self::Times(one, '?') => from | &one.ends(text, from),
            Self::Times(one, sign) => {
                let mut all = if *sign == '+' { one.ends(text, from) } else { from.clone() };
                loop {
                    let more = &all | &one.ends(text, &all);
                    if more == all {
                        return all;
                    }
                    all = more;
                }
            }
        }
    }

    fn is_all_of(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.ends(&text, &BTreeSet::from([0])).contains(&text.len())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    fn of<T: PartialOrd>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
        }
    }

    fn signs(self, negated: bool) -> [&'static str; 2] {
        match self {
            Self::Equal if negated => ["!=", "not_equals"],
            Self::Equal => ["==", "equals"],
            Self::Greater => [">", "greater_than"],
            Self::GreaterOrEqual => [">=", "greater_than_equal"],
            Self::Less => ["<", "less_than"],
            Self::LessOrEqual => ["<=", "less_than_equal"],
        }
    }
}

/// Subjects whose values are texts.
#[derive(Debug, Clone)]
enum Text {
    Attribute(&'static str),
    Group,
    Machine,
}

impl Text {
    fn write(&self) -> String {
        match self {
            Self::Attribute(name) => format!("attribute:{name}"),
            Self::Group => "task:group".to_owned(),
            Self::Machine => "ec2InstanceId".to_owned(),
        }
    }

    fn values(&self, node: &Node) -> Vec<String> {
        match self {
            Self::Attribute(name) => node.attributes.get(*name).cloned().into_iter().collect(),
            Self::Group => node.groups.clone(),
            Self::Machine => node.machine.clone().into_iter().collect(),
        }
    }
}

/// What one comparison asks, before it is negated.
#[derive(Debug, Clone)]
enum Ask {
    Exists(String, Option<Text>),
    Texts(Text, Vec<String>),
    Pattern(Text, Pattern),
    VersionPattern(Pattern),
    Number(&'static str, Order, &'static str, i64),
    Version(Order, Vec<(&'static str, [u64; 3])>),
    Time(Order, Vec<(&'static str, i64)>),
    Count(Order, Vec<u64>),
    Connected(bool),
}

/// A comparison, whether it is negated, and whether a single literal stands in a list.
#[derive(Debug, Clone)]
struct Asked {
    ask: Ask,
    negated: bool,
    list: bool,
}

fn any_order() -> impl Strategy<Value = Order> {
    use Order::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    proptest::sample::select([Equal, Greater, GreaterOrEqual, Less, LessOrEqual].as_slice())
}

fn any_subject() -> impl Strategy<Value = Text> {
    prop_oneof![
        4 => proptest::sample::select(ATTRIBUTES.as_slice()).prop_map(Text::Attribute),
        2 => Just(Text::Group),
        1 => Just(Text::Machine),
    ]
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let counted = proptest::sample::select(["agentVersion", "registeredAt", "runningTasksCount"].as_slice());
    let numbers: Vec<_> = NUMBERS.iter().filter_map(|(text, number)| Some((*text, (*number)?))).collect();
    let versions: Vec<_> = VERSIONS.iter().filter_map(|(text, version)| Some((*text, (*version)?))).collect();
    let ordered = any_order().prop_filter("texts are equal or not", |order| *order != Order::Equal);
    let attribute = proptest::sample::select(ATTRIBUTES.as_slice());
    prop_oneof![
        2 => any_subject().prop_map(|subject| Ask::Exists(subject.write(), Some(subject))),
        1 => counted.prop_map(|subject| Ask::Exists(subject.to_owned(), None)),
        5 => (any_subject(), proptest::collection::vec(any_text(), 1..4)).prop_map(|(s, texts)| Ask::Texts(s, texts)),
        4 => (any_subject(), any_pattern()).prop_map(|(subject, pattern)| Ask::Pattern(subject, pattern)),
        1 => any_pattern().prop_map(Ask::VersionPattern),
        3 => (attribute, ordered, proptest::sample::select(numbers))
            .prop_map(|(name, order, (text, number))| Ask::Number(name, order, text, number)),
        2 => (any_order(), proptest::collection::vec(proptest::sample::select(versions), 1..3))
            .prop_map(|(order, versions)| Ask::Version(order, versions)),
        2 => (any_order(), proptest::collection::vec(proptest::sample::select(TIMES.as_slice()), 1..3))
            .prop_map(|(order, times)| Ask::Time(order, times)),
        2 => (any_order(), proptest::collection::vec(0u64..4, 1..3))
            .prop_map(|(order, counts)| Ask::Count(order, counts)),
        1 => any::<bool>().prop_map(Ask::Connected),
    ]
}

fn any_comparison() -> impl Strategy<Value = Asked> {
    (any_ask(), any::<bool>(), any::<bool>()).prop_map(|(mut ask, negated, list)| {
        // Only equality is asked of several values, and only it has an opposite of its own.
        let ordered = match &mut ask {
            Ask::Version(order, versions) if *order != Order::Equal => {
                versions.truncate(1);
                true
            }
            Ask::Time(order, times) if *order != Order::Equal => {
                times.truncate(1);
                true
            }
            Ask::Count(order, counts) if *order != Order::Equal => {
                counts.truncate(1);
                true
            }
            Ask::Number(..) => true,
            _ => false,
        };
        Asked { ask, negated: negated && !ordered, list: list && !ordered }
    })
}

impl Asked {
    fn holds(&self, node: &Node) -> bool {
        self.ask.holds(node) != self.negated
    }

    /// Subject, operator, literals.
    fn write(&self, pen: &mut Pen) {
        let equal = |values: usize| values > 1 || self.list;
        let (subject, order, literals): (String, Option<Order>, Vec<String>) = match &self.ask {
            Ask::Exists(subject, _) => {
                pen.word(subject);
                return pen.operator(self.negated, "exists", "not_exists");
            }
            Ask::Pattern(subject, pattern) => return self.pattern(subject.write(), pattern, pen),
            Ask::VersionPattern(pattern) => return self.pattern("agentVersion".into(), pattern, pen),
            Ask::Texts(subject, texts) => (subject.write(), None, texts.clone()),
            Ask::Number(name, order, text, _) => {
                (format!("attribute:{name}"), Some(*order), vec![(*text).to_owned()])
            }
            Ask::Version(order, versions) => (
                "agentVersion".into(),
                Some(*order),
                versions.iter().map(|(text, _)| (*text).to_owned()).collect(),
            ),
            Ask::Time(order, times) => (
                "registeredAt".into(),
                Some(*order),
                times.iter().map(|(text, _)| (*text).to_owned()).collect(),
            ),
            Ask::Count(order, counts) => {
                ("runningTasksCount".into(), Some(*order), counts.iter().map(u64::to_string).collect())
            }
            Ask::Connected(wanted) => {
                pen.word("agentConnected");
                pen.one_of(Order::Equal.signs(self.negated));
                return pen.literal(&wanted.to_string());
            }
        };
        pen.word(&subject);
        if equal(literals.len()) {
            pen.operator(self.negated, "in", "not_in");
            pen.list(&literals);
        } else {
            pen.one_of(order.unwrap_or(Order::Equal).signs(self.negated));
            pen.literal(&literals[0]);
        }
    }

    fn pattern(&self, subject: String, pattern: &Pattern, pen: &mut Pen) {
        pen.word(&subject);
        pen.one_of(if self.negated { ["!~", "not_matches"] } else { ["=~", "matches"] });
        pen.literal(&pattern.write());
    }
}

impl Ask {
    fn holds(&self, node: &Node) -> bool {
        let number =
            |text: &String| NUMBERS.iter().find(|(known, _)| known == text).and_then(|(_, number)| *number);
        match self {
            Self::Exists(_, subject) => subject.as_ref().is_none_or(|text| !text.values(node).is_empty()),
            Self::Texts(subject, texts) => subject.values(node).iter().any(|value| texts.contains(value)),
            Self::Pattern(subject, pattern) => {
                subject.values(node).iter().any(|value| pattern.is_all_of(value))
            }
            Self::VersionPattern(pattern) => pattern.is_all_of(node.version),
            Self::Number(name, order, _, than) => {
                node.attributes.get(*name).and_then(number).is_some_and(|own| order.of(&own, than))
            }
            Self::Version(order, than) => {
                let own = VERSIONS.iter().find(|(known, _)| *known == node.version).and_then(|(_, own)| *own);
                own.is_some_and(|own| than.iter().any(|(_, than)| order.of(&own, than)))
            }
            Self::Time(order, than) => than.iter().any(|(_, than)| order.of(&node.registered_at_s, than)),
            Self::Count(order, than) => than.iter().any(|than| order.of(&node.running, than)),
            Self::Connected(wanted) => node.connected == *wanted,
        }
    }
}

/// `any` of the grammar: `all`s of `one`s.
#[derive(Debug, Clone)]
struct Any(Vec<Vec<One>>);

#[derive(Debug, Clone)]
struct One {
    /// So many times `!` or `not`.
    nots: usize,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Inside(Any),
    Comparison(Box<Asked>),
}

fn any_sentence() -> impl Strategy<Value = Any> {
    let comparison = || any_comparison().prop_map(|asked| What::Comparison(Box::new(asked)));
    let alone = (0usize..3, comparison()).prop_map(|(nots, what)| Any(vec![vec![One { nots, what }]]));
    alone.prop_recursive(4, 24, 3, move |inner| {
        let what = prop_oneof![3 => comparison(), 2 => inner.prop_map(What::Inside)];
        let one = (prop_oneof![3 => Just(0usize), 1 => 1usize..3], what)
            .prop_map(|(nots, what)| One { nots, what });
        proptest::collection::vec(proptest::collection::vec(one, 1..4), 1..4).prop_map(Any)
    })
}

impl Any {
    fn holds(&self, node: &Node) -> bool {
        self.0.iter().any(|all| all.iter().all(|one| one.holds(node)))
    }

    fn write(&self, pen: &mut Pen) {
        for (number, all) in self.0.iter().enumerate() {
            if number > 0 {
                pen.one_of(["||", "or"]);
            }
            for (number, one) in all.iter().enumerate() {
                if number > 0 {
                    pen.one_of(["&&", "and"]);
                }
                one.write(pen);
            }
        }
    }
}

impl One {
    fn holds(&self, node: &Node) -> bool {
        let holds = match &self.what {
            What::Inside(any) => any.holds(node),
            What::Comparison(asked) => asked.holds(node),
        };
        holds != (self.nots % 2 == 1)
    }

    fn write(&self, pen: &mut Pen) {
        (0..self.nots).for_each(|_| pen.one_of(["!", "not"]));
        match &self.what {
            What::Inside(any) => {
                pen.sign("(");
                any.write(pen);
                pen.sign(")");
            }
            What::Comparison(asked) => asked.write(pen),
        }
    }
}

/// Tokens, and the choices between ways to write the same.
struct Pen {
    luck: u64,
    /// Each with whether it is a word, which must not touch another.
    tokens: Vec<(String, bool)>,
}

impl Pen {
    fn new(luck: u64) -> Self {
        Self { luck, tokens: Vec::new() }
    }

    fn draw(&mut self, among: usize) -> usize {
        self.luck = self.luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.luck >> 33) as usize % among
    }

    fn word(&mut self, text: &str) {
        self.tokens.push((text.to_owned(), true));
    }

    fn sign(&mut self, text: &str) {
        self.tokens.push((text.to_owned(), false));
    }

    /// A sign or a word that means the same.
    fn one_of(&mut self, [sign, word]: [&str; 2]) {
        if self.draw(2) == 0 { self.sign(sign) } else { self.word(word) }
    }

    /// `exists`, `not_exists` or `! exists`.
    fn operator(&mut self, negated: bool, word: &str, opposite: &str) {
        match (negated, self.draw(2)) {
            (false, _) => self.word(word),
            (true, 0) => self.word(opposite),
            (true, _) => {
                self.sign("!");
                self.word(word);
            }
        }
    }

    fn literal(&mut self, text: &str) {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || ".:+-*_/".contains(c));
        if plain && !text.is_empty() && self.draw(2) == 0 {
            self.word(text);
        } else {
            self.sign(&format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")));
        }
    }

    fn list(&mut self, literals: &[String]) {
        self.sign("[");
        for (number, literal) in literals.iter().enumerate() {
            if number > 0 {
                self.sign(",");
            }
            self.literal(literal);
        }
        self.sign("]");
    }

    /// White space where it must be, and now and then where it may be.
    fn text(&mut self) -> String {
        let mut text = String::new();
        for number in 0..self.tokens.len() {
            let (token, word) = self.tokens[number].clone();
            let after_word = number > 0 && self.tokens[number - 1].1;
            // A `!` alone ends no word: names may hold one.
            let must = after_word && (word || token == "!");
            if must || self.draw(3) > 0 {
                text.push_str([" ", "  ", "\t", "\n "][self.draw(4)]);
            }
            text.push_str(&token);
        }
        text
    }
}

/// Sets of the nodes asked at once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Which(BTreeSet<usize>);

const NODES: usize = 3;

impl Sets for Which {
    fn nothing() -> Self {
        Self(BTreeSet::new())
    }
    fn unite(&mut self, other: &Self) {
        self.0 = &self.0 | &other.0;
    }
    fn intersect(&mut self, other: &Self) {
        self.0 = &self.0 & &other.0;
    }
    fn invert(&mut self) {
        self.0 = (0..NODES).filter(|node| !self.0.contains(node)).collect();
    }
}

/// What no place of a sentence allows at its end or its beginning.
const TAILS: [&str; 8] =
    [" and", " ||", " )", " attribute:a exists", " 'x'", " not attribute:a exists", " ]", " == a"];
const HEADS: [&str; 7] = ["and ", "|| ", ") ", "( ", "'x' ", "== ", "attribute:a == "];
/// What Rust's patterns leave out, because it needs more than one look at a text.
const LOOKS: [&str; 6] = ["(?=a)", "(?!a)", "(?<=a)", "(?<!a)", "(a)\\1", "(?>a)"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 1_000 } else { 20_000 }))]

    #[test]
    fn every_sentence_means_what_the_grammar_says(
        sentence in any_sentence(), luck in any::<u64>(), nodes in proptest::collection::vec(any_node(), NODES),
    ) {
        let mut pen = Pen::new(luck);
        sentence.write(&mut pen);
        let text = pen.text();
        prop_assume!(text.chars().count() <= CHARS_MAX);
        let expression = Expression::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        let holds: BTreeSet<usize> = (0..NODES).filter(|node| sentence.holds(&nodes[*node])).collect();
        let found: BTreeSet<usize> = (0..NODES).filter(|node| expression.matches(&nodes[*node])).collect();
        prop_assert_eq!(&found, &holds, "{} of {:#?}", text, nodes);
        let at_once = expression.sets(&mut |comparison| {
            Which((0..NODES).filter(|node| comparison.matches(&nodes[*node])).collect())
        });
        prop_assert_eq!(at_once, Which(holds), "{} of all at once", text);
    }

    #[test]
    fn what_is_no_sentence_is_refused(
        sentence in any_sentence(), luck in any::<u64>(), tail in 0..TAILS.len() + 1, head in 0..HEADS.len(),
    ) {
        let mut pen = Pen::new(luck);
        sentence.write(&mut pen);
        let whole = pen.text();
        pen.tokens.pop();
        let wrong = [
            pen.text(),
            TAILS.get(tail).map_or_else(|| format!("({whole}"), |tail| format!("{whole}{tail}")),
            format!("{}{whole}", HEADS[head]),
            whole.replace("attribute:", "attribut:").replace("task:group", "task:groups").replace("agent", "agents")
                .replace("ec2InstanceId", "ec2").replace("registeredAt", "").replace("runningTasksCount", "running"),
        ];
        prop_assume!(whole.chars().count() <= CHARS_MAX - 40);
        for text in wrong {
            let Err(error) = Expression::parse(&text) else {
                return Err(TestCaseError::fail(format!("{text} was read")));
            };
            prop_assert!((1..=text.chars().count() + 1).contains(&error.at), "{text}: {error}");
        }
    }

    #[test]
    fn patterns_that_look_around_or_back_are_refused(
        before in any_pattern(), look in 0..LOOKS.len(), after in any_pattern(), negated in any::<bool>(),
    ) {
        let pattern = format!("{}{}{}", before.write(), LOOKS[look], after.write());
        let literal = pattern.replace('\\', "\\\\");
        let text = format!("attribute:stack {} '{literal}'", if negated { "!~" } else { "=~" });
        let error = Expression::parse(&text).expect_err(&text);
        prop_assert!(error.problem.contains("the pattern cannot be used"), "{text}: {error}");
    }

    /// Subjects and operators that have nothing to do with each other, whatever the value.
    #[test]
    fn comparisons_without_meaning_are_refused(
        which in 0usize..4, order in 1usize..5, signs in 0usize..2, flag in any::<bool>(), list in any::<bool>(),
    ) {
        use Order::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
        let sign = [Equal, Greater, GreaterOrEqual, Less, LessOrEqual][order].signs(false)[signs];
        let matches = ["=~", "matches"][signs];
        let text = match (which, list) {
            (0, false) => format!("agentConnected {sign} {flag}"),
            (0, true) => format!("agentConnected in [{flag}]"),
            (1, false) => format!("task:group {sign} 1"),
            (1, true) => format!("ec2InstanceId {sign} 1"),
            (2, false) => format!("registeredAt {matches} 2018-06-18"),
            (2, true) => format!("runningTasksCount {matches} 1"),
            (_, false) => format!("agentConnected {}", ["exists", "!exists"][signs]),
            (_, true) => format!("attribute:stack {sign} [1]"),
        };
        prop_assert!(Expression::parse(&text).is_err(), "{text} was read");
    }
}
