//! Text as Postgres can store it: without NUL, and cut to a length where its source is unbounded.

use std::borrow::Cow;

/// Replaces each NUL by U+FFFD, because Postgres stores no NUL in `text` and `jsonb`.
pub fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The first `max_chars` characters (Unicode scalar values), each NUL replaced by U+FFFD.
pub fn excerpt(text: &str, max_chars: usize) -> String {
    let end = text
        .char_indices()
        .nth(max_chars)
        .map_or(text.len(), |(index, _)| index);
    without_nul(&text[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nul_becomes_the_replacement_character() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("\0", "\u{FFFD}"),
            ("a\0b\0", "a\u{FFFD}b\u{FFFD}"),
        ] {
            assert_eq!(without_nul(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_excerpt_counts_characters_and_not_bytes() {
        for (text, max_chars, expected) in [
            ("", 0, ""),
            ("", 3, ""),
            ("abc", 0, ""),
            ("abc", 2, "ab"),
            ("abc", 3, "abc"),
            ("abc", 4, "abc"),
            ("🦀ß\0x", 1, "🦀"),
            ("🦀ß\0x", 2, "🦀ß"),
            ("🦀ß\0x", 3, "🦀ß\u{FFFD}"),
            ("🦀ß\0x", 4, "🦀ß\u{FFFD}x"),
            ("🦀ß\0x", usize::MAX, "🦀ß\u{FFFD}x"),
        ] {
            let excerpt = excerpt(text, max_chars);
            assert_eq!(excerpt, expected, "{text:?}, at most {max_chars}");
        }
    }
}
