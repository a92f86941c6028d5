//! Sockets: accept, TLS, HTTP/1.1 and HTTP/2, drain. Knows only "a service".
//!
//! Invariants: no more connections than the bound; a peer that sends nothing, or takes nothing of what it is sent, is
//! cut off; a drain accepts nothing new, lets requests in flight finish, and waits no longer than it was told to.

mod drain;
mod head_timeout;
mod stall;
mod streams;

use crate::base::tasks::Tasks;
use crate::config::{self, Listener};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use drain::Drain;
use head_timeout::HeadTimer;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use stall::{Resets, StallGuard};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use streams::{Bounded, Streams};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// What h2 allows one connection to have open at once. Each costs a task and a window.
const MOST_STREAMS: u32 = 128;

/// Windows of an h2 connection: what a client may send that nobody has taken yet, per request and in all. There is room
/// for every request, so that one that upstream reads slowly holds up no other.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;

/// A dead h2 peer is noticed after this long without an answer to a ping.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// What hyper reads of a body at once, and may buffer of an answer: hundreds of connections stay small.
const BUFFER: usize = 64 << 10;

/// How long the acceptor rests when the system is out of sockets.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What h2 streams may take to end after their connection has.
const STREAM_END: Duration = Duration::from_secs(1);

/// The first bytes of HTTP/2 in clear with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8; 3] = b"PRI";

/// The bounds of a listener's connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once; one more waits in the kernel's backlog.
    pub connections: usize,
    /// How long a peer may take to send a request's head, and stay silent between requests.
    pub header_timeout: Duration,
    /// The largest head of a request, in bytes.
    pub header_bytes: usize,
    /// The most fields in a head.
    pub headers: usize,
    /// How long a peer may take nothing of what it is sent.
    pub write_timeout: Duration,
}

impl Bounds {
    /// The bounds that the tenants' listener was given, which fit the others too.
    #[must_use]
    pub fn new(server: &config::Server, upstream: &config::Upstream) -> Self {
        Self {
            connections: server.max_connections,
            header_timeout: server.header_timeout,
            header_bytes: server.max_header_bytes.to_usize(),
            headers: server.max_headers,
            write_timeout: upstream.idle_timeout,
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    tls: Arc<ArcSwapOption<ServerConfig>>,
    bounds: Bounds,
}

/// Changes the certificate of a server that is running.
#[derive(Debug, Clone)]
pub struct TlsHandle(Arc<ArcSwapOption<ServerConfig>>);

impl TlsHandle {
    /// New connections get this certificate; those that are open keep theirs.
    pub fn replace(&self, tls: Option<Arc<ServerConfig>>) {
        self.0.store(tls);
    }
}

impl Server {
    /// Binds a listener's address.
    ///
    /// # Errors
    /// The address is taken, or not ours.
    pub async fn bind(listener: &Listener, bounds: Bounds) -> io::Result<Self> {
        let tls = Arc::new(ArcSwapOption::new(listener.tls.clone()));
        Ok(Self { listener: TcpListener::bind(listener.listen).await?, tls, bounds })
    }

    /// The address it listens on, with the port that the machine chose.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// For changing the certificate.
    #[must_use]
    pub fn tls_handle(&self) -> TlsHandle {
        TlsHandle(Arc::clone(&self.tls))
    }

    /// Serves until `stop`, then drains: answers what was asked, `drain` at the longest. `on_connection` is called for
    /// each connection; what it returns lives as long as that.
    pub async fn serve<S, B, G>(
        self,
        service: S,
        on_connection: impl Fn() -> G + Send,
        stop: CancellationToken,
        drain: Duration,
    ) where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        G: Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.bounds.connections.min(Semaphore::MAX_PERMITS)));
        let (ending, streams, mut connections) = (Drain::default(), Tasks::new(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&places) => accepted,
            };
            // Those that ended meanwhile leave nothing but their place.
            while connections.try_join_next().is_some() {}
            let (stream, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let (tls, bounds) = (self.tls.load_full(), self.bounds);
            let connection = Connection { tls, bounds, drain: ending.clone(), streams: streams.clone() };
            let (service, guard) = (service.clone(), on_connection());
            connections.spawn(async move {
                let _held = (place, guard);
                connection.serve(stream, service).await;
            });
        }
        // Closes the socket: who connects now is refused, and can try another node.
        drop(self.listener);
        ending.tell();
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, drained).await.is_err() {
            tracing::warn!("requests were still in flight when the drain's time was over");
            connections.shutdown().await;
        }
        streams.drain(STREAM_END).await;
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
        // The semaphore is never closed.
        let place = Arc::clone(places).acquire_owned().await.ok();
        let (stream, _) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, place))
    }
}

/// One connection.
struct Connection {
    tls: Option<Arc<ServerConfig>>,
    bounds: Bounds,
    drain: Drain,
    /// Where the requests of an h2 connection run.
    streams: Tasks,
}

impl Connection {
    async fn serve<S, B>(self, stream: TcpStream, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let patience = self.bounds.header_timeout;
        let ended = match &self.tls {
            Some(tls) => {
                let accept = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
                let accepted = self.drain.unless_told(tokio::time::timeout(patience, accept)).await;
                let stream = match accepted {
                    Some(Ok(Ok(stream))) => stream,
                    Some(Ok(Err(error))) => return tracing::debug!(%error, "a TLS handshake failed"),
                    Some(Err(_)) | None => return,
                };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.http(stream, h2, service).await
            }
            None => {
                let mut first = [0; PREFACE.len()];
                let peeked = self.drain.unless_told(tokio::time::timeout(patience, stream.peek(&mut first))).await;
                let Some(Ok(Ok(count))) = peeked else { return };
                self.http(stream, first[..count] == *PREFACE, service).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }

    async fn http<S, B, I>(self, stream: I, h2: bool, service: S) -> Result<(), hyper::Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Resets + Unpin + Send + 'static,
    {
        let guarded = StallGuard::new(stream, self.bounds.write_timeout);
        let broken = guarded.broken();
        let io = TokioIo::new(guarded);
        if h2 {
            let streams = Streams::new();
            let entered = streams.clone();
            let service = service_fn(move |request| {
                let (stream, answer) = (entered.enter(), service.call(request));
                async move { answer.await.map(|response| response.map(|body| stream.carry(body))) }
            });
            let connection = http2::Builder::new(self.streams)
                .timer(TokioTimer::new())
                .max_concurrent_streams(MOST_STREAMS)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_header_list_size(u32::try_from(self.bounds.header_bytes).unwrap_or(u32::MAX))
                .keep_alive_interval(PING_INTERVAL)
                .serve_connection(io, service);
            let (idle, untaken) = (self.bounds.header_timeout, self.bounds.write_timeout);
            let ended = Bounded::new(self.drain.watch(connection), streams, idle, untaken).await;
            ended.unwrap_or(Ok(()))
        } else {
            let connection = http1::Builder::new()
                .timer(HeadTimer::default())
                .header_read_timeout(self.bounds.header_timeout)
                .max_header_size(self.bounds.header_bytes)
                .max_headers(self.bounds.headers)
                .max_buf_size(BUFFER.max(self.bounds.header_bytes))
                .serve_connection(io, service);
            let mut connection = self.drain.watch(connection);
            let ended = (&mut connection).await;
            // An answer that broke off may have no other end than the connection's (HTTP/1.0).
            if ended.is_err() {
                broken.note();
            }
            ended
        }
    }
}
