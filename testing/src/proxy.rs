//! A TCP proxy on loopback that can slow, stall, refuse and cut connections, and withhold answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the proxy treats bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    Open,
    /// Each piece of data, in either direction, is delayed by this much.
    Slow(Duration),
    /// No data passes; connections stay open.
    Stalled,
    /// The client's data passes; the answers do not.
    NoAnswers,
    /// Existing connections are closed, new ones refused.
    Refused,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// How many cuts there were, and the percentage of connections that the last one closed.
    cuts: u64,
    share: u64,
    /// How many connections, the first ones, lead nowhere.
    abandoned: u64,
}

/// A listening proxy.
pub struct Proxy {
    pub port: u16,
    state: watch::Sender<State>,
    target: Arc<Mutex<Option<SocketAddr>>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Connections.
    accepted: AtomicU64,
    /// Connections that the proxy has closed itself.
    broken: AtomicU64,
    /// Bytes that the servers have sent.
    answered: AtomicU64,
}

impl Proxy {
    /// Listens on a free port. Connections are closed at once until [`Proxy::set_target`] is called.
    pub async fn new() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = State {
            mode: Mode::Open,
            cuts: 0,
            share: 0,
            abandoned: 0,
        };
        let (state, states) = watch::channel(state);
        let target = Arc::new(Mutex::new(None));
        let counts = Arc::<Counts>::default();
        tokio::spawn(accept(
            listener,
            states,
            Arc::clone(&target),
            Arc::clone(&counts),
        ));
        Proxy {
            port,
            state,
            target,
            counts,
        }
    }

    /// Sets the local port to which new connections are forwarded.
    pub fn set_target(&self, port: u16) {
        let target = SocketAddr::from(([127, 0, 0, 1], port));
        *self.target.lock().unwrap() = Some(target);
    }

    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Closes this percentage of the open connections.
    pub fn cut(&self, share: u64) {
        self.state.send_modify(|state| {
            state.cuts += 1;
            state.share = share;
        });
    }

    /// Carries nothing any longer over the connections that are open now, without a word to either end. New ones work.
    pub fn abandon(&self) {
        let accepted = self.counts.accepted.load(Ordering::Relaxed);
        self.state.send_modify(|state| state.abandoned = accepted);
    }

    /// How many connections the proxy has closed itself.
    pub fn broken(&self) -> u64 {
        self.counts.broken.load(Ordering::Relaxed)
    }

    /// How many bytes the servers have sent.
    pub fn answered(&self) -> u64 {
        self.counts.answered.load(Ordering::Relaxed)
    }
}

/// Accepts connections until the proxy is dropped.
async fn accept(
    listener: TcpListener,
    states: watch::Receiver<State>,
    target: Arc<Mutex<Option<SocketAddr>>>,
    counts: Arc<Counts>,
) {
    let mut gone = states.clone();
    for number in 0.. {
        let client = tokio::select! {
            client = listener.accept() => client,
            () = async { while gone.changed().await.is_ok() {} } => return,
        };
        counts.accepted.store(number + 1, Ordering::Relaxed);
        let Ok((client, _)) = client else { continue };
        let target = *target.lock().unwrap();
        let (mut states, counts) = (states.clone(), Arc::clone(&counts));
        let refused = states.borrow_and_update().mode == Mode::Refused;
        let Some(target) = target.filter(|_| !refused) else {
            continue;
        };
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(target).await else {
                return;
            };
            tokio::select! {
                () = join(number, client, server, states.clone(), &counts.answered) => {}
                () = cut_off(number, states) => {
                    counts.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
}

/// Returns when this connection is to be closed.
async fn cut_off(number: u64, mut states: watch::Receiver<State>) {
    let mut cuts = states.borrow_and_update().cuts;
    while states.changed().await.is_ok() {
        let state = *states.borrow_and_update();
        // Each cut selects other connections.
        let lot = (number.wrapping_mul(0x9E37_79B9) + state.cuts.wrapping_mul(0x85EB_CA6B)) % 100;
        if state.mode == Mode::Refused || state.cuts > cuts && lot < state.share {
            return;
        }
        cuts = state.cuts;
    }
}

/// Carries bytes both ways until either end closes.
async fn join(
    number: u64,
    client: TcpStream,
    server: TcpStream,
    states: watch::Receiver<State>,
    answered: &AtomicU64,
) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = carry(number, from_client, to_server, states.clone(), None) => {}
        () = carry(number, from_server, to_client, states, Some(answered)) => {}
    }
}

async fn carry(
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut states: watch::Receiver<State>,
    answered: Option<&AtomicU64>,
) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        loop {
            let state = *states.borrow_and_update();
            match state.mode {
                _ if number < state.abandoned => {}
                Mode::Stalled => {}
                Mode::NoAnswers if answered.is_some() => {}
                Mode::Slow(delay) => {
                    tokio::time::sleep(delay).await;
                    break;
                }
                _ => break,
            }
            if states.changed().await.is_err() {
                return;
            }
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
        if let Some(answered) = answered {
            answered.fetch_add(length as u64, Ordering::Relaxed);
        }
    }
}
