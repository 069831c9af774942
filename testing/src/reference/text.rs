//! Texts as they are compared: without case, and without marks.

use icu_normalizer::DecomposingNormalizer;
use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

/// A text in NFKD, without marks and case. Upper case makes i of the dotless one, and no letter's case is left
/// after upper and then lower case.
pub fn plain(text: &str) -> String {
    let categories = CodePointMapData::<GeneralCategory>::new();
    let marks = [
        GeneralCategory::NonspacingMark,
        GeneralCategory::SpacingMark,
        GeneralCategory::EnclosingMark,
    ];
    DecomposingNormalizer::new_nfkd()
        .normalize(text)
        .chars()
        .filter(|c| !marks.contains(&categories.get(*c)))
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

/// A text in full case folding, which keeps marks and the dotless i. Lower case first, for the capital sharp s.
pub fn folded(text: &str) -> String {
    let fold = |c: char| -> String {
        match c {
            '\u{131}' => c.into(),
            c => c
                .to_lowercase()
                .flat_map(char::to_uppercase)
                .flat_map(char::to_lowercase)
                .collect(),
        }
    };
    text.chars().map(fold).collect()
}
