//! A proxy in front of a broker that answers fetches like a replica that lags: records from an offset on are
//! missing, and the ends in the answer lie there. All other requests, for the log end offset above all, are
//! answered as the leader answers them.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The delay of an answer that lacks records: the client fetches again at once.
const DELAY: Duration = Duration::from_millis(50);

/// A listening proxy. It accepts connections for as long as the test's runtime lives.
pub struct LaggingReplica {
    pub port: u16,
    replica: Arc<Replica>,
}

struct Replica {
    target: watch::Sender<Option<u16>>,
    end: watch::Sender<i64>,
    shortened: AtomicU64,
}

/// The versions of the fetch requests of a connection that have no answer yet, by correlation id.
type Fetches = Mutex<HashMap<i32, i16>>;

impl LaggingReplica {
    /// Listens on a free port. It lags behind in nothing until [`LaggingReplica::end_at`] is called.
    pub async fn new() -> LaggingReplica {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let replica = Arc::new(Replica {
            target: watch::Sender::new(None),
            end: watch::Sender::new(i64::MAX),
            shortened: AtomicU64::new(0),
        });
        tokio::spawn(accept(listener, Arc::clone(&replica)));
        LaggingReplica { port, replica }
    }

    /// Sets the broker's local port. Connections wait for it.
    pub fn set_target(&self, port: u16) {
        self.replica.target.send_replace(Some(port));
    }

    /// From now on the replica has no record at or behind this offset, in any partition.
    pub fn end_at(&self, offset: i64) {
        self.replica.end.send_replace(offset);
    }

    /// How many answers lacked records that the broker has.
    pub fn shortened(&self) -> u64 {
        self.replica.shortened.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, replica: Arc<Replica>) {
    while let Ok((client, _)) = listener.accept().await {
        let replica = Arc::clone(&replica);
        tokio::spawn(async move {
            let mut target = replica.target.subscribe();
            let Ok(Some(port)) = target.wait_for(Option::is_some).await.map(|port| *port) else {
                return;
            };
            let Ok(broker) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                return;
            };
            let _ = (client.set_nodelay(true), broker.set_nodelay(true));
            let (from_client, to_client) = client.into_split();
            let (from_broker, to_broker) = broker.into_split();
            let fetches = Fetches::default();
            // Either end closes both.
            tokio::select! {
                _ = requests(from_client, to_broker, &fetches) => {}
                _ = answers(from_broker, to_client, &fetches, &replica) => {}
            }
        });
    }
}

/// Passes requests on, and remembers which are fetches.
async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fetches: &Fetches,
) -> std::io::Result<()> {
    loop {
        let request = read(&mut from).await?;
        let mut header = request.clone();
        let (key, version, id) = (header.get_i16(), header.get_i16(), header.get_i32());
        if key == ApiKey::Fetch as i16 {
            fetches.lock().unwrap().insert(id, version);
        }
        write(&mut to, &request).await?;
    }
}

/// Passes answers on; those to fetches end at the replica's end.
async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    fetches: &Fetches,
    replica: &Replica,
) -> std::io::Result<()> {
    loop {
        let mut answer = read(&mut from).await?;
        let version = fetches.lock().unwrap().remove(&answer.clone().get_i32());
        if let Some(version) = version {
            let (shorter, lacks_some) = shorten(answer, version, *replica.end.borrow());
            if lacks_some {
                tokio::time::sleep(DELAY).await;
                replica.shortened.fetch_add(1, Ordering::Relaxed);
            }
            answer = shorter;
        }
        write(&mut to, &answer).await?;
    }
}

/// An answer to a fetch as a replica with this end gives it, and whether it lacks records.
fn shorten(mut answer: Bytes, version: i16, end: i64) -> (Bytes, bool) {
    let header_version = FetchResponse::header_version(version);
    let header = ResponseHeader::decode(&mut answer, header_version).expect("a header");
    let mut fetched = FetchResponse::decode(&mut answer, version).expect("an answer to a fetch");
    let mut lacks_some = false;
    for topic in &mut fetched.responses {
        for partition in &mut topic.partitions {
            partition.high_watermark = partition.high_watermark.min(end);
            partition.last_stable_offset = partition.last_stable_offset.min(end);
            if let Some(records) = &mut partition.records {
                let below = length_below(records, end);
                lacks_some |= below < records.len();
                records.truncate(below);
            }
        }
    }
    let mut shorter = BytesMut::new();
    header
        .encode(&mut shorter, header_version)
        .and_then(|()| fetched.encode(&mut shorter, version))
        .expect("encodable");
    (shorter.freeze(), lacks_some)
}

/// The bytes of the leading batches that lie below an offset. A batch begins with its first offset and the
/// length of what follows; the difference to its last offset stands at byte 23.
fn length_below(batches: &[u8], end: i64) -> usize {
    let mut length = 0;
    while let Some(mut batch) = batches.get(length..).filter(|rest| rest.len() >= 27) {
        let mut delta = &batch[23..];
        let (first, size) = (batch.get_i64(), batch.get_i32());
        if first + i64::from(delta.get_i32()) >= end {
            break;
        }
        length += 12 + size as usize;
    }
    length.min(batches.len())
}

async fn read(from: &mut OwnedReadHalf) -> std::io::Result<Bytes> {
    let length = from.read_i32().await?;
    let mut frame = vec![0; length as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame.into())
}

async fn write(to: &mut OwnedWriteHalf, frame: &[u8]) -> std::io::Result<()> {
    let mut bytes = BytesMut::with_capacity(4 + frame.len());
    bytes.put_i32(frame.len() as i32);
    bytes.extend_from_slice(frame);
    to.write_all(&bytes).await
}
