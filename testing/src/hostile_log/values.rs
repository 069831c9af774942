//! Single values: times, emails, texts, ids.

use fastrand::Rng;
use serde_json::{Map, Value};

use super::generator::Generator;

/// Becomes an unpaired surrogate escape where it is written as JSON, which `serde_json` itself can't write.
pub(super) const UNPAIRED: char = '\u{e000}';

impl Generator {
    /// About this time, in RFC 3339 with any offset and precision.
    pub(super) fn time(&mut self, now: i64) -> String {
        let mut seconds = (now / 1000) + self.rng.i64(-100_000..1000);
        match self.rng.u32(0..30) {
            // A day begins, and ends within its last second.
            0 => seconds -= seconds % 86_400,
            1 => seconds -= seconds % 86_400 + 1,
            _ => {}
        }
        let utc = chrono::DateTime::from_timestamp(seconds, 0).expect("in range");
        let offset = self.rng.choice([0, 7200, -34_200, 50_400]).expect("some");
        let local = utc.with_timezone(&chrono::FixedOffset::east_opt(offset).expect("an offset"));
        let fraction = self.pick(&[
            "",
            ".5",
            ".123",
            ".123456",
            ".123456789",
            ".000000000001",
            ".999999999999",
        ]);
        let plain = local.format("%Y-%m-%dT%H:%M:%S");
        match (offset, self.rng.u32(0..60)) {
            (_, 0) => self
                .pick(&["1970-01-01T00:00:00Z", "2200-12-31T23:59:59.999999999Z"])
                .to_owned(),
            (0, 1..6) => format!("{plain}{fraction}z").replace('T', "t"),
            (0, 6..40) => format!("{plain}{fraction}Z"),
            _ => format!("{plain}{fraction}{}", local.format("%:z")),
        }
    }

    pub(super) fn email(&mut self) -> String {
        match self.rng.u32(0..8) {
            0 => format!("{}+news@mail.example.org", self.name().replace(' ', ".")),
            _ => format!("user{}@example.com", self.rng.u32(0..5)),
        }
    }

    pub(super) fn text(&mut self) -> String {
        let long = "long ".repeat(self.rng.usize(1..400));
        match self.rng.u32(0..40) {
            0 => long,
            1 => "nul\0inside".into(),
            2 => "\u{1f469}\u{200d}\u{1f680} \u{202e}rtl".into(),
            3 => "quote\" back\\slash \u{1} {\"json\": true}".into(),
            4 => " ".into(),
            5 => format!("cut off {UNPAIRED}"),
            n => format!("text {n}"),
        }
    }

    pub(super) fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.rng.usize(0..from.len())]
    }
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => unreachable!("{other} is not an object"),
    }
}

pub(super) fn uuid(rng: &mut Rng) -> String {
    uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes())
        .into_uuid()
        .to_string()
}
