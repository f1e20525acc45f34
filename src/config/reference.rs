//! The commented reference file: every key with its meaning, bounds, default and variable.
//!
//! Generated from the schema. Invariant, proved by tests: read back it is exactly the embedded
//! defaults, and with every `# key = ...` line made a setting it is still valid.

use super::schema::{self, Key, Keys, NAMESPACE_NAME, NAMESPACE_OPTIONS, SECTIONS};

/// Longest line of prose, in characters, without the `# `.
const LINE_CHARACTERS_MAX: usize = 98;

const HEAD: &str = "\
Tidegate's configuration: every key, with its default. A line that begins with a hash and a key has no \
default, or shows an example. Each key can be overridden by the environment variable named beside it; an empty \
variable counts as not set. Beside it stands whether a running server takes a new value over when it reads its \
configuration anew (SIGHUP, `tidegate reload`). Durations have a unit (d, h, m, s, ms: \"25s\", \"1h30m\"), sizes may have one \
(B, KiB, MiB, GiB: \"64KiB\"). `tidegate check-config --strict` checks a file.";

/// A complete configuration file that says the embedded defaults, with comments.
pub fn reference() -> String {
    let mut text = String::new();
    write_prose(&mut text, HEAD);
    for section in SECTIONS {
        text.push('\n');
        write_prose(&mut text, section.doc);
        match section.keys {
            Keys::Server(keys) => {
                write_heading(&mut text, section.name);
                keys.iter().for_each(|key| write_key(&mut text, section.name, key));
            }
            Keys::WithoutNamespace => {
                write_heading(&mut text, section.name);
                NAMESPACE_OPTIONS.iter().for_each(|key| write_key(&mut text, section.name, key));
            }
            Keys::Namespaces => write_namespace_example(&mut text, section.name),
        }
    }
    text
}

fn write_heading(text: &mut String, name: &str) {
    text.push_str(&format!("[{name}]\n"));
}

fn write_key<T>(text: &mut String, section: &str, key: &Key<T>) {
    let path = format!("{section}.{}", key.name);
    text.push('\n');
    write_prose(text, &join_sentences(&[key.doc, &key.kind.bounds()]));
    write_prose(text, &format!("{}; {}.", schema::variable(&path), key.effect.label()));
    match (key.default, key.example) {
        (Some(default), _) => text.push_str(&format!("{} = {}\n", key.name, key.kind.toml_of_text(default))),
        (None, Some(example)) => write_setting_in_comment(text, key, example),
        (None, None) => unreachable!("a key without a default has an example: `unset` asks for it"),
    }
}

/// An example of a namespace, with the options most often wanted.
fn write_namespace_example(text: &mut String, section: &str) {
    write_prose(text, NAMESPACE_NAME.doc);
    let variable = schema::variable(section);
    write_prose(text, &format!("{variable}, a list in JSON or TOML, replaces all of them; changes on reload."));
    text.push_str(&format!("#\n# [[{section}]]\n"));
    for key in [&NAMESPACE_NAME].into_iter().chain(NAMESPACE_OPTIONS) {
        if let Some(example) = key.example {
            write_setting_in_comment(text, key, example);
        }
    }
}

fn write_setting_in_comment<T>(text: &mut String, key: &Key<T>, example: &str) {
    text.push_str(&format!("# {} = {}\n", key.name, key.kind.toml_of_text(example)));
}

fn join_sentences(sentences: &[&str]) -> String {
    sentences.iter().filter(|sentence| !sentence.is_empty()).copied().collect::<Vec<_>>().join(" ")
}

/// Writes a paragraph as comment lines, broken between words.
fn write_prose(text: &mut String, prose: &str) {
    let mut line = String::new();
    for word in prose.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > LINE_CHARACTERS_MAX {
            text.push_str(&format!("# {line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&format!("# {line}\n"));
}
