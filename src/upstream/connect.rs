//! A connection to upstream: TCP or a proxy's tunnel, TLS, HTTP handshake.

use super::connection::{Http1, Http2, Http2Connection, MOST_STREAMS, Pooled, Stream};
use super::origin::Origin;
use super::settings_watch::SettingsWatch;
use crate::base::client_tls;
use crate::base::clock::Clock;
use crate::base::drained_io::DrainedIo;
use crate::base::tasks::Tasks;
use crate::config;
use futures_util::task::AtomicWaker;
use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;
use tower::Service as _;

/// The largest head of an answer, and the largest read of a body, in bytes. Uploads and downloads of hundreds of
/// megabytes pass through a few such buffers.
const BUFFER: usize = 64 << 10;

/// The largest number of fields in an answer's head: as many as fit into the buffer with 16 bytes each. Real fields are
/// longer, so in practice the bytes bound a head.
const MOST_FIELDS: usize = BUFFER / 16;

/// The window of an h2 stream: the number of bytes of one answer that Iluma may send before the gateway reads them.
const STREAM_WINDOW: u32 = 128 << 10;
/// The window of an h2 connection. It is large enough for every stream to fill its own window, so a client that reads
/// its answer slowly does not delay other clients.
const CONNECTION_WINDOW: u32 = MOST_STREAMS as u32 * STREAM_WINDOW;

/// The interval of pings to an h2 peer.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The time in which an h2 peer must answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes connections to one upstream host.
pub(super) struct Connector {
    pub(super) origin: Origin,
    uri: Uri,
    proxy: Option<Uri>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    clock: Clock,
    tasks: Tasks,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("uri", &self.uri).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// The reason why a connection can't be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connect: {}", causes(&**.0))]
    Tcp(Box<dyn Error + Send + Sync>),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {}", causes(.0))]
    Http(hyper::Error),
    #[error("upstream closed the connection before its HTTP/2 settings arrived")]
    NoSettings,
    #[error("timed out after {0:?}")]
    TimedOut(Duration),
}

/// Returns an error's text with the texts of its causes: "tcp connect error: Connection refused (os error 111)".
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some errors quote their own cause.
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

impl Connector {
    pub(super) fn new(settings: &config::Upstream, clock: Clock, tasks: Tasks) -> Result<Self, rustls::Error> {
        let scheme = settings.base_url.scheme().cloned().unwrap_or(Scheme::HTTPS);
        let authority = settings.base_url.authority().cloned().unwrap_or(Authority::from_static("api.iluma.ai"));
        let host =
            http::HeaderValue::from_str(authority.as_str()).map_err(|e| rustls::Error::General(e.to_string()))?;
        let tls = if scheme == Scheme::HTTPS { Some(tls(settings, &authority)?) } else { None };
        Ok(Self {
            origin: Origin { scheme, authority, host },
            uri: settings.base_url.clone(),
            proxy: settings.proxy.clone(),
            tls,
            timeout: settings.connect_timeout,
            clock,
            tasks,
        })
    }

    /// Makes one attempt to connect, which ends within the timeout.
    pub(super) async fn connect(&self) -> Result<Pooled, ConnectError> {
        let attempt = tokio::time::timeout(self.timeout, self.attempt());
        attempt.await.unwrap_or(Err(ConnectError::TimedOut(self.timeout)))
    }

    async fn attempt(&self) -> Result<Pooled, ConnectError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let stream = match &self.proxy {
            None => tcp.call(self.uri.clone()).await.map_err(|e| ConnectError::Tcp(e.into()))?,
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.clone(), tcp);
                tunnel.call(self.with_port()).await.map_err(|e| ConnectError::Tcp(e.into()))?
            }
        }
        .into_inner();
        let Some((connector, name)) = &self.tls else {
            return self.http1(DrainedIo::new(Either::Left(stream))).await;
        };
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = DrainedIo::new(Either::Right(stream));
        if h2 { self.http2(stream).await } else { self.http1(stream).await }
    }

    async fn http1(&self, stream: Stream) -> Result<Pooled, ConnectError> {
        let mut builder = http1::Builder::new();
        let handshake = builder.max_buf_size(BUFFER).max_headers(MOST_FIELDS).handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(ConnectError::Http)?;
        let connection = Box::new(Http1::new(sender, connection, self.clock.now()));
        Ok(Pooled::Http1 { connection, fresh: true })
    }

    /// Makes an h2 connection, which serves several requests at once, so a task of its own drives it. Returns once the
    /// peer's limit on concurrent requests is known.
    async fn http2(&self, stream: Stream) -> Result<Pooled, ConnectError> {
        let (stream, reads) = SettingsWatch::new(stream);
        let (sender, mut connection) = http2::Builder::new(self.tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // The number is zero until the peer's settings arrive.
            .initial_max_send_streams(0)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .max_header_list_size(u32::try_from(BUFFER).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Http)?;
        let allowed = Arc::new(AtomicUsize::new(allowed_streams(&mut connection, &reads).await?));
        let pooled = Http2::new(sender, Arc::clone(&allowed), self.clock.now());
        self.tasks.spawn(async move {
            let ended = poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
                polled
            });
            if let Err(error) = ended.await {
                tracing::debug!(%error, "an upstream h2 connection ended");
            }
        });
        Ok(Pooled::Http2 { connection: Arc::new(pooled), fresh: true })
    }

    /// Returns the base URL for the proxy's tunnel. For a URL without a port the tunnel uses port 443, so an http URL
    /// gets port 80 here.
    fn with_port(&self) -> Uri {
        if self.uri.port().is_some() || self.tls.is_some() {
            return self.uri.clone();
        }
        let authority = format!("{}:80", self.origin.authority.host());
        Uri::builder().scheme("http").authority(authority).path_and_query("/").build().unwrap_or(self.uri.clone())
    }
}

fn tls(
    settings: &config::Upstream,
    authority: &Authority,
) -> Result<(TlsConnector, ServerName<'static>), rustls::Error> {
    let mut config = client_tls::client_config(&settings.extra_ca)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|e| rustls::Error::General(e.to_string()))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Waits until the peer's settings have arrived. Returns the number of concurrent requests that they allow.
async fn allowed_streams(connection: &mut Http2Connection, reads: &AtomicWaker) -> Result<usize, ConnectError> {
    poll_fn(|cx| {
        reads.register(cx.waker());
        if let Poll::Ready(ended) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(Err(ended.err().map_or(ConnectError::NoSettings, ConnectError::Http)));
        }
        match connection.current_max_send_streams() {
            0 => Poll::Pending,
            allowed => Poll::Ready(Ok(allowed)),
        }
    })
    .await
}
