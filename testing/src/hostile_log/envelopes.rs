//! How an event is written: the five envelopes, the spellings of its type, JSON in different forms, and what
//! serializers put around it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::generator::{Draft, Generator, Past};
use super::values::{UNPAIRED, uuid};
use crate::broker::Record;

/// The original envelope, `StandardMessage`, structured and binary CloudEvents, Debezium's outbox event router.
pub(super) const DIALECTS: u32 = 5;
const STRUCTURED: u32 = 2;
const BINARY: u32 = 3;
const OUTBOX: u32 = 4;

impl Generator {
    /// Writes an event under a new id.
    pub(super) fn written(&mut self, user: usize, draft: Draft, now: i64) -> Record {
        self.next_id += 1;
        let id = match self.rng.u32(0..50) {
            0 => format!("{}/{}", "\u{1f4e8}".repeat(100), self.next_id),
            // An id that another partition has: there it is another event.
            1 if !self.heals && !self.past.is_empty() => {
                let past = &self.past[self.rng.usize(0..self.past.len())];
                let (_, partition) = self.place(user, draft.event_type, &draft.payload);
                let elsewhere = past.record.partition != partition;
                if elsewhere {
                    past.event_id.clone()
                } else {
                    uuid(&mut self.rng)
                }
            }
            _ => uuid(&mut self.rng),
        };
        self.written_as(user, draft, id, now)
    }

    fn written_as(&mut self, user: usize, draft: Draft, event_id: String, now: i64) -> Record {
        let event_type = draft.event_type.to_owned();
        let version = if self.rng.u32(0..200) == 0 {
            self.pick(&["7", "2", "4294967296"])
        } else {
            "1"
        };
        let dialect = self.rng.u32(0..DIALECTS);
        let mut spelled = match self.rng.u32(0..6) {
            0 => format!("{event_type}EventV{version}"),
            1 => format!("{event_type}.v{version}"),
            2 => format!("{event_type}Event.v{version}"),
            3 => format!("{event_type}V{version}"),
            4 => format!("{event_type}Event"),
            _ => event_type,
        };
        if matches!(dialect, STRUCTURED | BINARY) && self.rng.bool() {
            spelled = format!("com.example-shop.user.{spelled}");
        }
        let time = self.time(now);
        let record = self.enveloped(
            user,
            dialect,
            &spelled,
            &event_id,
            Some(&time),
            draft.payload,
        );
        let past = Past {
            event_id,
            record: Record {
                timestamp: now,
                ..record.clone()
            },
        };
        if self.past.len() < 20_000 {
            self.past.push(past);
        } else {
            let at = self.rng.usize(0..self.past.len());
            self.past[at] = past;
        }
        record
    }

    /// Puts an event into the envelope of a dialect. `None` for `time` leaves the envelope's time out.
    pub(super) fn enveloped(
        &mut self,
        user: usize,
        dialect: u32,
        event_type: &str,
        id: &str,
        time: Option<&str>,
        payload: Map<String, Value>,
    ) -> Record {
        let mut headers = Vec::new();
        let (key, partition) = self.place(user, event_type, &payload);
        let names = self.names(dialect);
        let mut body = Map::new();
        let version = if matches!(dialect, STRUCTURED | BINARY) {
            "1.0.2"
        } else {
            "1.0"
        };
        let mut meta = vec![
            (names[0], event_type.to_owned()),
            (names[1], id.to_owned()),
            (names[3], "user-service".to_owned()),
            (names[4], version.to_owned()),
        ];
        if let Some(time) = time.filter(|_| self.rng.u32(0..12) > 0) {
            meta.push((names[2], time.to_owned()));
        }
        if self.rng.u32(0..8) == 0 {
            let name = match dialect {
                STRUCTURED => "correlationid",
                BINARY => "ce_correlationid",
                _ => "correlationId",
            };
            let id = self.pick(&["c-2", "", "\u{1f517}/3", "c 4 \u{e9}"]);
            meta.push((name, id.to_owned()));
        }
        if dialect == OUTBOX {
            meta.truncate(2);
        }
        if matches!(dialect, BINARY | OUTBOX) {
            headers.extend(
                meta.into_iter()
                    .map(|(name, value)| (name.to_owned(), value.into_bytes())),
            );
            headers.push(("content-type".into(), b"application/json".to_vec()));
            body = payload;
        } else {
            body.extend(
                meta.into_iter()
                    .map(|(name, value)| (name.to_owned(), json!(value))),
            );
            if dialect == STRUCTURED && self.rng.u32(0..3) == 0 {
                let json = self.json(&Value::Object(payload));
                let json = self.with_unpaired_surrogates(json);
                body.insert("data_base64".into(), json!(BASE64_STANDARD.encode(json)));
            } else {
                body.insert(names[5].into(), Value::Object(payload));
            }
        }
        if self.rng.u32(0..10) == 0 {
            headers.push(("correlationId".into(), b"c-1".to_vec()));
            if dialect != BINARY {
                // Binary mode takes both headers; with one alone, the body or the outbox's headers count.
                headers.push(("ce_id".into(), b"not-this".to_vec()));
            }
            if dialect != OUTBOX {
                // The other envelopes count before the outbox's.
                headers.push(("id".into(), b"not-this".to_vec()));
                headers.push(("eventType".into(), b"UserDeleted".to_vec()));
            }
        }
        if self.rng.u32(0..20) == 0 {
            let trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec();
            headers.push(("traceparent".into(), trace));
        }
        let json = self.json(&Value::Object(body));
        let value = self.wrapped(json);
        Record {
            partition,
            key,
            value: Some(value),
            headers,
            timestamp: 0,
        }
    }

    /// The key of an event and its partition: its user's, or those of the role or permission that it is about.
    fn place(
        &self,
        user: usize,
        event_type: &str,
        payload: &Map<String, Value>,
    ) -> (Option<Vec<u8>>, i32) {
        let of_user = self.users[user].partition;
        match self.of_access(event_type, payload) {
            Some(named) => (Some(named.id.clone().into_bytes()), named.partition),
            None => (self.key(user, event_type, payload), of_user),
        }
    }

    /// The key of an event: its user's; of a failed login that names no user the email, else the address, else none.
    fn key(&self, user: usize, event_type: &str, payload: &Map<String, Value>) -> Option<Vec<u8>> {
        let text = |name: &str| payload.get(name)?.as_str().filter(|text| !text.is_empty());
        if !event_type.contains("UserLoginFailed") || text("attemptedUserId").is_some() {
            return self.users[user].key.clone();
        }
        let key = text("attemptedEmail").or_else(|| text("ipAddress"))?;
        Some(key.as_bytes().to_vec())
    }

    /// The names of type, id, time, source, version and payload in a dialect.
    fn names(&mut self, dialect: u32) -> [&'static str; 6] {
        match dialect {
            0 if self.rng.bool() => [
                "eventType",
                "eventId",
                "eventTimestamp",
                "sourceService",
                "version",
                "payload",
            ],
            0 => [
                "eventType",
                "eventId",
                "timestamp",
                "source",
                "version",
                "data",
            ],
            1 => [
                "messageType",
                "messageId",
                "timestamp",
                "sourceService",
                "envelopeVersion",
                "payload",
            ],
            STRUCTURED => ["type", "id", "time", "source", "specversion", "data"],
            OUTBOX => ["eventType", "id", "", "", "", ""],
            _ => [
                "ce_type",
                "ce_id",
                "ce_time",
                "ce_source",
                "ce_specversion",
                "",
            ],
        }
    }

    /// One of several texts that all mean this JSON.
    fn json(&mut self, value: &Value) -> String {
        let mut text = match self.rng.u32(0..6) {
            0 => serde_json::to_string_pretty(value).expect("JSON"),
            _ => value.to_string(),
        };
        match self.rng.u32(0..12) {
            // The last of duplicate names counts.
            0 => text = text.replacen("\"userId\":", "\"userId\":\"not-this-one\",\"userId\":", 1),
            1 => {
                let mut escaped = String::new();
                for c in text.chars() {
                    if c.is_ascii() || c == UNPAIRED {
                        escaped.push(c);
                    } else {
                        let mut units = [0; 2];
                        for unit in c.encode_utf16(&mut units) {
                            escaped.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                }
                text = escaped;
            }
            2 => text = format!(" \r\n\t{text}\n"),
            _ => {}
        }
        text
    }

    /// JSON as some serializers write it: in a string, in Connect's wrapper, behind a byte order mark or the framing
    /// of a schema registry, or in several of them.
    fn wrapped(&mut self, json: String) -> Vec<u8> {
        let is_wrapped = self.rng.u32(0..6) == 0;
        let [in_string, in_wrapper, marked, framed] =
            [(); 4].map(|()| is_wrapped && self.rng.bool());
        let mut text = json;
        if in_string {
            // The surrogates are the inner serializer's or the outer one's.
            if self.rng.bool() {
                text = self.with_unpaired_surrogates(text);
            }
            text = json!(text).to_string();
        }
        if in_wrapper {
            let schema = self.pick(&["null", r#"{"type":"struct","fields":[]}"#, "1e999"]);
            text = if self.rng.bool() {
                format!(r#"{{"schema":{schema},"payload":{text}}}"#)
            } else {
                format!(r#"{{"payload": {text}, "schema": {schema}}}"#)
            };
        }
        let mut bytes = self.with_unpaired_surrogates(text).into_bytes();
        if marked {
            bytes.splice(..0, "\u{feff}".bytes());
        }
        if framed {
            bytes.splice(..0, [0, 0, 0, 1, self.rng.u8(..)]);
        }
        bytes
    }

    fn with_unpaired_surrogates(&mut self, json: String) -> String {
        let escape = self.pick(&[r"\ud83d", r"\uD800", r"\udfff"]);
        json.replace(UNPAIRED, escape)
    }
}
