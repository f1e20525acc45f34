//! Glob patterns as Redis means them, for `PUBSUB CHANNELS`.

/// Whether `text` matches `pattern`: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before a character that is meant itself.
pub fn glob_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    // Where to go on if the last star has to swallow one byte more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(pattern_at) {
            Some(b'*') => {
                star = Some((pattern_at + 1, text_at));
                pattern_at += 1;
                continue;
            }
            Some(_) if text_at < text.len() => match_one(&pattern[pattern_at..], text[text_at]),
            Some(_) => None,
            None if text_at == text.len() => return true,
            None => None,
        };
        match (step, star) {
            (Some(bytes), _) => {
                pattern_at += bytes;
                text_at += 1;
            }
            (None, Some((after_star, swallowed))) if swallowed < text.len() => {
                star = Some((after_star, swallowed + 1));
                pattern_at = after_star;
                text_at = swallowed + 1;
            }
            (None, _) => return false,
        }
    }
}

/// Length of the pattern's first element if it matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => match_class(rest, byte).map(|bytes| bytes + 1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [literal, ..] => (*literal == byte).then_some(1),
        [] => None,
    }
}

/// Length of a class behind its `[` if it matches.
fn match_class(class: &[u8], byte: u8) -> Option<usize> {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    while at < class.len() && class[at] != b']' {
        let (first, length) = class_member(&class[at..]);
        at += length;
        if class.get(at) == Some(&b'-') && class.get(at + 1).is_some_and(|next| *next != b']') {
            let (last, length) = class_member(&class[at + 1..]);
            at += 1 + length;
            matched |= (first.min(last)..=first.max(last)).contains(&byte);
        } else {
            matched |= first == byte;
        }
    }
    // A class without its `]` ends with the pattern, as in Redis.
    (matched != negated).then_some((at + 1).min(class.len()))
}

fn class_member(class: &[u8]) -> (u8, usize) {
    match class {
        [b'\\', escaped, ..] => (*escaped, 2),
        _ => (class[0], 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("news:*", "news:eu", true),
            ("news:*", "sport:eu", false),
            ("*eu", "news:eu", true),
            ("n*s:*u", "news:eu", true),
            ("n*s:*x", "news:eu", false),
            ("new?:eu", "news:eu", true),
            ("new?", "new", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[a", "a", true),
            ("a**b", "axxb", true),
        ] {
            assert_eq!(glob_matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "*a".repeat(100);
        assert!(!glob_matches(pattern.as_bytes(), "a".repeat(99).as_bytes()));
        assert!(glob_matches(pattern.as_bytes(), "a".repeat(1000).as_bytes()));
    }
}
