//! The form of a text in which two spellings of one name are equal.

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A text without its case and its accents: NFKD without marks, in full case folding, with the dotless i as i.
pub fn plain(text: &str) -> String {
    text.nfkd()
        .filter(|c| !is_combining_mark(*c))
        .default_case_fold()
        .map(|c| if c == 'ı' { 'i' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_are_dropped() {
        for (text, expected) in [
            ("", ""),
            ("Zoë", "zoe"),
            ("zoe\u{308}", "zoe"),
            ("ISTANBUL", "istanbul"),
            ("İstanbul", "istanbul"),
            ("ısparta", "isparta"),
            ("Straße", "strasse"),
            ("ﬁn", "fin"),
            ("Ａｄａ", "ada"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("\u{301}", ""),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }
}
