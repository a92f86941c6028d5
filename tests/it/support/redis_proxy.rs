//! A proxy between a gateway and its Redis: it spoils answers and holds commands.

use super::{Upstream, until};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// The way in which the proxy treats Redis' answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// Passes each answer unchanged.
    Pass,
    /// Delays each answer by a time between zero and twice this, never the same time as before. The order stays.
    Late(Duration),
    /// Drops published messages; answers pass.
    DropPushes,
    /// Drops each answer.
    Swallow,
    /// Sends the first half of an answer, and ends the connection.
    Cut,
    /// Sends these bytes instead of an answer.
    Instead(&'static [u8]),
}

/// A proxy that runs until it is dropped.
pub struct RedisProxy {
    listener: Upstream,
    spoil: Arc<Mutex<Spoil>>,
    spoiled: Arc<AtomicUsize>,
    hold: watch::Sender<Option<&'static [u8]>>,
    held: Arc<AtomicUsize>,
}

impl RedisProxy {
    pub async fn to(redis: SocketAddr) -> Self {
        let (spoil, spoiled) = (Arc::new(Mutex::new(Spoil::Pass)), Arc::new(AtomicUsize::new(0)));
        let (hold, held) = (watch::Sender::new(None), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&spoil), Arc::clone(&spoiled), hold.clone(), Arc::clone(&held));
        let listener = Upstream::on_connection(move |client| {
            let (spoil, spoiled, hold, held) = shared.clone();
            async move {
                // The connection ends if there is no Redis, as it would without the proxy.
                let Ok(server) = TcpStream::connect(redis).await else { return };
                let (_, _) = (client.set_nodelay(true), server.set_nodelay(true));
                let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                // The channel holds as many answers as can be in flight at a time.
                let (send, receive) = mpsc::channel(4096);
                // The first direction that ends also ends the other.
                tokio::select! {
                    () = ask(from_client, to_server, hold.subscribe(), &held) => {}
                    () = take(from_server, send, &spoil, &spoiled) => {}
                    () = deliver(receive, to_client) => {}
                }
            }
        })
        .await;
        Self { listener, spoil, spoiled, hold, held }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.listener.addr())
    }

    /// Treats all answers in this way from now on, also on open connections.
    pub fn spoil(&self, spoil: Spoil) {
        *self.spoil.lock().expect("a fault") = spoil;
    }

    /// Holds the next command that contains `part`, and all later commands on its connection.
    pub fn hold(&self, part: &'static [u8]) {
        self.hold.send_replace(Some(part));
    }

    /// Waits until a command is held.
    pub async fn holds(&self) {
        until("a command is on its way to Redis", || self.held.load(Ordering::SeqCst) > 0).await;
    }

    /// Releases the held commands, and passes all later ones.
    pub fn release(&self) {
        self.hold.send_replace(None);
    }

    /// Returns the number of answers and messages that were changed or dropped.
    pub fn spoiled(&self) -> usize {
        self.spoiled.load(Ordering::SeqCst)
    }
}

/// Passes commands on, and holds those that [`RedisProxy::hold`] names. The gateway writes each command in one piece.
async fn ask(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut hold: watch::Receiver<Option<&'static [u8]>>,
    held: &AtomicUsize,
) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let heard = &buffer[..count];
        let waits = hold.borrow().is_some_and(|part| heard.windows(part.len()).any(|window| window == part));
        if waits {
            held.fetch_add(1, Ordering::SeqCst);
            let _ = hold.wait_for(Option::is_none).await;
            held.fetch_sub(1, Ordering::SeqCst);
        }
        if to.write_all(heard).await.is_err() {
            return;
        }
    }
}

/// Splits Redis' data into answers, and treats each one.
async fn take(
    mut from: impl tokio::io::AsyncRead + Unpin,
    to: mpsc::Sender<(Instant, Bytes)>,
    spoil: &Mutex<Spoil>,
    spoiled: &AtomicUsize,
) {
    let (mut buffer, mut count) = (BytesMut::new(), 0_u32);
    while matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
        while let Some(length) = whole(&buffer) {
            let answer = buffer.split_to(length).freeze();
            let spoil = *spoil.lock().expect("a fault");
            let is_message = answer.starts_with(b">") && answer.windows(9).take(12).any(|part| part == b"\r\nmessage");
            let (mut due, mut passes) = (Instant::now(), answer.clone());
            match spoil {
                Spoil::Pass => {}
                Spoil::Late(by) => {
                    // The factors are 14/8, 12/8, 10/8 …: neighbours always differ.
                    count = (count + 7) % 8;
                    due += by * 2 * count / 8;
                }
                Spoil::DropPushes => {
                    if is_message {
                        passes = Bytes::new();
                    }
                }
                Spoil::Swallow => passes = Bytes::new(),
                Spoil::Cut => passes = answer.slice(..length / 2),
                Spoil::Instead(bytes) => passes = Bytes::from_static(bytes),
            }
            if passes != answer {
                spoiled.fetch_add(1, Ordering::SeqCst);
            }
            let sent = passes.is_empty() || to.send((due, passes)).await.is_ok();
            if !sent {
                return;
            }
            if spoil == Spoil::Cut {
                // The sent bytes must arrive before the end.
                drop(to);
                return std::future::pending().await;
            }
        }
    }
}

async fn deliver(mut from: mpsc::Receiver<(Instant, Bytes)>, mut to: impl tokio::io::AsyncWrite + Unpin) {
    while let Some((due, answer)) = from.recv().await {
        tokio::time::sleep_until(due).await;
        if to.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// Returns the length of the first answer in RESP3; `None` if it is not complete.
fn whole(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|window| window == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..end - 2]).ok()?.parse::<i64>().ok();
    let parts = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let length = usize::try_from(number()?).map_or(0, |length| length + 2);
            return (bytes.len() >= end + length).then_some(end + length);
        }
        b'*' | b'~' | b'>' => number()?.max(0),
        b'%' | b'|' => number()?.max(0) * 2,
        _ => 0,
    };
    let mut at = end;
    for _ in 0..parts {
        at += whole(&bytes[at..])?;
    }
    Some(at)
}
