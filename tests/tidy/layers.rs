//! Import layers (DESIGN.md, "Layout"): a module imports from layers above its own; within a layer, without a cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, is_word};

/// The modules of the library, in their order of ideas.
const LAYERS: &[&[&str]] = &[
    &["limits", "network", "config"],
    &["uring", "http", "log", "websocket", "protocol", "resp", "systemd", "tls"],
    &["session", "channel", "fanout", "mesh"],
    &["shard", "ingest", "journal", "engine", "control", "doctor"],
    &["demo", "server"],
    &["cli"],
];

/// Imports from a lower layer or in a circle, and modules that have no place in the order.
pub fn violations(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !matches!(source.path.as_str(), "src/lib.rs" | "src/main.rs")) {
        let module = source.module();
        let Some(layer) = layer(module) else {
            violations.push(format!(
                "{}: `{module}` has no place in the order; give it one in {}",
                source.path,
                file!()
            ));
            continue;
        };
        for (position, imported) in imported_modules(source) {
            match self::layer(imported) {
                None => {}
                Some(other) if other > layer => violations.push(format!(
                    "{}:{}: `{module}` imports `{imported}`, which stands below it; move what both need up, or the caller down",
                    source.path,
                    source.line(position)
                )),
                Some(_) if imported == module => {}
                Some(_) => {
                    imports.entry(module).or_default().insert(imported);
                }
            }
        }
    }
    violations
        .extend(circle(&imports).map(|path| format!("modules import each other in a circle: {}", path.join(" -> "))));
    violations
}

/// Modules that `src/lib.rs` lists in another order than that of their layers.
pub fn order_violations(library: &Source) -> Vec<String> {
    let listed: Vec<(usize, &str)> = library
        .positions("pub mod")
        .map(|position| (position, word_at(&library.code, position + "pub mod ".len())))
        .collect();
    let mut violations = Vec::new();
    let mut last = 0;
    for (position, module) in listed {
        match layer(module) {
            None => violations.push(format!("{}:{}: `{module}` has no layer", library.path, library.line(position))),
            Some(layer) if layer < last => violations.push(format!(
                "{}:{}: `{module}` belongs further up, with its layer",
                library.path,
                library.line(position)
            )),
            Some(layer) => last = layer,
        }
    }
    violations
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// What a file names after `crate::`, or after `super::` where that means the crate.
fn imported_modules(source: &Source) -> Vec<(usize, &str)> {
    let at_top = source.path.matches('/').count() == 1
        || source.path.ends_with("/mod.rs") && source.path.matches('/').count() == 2;
    let mut imported = Vec::new();
    for root in if at_top { &["crate::", "super::"][..] } else { &["crate::"][..] } {
        for position in source.positions(root) {
            let names = position + root.len();
            if source.code[names..].starts_with('{') {
                imported.extend(group(&source.code, names).into_iter().map(|name| (position, name)));
            } else {
                imported.push((position, word_at(&source.code, names)));
            }
        }
    }
    imported
}

/// The first words of the items of `{a::b, c::{d, e}}`.
fn group(code: &str, open: usize) -> Vec<&str> {
    let mut names = Vec::new();
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        match (depth, byte) {
            (0, _) => break,
            (1, b'{' | b',') if offset == open || byte == b',' => {
                let item = offset + 1 + code[offset + 1..].len() - code[offset + 1..].trim_start().len();
                names.push(word_at(code, item));
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn word_at(code: &str, position: usize) -> &str {
    let word = &code[position..];
    &word[..word.find(|character| !is_word(character)).unwrap_or(word.len())]
}

/// A path of imports that ends where it began, if there is one.
fn circle<'a>(imports: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        module: &'a str,
        imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(begin) = path.iter().position(|&earlier| earlier == module) {
            return Some(path[begin..].iter().copied().chain([module]).collect());
        }
        if !done.insert(module) {
            return None;
        }
        path.push(module);
        let found = imports.get(module).into_iter().flatten().find_map(|next| walk(next, imports, path, done));
        path.pop();
        found
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|module| walk(module, imports, &mut Vec::new(), &mut done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations_of(files: &[(&str, &str)]) -> Vec<String> {
        violations(&files.iter().map(|(path, text)| Source::new(path, text)).collect::<Vec<_>>())
    }

    #[test]
    fn an_import_from_below_is_found() {
        let found = violations_of(&[("src/session/mod.rs", "\nuse crate::{limits, shard::wheel};")]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("src/session/mod.rs:2: `session` imports `shard`"), "{found:?}");
    }

    #[test]
    fn a_path_in_code_counts_as_an_import() {
        assert_eq!(violations_of(&[("src/resp/parser.rs", "fn f() { crate::server::run() }")]).len(), 1);
        assert_eq!(violations_of(&[("src/resp/mod.rs", "fn f() { super::server::run() }")]).len(), 1);
    }

    #[test]
    fn imports_from_above_and_beside_are_fine() {
        assert_eq!(
            violations_of(&[
                ("src/shard/mod.rs", "use crate::{config::{Config, raw}, session};"),
                ("src/session/mod.rs", "use crate::fanout::Outbox; use crate::session::x;"),
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_circle_within_a_layer_is_found() {
        let found = violations_of(&[
            ("src/session/mod.rs", "use crate::fanout::Outbox;"),
            ("src/fanout/mod.rs", "use crate::mesh::Bell;"),
            ("src/mesh/mod.rs", "use crate::session::Session;"),
        ]);
        assert_eq!(found, ["modules import each other in a circle: fanout -> mesh -> session -> fanout"]);
    }

    #[test]
    fn a_module_without_a_place_is_found() {
        assert_eq!(violations_of(&[("src/utilities.rs", "")]).len(), 1);
    }

    #[test]
    fn a_library_out_of_order_is_found() {
        let found = order_violations(&Source::new("src/lib.rs", "pub mod server;\npub mod limits;"));
        assert_eq!(found, ["src/lib.rs:2: `limits` belongs further up, with its layer"]);
        assert!(order_violations(&Source::new("src/lib.rs", "pub mod limits;\npub mod server;")).is_empty());
    }
}
