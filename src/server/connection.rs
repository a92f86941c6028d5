//! One connection of a client.

use super::drain::Drain;
use super::head_timeout::HeadTimer;
use super::proxy_header;
use super::signs::Signs;
use super::socket::{ResetWatch, Resets, Socket};
use super::stall::StallGuard;
use super::streams::{Bounded, StreamTimeouts, Streams};
use crate::base::peer::Peer;
use crate::base::tasks::Tasks;
use crate::config::Listener;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// The largest number of open h2 streams of one connection. Each costs a task and a window.
const MOST_STREAMS: u32 = 128;

/// The flow-control window of an h2 stream: the number of bytes of one request that a client may send before the
/// gateway reads them.
const STREAM_WINDOW: u32 = 64 << 10;
/// The flow-control window of an h2 connection. It is large enough for every stream to fill its own window, so an
/// upload that Iluma reads slowly does not delay other requests.
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;

/// The interval of pings to an h2 peer. A dead peer is noticed because it does not answer a ping.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// The size of hyper's buffers for an h1 connection, in bytes. It bounds one read of a body, and the buffered part of
/// an answer. With this size hundreds of connections need little memory.
const BUFFER: usize = 64 << 10;

/// The field that announces the time for which a connection without a request is kept.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionBounds {
    /// The time for a request's head. It is also the time for a TLS handshake, for a header of the PROXY protocol, and
    /// for the first bytes of a connection without TLS.
    pub(super) header_timeout: Duration,
    /// The time for which a connection without a request is kept.
    pub(super) keep_alive_timeout: Duration,
    /// The largest head of a request, in bytes.
    pub(super) header_bytes: usize,
    /// The largest number of fields in a head.
    pub(super) headers: usize,
    /// The time in which a peer must read something of its answer.
    pub(super) write_timeout: Duration,
}

/// One connection of a client.
pub(super) struct Connection {
    pub(super) listener: Arc<Listener>,
    pub(super) bounds: ConnectionBounds,
    pub(super) drain: Drain,
    /// The tasks in which the requests of an h2 connection run.
    pub(super) streams: Tasks,
}

/// The reason why a connection ended before its first request.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    /// The header of the PROXY protocol is missing or not valid.
    #[error("{0}")]
    ProxyHeader(#[source] io::Error),
    /// The TLS handshake failed.
    #[error(transparent)]
    Handshake(#[from] io::Error),
}

impl Connection {
    /// Serves requests until the connection ends. `services` makes the service that answers them. `address` is the
    /// peer's address.
    ///
    /// # Errors
    /// Returns an error if a required header of the PROXY protocol is missing or not valid, or if the TLS handshake
    /// fails. Both must be complete within the header timeout.
    pub(super) async fn serve<S, B>(
        self,
        mut stream: TcpStream,
        address: IpAddr,
        services: impl Fn(Peer) -> S,
    ) -> Result<(), ConnectionError>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let timeout = self.bounds.header_timeout;
        let address = if self.listener.proxy_protocol {
            let read = self.drain.unless_begun(tokio::time::timeout(timeout, proxy_header::read(&mut stream))).await;
            match read {
                Some(Ok(read)) => self.source(address, read.map_err(ConnectionError::ProxyHeader)?),
                Some(Err(late)) => return Err(ConnectionError::ProxyHeader(late.into())),
                None => return Ok(()),
            }
        } else {
            address
        };
        let secure = self.listener.tls.is_some();
        let service = services(Peer::new(address, secure, Arc::clone(&self.listener.trusted_proxies)));
        let mut socket = Socket::new(stream);
        let watch = socket.watch();
        let ended = match &self.listener.tls {
            Some(tls) => {
                let accept = TlsAcceptor::from(Arc::clone(&tls.config)).accept(socket);
                let accepted = self.drain.unless_begun(tokio::time::timeout(timeout, accept)).await;
                let stream = match accepted {
                    Some(Ok(accepted)) => accepted?,
                    Some(Err(late)) => return Err(io::Error::from(late).into()),
                    None => return Ok(()),
                };
                let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.http(stream, watch, h2, service).await
            }
            None => {
                let preface = socket.begins_with_preface();
                let begun = self.drain.unless_begun(tokio::time::timeout(timeout, preface)).await;
                let Some(Ok(Ok(h2))) = begun else { return Ok(()) };
                self.http(socket, watch, h2, service).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
        Ok(())
    }

    /// Returns the client's address. `named` is the address in the PROXY header; `None` if the header has none. Returns
    /// `named` if `peer` is a trusted load balancer, or if no load balancers are configured. Otherwise, and for `None`,
    /// returns `peer`.
    fn source(&self, peer: IpAddr, named: Option<IpAddr>) -> IpAddr {
        let trusted = &self.listener.trusted_proxies;
        let believed = trusted.is_empty() || trusted.iter().any(|network| network.contains(&peer));
        named.filter(|_| believed).unwrap_or(peer)
    }

    async fn http<S, B, I>(self, stream: I, watch: ResetWatch, h2: bool, service: S) -> Result<(), hyper::Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Resets + Unpin + Send + 'static,
    {
        let signs = Signs::default();
        let io = TokioIo::new(StallGuard::new(stream, self.bounds.write_timeout, signs.clone()));
        if h2 { self.http2(io, service).await } else { self.http1(io, watch, signs, service).await }
    }

    async fn http2<S, B, I>(self, io: TokioIo<StallGuard<I>>, service: S) -> Result<(), hyper::Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Resets + Unpin + Send + 'static,
    {
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
        let timeouts = StreamTimeouts {
            first: self.bounds.header_timeout,
            idle: self.bounds.keep_alive_timeout,
            untaken: self.bounds.write_timeout,
        };
        Bounded::new(self.drain.watch(connection), streams, timeouts).await.unwrap_or(Ok(()))
    }

    async fn http1<S, B, I>(
        self,
        io: TokioIo<StallGuard<I>>,
        watch: ResetWatch,
        signs: Signs,
        service: S,
    ) -> Result<(), hyper::Error>
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Resets + Unpin + Send + 'static,
    {
        let bounds = self.bounds;
        let announced = announcement(bounds.keep_alive_timeout);
        let service = service_fn(move |request: Request<Incoming>| {
            let announced = is_kept(&request).then(|| announced.clone()).flatten();
            // The service is called inside this future. So the future of the call is made in place, and is not copied
            // for each request.
            let service = service.clone();
            async move {
                let mut response = service.call(request).await?;
                if let Some(announced) = announced {
                    announce(&mut response, announced);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(HeadTimer::new(signs.clone(), bounds.header_timeout, bounds.keep_alive_timeout))
            .header_read_timeout(bounds.header_timeout)
            // A client that has closed its sending side after a whole request still waits for the answer.
            .half_close(true)
            .max_header_size(bounds.header_bytes)
            .max_headers(bounds.headers)
            .max_buf_size(BUFFER.max(bounds.header_bytes))
            .serve_connection(io, service);
        let mut connection = self.drain.watch(connection);
        let reset = pin!(watch.reset());
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            // The client is gone: a request in progress ends with its connection.
            () = reset => return Ok(()),
        };
        // In HTTP/1.0 the close of the connection may be the only end of an answer. So a cut-off answer ends with a
        // reset.
        if ended.is_err() {
            signs.note_break();
        }
        ended
    }
}

/// Returns the value of the `keep-alive` field, which announces the time for which an idle connection is kept. Returns
/// `None` for a time of less than a second, which the field can't express.
fn announcement(idle: Duration) -> Option<HeaderValue> {
    (idle.as_secs() > 0).then(|| HeaderValue::try_from(format!("timeout={}", idle.as_secs())).ok()).flatten()
}

/// Returns true if the client expects the connection to stay open after the request. Returns false for HTTP/1.0, whose
/// clients do not know the `keep-alive` field.
fn is_kept(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && !request.headers().get_all(CONNECTION).iter().any(|value| {
            let options = value.as_bytes().split(|byte| *byte == b',');
            options.map(<[u8]>::trim_ascii).any(|option| option.eq_ignore_ascii_case(b"close"))
        })
}

/// Adds the announcement to an answer, unless the answer has a `connection` field.
fn announce<B>(response: &mut Response<B>, announced: HeaderValue) {
    let headers = response.headers_mut();
    if !headers.contains_key(CONNECTION) {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(KEEP_ALIVE, announced);
    }
}
