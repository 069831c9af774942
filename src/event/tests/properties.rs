//! Properties: an event reads the same in every dialect, spelling and shape, and no bytes make
//! reading panic or put data of the record into an error.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use proptest::prelude::*;

use super::super::{Change, TypeName};
use super::*;

/// A character of every generated text that no name of `docs/events.md` has. A message about a bad
/// record must not have it.
const MARK: char = '§';

/// Old and new values by field name.
type Changed = BTreeMap<String, (Option<Value>, Change<Value>)>;

/// What an event means, independent of how it is written.
struct Meaning {
    type_name: &'static str,
    id: String,
    time: DateTime<Utc>,
    correlation: Option<String>,
    source: Option<String>,
    /// The payload's fields, except its own times, updatedFields, newValues and oldValues.
    fields: BTreeMap<&'static str, Value>,
    /// The changes, if the type has updatedFields.
    changes: Option<Changed>,
}

/// Whether the type has a required newValues and an optional oldValues.
fn has_old_values(type_name: &str) -> bool {
    matches!(type_name, "RoleUpdated" | "PermissionUpdated")
}

/// Random choices, from a seed that proptest prints when a case fails.
struct Random(fastrand::Rng);

impl Random {
    fn of(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.0.u32(..n) == 0
    }

    fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.0.usize(..options.len())]
    }

    fn id(&mut self) -> String {
        let mut id = self.text(254).replace('\0', "0");
        id.truncate(id.char_indices().nth(255).map_or(id.len(), |(at, _)| at));
        id
    }

    /// The mark and up to `max` more characters of any kind.
    fn text(&mut self, max: usize) -> String {
        let length = if self.one_in(8) {
            max
        } else {
            self.0.usize(..8)
        };
        let mut text: String = (0..length)
            .map(|_| match self.0.u32(..6) {
                0 => self.pick(&[
                    '\0', '"', '\\', '\n', '.', '\u{FFFD}', '\u{202E}', 'ß', '🦀', '{',
                ]),
                1 => self.0.char(..),
                _ => self.0.alphanumeric(),
            })
            .collect();
        text.insert(0, MARK);
        text
    }

    /// A name that no type and no field has.
    fn unknown_name(&mut self) -> String {
        self.text(10)
    }

    fn json(&mut self, depth: u32) -> Value {
        match self.0.u32(..if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => json!(self.0.bool()),
            2 => json!(self.0.i64(..)),
            3 => json!(self.0.i32(..) as f64 / 8.0),
            4 => json!(self.text(20)),
            5 => (0..self.0.u32(..4)).map(|_| self.json(depth - 1)).collect(),
            _ => Value::Object(
                (0..self.0.u32(..4))
                    .map(|_| (self.unknown_name(), self.json(depth - 1)))
                    .collect(),
            ),
        }
    }

    /// JSON that does not clear a field.
    fn json_value(&mut self) -> Value {
        match self.json(3) {
            Value::Null => json!(false),
            // Looks like an entry with `old` and `new`, but is a plain value below a dotted name.
            Value::Object(entries) if entries.is_empty() => json!({"old": 1, "new": {"old": 2}}),
            value => value,
        }
    }

    fn meaning(&mut self, type_name: &'static str) -> Meaning {
        let mut meaning = Meaning {
            type_name,
            id: self.id(),
            time: self.time(),
            correlation: self.0.bool().then(|| self.id()),
            source: self.0.bool().then(|| self.text(20)),
            fields: BTreeMap::new(),
            changes: None,
        };
        for field in fields(type_name) {
            if !field.required && self.one_in(3) {
                continue;
            }
            let value = match (field.kind, field.name) {
                ('b', _) => json!(self.0.bool()),
                ('s', "deletionType") => json!(self.pick(&["hard", "soft", "other"])),
                ('s', name) if name.ends_with("Id") => json!(self.id()),
                ('s' | 'c', _) => json!(self.text(300)),
                ('a', name) if name.ends_with("Ids") => (0..3).map(|_| self.id()).collect(),
                ('a', _) => (0..3).map(|_| self.json(2)).collect(),
                ('o', "fullAddress") => {
                    let parts = ADDRESS.iter().filter(|_| self.0.u32(..3) > 0);
                    let parts: Vec<_> = parts.map(|names| names[0].to_owned()).collect();
                    parts
                        .into_iter()
                        .map(|name| (name, json!(self.text(40))))
                        .collect()
                }
                ('u', _) => {
                    meaning.changes = Some(self.changes(type_name));
                    continue;
                }
                _ => continue,
            };
            meaning.fields.insert(field.name, value);
        }
        meaning
    }

    fn changes(&mut self, type_name: &str) -> Changed {
        let mut names: Vec<String> = match type_name {
            "UserUpdated" => vec!["username".into(), "email".into(), "secondaryEmail".into()],
            "UserProfileUpdated" => vec!["bio".into(), "gender".into(), "dateOfBirth".into()],
            "UserAddressUpdated" => ADDRESS.iter().map(|names| names[0].into()).collect(),
            "RoleUpdated" => vec!["roleName".into(), "description".into()],
            _ => vec!["permissionName".into(), "subject".into()],
        };
        names.retain(|_| self.0.u32(..3) > 0);
        let mut values = BTreeMap::new();
        for name in names {
            values.insert(name, json!(self.text(30)));
        }
        if type_name == "UserProfileUpdated" {
            if self.one_in(4) {
                values.insert("preferences".to_owned(), json!({"whole": self.json(3)}));
            }
            for _ in 0..self.0.u32(..4) {
                let leaf = self.text(10).replace('.', "-");
                let parent = self.pick(&["preferences", "communicationPreferences"]);
                values.insert(format!("{parent}.{leaf}"), self.json_value());
            }
        } else if self.0.bool() {
            values.insert(self.unknown_name().replace('.', "-"), self.json_value());
        }
        let with_old_values = has_old_values(type_name);
        let changes = values.into_iter().map(|(name, value)| {
            let new = match self.0.u32(..4) {
                0 => Change::Unknown,
                1 => Change::Cleared,
                _ => Change::Value(value),
            };
            let old = (with_old_values && self.0.bool()).then(|| self.json_value());
            (name, (old, new))
        });
        changes.collect()
    }

    fn time(&mut self) -> DateTime<Utc> {
        let micros = self.0.i64(0..7_289_654_400_000_000);
        // Half of the times can be Kafka timestamps, which are in milliseconds.
        let micros = if self.0.bool() {
            micros / 1000 * 1000
        } else {
            micros
        };
        DateTime::from_timestamp_micros(micros).unwrap()
    }

    fn written_time(&mut self, time: DateTime<Utc>) -> Value {
        let offset = FixedOffset::east_opt(self.0.i32(-1439..=1439) * 60).unwrap();
        let local = time.with_timezone(&offset).naive_local();
        let fraction = if time.timestamp_subsec_micros() == 0 && self.0.bool() {
            String::new()
        } else {
            let finer = self.pick(&["", "0", "999", "123456789"]);
            format!(".{:06}{finer}", time.timestamp_subsec_micros())
        };
        if self.0.bool() || !(1..=9999).contains(&chrono::Datelike::year(&local)) {
            let zulu = time.format("%Y-%m-%dT%H:%M:%S");
            let written = format!("{zulu}{fraction}Z");
            return json!(if self.0.bool() {
                written
            } else {
                written.to_lowercase()
            });
        }
        let separator = self.pick(&["T", "t"]);
        let local = local
            .format(&format!("%Y-%m-%d{separator}%H:%M:%S"))
            .to_string();
        json!(format!("{local}{fraction}{offset}"))
    }

    /// The same JSON, with NUL written as an escape that is read the same.
    fn with_other_escapes(&mut self, json: &str) -> String {
        with_nul_escaped_as(
            json,
            self.pick(&[r"\u0000", r"\ud83d", r"\uDBFF", r"\uDc00"]),
        )
    }

    /// A value that counts as absent.
    fn blank(&mut self) -> Value {
        self.pick(&[Some(""), None]).into()
    }

    /// A time that is not read, because an earlier one counts.
    fn garbage_time(&mut self) -> Option<Value> {
        match self.0.u32(..4) {
            0 => None,
            1 => Some(self.blank()),
            2 => Some(json!("§ yesterday")),
            _ => Some(self.json(2)),
        }
    }
}

/// Writes a meaning in one of the many possible ways.
fn write(meaning: &Meaning, random: &mut Random) -> Record {
    let mut dialect = random.pick(&["event", "standard", "structured", "binary", "outbox"]);
    if dialect == "outbox" && meaning.source.is_some() {
        dialect = "binary";
    }
    let mut payload = write_payload(meaning, random);
    let has_time = dialect != "outbox";
    let (envelope_time, timestamp_ms) = write_times(meaning, has_time, &mut payload, random);
    let prefix = match dialect {
        "structured" | "binary" => random.pick(&["", "com.example.user.", "org."]),
        _ => "",
    };
    let suffix = random.pick(&["EventV1", ".v1", "Event.v1", "V1", "Event", ""]);
    let type_name = format!("{prefix}{}{suffix}", meaning.type_name);
    let mut record = match dialect {
        "binary" => write_binary(meaning, &type_name, &payload, envelope_time, random),
        "outbox" => write_outbox(meaning, &type_name, &payload, random),
        _ => write_body(meaning, dialect, &type_name, payload, envelope_time, random),
    };
    record.value = record.value.map(|json| write_wrapped(&json, random));
    if random.one_in(3) {
        let trace = Bytes::from_static(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        record.headers.push(("traceparent".to_owned(), Some(trace)));
    }
    record.timestamp_ms = timestamp_ms;
    record
}

/// The payload. Its own times are added by [`write_times`].
fn write_payload(meaning: &Meaning, random: &mut Random) -> Map<String, Value> {
    let mut payload = Map::new();
    for field in fields(meaning.type_name) {
        match meaning.fields.get(field.name) {
            Some(value) if field.name == "fullAddress" => {
                let mut parts = Map::new();
                for (name, part) in value.as_object().unwrap() {
                    let spellings = ADDRESS.iter().find(|names| names[0] == name).unwrap();
                    // Another spelling may be there if it is blank.
                    let (blank, spelling) = (random.pick(spellings), random.pick(spellings));
                    parts.insert(blank.to_owned(), random.blank());
                    parts.insert(spelling.to_owned(), part.clone());
                }
                parts.insert(random.unknown_name(), random.json(2));
                payload.insert(field.name.to_owned(), parts.into());
            }
            Some(value) => {
                payload.insert(field.name.to_owned(), value.clone());
            }
            None if !field.required && random.0.bool() => {
                payload.insert(field.name.to_owned(), random.blank());
            }
            None => {}
        }
    }
    if let Some(changes) = &meaning.changes {
        for name in ["updatedFields", "newValues", "oldValues"] {
            payload.remove(name);
        }
        write_changes(
            changes,
            has_old_values(meaning.type_name),
            &mut payload,
            random,
        );
    }
    for _ in 0..random.0.u32(..3) {
        payload.insert(random.unknown_name(), random.json(3));
    }
    payload
}

/// Writes one time that counts, blank ones before it, and any others after it. The payload's own
/// times are added to the payload; the result has the envelope's time and Kafka's. `has_time` is
/// whether the envelope can have one.
fn write_times(
    meaning: &Meaning,
    has_time: bool,
    payload: &mut Map<String, Value>,
    random: &mut Random,
) -> (Option<Value>, Option<i64>) {
    let in_millis = meaning.time.timestamp_subsec_micros().is_multiple_of(1000);
    let counting = match (has_time, in_millis) {
        (true, true) => random.pick(&[0, 1, 2]),
        (true, false) => random.pick(&[0, 1]),
        (false, true) => random.pick(&[0, 2]),
        (false, false) => 0,
    };
    let own_names: Vec<_> = fields(meaning.type_name)
        .into_iter()
        .filter(|f| f.kind == 't')
        .collect();
    for name in &own_names {
        payload.remove(name.name);
    }
    if counting == 0 {
        let name = random.pick(&own_names).name;
        payload.insert(name.to_owned(), random.written_time(meaning.time));
    } else if random.0.bool() {
        payload.insert(own_names[0].name.to_owned(), random.blank());
    }
    let envelope_time = match counting {
        0 => random.garbage_time(),
        1 => Some(random.written_time(meaning.time)),
        _ => random.0.bool().then(|| random.blank()),
    };
    let timestamp_ms = match counting {
        2 => Some(meaning.time.timestamp_millis()),
        _ => random.pick(&[None, Some(-1), Some(i64::MAX), Some(KAFKA_TIME_MS)]),
    };
    (envelope_time, timestamp_ms)
}

fn write_body(
    meaning: &Meaning,
    dialect: &str,
    type_name: &str,
    payload: Map<String, Value>,
    time: Option<Value>,
    random: &mut Random,
) -> Record {
    let (id, event_type, time_name, source, correlation, payload_name) = match dialect {
        "event" => (
            "eventId",
            "eventType",
            random.pick(&["eventTimestamp", "timestamp"]),
            random.pick(&["sourceService", "source"]),
            "correlationId",
            random.pick(&["payload", "data"]),
        ),
        "standard" => (
            "messageId",
            "messageType",
            "timestamp",
            "sourceService",
            "correlationId",
            "payload",
        ),
        _ => ("id", "type", "time", "source", "correlationid", "data"),
    };
    let mut body = Map::new();
    for _ in 0..random.0.u32(..3) {
        body.insert(random.unknown_name(), random.json(3));
    }
    match dialect {
        "event" => body.insert("version".into(), json!("1.0")),
        "standard" => body.insert("envelopeVersion".into(), json!("1.0")),
        _ => body.insert("specversion".into(), json!("1.0")),
    };
    body.insert(id.into(), json!(meaning.id));
    body.insert(event_type.into(), json!(type_name));
    if dialect == "structured" && random.0.bool() {
        let json = random.with_other_escapes(&serde_json::to_string(&payload).unwrap());
        body.insert("data_base64".into(), json!(BASE64_STANDARD.encode(json)));
        if random.0.bool() {
            body.insert(payload_name.into(), random.blank());
        }
    } else {
        body.insert(payload_name.into(), payload.into());
    }
    if let Some(time) = time {
        body.insert(time_name.into(), time);
    }
    match &meaning.source {
        Some(text) => drop(body.insert(source.into(), json!(text))),
        None if random.0.bool() => drop(body.insert(source.into(), random.blank())),
        None => {}
    }
    let mut headers = Vec::new();
    match &meaning.correlation {
        Some(id) if random.0.bool() => {
            headers.push(("correlationId".to_owned(), Some(Bytes::from(id.clone()))));
        }
        Some(id) => {
            body.insert(correlation.into(), json!(id));
            headers.push((
                "correlationId".to_owned(),
                Some(Bytes::from_static(b"\xFF")),
            ));
        }
        None => drop(body.insert(correlation.into(), random.blank())),
    }
    let mut record = record(&body.into());
    record.headers = headers;
    record
}

fn write_binary(
    meaning: &Meaning,
    type_name: &str,
    payload: &Map<String, Value>,
    time: Option<Value>,
    random: &mut Random,
) -> Record {
    let mut headers: Vec<(&str, Vec<u8>)> = vec![
        ("ce_specversion", b"1.0".to_vec()),
        ("ce_id", meaning.id.clone().into_bytes()),
        ("ce_type", type_name.as_bytes().to_vec()),
    ];
    match time {
        Some(Value::String(time)) => headers.push(("ce_time", time.into_bytes())),
        Some(Value::Null) => headers.push(("ce_time", Vec::new())),
        Some(garbage) => headers.push(("ce_time", garbage.to_string().into_bytes())),
        None => {}
    }
    if let Some(source) = &meaning.source {
        headers.push(("ce_source", source.clone().into_bytes()));
    }
    if let Some(id) = &meaning.correlation {
        let name = random.pick(&["ce_correlationid", "correlationId"]);
        headers.push((name, id.clone().into_bytes()));
    }
    random.0.shuffle(&mut headers);
    let mut record = record_of(serde_json::to_vec(payload).unwrap());
    let owned = |(name, value): (&str, Vec<u8>)| (name.to_owned(), Some(Bytes::from(value)));
    record.headers = headers.into_iter().map(owned).collect();
    record
}

fn write_outbox(
    meaning: &Meaning,
    type_name: &str,
    payload: &Map<String, Value>,
    random: &mut Random,
) -> Record {
    let mut headers: Vec<(&str, &[u8])> = vec![
        ("id", meaning.id.as_bytes()),
        ("eventType", type_name.as_bytes()),
        ("ce_id", b"not read, for lack of a ce_type"),
    ];
    if let Some(id) = &meaning.correlation {
        headers.push(("correlationId", id.as_bytes()));
    }
    random.0.shuffle(&mut headers);
    with_headers(record_of(serde_json::to_vec(payload).unwrap()), &headers)
}

/// Writes JSON with other escapes, and in some of the wrappings of serializers.
fn write_wrapped(json: &[u8], random: &mut Random) -> Bytes {
    let mut text = random.with_other_escapes(std::str::from_utf8(json).unwrap());
    if random.one_in(4) {
        text = random.with_other_escapes(&json!(text).to_string());
    }
    if random.one_in(4) {
        let schema = random.json(3);
        text = if random.0.bool() {
            format!(r#"{{"schema":{schema},"payload":{text}}}"#)
        } else {
            format!(r#"{{"payload" : {text}, "schema" : 1e999}}"#)
        };
    }
    let mut bytes = text.into_bytes();
    if random.one_in(4) {
        bytes.splice(..0, *b"\xEF\xBB\xBF");
    }
    if random.one_in(4) {
        let schema_id = random.0.u32(..).to_be_bytes();
        bytes.splice(..0, [0].into_iter().chain(schema_id));
    }
    bytes.into()
}

/// Writes changes in one of the two shapes, with or without newValues and oldValues.
fn write_changes(
    changes: &Changed,
    with_old_values: bool,
    payload: &mut Map<String, Value>,
    random: &mut Random,
) {
    let mut listed = Vec::new();
    let (mut entries, mut new_values, mut old_values) = (Map::new(), Map::new(), Map::new());
    let as_list = random.0.bool();
    let mut has_values = with_old_values;
    for (name, (old, new)) in changes {
        let spellings = ADDRESS.iter().find(|names| names[0] == name);
        let spelled = spellings.map_or(name.clone(), |spellings| random.pick(spellings).to_owned());
        let new = match new {
            Change::Unknown => None,
            Change::Cleared => Some(random.blank()),
            Change::Value(value) => Some(value.clone()),
        };
        if as_list {
            listed.push(json!(spelled));
            has_values |= new.is_some();
            let nested = name
                .split_once('.')
                .filter(|_| !changes.contains_key("preferences"));
            match (new, nested) {
                (Some(new), Some((parent, leaf))) if random.0.bool() => {
                    let parent = new_values.entry(parent).or_insert_with(|| json!({}));
                    parent[leaf] = new;
                }
                (Some(new), _) => drop(new_values.insert(spelled.clone(), new)),
                (None, _) => {}
            }
            if let Some(old) = old {
                old_values.insert(spelled, old.clone());
            }
            continue;
        }
        let in_entry = old.as_ref().filter(|_| random.0.bool());
        if let (Some(old), None) = (old, in_entry) {
            old_values.insert(spelled.clone(), old.clone());
        }
        let entry = write_entry(in_entry, new, random);
        entries.insert(spelled, entry);
    }
    if as_list {
        random.0.shuffle(&mut listed);
        payload.insert("updatedFields".into(), listed.into());
    } else {
        payload.insert("updatedFields".into(), entries.into());
        has_values |= random.0.bool();
    }
    // In newValues, names that the list lacks are ignored, and so are all names beside an object.
    for _ in 0..random.0.u32(..3) {
        let names = ["§unlisted", "lastName", "displayName"];
        new_values.insert(random.pick(&names).to_owned(), random.json(2));
    }
    if has_values {
        payload.insert("newValues".into(), new_values.into());
    } else if random.0.bool() {
        payload.insert("newValues".into(), random.blank());
    }
    if with_old_values && (!old_values.is_empty() || random.0.bool()) {
        payload.insert("oldValues".into(), old_values.into());
    }
}

/// An entry of `updatedFields` with these values.
fn write_entry(old: Option<&Value>, new: Option<Value>, random: &mut Random) -> Value {
    match (old, new) {
        (None, None) => json!({"old": null}),
        (None, Some(new)) if !new.is_object() && random.0.bool() => new,
        (None, Some(new)) => json!({"new": new}),
        (Some(old), None) => json!({"old": old}),
        (Some(old), Some(new)) => json!({"old": old, "new": new}),
    }
}

fn nul_replaced(text: &str) -> String {
    text.replace('\0', "\u{FFFD}")
}

fn json_nul_replaced(value: &Value) -> Value {
    let text = with_nul_escaped_as(&value.to_string(), "\u{FFFD}");
    serde_json::from_str(&text).unwrap()
}

/// JSON text, in which NUL is always written as an escape, with another text for each.
fn with_nul_escaped_as(written: &str, by: &str) -> String {
    let mut text = String::new();
    let mut rest = written;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let (escape, replaced) = match rest.strip_prefix("\\u0000") {
            Some(_) => (6, by),
            None => (2, &rest[..2]),
        };
        text.push_str(replaced);
        rest = &rest[escape..];
    }
    text.push_str(rest);
    text
}

fn check_meaning(event: &Event, meaning: &Meaning) {
    assert_eq!(event.id, meaning.id);
    assert_eq!(event.event_type, Some(type_of(meaning.type_name)));
    assert_eq!(event.version.as_deref(), Some("1"));
    assert_eq!(event.occurred_at, meaning.time);
    assert_eq!(event.correlation_id, meaning.correlation);
    assert_eq!(event.source, meaning.source.as_deref().map(nul_replaced));
    let shown = format!("{:?}", event.payload);
    for (name, value) in &meaning.fields {
        if let (Value::String(text), false) = (value, matches!(*name, "deletionType" | "country")) {
            let lands = format!("{:?}", nul_replaced(text));
            let plain = format!("{}: {lands}", snake(name));
            let optional = format!("{}: Some({lands})", snake(name));
            assert!(
                shown.contains(&plain) || shown.contains(&optional),
                "{plain} in {shown}"
            );
        }
    }
    if let Some(expected) = &meaning.changes {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(name, (old, new))| {
                let new = match new {
                    Change::Value(Value::String(text)) if name == "country" => {
                        Change::Value(json!(nul_replaced(text).to_ascii_uppercase()))
                    }
                    Change::Value(value) => Change::Value(json_nul_replaced(value)),
                    other => other.clone(),
                };
                (
                    nul_replaced(name),
                    (old.as_ref().map(json_nul_replaced), new),
                )
            })
            .collect();
        let found: BTreeMap<_, _> = changes_of(&event.payload)
            .unwrap()
            .iter()
            .map(|(name, change)| (name.to_owned(), (change.old.clone(), change.new.clone())))
            .collect();
        assert_eq!(found, expected);
    }
}

/// Reads the record in all steps and checks that an error holds no data of it.
fn read_all(record: &Record) {
    let assert_no_data = |bad: &Bad| {
        assert!(!bad.to_string().contains(MARK), "{bad}");
        assert!(!format!("{bad:?}").contains(MARK), "{bad:?}");
    };
    match Envelope::read(record) {
        Err(bad) => assert_no_data(&bad),
        Ok(envelope) => {
            let id = envelope.event_id();
            let decoded = envelope.decode();
            if let Ok(event) = &decoded {
                assert_eq!(id.as_deref(), Ok(event.id.as_str()));
                assert!((1..=255).contains(&event.id.chars().count()));
                // A NUL shows as `\0`, a backslash as two of them.
                let shown = format!("{event:?}").replace(r"\\", "");
                assert!(!shown.contains(r"\0"), "{shown}");
            }
            let _ = id.map_err(|bad| assert_no_data(&bad));
            let _ = decoded.map_err(|bad| assert_no_data(&bad));
        }
    }
}

/// Replaces some pieces by nothing, a random byte, a copy of earlier bytes, or a token of JSON.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TOKENS: [&[u8]; 21] = [
        b"null",
        b"\"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b"\\",
        b"\\u0000",
        b"\\ud800",
        b"\0",
        b"\0\0\0\0\0",
        b"\xEF\xBB\xBF",
        b"{\"schema\":1,\"payload\":",
        b"\xFF",
        b",",
        b":",
        b"1e999",
        b"{\"new\":7}",
        b"true",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ];
    for _ in 0..=random.0.u32(..4) {
        let at = random.0.usize(..=bytes.len());
        let to = random.0.usize(at..=bytes.len().min(at + 20));
        let by: Vec<u8> = match random.0.u32(..4) {
            0 => Vec::new(),
            1 => vec![random.0.u8(..)],
            2 => bytes[random.0.usize(..=at)..at].to_vec(),
            _ => random.pick(&TOKENS).to_vec(),
        };
        bytes.splice(at..to, by);
    }
}

fn any_type() -> impl Strategy<Value = &'static str> {
    (0..CATALOGUE.len()).prop_map(|at| CATALOGUE[at].0)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn an_event_reads_the_same_however_it_is_written(
        type_name in any_type(),
        seed in any::<u64>(),
        one in any::<u64>(),
        other in any::<u64>(),
    ) {
        let meaning = Random::of(seed).meaning(type_name);
        let read = |seed| {
            let record = write(&meaning, &mut Random::of(seed));
            let mut event = decode(&record).unwrap();
            check_meaning(&event, &meaning);
            event.type_name.clear();
            event
        };
        prop_assert_eq!(read(one), read(other));
    }

    #[test]
    fn type_and_id_are_read_whatever_the_payload_holds(
        type_name in any_type(),
        seed in any::<u64>(),
        is_deep in any::<bool>(),
    ) {
        // JSON, but beyond the limits: it replaces a string of a payload that is not in base64.
        let beyond = match is_deep {
            true => format!("{}1{}", "[".repeat(130), "]".repeat(130)),
            false => "[1e999]".to_owned(),
        };
        let mut random = Random::of(seed);
        let meaning = random.meaning(type_name);
        let mut payload = write_payload(&meaning, &mut random);
        payload.insert("beyond".into(), json!(1));
        let dialect = random.pick(&["event", "standard", "binary", "outbox"]);
        let mut record = match dialect {
            "binary" => write_binary(&meaning, type_name, &payload, None, &mut random),
            "outbox" => write_outbox(&meaning, type_name, &payload, &mut random),
            _ => write_body(&meaning, dialect, type_name, payload, None, &mut random),
        };
        let json = record.value.take().unwrap();
        let json = std::str::from_utf8(&json).unwrap();
        let json = json.replace(r#""beyond":1"#, &format!(r#""beyond":{beyond}"#));
        record.value = Some(write_wrapped(json.as_bytes(), &mut random));
        let envelope = Envelope::read(&record).unwrap();
        let known = TypeName::Known { event_type: type_of(type_name), version: 1 };
        prop_assert_eq!(envelope.event_type(), &known);
        prop_assert_eq!(envelope.event_id(), Ok(meaning.id.as_str()));
        let reason = if is_deep { "too_deep" } else { "number_out_of_range" };
        prop_assert_eq!(envelope.decode().unwrap_err().reason, reason);
    }

    #[test]
    fn no_mutation_of_a_record_makes_reading_panic(
        type_name in any_type(),
        seed in any::<u64>(),
    ) {
        let mut random = Random::of(seed);
        let meaning = random.meaning(type_name);
        let mut record = write(&meaning, &mut random);
        let mut value = record.value.unwrap().to_vec();
        mutate(&mut value, &mut random);
        record.value = Some(value.into());
        for (_, value) in &mut record.headers {
            if random.one_in(4) {
                let mut bytes = value.take().unwrap_or_default().to_vec();
                mutate(&mut bytes, &mut random);
                *value = random.0.bool().then(|| bytes.into());
            }
        }
        read_all(&record);
    }

    #[test]
    fn no_value_of_a_field_makes_reading_panic(
        type_name in any_type(),
        seed in any::<u64>(),
    ) {
        let mut random = Random::of(seed);
        let mut payload = full_payload(type_name);
        let names: Vec<String> = payload.keys().cloned().collect();
        for name in names {
            if random.one_in(3) {
                payload.insert(name, random.json(3));
            }
        }
        read_all(&record(&event(type_name, payload)));
    }

    #[test]
    fn no_bytes_make_reading_panic(
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        headers in prop::collection::vec(
            (
                prop::sample::select(vec!["ce_id", "ce_type", "ce_time", "ce_source", "correlationId", "id", "eventType", ""]),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
            ),
            0..6,
        ),
        timestamp_ms in any::<Option<i64>>(),
    ) {
        let mut record = record_of("");
        record.value = value.map(Bytes::from);
        let owned = |(name, value): (&str, Option<Vec<u8>>)| (name.to_owned(), value.map(Bytes::from));
        record.headers = headers.into_iter().map(owned).collect();
        record.timestamp_ms = timestamp_ms;
        read_all(&record);
    }

    #[test]
    fn times_are_read_as_chrono_reads_them(seed in any::<u64>()) {
        let mut random = Random::of(seed);
        let time = random.time();
        let written = random.written_time(time);
        let written = written.as_str().unwrap();
        prop_assert_eq!(super::super::time::parse(written), Some(time));
        let by_chrono = DateTime::parse_from_rfc3339(written).unwrap().with_timezone(&Utc);
        prop_assert!(by_chrono - time < TimeDelta::microseconds(1));
        // chrono reads every text that this parser reads.
        let mut bytes = written.as_bytes().to_vec();
        mutate(&mut bytes, &mut random);
        if let Ok(text) = String::from_utf8(bytes)
            && super::super::time::parse(&text).is_some()
        {
            prop_assert!(DateTime::parse_from_rfc3339(&text).is_ok(), "{}", text);
        }
    }
}
