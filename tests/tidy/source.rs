//! A source file as the rules read it: its code with comments, literals and test code blanked.
//!
//! Blanks keep their line feeds, so that a position in the code has the line that it has in the file.

/// One file.
pub struct Source {
    /// From the repository's root: `src/shard/mod.rs`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// What of it is code.
    pub code: String,
}

impl Source {
    /// A file by path and text.
    pub fn new(path: &str, text: &str) -> Self {
        let mut code = blank_comments_and_literals(text);
        blank_test_items(&mut code);
        Self { path: path.to_owned(), text: text.to_owned(), code: into_string(code) }
    }

    /// The module under `src` that the file belongs to: `shard` for `src/shard/wheel.rs` and for `src/shard.rs`.
    pub fn module(&self) -> &str {
        let inner = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inner.split('/').next().unwrap_or(inner).trim_end_matches(".rs")
    }

    /// The line, from 1, of a position in the code.
    pub fn line(&self, position: usize) -> usize {
        1 + self.code[..position].matches('\n').count()
    }

    /// Positions at which a word or path stands in the code, not as a part of a longer word.
    pub fn positions<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        self.code.match_indices(word).map(|(position, _)| position).filter(move |&position| {
            let end = position + word.len();
            let opens = !word.starts_with(is_word) || position == 0 || !is_word(bytes[position - 1].into());
            let closes = !word.ends_with(is_word) || bytes.get(end).is_none_or(|&byte| !is_word(byte.into()));
            opens && closes
        })
    }
}

/// Whether a character may stand in an identifier.
pub fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The position after the brace that closes the first one at or after `from`; none if a `;` ends the item before.
pub fn end_of_block(code: &str, from: usize) -> Option<usize> {
    let mut braces = 0_usize;
    let mut others = 0_usize;
    for (position, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b';' if braces == 0 && others == 0 => return None,
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(position + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The files that ship: those that stand behind `#[cfg(test)] mod name;` are left out.
pub fn without_tests(texts: Vec<(String, String)>) -> Vec<Source> {
    let mut test_paths = Vec::new();
    for (path, text) in &texts {
        let code = into_string(blank_comments_and_literals(text));
        let folder = match path.rsplit_once('/') {
            Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => path.trim_end_matches(".rs").to_owned(),
        };
        for (position, attribute) in code.match_indices("#[cfg(test)]") {
            let item = code[position + attribute.len()..].trim_start().trim_start_matches("pub ");
            if let Some(name) = item.strip_prefix("mod ").and_then(|rest| rest.split_once(';')).map(|(name, _)| name)
                && name.chars().all(is_word)
            {
                test_paths.push(format!("{folder}/{name}.rs"));
                test_paths.push(format!("{folder}/{name}/"));
            }
        }
    }
    texts
        .iter()
        .filter(|(path, _)| !test_paths.iter().any(|test_path| path.starts_with(test_path.as_str())))
        .map(|(path, text)| Source::new(path, text))
        .collect()
}

fn into_string(code: Vec<u8>) -> String {
    String::from_utf8(code).expect("blanks replace whole literals, so the rest is valid text")
}

fn blank(code: &mut [u8]) {
    for byte in code.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn blank_test_items(code: &mut [u8]) {
    let text = String::from_utf8_lossy(code).into_owned();
    for (position, attribute) in text.match_indices("#[cfg(test)]") {
        let item = position + attribute.len();
        let end = end_of_block(&text, item).or_else(|| text[item..].find(';').map(|end| item + end + 1));
        blank(&mut code[position..end.unwrap_or(text.len())]);
    }
}

fn blank_comments_and_literals(text: &str) -> Vec<u8> {
    let mut code = text.as_bytes().to_vec();
    let mut position = 0;
    while position < text.len() {
        let rest = &text[position..];
        let in_word = text[..position].ends_with(is_word);
        let bytes = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_bytes(rest)
        } else if rest.starts_with('"') {
            string_bytes(rest)
        } else if let Some(bytes) = (!in_word).then(|| raw_string_bytes(rest)).flatten() {
            bytes
        } else if let Some(bytes) = character_bytes(rest) {
            bytes
        } else {
            position += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        blank(&mut code[position..position + bytes]);
        position += bytes;
    }
    code
}

fn block_comment_bytes(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut position = 0;
    while position < rest.len() {
        if rest[position..].starts_with("/*") {
            depth += 1;
            position += 2;
        } else if rest[position..].starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return position;
            }
        } else {
            position += rest[position..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string_bytes(rest: &str) -> usize {
    let mut escaped = false;
    for (position, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return position + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"..."`, `r#"..."#` and their byte and C forms; the string's own prefix is part of it.
fn raw_string_bytes(rest: &str) -> Option<usize> {
    let hashes_on = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let body = hashes_on.trim_start_matches('#');
    let hashes = hashes_on.len() - body.len();
    let body = body.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opened = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |position| opened + position + end.len()))
}

/// `'a'` and `'\n'`; none for the lifetime `'a`.
fn character_bytes(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if inner.starts_with('\\') {
        return inner[2..].find('\'').map(|position| 1 + 2 + position + 1);
    }
    let character = inner.chars().next()?;
    inner[character.len_utf8()..].starts_with('\'').then_some(1 + character.len_utf8() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("src/snippet.rs", text).code
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text =
            "a // unsafe\nb /* x /* y */ unsafe */ c \"un\\\"safe\" d r#\"un\"safe\"# e '\"' f '\\'' g<'a> b\"h\"";
        let words: String = code(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words, "a b c d e f g<'a> b");
    }

    #[test]
    fn blanks_keep_their_lines() {
        let source = Source::new("src/snippet.rs", "/* one\ntwo */\nthree");
        assert_eq!(source.line(source.positions("three").next().unwrap()), 3);
    }

    #[test]
    fn test_code_is_left_out() {
        assert_eq!(code("a\n#[cfg(test)]\nmod tests { fn b() { c } }\nd").split_whitespace().collect::<String>(), "ad");
        assert_eq!(code("#[cfg(test)]\nuse a::b;\nd").trim(), "d");
        let texts =
            [("src/a/mod.rs", "#[cfg(test)]\nmod double;\nmod real;"), ("src/a/double.rs", ""), ("src/a/real.rs", "")];
        let texts = texts.map(|(path, text)| (path.to_owned(), text.to_owned())).to_vec();
        let paths: Vec<_> = without_tests(texts).into_iter().map(|source| source.path).collect();
        assert_eq!(paths, ["src/a/mod.rs", "src/a/real.rs"]);
    }

    #[test]
    fn words_are_whole() {
        let source = Source::new("src/snippet.rs", "unsafe_code unsafe!() xunsafe unsafe");
        assert_eq!(source.positions("unsafe").collect::<Vec<_>>(), [12, 30]);
    }
}
