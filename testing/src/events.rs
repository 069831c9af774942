//! A client for Server-Sent Events.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use http_body_util::combinators::BoxBody;
use serde_json::Value;

use super::app::SOON;

/// An event as it was received.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub id: Option<String>,
    pub event: String,
    pub data: Value,
}

/// An answer whose body is a stream of events.
pub struct Events {
    pub headers: HeaderMap,
    body: BoxBody<Bytes, String>,
    unread: Vec<u8>,
    /// Whether the stream was cut off, and did not end regularly.
    pub is_cut: bool,
}

impl Events {
    pub(super) fn new(headers: HeaderMap, body: BoxBody<Bytes, String>) -> Events {
        Events {
            headers,
            body,
            unread: Vec::new(),
            is_cut: false,
        }
    }

    /// The next event; `None` at the end. It must come soon.
    pub async fn next(&mut self) -> Option<Sent> {
        let next = self.next_within(SOON).await;
        next.expect("an event, or the end of the stream")
    }

    /// The next event but heartbeats; `None` at the end. It must come soon.
    pub async fn next_change(&mut self) -> Option<Sent> {
        let next = async {
            loop {
                match self.read().await {
                    Some(sent) if sent.event == "heartbeat" => {}
                    next => return next,
                }
            }
        };
        let next = tokio::time::timeout(SOON, next).await;
        next.expect("a change, or the end of the stream")
    }

    /// The next event; `None` at the end, an error if none comes in time.
    pub async fn next_within(
        &mut self,
        time: Duration,
    ) -> Result<Option<Sent>, tokio::time::error::Elapsed> {
        tokio::time::timeout(time, self.read()).await
    }

    /// Reads until so many events of a name have come, without looking into them. Returns how many have, when the stream ends
    /// earlier.
    pub async fn count(&mut self, name: &str, most: usize) -> usize {
        let line = format!("event: {name}");
        let mut count = 0;
        while count < most {
            let whole = self.unread.iter().rposition(|byte| *byte == b'\n');
            let lines = self.unread.drain(..whole.map_or(0, |end| end + 1));
            let lines = lines.collect::<Vec<u8>>();
            let lines = lines.split(|byte| *byte == b'\n');
            count += lines.filter(|other| *other == line.as_bytes()).count();
            if count < most && !self.receive().await {
                break;
            }
        }
        count
    }

    async fn read(&mut self) -> Option<Sent> {
        loop {
            let end = self.unread.windows(2).position(|two| two == b"\n\n");
            if let Some(end) = end {
                let text: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(parse(&String::from_utf8(text).expect("UTF-8")));
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Receives more. Returns false at the end.
    async fn receive(&mut self) -> bool {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.unread.extend_from_slice(&data);
                }
                true
            }
            Some(Err(_)) => {
                self.is_cut = true;
                false
            }
            None => false,
        }
    }
}

fn parse(text: &str) -> Sent {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    Sent {
        id: field("id").map(str::to_owned),
        event: field("event").expect("an event").to_owned(),
        data: serde_json::from_str(field("data").expect("data")).expect("JSON"),
    }
}
