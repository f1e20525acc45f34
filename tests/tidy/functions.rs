//! Function length: at most [`LINES_MAX`] lines, with a list of the longer ones that may only shrink.

use crate::source::{Source, end_of_block, is_word};

/// Lines of a function, from its `fn` to its closing brace.
pub const LINES_MAX: usize = 70;

/// Functions that are too long, and exceptions that are not needed any more.
pub fn violations(sources: &[Source], exceptions: &[(&str, usize)]) -> Vec<String> {
    let long: Vec<(String, usize)> =
        sources.iter().flat_map(functions).filter(|(_, lines)| *lines > LINES_MAX).collect();
    let mut violations = Vec::new();
    for (name, lines) in &long {
        match exceptions.iter().find(|(exception, _)| exception == name) {
            None => {
                violations.push(format!("{name}: {lines} lines; a function has at most {LINES_MAX}: name its parts"))
            }
            Some((_, allowed)) if lines > allowed => {
                violations.push(format!("{name}: {lines} lines, {allowed} before; it may only shrink"));
            }
            Some((_, allowed)) if lines < allowed => {
                violations.push(format!("{name}: {lines} lines now; write that in place of {allowed} in the list"));
            }
            Some(_) => {}
        }
    }
    for (exception, _) in exceptions {
        if !long.iter().any(|(name, _)| name == exception) {
            violations.push(format!("{exception}: short enough or gone; strike it from the list"));
        }
    }
    violations
}

/// The functions of a file, as `path::name`, with their lines.
fn functions(source: &Source) -> Vec<(String, usize)> {
    source
        .positions("fn ")
        .filter_map(|position| {
            let name: String = source.code[position + "fn ".len()..].chars().take_while(|&c| is_word(c)).collect();
            let end = end_of_block(&source.code, position)?;
            let lines = source.line(end) - source.line(position) + 1;
            (!name.is_empty()).then(|| (format!("{}::{name}", source.path), lines))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_with_function(lines: usize) -> [Source; 1] {
        let body = "let _ = [0; 2];\n".repeat(lines - 2);
        [Source::new("src/snippet.rs", &format!("trait T {{ fn declared(&self); }}\nfn long() {{\n{body}}}\n"))]
    }

    #[test]
    fn a_long_function_is_found() {
        assert_eq!(violations(&source_with_function(LINES_MAX), &[]), Vec::<String>::new());
        let found = violations(&source_with_function(LINES_MAX + 1), &[]);
        assert_eq!(found, ["src/snippet.rs::long: 71 lines; a function has at most 70: name its parts"]);
    }

    #[test]
    fn an_exception_may_only_shrink() {
        let exceptions = [("src/snippet.rs::long", 90)];
        assert_eq!(violations(&source_with_function(90), &exceptions), Vec::<String>::new());
        assert!(violations(&source_with_function(91), &exceptions)[0].contains("may only shrink"));
        assert!(violations(&source_with_function(80), &exceptions)[0].contains("write that in place of 90"));
        assert!(violations(&source_with_function(20), &exceptions)[0].contains("strike it"));
    }
}
