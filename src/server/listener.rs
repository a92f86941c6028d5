//! A bound socket and its connections.

use super::connection::{Connection, ConnectionBounds, ConnectionError};
use super::drain::Drain;
use crate::base::log_throttle::LogThrottle;
use crate::base::peer::Peer;
use crate::base::tasks::Tasks;
use crate::config::{self, Listener};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The pause after a failed accept. A usual cause is that the process has too many open files.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// The time for h2 streams to end after their connection has ended.
const STREAM_END: Duration = Duration::from_secs(1);

/// The bounds of a listener's connections.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The largest number of connections. Further connections wait in the kernel's backlog.
    connections: usize,
    /// The bounds of each connection.
    each: ConnectionBounds,
}

impl Bounds {
    /// Returns the bounds of the tenants' listener. The other listeners use the same bounds.
    #[must_use]
    pub fn new(server: &config::Server, upstream: &config::Upstream) -> Self {
        let each = ConnectionBounds {
            header_timeout: server.header_timeout,
            keep_alive_timeout: server.keep_alive_timeout,
            header_bytes: server.max_header_bytes.to_usize(),
            headers: server.max_headers,
            write_timeout: upstream.idle_timeout,
        };
        Self { connections: server.max_connections, each }
    }
}

/// A receiver of events about a listener's connections.
pub trait Events: Clone + Send + 'static {
    /// A guard that lives as long as a connection.
    type Guard: Send + 'static;

    /// Reports an accepted connection. The server keeps the guard until the connection ends.
    fn connected(&self) -> Self::Guard;

    /// Reports a failed TLS handshake.
    fn handshake_failed(&self);
}

/// A bound socket that serves connections.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    listener: TcpListener,
    settings: Arc<ArcSwap<Listener>>,
    bounds: Bounds,
    failed_handshakes: Arc<LogThrottle>,
    failed_headers: Arc<LogThrottle>,
    failed_accepts: LogThrottle,
}

/// A handle that changes the settings of a running server, such as the certificate and the trusted load balancers.
#[derive(Debug, Clone)]
pub struct ListenerHandle(Arc<ArcSwap<Listener>>);

impl ListenerHandle {
    /// Applies these settings, except the address, to new connections. Open connections keep their settings.
    pub fn replace(&self, settings: &Listener) {
        self.0.store(Arc::new(settings.clone()));
    }

    /// Returns the settings in effect.
    #[must_use]
    pub fn settings(&self) -> Arc<Listener> {
        self.0.load_full()
    }
}

impl Server {
    /// Binds the address of the listener that the configuration calls `name`.
    ///
    /// # Errors
    /// Returns an error if the address is in use, or does not belong to this machine.
    pub async fn bind(name: &'static str, listener: &Listener, bounds: Bounds) -> io::Result<Self> {
        Ok(Self {
            name,
            listener: TcpListener::bind(listener.listen).await?,
            settings: Arc::new(ArcSwap::from_pointee(listener.clone())),
            bounds,
            failed_handshakes: Arc::default(),
            failed_headers: Arc::default(),
            failed_accepts: LogThrottle::default(),
        })
    }

    /// Returns the address of the socket, with the port that the system chose.
    ///
    /// # Errors
    /// Returns an error if the socket is closed.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns a handle that changes the settings while the server runs.
    #[must_use]
    pub fn handle(&self) -> ListenerHandle {
        ListenerHandle(Arc::clone(&self.settings))
    }

    /// Serves until `stop` is cancelled, then drains: requests in flight may finish within `drain`. For each
    /// connection, `services` makes the service that answers its requests.
    pub async fn serve<M, S, B>(self, services: M, events: impl Events, stop: CancellationToken, drain: Duration)
    where
        M: Fn(Peer) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let services = Arc::new(services);
        let places = Arc::new(Semaphore::new(self.bounds.connections.min(Semaphore::MAX_PERMITS)));
        let (ending, streams, mut connections) = (Drain::default(), Tasks::new(), JoinSet::new());
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.accept(&places) => accepted,
            };
            // Connections that ended meanwhile are removed.
            while connections.try_join_next().is_some() {}
            let (stream, client, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.log_failed_accept(&error);
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            };
            let (listener, bounds) = (self.settings.load_full(), self.bounds.each);
            let connection = Connection { listener, bounds, drain: ending.clone(), streams: streams.clone() };
            let (services, guard) = (Arc::clone(&services), events.connected());
            let (events, failed) = (events.clone(), self.failed());
            connections.spawn(async move {
                let _held = (place, guard);
                if let Err(error) = connection.serve(stream, client, |peer| services(peer)).await {
                    failed(&error, &events);
                }
            });
        }
        // The socket is closed: clients that connect now are refused, and can try another node.
        drop(self.listener);
        ending.begin();
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(drain, drained).await.is_err() {
            tracing::warn!("drain deadline reached: requests in flight were cut off");
            connections.shutdown().await;
        }
        streams.drain(STREAM_END).await;
    }

    async fn accept(&self, places: &Arc<Semaphore>) -> io::Result<(TcpStream, IpAddr, Option<OwnedSemaphorePermit>)> {
        // The semaphore is never closed.
        let place = Arc::clone(places).acquire_owned().await.ok();
        let (stream, client) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, client.ip().to_canonical(), place))
    }

    /// Returns a function that counts and logs a connection that ended before its first request.
    fn failed<E: Events>(&self) -> impl Fn(&ConnectionError, &E) + Send + use<E> {
        let (handshakes, headers) = (Arc::clone(&self.failed_handshakes), Arc::clone(&self.failed_headers));
        let listener = self.name;
        move |error, events| match error {
            ConnectionError::Handshake(error) => {
                events.handshake_failed();
                if let Some(failures) = handshakes.pass() {
                    tracing::warn!(listener, failures, %error, "TLS handshakes failed; the last error is shown");
                }
            }
            ConnectionError::ProxyHeader(error) => {
                if let Some(failures) = headers.pass() {
                    tracing::warn!(
                        listener, failures, %error,
                        "connections without a header of the PROXY protocol were refused; let the load balancer send it, \
                         or set proxy_protocol = false"
                    );
                }
            }
        }
    }

    fn log_failed_accept(&self, error: &io::Error) {
        if let Some(failures) = self.failed_accepts.pass() {
            tracing::warn!(
                listener = self.name, failures, %error,
                "cannot accept connections; if there are too many open files, raise the hard limit (LimitNOFILE)"
            );
        }
    }
}
