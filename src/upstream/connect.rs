//! A connection to upstream: TCP or a proxy's tunnel, TLS, HTTP handshake.

use super::outgoing::OutgoingBody;
use super::pool::{MOST_STREAMS, Pooled};
use crate::base::client_tls;
use crate::base::tasks::Tasks;
use crate::config;
use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::client::conn::{http1, http2};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tower_service::Service as _;

/// A connection's bytes, in clear or not.
pub(super) type Io = TokioIo<Either<TcpStream, TlsStream<TcpStream>>>;

pub(super) type Http1Sender = http1::SendRequest<OutgoingBody>;
pub(super) type Http1Connection = http1::Connection<Io, OutgoingBody>;
pub(super) type Http2Sender = http2::SendRequest<OutgoingBody>;

/// The largest head of an answer, and the most of a body that hyper reads at once: uploads and downloads of hundreds
/// of megabytes pass through a few such buffers.
const BUFFER: usize = 64 << 10;

/// Windows of an h2 connection: what may be on the way to us unread, per answer and in all.
/// Room for every request on a connection, so that one whose client reads slowly holds up no other.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = MOST_STREAMS as u32 * STREAM_WINDOW;

/// How often an h2 peer is asked whether it is there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_PATIENCE: Duration = Duration::from_secs(5);

/// Who upstream is, as requests name it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    pub(super) host: http::HeaderValue,
}

pub(super) struct Connector {
    pub(super) origin: Origin,
    uri: Uri,
    proxy: Option<Uri>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    tasks: Tasks,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("uri", &self.uri).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("connect: {0}")]
    Tcp(Box<dyn std::error::Error + Send + Sync>),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(hyper::Error),
    #[error("timed out")]
    TimedOut,
}

impl Connector {
    pub(super) fn new(settings: &config::Upstream, tasks: Tasks) -> Result<Self, rustls::Error> {
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
            tasks,
        })
    }

    /// One attempt, all of it within the timeout.
    pub(super) async fn connect(&self) -> Result<Pooled, ConnectError> {
        tokio::time::timeout(self.timeout, self.attempt()).await.unwrap_or(Err(ConnectError::TimedOut))
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
            return http1(Either::Left(stream)).await;
        };
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if h2 { http2(Either::Right(stream), self.tasks.clone()).await } else { http1(Either::Right(stream)).await }
    }

    /// A tunnel goes to a port, which a URL may leave out.
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

async fn http1(stream: Either<TcpStream, TlsStream<TcpStream>>) -> Result<Pooled, ConnectError> {
    let (sender, connection) =
        http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await.map_err(ConnectError::Http)?;
    Ok(Pooled::http1(sender, connection))
}

/// An h2 connection serves several requests at once, so it gets a task of its own.
async fn http2(stream: Either<TcpStream, TlsStream<TcpStream>>, tasks: Tasks) -> Result<Pooled, ConnectError> {
    let (sender, connection) = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_PATIENCE)
        .keep_alive_while_idle(true)
        .max_header_list_size(u32::try_from(BUFFER).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ConnectError::Http)?;
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream h2 connection ended");
        }
    });
    Ok(Pooled::http2(sender))
}
