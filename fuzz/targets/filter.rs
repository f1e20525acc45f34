//! A filter by tags, as a client's subscription brings it: any JSON; behind a line feed, tags by name in JSON.
//!
//! Checked: a filter that is taken costs no more than it may, and says the same each time; its opposite says the opposite.

#![no_main]

use std::{borrow::Cow, collections::BTreeMap};

use libfuzzer_sys::fuzz_target;
use tidegate::{
    fanout::Filter,
    limits::CHANNEL_FILTER_NODES_MAX,
    protocol::{FilterNode, Tags},
};

fuzz_target!(|input: &[u8]| {
    let (filter, tags) = match input.iter().position(|byte| *byte == b'\n') {
        Some(position) => (&input[..position], &input[position + 1..]),
        None => (input, &b"{}"[..]),
    };
    let Ok(node) = serde_json::from_slice::<FilterNode<'_>>(filter) else { return };
    let Ok(filter) = Filter::new(&node) else { return };
    assert!(filter.nodes() > 0 && filter.nodes() <= CHANNEL_FILTER_NODES_MAX);
    let tags: BTreeMap<String, String> = serde_json::from_slice(tags).unwrap_or_default();
    let tags: Tags = tags.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let passes = filter.matches(Some(&tags));
    assert_eq!(filter.matches(Some(&tags)), passes);
    let opposite = FilterNode { op: Cow::Borrowed("not"), nodes: vec![node], ..FilterNode::default() };
    // It may be one node too many, or one level.
    if let Ok(opposite) = Filter::new(&opposite) {
        assert_eq!(opposite.matches(Some(&tags)), !passes);
    }
});
