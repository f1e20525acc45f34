//! Which publications a subscription wants, by their tags (protocol.md section 22).
//!
//! Owns the rules of a filter's form and what it lets pass. Leaves to `session` who may filter, and
//! to [`super::Topics`] that subscribers with equal filters share what is found out.
//!
//! Invariants: a filter that exists is within the limits of [`crate::limits`], so that a publication
//! is tested in bounded time; testing allocates nothing.

use std::cmp::Ordering;

use crate::{
    limits::{FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_NODES_MAX},
    protocol::{FilterNode, Tags},
};

/// A condition on publications' tags. Equal ones, equally written, are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    condition: Condition,
    nodes: u32,
    bytes: u32,
}

/// What a filter asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// A tag compares so.
    Tag {
        /// Its name; "" names no tag.
        key: Box<str>,
        /// How it compares.
        comparison: Comparison,
    },
    /// All of them hold.
    And(Box<[Condition]>),
    /// One of them holds.
    Or(Box<[Condition]>),
    /// It does not hold.
    Not(Box<Condition>),
}

/// What is asked of one tag.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Comparison {
    /// `eq`: it is there, and is this.
    Equal(Box<str>),
    /// `neq`: it is absent, or something else.
    NotEqual(Box<str>),
    /// `in`: it is one of these; an absent tag counts as "".
    In(Box<[Box<str>]>),
    /// `nin`: it is none of these.
    NotIn(Box<[Box<str>]>),
    /// `ex`: it is there.
    Exists,
    /// `nex`: it is absent.
    NotExists,
    /// `sw`: it is there, and begins so.
    StartsWith(Box<str>),
    /// `ew`: it is there, and ends so.
    EndsWith(Box<str>),
    /// `ct`: it is there, and contains this.
    Contains(Box<str>),
    /// `lt`, `lte`, `gt`, `gte`: both are decimal numbers, and compare so.
    Number(Order, Box<str>),
}

/// How two numbers compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The tag's is less.
    Less,
    /// It is less or equal.
    LessOrEqual,
    /// It is greater.
    Greater,
    /// It is greater or equal.
    GreaterOrEqual,
}

/// Why a filter is refused (error 107).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// An `op` that is none.
    #[error("op is neither \"and\", \"or\", \"not\" nor empty")]
    UnknownOperation,
    /// A `cmp` that is none.
    #[error("cmp is no comparison")]
    UnknownComparison,
    /// A comparison with too many or too few operands.
    #[error("val, vals or key do not fit the comparison")]
    WrongOperands,
    /// `and` and `or` need a node, `not` exactly one.
    #[error("the operation has too many or too few nodes")]
    WrongNodes,
    /// More than one publication's test may cost.
    #[error("the filter is too large")]
    TooLarge,
}

impl Filter {
    /// A filter out of what a client has sent.
    pub fn new(node: &FilterNode<'_>) -> Result<Self, FilterError> {
        let mut budget = Budget { nodes: FILTER_NODES_MAX, bytes: FILTER_BYTES_MAX };
        let condition = compile(node, &mut budget, FILTER_DEPTH_MAX)?;
        let taken = |max: usize, left: usize| u32::try_from(max - left).expect("limits of filters are small");
        let (nodes, bytes) = (taken(FILTER_NODES_MAX, budget.nodes), taken(FILTER_BYTES_MAX, budget.bytes));
        Ok(Self { condition, nodes, bytes })
    }

    /// Comparisons, operations and values: what a test of one publication costs.
    pub fn nodes(&self) -> usize {
        self.nodes as usize
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.nodes() * size_of::<Condition>() + self.bytes as usize
    }

    /// Whether a publication with these tags passes.
    pub fn matches(&self, tags: Option<&Tags>) -> bool {
        self.condition.holds(tags)
    }
}

impl Condition {
    fn holds(&self, tags: Option<&Tags>) -> bool {
        match self {
            Self::Tag { key, comparison } => comparison.matches(tags.and_then(|tags| tags.get(key))),
            Self::And(conditions) => conditions.iter().all(|condition| condition.holds(tags)),
            Self::Or(conditions) => conditions.iter().any(|condition| condition.holds(tags)),
            Self::Not(condition) => !condition.holds(tags),
        }
    }
}

impl Comparison {
    fn matches(&self, value: Option<&str>) -> bool {
        match self {
            Self::Equal(operand) => value == Some(operand),
            Self::NotEqual(operand) => value != Some(operand),
            Self::In(operands) => is_among(value, operands),
            Self::NotIn(operands) => !is_among(value, operands),
            Self::Exists => value.is_some(),
            Self::NotExists => value.is_none(),
            Self::StartsWith(operand) => value.is_some_and(|value| value.starts_with(&**operand)),
            Self::EndsWith(operand) => value.is_some_and(|value| value.ends_with(&**operand)),
            Self::Contains(operand) => value.is_some_and(|value| value.contains(&**operand)),
            Self::Number(order, operand) => value
                .and_then(Decimal::parse)
                .zip(Decimal::parse(operand))
                .is_some_and(|(value, operand)| order.holds(value.cmp(&operand))),
        }
    }
}

impl Order {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

fn is_among(value: Option<&str>, operands: &[Box<str>]) -> bool {
    let value = value.unwrap_or_default();
    operands.iter().any(|operand| **operand == *value)
}

/// What a filter may still take.
struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    fn take(&mut self, nodes: usize, bytes: usize) -> Result<(), FilterError> {
        self.nodes = self.nodes.checked_sub(nodes).ok_or(FilterError::TooLarge)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(FilterError::TooLarge)?;
        Ok(())
    }
}

fn compile(node: &FilterNode<'_>, budget: &mut Budget, depth: usize) -> Result<Condition, FilterError> {
    let values_bytes: usize = node.vals.iter().map(|value| value.len()).sum();
    budget.take(1 + node.vals.len(), node.key.len() + node.val.len() + values_bytes)?;
    let depth = depth.checked_sub(1).ok_or(FilterError::TooLarge)?;
    let mut nodes = || -> Result<Box<[Condition]>, FilterError> {
        node.nodes.iter().map(|node| compile(node, budget, depth)).collect()
    };
    match &*node.op {
        "" => compile_comparison(node),
        "and" | "or" if node.nodes.is_empty() => Err(FilterError::WrongNodes),
        "and" => Ok(Condition::And(nodes()?)),
        "or" => Ok(Condition::Or(nodes()?)),
        "not" => match &node.nodes[..] {
            [node] => Ok(Condition::Not(Box::new(compile(node, budget, depth)?))),
            _ => Err(FilterError::WrongNodes),
        },
        _ => Err(FilterError::UnknownOperation),
    }
}

fn compile_comparison(node: &FilterNode<'_>) -> Result<Condition, FilterError> {
    // The operand of a comparison with one, with several, and with none.
    let value = || -> Result<Box<str>, FilterError> {
        let is_right = !node.key.is_empty() && !node.val.is_empty() && node.vals.is_empty();
        if is_right { Ok((&*node.val).into()) } else { Err(FilterError::WrongOperands) }
    };
    let values = || -> Result<Box<[Box<str>]>, FilterError> {
        let is_right = !node.key.is_empty() && node.val.is_empty() && !node.vals.is_empty();
        let values = || node.vals.iter().map(|value| (&**value).into()).collect();
        if is_right { Ok(values()) } else { Err(FilterError::WrongOperands) }
    };
    let nothing = |comparison| {
        if node.val.is_empty() && node.vals.is_empty() { Ok(comparison) } else { Err(FilterError::WrongOperands) }
    };
    let comparison = match &*node.cmp {
        "eq" => Comparison::Equal(value()?),
        "neq" => Comparison::NotEqual(value()?),
        "in" => Comparison::In(values()?),
        "nin" => Comparison::NotIn(values()?),
        "ex" => nothing(Comparison::Exists)?,
        "nex" => nothing(Comparison::NotExists)?,
        "sw" => Comparison::StartsWith(value()?),
        "ew" => Comparison::EndsWith(value()?),
        "ct" => Comparison::Contains(value()?),
        "lt" => Comparison::Number(Order::Less, value()?),
        "lte" => Comparison::Number(Order::LessOrEqual, value()?),
        "gt" => Comparison::Number(Order::Greater, value()?),
        "gte" => Comparison::Number(Order::GreaterOrEqual, value()?),
        _ => return Err(FilterError::UnknownComparison),
    };
    Ok(Condition::Tag { key: (&*node.key).into(), comparison })
}

/// A decimal number of any length, taken apart: prices compare exactly, as floating-point numbers would not.
struct Decimal<'a> {
    is_negative: bool,
    /// Without leading zeros.
    integer: &'a str,
    /// Without trailing zeros.
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// A sign, digits, a point and digits; the sign and either group of digits may be missing, not both groups.
    fn parse(text: &'a str) -> Option<Self> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = !(integer.is_empty() && fraction.is_empty())
            && integer.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
        is_number.then(|| {
            let (integer, fraction) = (integer.trim_start_matches('0'), fraction.trim_end_matches('0'));
            // There is one zero.
            let is_negative = text.starts_with('-') && !(integer.is_empty() && fraction.is_empty());
            Self { is_negative, integer, fraction }
        })
    }

    fn cmp(&self, other: &Self) -> Ordering {
        let magnitude = |left: &Self, right: &Self| {
            let integers = left.integer.len().cmp(&right.integer.len()).then_with(|| left.integer.cmp(right.integer));
            integers.then_with(|| left.fraction.cmp(right.fraction))
        };
        match (self.is_negative, other.is_negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(other, self),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, collections::BTreeMap};

    use proptest::prelude::*;

    use super::*;

    fn leaf<'a>(key: &'a str, cmp: &'a str, val: &'a str) -> FilterNode<'a> {
        FilterNode { key: key.into(), cmp: cmp.into(), val: val.into(), ..FilterNode::default() }
    }

    fn among<'a>(key: &'a str, cmp: &'a str, vals: &[&'a str]) -> FilterNode<'a> {
        FilterNode { vals: vals.iter().map(|val| Cow::Borrowed(*val)).collect(), ..leaf(key, cmp, "") }
    }

    fn joined<'a>(op: &'a str, nodes: Vec<FilterNode<'a>>) -> FilterNode<'a> {
        FilterNode { op: op.into(), nodes, ..FilterNode::default() }
    }

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().copied().collect()
    }

    fn passes(node: &FilterNode<'_>, pairs: &[(&str, &str)]) -> bool {
        Filter::new(node).expect("a valid filter").matches(Some(&tags(pairs)))
    }

    #[test]
    fn each_comparison_means_what_the_protocol_says() {
        let there = [("ticker", "BTC-USD"), ("empty", "")];
        for (node, is_passed) in [
            (leaf("ticker", "eq", "BTC-USD"), true),
            (leaf("ticker", "eq", "BTC"), false),
            (leaf("absent", "eq", "BTC"), false),
            (leaf("ticker", "neq", "BTC"), true),
            (leaf("ticker", "neq", "BTC-USD"), false),
            (leaf("absent", "neq", "BTC"), true),
            (among("ticker", "in", &["ETH", "BTC-USD"]), true),
            (among("ticker", "in", &["ETH"]), false),
            (among("absent", "in", &["ETH"]), false),
            (among("absent", "in", &["ETH", ""]), true),
            (among("ticker", "nin", &["ETH"]), true),
            (among("ticker", "nin", &["BTC-USD"]), false),
            (among("absent", "nin", &["ETH"]), true),
            (leaf("empty", "ex", ""), true),
            (leaf("absent", "ex", ""), false),
            (leaf("empty", "nex", ""), false),
            (leaf("absent", "nex", ""), true),
            (leaf("ticker", "sw", "BTC"), true),
            (leaf("ticker", "sw", "USD"), false),
            (leaf("absent", "sw", "USD"), false),
            (leaf("ticker", "ew", "USD"), true),
            (leaf("ticker", "ew", "BTC"), false),
            (leaf("ticker", "ct", "C-U"), true),
            (leaf("ticker", "ct", "CU"), false),
        ] {
            assert_eq!(passes(&node, &there), is_passed, "{node:?}");
        }
    }

    #[test]
    fn numbers_compare_as_numbers_and_exactly() {
        for (value, operand, ordering) in [
            ("9", "10", Ordering::Less),
            ("-9", "-10", Ordering::Greater),
            ("-1", "1", Ordering::Less),
            ("1.5", "1.50", Ordering::Equal),
            ("0.1", ".10", Ordering::Equal),
            ("+3", "03.", Ordering::Equal),
            ("-0", "0.0", Ordering::Equal),
            ("1.05", "1.5", Ordering::Less),
            ("100000000000000000000.1", "100000000000000000000.2", Ordering::Less),
        ] {
            let passed = ["lt", "lte", "gt", "gte"].map(|cmp| passes(&leaf("n", cmp, operand), &[("n", value)]));
            let expected = [ordering.is_lt(), ordering.is_le(), ordering.is_gt(), ordering.is_ge()];
            assert_eq!(passed, expected, "{value} and {operand}");
        }
        for (value, operand) in
            [("x", "1"), ("1", "x"), ("1e3", "1"), ("", "1"), (".", "1"), ("-", "1"), ("1.2.3", "1")]
        {
            assert!(!["lt", "lte", "gt", "gte"].iter().any(|cmp| passes(&leaf("n", cmp, operand), &[("n", value)])));
        }
        assert!(!Filter::new(&leaf("n", "gte", "0")).unwrap().matches(None));
    }

    #[test]
    fn operations_join_conditions() {
        let (yes, no) = (|| leaf("a", "ex", ""), || leaf("b", "ex", ""));
        let there = [("a", "")];
        assert!(passes(&joined("and", vec![yes(), yes()]), &there));
        assert!(!passes(&joined("and", vec![yes(), no()]), &there));
        assert!(passes(&joined("or", vec![no(), yes()]), &there));
        assert!(!passes(&joined("or", vec![no(), no()]), &there));
        assert!(passes(&joined("not", vec![no()]), &there));
        assert!(!passes(&joined("not", vec![joined("or", vec![yes(), no()])]), &there));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (node, error) in [
            (joined("xor", vec![leaf("a", "ex", "")]), FilterError::UnknownOperation),
            (joined("and", vec![]), FilterError::WrongNodes),
            (joined("or", vec![]), FilterError::WrongNodes),
            (joined("not", vec![]), FilterError::WrongNodes),
            (joined("not", vec![leaf("a", "ex", ""), leaf("a", "ex", "")]), FilterError::WrongNodes),
            (leaf("a", "", ""), FilterError::UnknownComparison),
            (leaf("a", "like", "b"), FilterError::UnknownComparison),
            (leaf("a", "eq", ""), FilterError::WrongOperands),
            (leaf("", "eq", "b"), FilterError::WrongOperands),
            (among("a", "sw", &["b"]), FilterError::WrongOperands),
            (among("a", "in", &[]), FilterError::WrongOperands),
            (leaf("a", "in", "b"), FilterError::WrongOperands),
            (among("", "nin", &["b"]), FilterError::WrongOperands),
            (leaf("a", "ex", "b"), FilterError::WrongOperands),
            (among("a", "nex", &["b"]), FilterError::WrongOperands),
            (joined("and", vec![joined("not", vec![leaf("a", "eq", "")])]), FilterError::WrongOperands),
        ] {
            assert_eq!(Filter::new(&node), Err(error), "{node:?}");
        }
    }

    #[test]
    fn filters_are_bounded_in_every_direction() {
        let deep = |depth: usize| (1..depth).fold(leaf("a", "ex", ""), |inner, _| joined("not", vec![inner]));
        assert!(Filter::new(&deep(FILTER_DEPTH_MAX)).is_ok());
        assert_eq!(Filter::new(&deep(FILTER_DEPTH_MAX + 1)), Err(FilterError::TooLarge));
        let broad = |nodes: usize| joined("or", (1..nodes).map(|_| leaf("a", "ex", "")).collect());
        assert!(Filter::new(&broad(FILTER_NODES_MAX)).is_ok());
        assert_eq!(Filter::new(&broad(FILTER_NODES_MAX + 1)), Err(FilterError::TooLarge));
        assert!(Filter::new(&among("a", "in", &vec!["b"; FILTER_NODES_MAX - 1])).is_ok());
        assert_eq!(Filter::new(&among("a", "in", &vec!["b"; FILTER_NODES_MAX])), Err(FilterError::TooLarge));
        let long = "x".repeat(FILTER_BYTES_MAX);
        assert!(Filter::new(&leaf("a", "eq", &long[1..])).is_ok());
        assert_eq!(Filter::new(&leaf("a", "eq", &long)), Err(FilterError::TooLarge));
    }

    #[test]
    fn equal_filters_are_known_as_such() {
        let new = |val| Filter::new(&joined("not", vec![leaf("a", "eq", val)])).unwrap();
        assert_eq!(new("b"), new("b"));
        assert_ne!(new("b"), new("c"));
        assert_eq!((new("b").nodes(), new("b").bytes()), (2, 2 * size_of::<Condition>() + 2));
    }

    /// What a filter means, said in another way: by what it keeps of all values that there are, in numbers of hundredths.
    fn keeps(node: &FilterNode<'_>, given: &BTreeMap<String, String>) -> bool {
        let value = given.get(&*node.key).map(String::as_str);
        let hundredths = |text: &str| -> Option<i64> {
            let number: f64 =
                text.parse().ok().filter(|_| !text.contains(|letter| !"0123456789.-".contains(letter)))?;
            Some((number * 100.0).round() as i64)
        };
        let difference = || Some(hundredths(value?)? - hundredths(&node.val)?);
        let vals = || node.vals.iter().any(|candidate| candidate == value.unwrap_or(""));
        match (&*node.op, &*node.cmp) {
            ("and", _) => node.nodes.iter().filter(|node| keeps(node, given)).count() == node.nodes.len(),
            ("or", _) => node.nodes.iter().filter(|node| keeps(node, given)).count() > 0,
            ("not", _) => node.nodes.iter().filter(|node| keeps(node, given)).count() == 0,
            (_, "eq") => value.is_some() && value.unwrap() == node.val,
            (_, "neq") => value.is_none() || value.unwrap() != node.val,
            (_, "in") => vals(),
            (_, "nin") => !vals(),
            (_, "ex") => given.contains_key(&*node.key),
            (_, "nex") => !given.contains_key(&*node.key),
            (_, "sw") => value.is_some_and(|value| value.find(&*node.val) == Some(0)),
            (_, "ew") => value.is_some_and(|value| value.rsplit(&*node.val).next() == Some("")),
            (_, "ct") => value.is_some_and(|value| value.matches(&*node.val).count() > 0),
            (_, "lt") => difference().is_some_and(|difference| difference < 0),
            (_, "lte") => difference().is_some_and(|difference| difference <= 0),
            (_, "gt") => difference().is_some_and(|difference| difference > 0),
            (_, "gte") => difference().is_some_and(|difference| difference >= 0),
            _ => unreachable!("no other is made here"),
        }
    }

    /// Texts that are often equal, within each other, or numbers of at most two decimals.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]{1,3}", "-?[0-9]{1,3}", "-?[0-9]{1,2}[.][0-9]{1,2}", "[ab]{0,1}[0-9.]{1,3}x"]
    }

    fn filters() -> impl Strategy<Value = FilterNode<'static>> {
        let key = || "[kl]";
        let with_one = proptest::sample::select(vec!["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]);
        let one = (key(), with_one, texts()).prop_map(|(key, cmp, val)| FilterNode {
            key: key.into(),
            cmp: cmp.into(),
            val: val.into(),
            ..FilterNode::default()
        });
        let with_many = proptest::sample::select(vec!["in", "nin"]);
        let vals = proptest::collection::vec(prop_oneof![texts(), Just(String::new())], 1..4);
        let many = (key(), with_many, vals).prop_map(|(key, cmp, vals)| FilterNode {
            key: key.into(),
            cmp: cmp.into(),
            vals: vals.into_iter().map(Cow::Owned).collect(),
            ..FilterNode::default()
        });
        let none = (key(), proptest::sample::select(vec!["ex", "nex"])).prop_map(|(key, cmp)| FilterNode {
            key: key.into(),
            cmp: cmp.into(),
            ..FilterNode::default()
        });
        prop_oneof![4 => one, 2 => many, 1 => none].prop_recursive(4, 30, 4, |node| {
            let some = proptest::collection::vec(node.clone(), 1..4);
            let joined = (proptest::sample::select(vec!["and", "or"]), some);
            prop_oneof![
                2 => joined.prop_map(|(op, nodes)| FilterNode { op: op.into(), nodes, ..FilterNode::default() }),
                1 => node.prop_map(|node| FilterNode { op: "not".into(), nodes: vec![node], ..FilterNode::default() }),
            ]
        })
    }

    proptest! {
        #[test]
        fn filters_agree_with_a_naive_reading(
            node in filters(),
            given in proptest::collection::btree_map("[kl]", texts(), 0..3),
        ) {
            let tags: Tags = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let filter = Filter::new(&node).expect("within the limits");
            prop_assert_eq!(filter.matches(Some(&tags)), keeps(&node, &given));
            prop_assert_eq!(filter.matches(None), keeps(&node, &BTreeMap::new()));
        }

        #[test]
        fn whole_numbers_compare_like_integers(left: i64, right: i64) {
            let (left_text, right_text) = (left.to_string(), format!("{right}.000"));
            let (parsed_left, parsed_right) = (Decimal::parse(&left_text).unwrap(), Decimal::parse(&right_text).unwrap());
            prop_assert_eq!(parsed_left.cmp(&parsed_right), left.cmp(&right));
        }

        #[test]
        fn a_negation_lets_pass_what_was_held_back(
            given in proptest::collection::btree_map("[abc]", "[0-9.x-]{0,4}", 0..4),
            key in "[abc]",
            cmp in proptest::sample::select(vec!["eq", "neq", "sw", "ew", "ct", "lt", "lte", "gt", "gte"]),
            val in "[0-9.x-]{1,4}",
        ) {
            let pairs: Vec<_> = given.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let inverse = joined("not", vec![leaf(&key, cmp, &val)]);
            prop_assert_ne!(passes(&leaf(&key, cmp, &val), &pairs), passes(&inverse, &pairs));
        }
    }
}
