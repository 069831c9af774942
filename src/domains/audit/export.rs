//! Exports: all entries that match a filter, as lines of JSON or as CSV, in a stream.
//!
//! Each page is a statement of its own: between pages no connection and no snapshot is held, and a page is all that is
//! in memory. An export is not one snapshot: entries that are applied meanwhile are in it if they stand behind the
//! page that was read last.

use std::borrow::Cow;

use bytes::Bytes;
use chrono::SecondsFormat;
use futures_util::{Stream, stream};
use serde_json::Value;

use super::model::Entry;
use super::queries::{EntryFilter, EntryPosition, EntryWalk};
use crate::error::Error;
use crate::query::{Answer, Reads};

/// Entries of a page.
const PAGE: i64 = 1_000;
/// The columns of CSV.
const COLUMNS: [&str; 20] = [
    "eventId",
    "type",
    "version",
    "category",
    "action",
    "outcome",
    "reason",
    "actor",
    "userId",
    "roleId",
    "permissionId",
    "ipAddress",
    "userAgent",
    "correlationId",
    "occurredAt",
    "recordedAt",
    "topic",
    "partition",
    "offset",
    "changes",
];

/// How entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Each entry as JSON, on a line of its own.
    Ndjson,
    /// A header, then each entry as a row.
    Csv,
}

impl Format {
    /// The media type, as answers name it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// All entries that match, newest first. The position is that of the first page.
///
/// # Errors
/// INVALID_ARGUMENT if a filter is invalid; VIEW_NOT_READY if nothing is found while the view is not built; the database's
/// errors. Of later pages, the stream has them as its last item.
pub async fn export(
    reads: Reads,
    filter: &EntryFilter,
    format: Format,
) -> Result<Answer<impl Stream<Item = Result<Bytes, Error>> + Send + use<>>, Error> {
    let walk = EntryWalk::of(&reads, filter).await?;
    let first = walk.next(&reads, None, PAGE).await?;
    if first.body.entries.is_empty() {
        first.position.check_ready()?;
    }
    let position = first.position.clone();
    let text = match format {
        Format::Ndjson => Vec::new(),
        Format::Csv => written(|csv| csv.write_record(COLUMNS))?,
    };
    let next = Next::Page(first.body.entries);
    let body = stream::try_unfold((text, next), move |(text, next)| {
        let (reads, walk) = (reads.clone(), walk.clone());
        async move {
            let page = match next {
                Next::Page(page) => page,
                Next::After(after) => walk.next(&reads, Some(after), PAGE).await?.body.entries,
                Next::End => return Ok(None),
            };
            let mut text = text;
            let next = match page.last() {
                Some((_, position)) => Next::After(*position),
                None => Next::End,
            };
            match format {
                Format::Ndjson => {
                    for (entry, _) in &page {
                        serde_json::to_writer(&mut text, entry)?;
                        text.push(b'\n');
                    }
                }
                Format::Csv => text.append(&mut written(|csv| {
                    let mut rows = page.iter();
                    rows.try_for_each(|(entry, _)| csv.write_record(row(entry)))
                })?),
            }
            Ok(Some((Bytes::from(text), (Vec::new(), next))))
        }
    });
    Ok(Answer { body, position })
}

/// What the stream sends next.
enum Next {
    /// These entries.
    Page(Vec<(Entry, EntryPosition)>),
    /// Those after a position.
    After(EntryPosition),
    /// Nothing.
    End,
}

/// What is written as CSV.
fn written(
    write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>,
) -> Result<Vec<u8>, Error> {
    let failed = |_| Error::internal("a row that can't be written as CSV");
    let mut csv = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    write(&mut csv).map_err(failed)?;
    csv.into_inner()
        .map_err(|_| Error::internal("CSV that can't be flushed"))
}

/// The cells of an entry, in the order of [`COLUMNS`].
fn row(entry: &Entry) -> [String; COLUMNS.len()] {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let time =
        |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
    let changes = match entry.changes.as_slice() {
        [] => String::new(),
        changes => {
            let changes = serde_json::to_value(changes);
            changes.unwrap_or(Value::Null).to_string()
        }
    };
    [
        entry.event_id.clone(),
        entry.r#type.clone(),
        text(&entry.version),
        entry.category.as_str().to_owned(),
        entry.action.clone(),
        entry.outcome.as_str().to_owned(),
        text(&entry.reason),
        text(&entry.actor),
        text(&entry.user_id),
        text(&entry.role_id),
        text(&entry.permission_id),
        text(&entry.ip_address),
        text(&entry.user_agent),
        text(&entry.correlation_id),
        time(entry.occurred_at),
        time(entry.recorded_at),
        entry.topic.clone(),
        entry.partition.to_string(),
        entry.offset.to_string(),
        changes,
    ]
    .map(|cell| safe(&cell).into_owned())
}

/// A cell that no spreadsheet takes for a formula.
fn safe(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{cell}").into()
    } else {
        cell.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_no_formulas() {
        for (cell, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("'=1", "'=1"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(safe(cell), expected, "{cell:?}");
        }
    }

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        let row = ["a,b", "say \"x\"", "line\r\nbreak", "plain", ""];
        let text = written(|csv| csv.write_record(row)).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(
            text,
            "\"a,b\",\"say \"\"x\"\"\",\"line\r\nbreak\",plain,\r\n"
        );
    }
}
