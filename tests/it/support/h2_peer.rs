//! An HTTP/2 upstream over TLS whose frames the test sends one by one (RFC 9113).

use super::Wire;
use super::h2::{HEADERS, PING, PREFACE, RST, SETTINGS, frame};
use super::tls::Authority;
use super::{Rig, RigBuilder, Upstream};
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

const DATA: u8 = 0;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;

/// One HTTP/2 connection from the gateway, after its preface.
pub struct Peer {
    wire: Wire<TlsStream<TcpStream>>,
    /// The number of the connection, counted from one.
    pub number: usize,
}

/// The parts that must live as long as the gateway: its upstream, and the certificate's folder.
pub type Held = (Upstream, TempDir);

/// Returns the builder of a gateway in front of an upstream whose HTTP/2 connections `serve` handles. `streams` is the
/// upstream's limit on concurrent requests.
pub async fn before<F, T>(streams: u32, serve: F) -> (RigBuilder, Held)
where
    F: Fn(Peer) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let (folder, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let acceptor = authority.leaf("127.0.0.1").acceptor(&["h2"]);
    let connections = AtomicUsize::new(0);
    let upstream = Upstream::on_connection(move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let mut wire = Wire::over(stream);
            if wire.exactly(PREFACE.len()).await.is_none() {
                return;
            }
            // The setting is SETTINGS_MAX_CONCURRENT_STREAMS.
            let settings = [&3_u16.to_be_bytes()[..], &streams.to_be_bytes()[..]].concat();
            wire.send(frame(SETTINGS, 0, 0, &settings)).await;
            serve(Peer { wire, number }).await;
        }
    })
    .await;
    let extra_ca = format!("extra_ca = {:?}", authority.write(folder.path(), "ca.pem"));
    let url = upstream.url().replace("http:", "https:");
    (Rig::builder().upstream(url).section("upstream", &extra_ca), (upstream, folder))
}

impl Peer {
    /// Reads frames until a request's head has arrived, or its end if `whole` is true. Answers SETTINGS and PING
    /// meanwhile. Returns the number of the request's stream; `None` if the connection ended.
    async fn until(&mut self, whole: bool) -> Option<u32> {
        loop {
            let head = self.wire.exactly(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.wire.exactly(length).await?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.wire.send(frame(SETTINGS, ACK, 0, &[])).await,
                PING if flags & ACK == 0 => self.wire.send(frame(PING, ACK, 0, &payload)).await,
                HEADERS if !whole => return Some(stream),
                HEADERS | DATA if flags & END_STREAM != 0 => return Some(stream),
                _ => {}
            }
        }
    }

    /// Reads up to the next request's head. Returns its stream; `None` if the connection ended.
    pub async fn head(&mut self) -> Option<u32> {
        self.until(false).await
    }

    /// Reads up to the next request's end. Returns its stream; `None` if the connection ended.
    pub async fn request(&mut self) -> Option<u32> {
        self.until(true).await
    }

    /// Answers a request with 200.
    pub async fn answer(&mut self, stream: u32, body: &str) {
        // The block is the indexed :status 200 (RFC 7541, appendix A).
        self.wire.send(frame(HEADERS, END_HEADERS, stream, &[0x88])).await;
        self.wire.send(frame(DATA, END_STREAM, stream, body.as_bytes())).await;
    }

    /// Refuses a request: nothing of it was processed.
    pub async fn refuse(&mut self, stream: u32) {
        self.wire.send(frame(RST, 0, stream, &REFUSED_STREAM.to_be_bytes())).await;
    }

    /// Refuses the rest of a request's body.
    pub async fn stop_upload(&mut self, stream: u32) {
        self.wire.send(frame(RST, 0, stream, &0_u32.to_be_bytes())).await;
    }

    /// Announces that requests up to `last` were or may be processed, and no others.
    pub async fn goaway(&mut self, last: u32) {
        self.wire.send(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), 0_u32.to_be_bytes()].concat())).await;
    }

    /// Waits until the gateway closes the connection.
    pub async fn closed(mut self) {
        while self.until(false).await.is_some() {}
    }
}
