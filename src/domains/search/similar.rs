//! Words within a few edits (insert, delete, replace one character) of a word of a query.
//!
//! Two words that differ by few edits share a piece: one that no edit touches. Indexes find the words that have a piece
//! ([`Pieces`]), and those that are too far are dropped here.

use super::words::MAX_WORD_LENGTH;

/// A user's word at two edits from a query's has at least so many characters.
const SHORTEST_IN_THREE: usize = 6;
/// The most words that stand in for one of a query, the nearest ones. The time that an index of Postgres takes for them grows
/// with their square: 15 ms for 1,000, a second for 5,000.
const MAX_SIMILAR: usize = 1_000;
/// The most bytes of them: Postgres takes a query of 1 MiB, which has up to ten words.
const MAX_SIMILAR_BYTES: usize = 80_000;

/// How many edits a word of a query allows.
pub fn allowed_edits(word: &str) -> usize {
    match word.chars().count() {
        0..4 => 0,
        4..8 => 1,
        _ => 2,
    }
}

/// The end of the range of words that begin with a prefix, in the order of bytes: no word holds this character.
pub fn end_of_prefix(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

/// What to look for: the n-th entries of a list's columns belong together.
#[derive(Debug, Default, PartialEq)]
pub struct Pieces {
    /// Words of a length that begin with a piece.
    pub beginnings: Ranges,
    /// Words of a length that end with a piece, which is written backwards.
    pub endings: Ranges,
    /// Words of a length that have a piece in the middle (the column `middle`).
    pub middles: Middles,
}

/// Ranges of words of one length: from `first`, and before `last`.
#[derive(Debug, Default, PartialEq)]
pub struct Ranges {
    /// Which word of the query.
    pub numbers: Vec<i32>,
    pub lengths: Vec<i32>,
    pub first: Vec<String>,
    pub last: Vec<String>,
}

/// Words of one length with one piece in the middle.
#[derive(Debug, Default, PartialEq)]
pub struct Middles {
    /// Which word of the query.
    pub numbers: Vec<i32>,
    pub lengths: Vec<i32>,
    pub pieces: Vec<String>,
}

impl Ranges {
    fn push(&mut self, number: i32, length: usize, piece: String) {
        self.numbers.push(number);
        self.lengths.push(length as i32);
        self.last.push(end_of_prefix(&piece));
        self.first.push(piece);
    }
}

impl Pieces {
    /// The pieces of a query's words.
    pub fn of<'w>(words: impl IntoIterator<Item = &'w str>) -> Self {
        let mut pieces = Self::default();
        for (number, word) in (0..).zip(words) {
            let letters: Vec<char> = word.chars().collect();
            match allowed_edits(word) {
                0 => {}
                1 => pieces.add_halves(number, &letters),
                _ => pieces.add_thirds(number, &letters),
            }
        }
        pieces
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.beginnings.numbers.is_empty()
    }

    /// One edit leaves one half of the query's word as it is.
    fn add_halves(&mut self, number: i32, word: &[char]) {
        let (left, right) = word.split_at(word.len() / 2);
        for length in word.len() - 1..=word.len() + 1 {
            self.beginnings.push(number, length, left.iter().collect());
            self.endings
                .push(number, length, right.iter().rev().collect());
        }
    }

    /// Two edits leave the left, the right or the middle third of the user's word as it is in the query's. The middle one is
    /// needed only where each of the others has one edit, so there it is shifted by one at most.
    fn add_thirds(&mut self, number: i32, word: &[char]) {
        let most = MAX_WORD_LENGTH.min(word.len() + 2);
        for length in SHORTEST_IN_THREE.max(word.len() - 2)..=most {
            let left = length.div_ceil(3);
            let right = length / 3;
            let middle = length - left - right;
            self.beginnings
                .push(number, length, word[..left].iter().collect());
            let ending = &word[word.len() - right..];
            self.endings
                .push(number, length, ending.iter().rev().collect());
            for left_shift in -1..=1_isize {
                let right_shift = word.len() as isize - length as isize - left_shift;
                let from = left.checked_add_signed(left_shift);
                let piece = from.and_then(|from| word.get(from..from + middle));
                if let Some(piece) = piece
                    && right_shift.abs() <= 1
                {
                    self.middles.numbers.push(number);
                    self.middles.lengths.push(length as i32);
                    self.middles.pieces.push(piece.iter().collect());
                }
            }
        }
    }
}

/// Those of the candidates that are within the edits which a word of a query allows, nearest first. Words that begin with it
/// are left out: they match better.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Vec<String> {
    let allowed = allowed_edits(word);
    let letters = letters(word);
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        // One edit changes two letters of the set at most.
        .filter(|other| (self::letters(other) ^ letters).count_ones() as usize <= 2 * allowed)
        .filter(|other| !other.starts_with(word))
        .map(|other| (strsim::levenshtein(word, other), other))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    near.sort_unstable();
    near.dedup();
    let mut bytes = 0;
    near.into_iter()
        .map(|(_, other)| other.to_owned())
        .take(MAX_SIMILAR)
        .take_while(|other| {
            bytes += other.len();
            bytes <= MAX_SIMILAR_BYTES
        })
        .collect()
}

/// The set of a word's letters, of which some share a bit.
fn letters(word: &str) -> u64 {
    word.chars()
        .fold(0, |set, letter| set | 1 << (letter as u32 % 64))
}
