//! Sockets: accept, TLS, connections, and the two ways to break a connection (a reset, or bytes that are not HTTP).
//!
//! Invariants: every task is tracked and ends with the simulator; at most `max_connections` connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::answer;
use super::line::{Line, Wire};
use super::tasks::Tracked;
use super::world::World;

/// The longest TLS handshake. A handshake takes milliseconds; a client that needs longer is gone.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The longest time that a connection may be idle or need for a request's head. It is long: a client should not send a
/// request on a kept connection in the moment in which the simulator closes it.
const HEAD: Duration = Duration::from_secs(300);
/// The largest head of an h1 request in bytes. It also bounds the heads that the journal keeps. For h2 the limit is 16
/// KiB.
const MAX_HEAD: usize = 64 * 1024;
/// The largest number of streams of one h2 connection at a time.
const MAX_STREAMS: u32 = 1000;

/// Accepts connections until the simulator stops.
pub(super) async fn accept(listener: TcpListener, world: Arc<World>, executor: Tracked) {
    let permits = Arc::new(Semaphore::new(world.options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let tls = world.options.tls.as_ref().map(|config| {
        let mut config = config.as_ref().clone();
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        }
        TlsAcceptor::from(Arc::new(config))
    });
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The process is most likely out of descriptors: other connections must end first.
                tracing::warn!(%error, "the simulator could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        world.tally.connected();
        let (world, tls, inner) = (Arc::clone(&world), tls.clone(), executor.clone());
        executor.spawn(async move {
            connection(stream, world, tls, inner).await;
            drop(permit);
        });
    }
}

async fn connection(stream: TcpStream, world: Arc<World>, tls: Option<TlsAcceptor>, executor: Tracked) {
    // A small answer must not wait for the acknowledgement of the answer before it. Without the option the connection
    // is only slower.
    let _ = stream.set_nodelay(true);
    let line = Arc::new(Line::default());
    let wire = Wire { stream, line: Arc::clone(&line) };
    match tls {
        None => http(wire, world, line, executor).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(wire)).await {
                http(stream, world, line, executor).await;
            }
        }
    }
}

async fn http<S>(stream: S, world: Arc<World>, line: Arc<Line>, executor: Tracked)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(executor);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let inner = Arc::clone(&line);
    let service = service_fn(move |request: Request<Incoming>| {
        let (world, line) = (Arc::clone(&world), Arc::clone(&inner));
        async move { Ok::<_, Infallible>(Box::pin(answer::answer(world, line, request)).await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        outcome = connection => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a connection to the simulator ended early");
            }
        }
        () = line.fired.cancelled() => {}
    }
}
