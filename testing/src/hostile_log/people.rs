//! What people are called, where they come from, and what they prefer.

use serde_json::{Value, json};

use super::generator::Generator;

/// Names that are alike: in other cases, with and without accents, and in other spellings.
const NAMES: &[&str] = &[
    "M\u{fc}ller",
    "Mu\u{308}ller",
    "MUELLER",
    "Muller",
    "Miller",
    "M\u{f6}ller",
    "J\u{fc}rgen",
    "Jurgen",
    "Zo\u{eb}",
    "Zoe",
    "\u{141}ukasz",
    "Lukasz",
    "\u{d8}yvind",
    "Oyvind",
    "Stra\u{df}er",
    "STRASSER",
    "Stra\u{1e9e}er",
    "\u{c6}gir",
    "Aegir",
    "\u{de}\u{f3}r",
    "Thor",
    "\u{130}nci",
    "\u{131}nci",
    "Inci",
    "Nguy\u{1ec5}n",
    "Nguyen",
    "\u{110}or\u{111}e",
    "Dorde",
    "\u{126}amrun",
    "\u{152}uvre",
    "Anna-Lena",
    "Annalena",
    "O'Neill",
    "ONeill",
    "\u{391}\u{3bb}\u{3ad}\u{3be}\u{3b7}\u{3c2}",
    "\u{391}\u{39b}\u{395}\u{39e}\u{397}\u{3a3}",
    "\u{410}\u{43b}\u{451}\u{43d}\u{430}",
    "\u{410}\u{43b}\u{435}\u{43d}\u{430}",
    "\u{674e}\u{5c0f}\u{9f8d}",
    "\u{674e}\u{5c0f}",
    "\u{fb01}ona",
    "Fiona",
    "Christopher",
    "Kristopher",
    "Christoffer",
    "Christopher-James",
    "Alexander",
    "Aleksander",
    "Alexandra",
    "Elizabeth",
    "Elisabeth",
    "Elisabet",
    "Jos\u{e9} Mar\u{ed}a",
    "Jose",
    "Al",
    "Ali",
    "Ann",
    "Anna",
    "Anne",
    "Hans",
    "Jans",
    "\u{930}\u{93e}\u{91c}\u{947}\u{936}",
    "\u{2460}\u{2461}",
    "x_y",
    "-",
];

impl Generator {
    /// A name, as it is or with a typing error; sometimes several, a long one, or any text.
    pub(super) fn name(&mut self) -> String {
        let name = self.pick(NAMES).to_owned();
        match self.rng.u32(0..16) {
            0..4 => self.text(),
            4..6 => self.mistyped(&name),
            6 => format!("{name}  {}", self.pick(NAMES)),
            // Alike for as many characters as count.
            7 if self.rng.bool() => {
                let end = self.pick(&["", "a", "b"]);
                format!("{}{end}", "\u{e9}x".repeat(50))
            }
            7 => "long words ".repeat(self.rng.usize(1..200)),
            8 => name.to_uppercase(),
            9 => format!("{name}{}", self.rng.u32(0..20)),
            _ => name,
        }
    }

    fn mistyped(&mut self, name: &str) -> String {
        let mut name: Vec<char> = name.chars().collect();
        for _ in 0..self.rng.usize(1..3) {
            let at = self.rng.usize(0..name.len());
            match self.rng.u32(0..4) {
                0 => name.insert(at, 'e'),
                1 if name.len() > 1 => drop(name.remove(at)),
                2 => name.swap(0, at),
                _ => name[at] = 'e',
            }
        }
        name.into_iter().collect()
    }

    /// Where a registration comes from.
    pub(super) fn source(&mut self) -> String {
        match self.rng.u32(0..12) {
            0 => format!("{}{}", "s\u{1f980}".repeat(50), self.pick(&["", "1", "2"])),
            1 => "unknown".into(),
            2 => self.text(),
            3..6 => "google_oauth".into(),
            _ => "direct".into(),
        }
    }

    /// Why a login failed.
    pub(super) fn reason(&mut self) -> String {
        match self.rng.u32(0..12) {
            0 => format!("{}{}", "r".repeat(100), self.pick(&["", "1", "2"])),
            1 => "unknown".into(),
            2 => "nul\0inside".into(),
            3 => "account_locked".into(),
            4..7 => "user_not_found".into(),
            _ => "invalid_credentials".into(),
        }
    }

    /// A preference's value: a scalar, mostly.
    pub(super) fn preference(&mut self) -> Value {
        match self.rng.u32(0..16) {
            0 => json!(["a", "b", 3]),
            1 => json!([{"a": {"b": true}}]),
            2 => json!({"a": true, "b": {"c": "deep"}}),
            3 => json!("a:b"),
            4 => json!("false"),
            5 => json!("\u{0}"),
            6 => json!(self.text()),
            7 => json!(1.5),
            8 => json!(-3),
            9 => json!(3),
            10..13 => json!(self.rng.bool()),
            _ => json!(self.pick(&["dark", "light", "Dark"])),
        }
    }

    /// All preferences at once.
    pub(super) fn preferences(&mut self) -> Value {
        let members = [
            "theme",
            "privacy",
            "privacy.tracking",
            "email",
            "gr\u{f6}\u{df}e",
            "old",
        ];
        let mut object = json!({});
        for name in members {
            match self.rng.u32(0..6) {
                0..2 => object[name] = self.preference(),
                2 if name == "privacy" => {
                    object[name] = json!({"tracking": self.rng.bool(), "ads": null, "more": {}});
                }
                _ => {}
            }
        }
        object
    }
}
