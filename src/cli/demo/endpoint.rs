//! A team's endpoint for callbacks: it records them, and fails when the tour needs a failure.

use crate::base::tasks::Tasks;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The largest accepted body, in bytes. A callback has a few hundred bytes.
const LARGEST: usize = 1 << 20;

/// The largest number of callbacks that are kept. The tour reads a handful, and the demo may serve for days.
const KEPT: usize = 100;

/// The longest time for which [`Endpoint::stop`] waits for connections.
const TIMEOUT: Duration = Duration::from_secs(1);

/// A server on loopback that runs until it is stopped.
#[derive(Debug)]
pub(super) struct Endpoint {
    address: SocketAddr,
    desk: Arc<Desk>,
    tasks: Tasks,
    stop: CancellationToken,
}

/// The state that all connections share.
#[derive(Debug, Default)]
struct Desk {
    is_out: AtomicBool,
    taken: Mutex<Vec<Delivery>>,
}

/// A callback that the endpoint has accepted.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The body.
    pub(super) body: String,
    /// The `webhook-id` of Standard Webhooks: the same at every attempt.
    pub(super) id: String,
    /// The `webhook-signature` of Standard Webhooks, which the team verifies.
    pub(super) signature: String,
}

impl Endpoint {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (desk, tasks, stop) = (Arc::<Desk>::default(), Tasks::new(), CancellationToken::new());
        let (served, connections, stopped) = (Arc::clone(&desk), tasks.clone(), stop.clone());
        tasks.spawn(async move {
            while let Some(Ok((stream, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (desk, stop) = (Arc::clone(&served), stopped.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| Arc::clone(&desk).answer(request));
                    let mut http = http1::Builder::new();
                    let connection = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
                    // The client decides how its connection ends, so an error here is no fault.
                    let _ = stop.run_until_cancelled(connection).await;
                });
            }
        });
        Ok(Self { address, desk, tasks, stop })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/kyc", self.address)
    }

    /// Makes the endpoint answer 503 from now on if `out` is true, or 200 if `out` is false.
    pub(super) fn set_out(&self, out: bool) {
        self.desk.is_out.store(out, Ordering::Release);
    }

    /// Returns the callbacks that the endpoint has accepted, the oldest first, without tests of the URL.
    pub(super) fn taken(&self) -> Vec<Delivery> {
        self.desk.taken.lock().clone()
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        self.tasks.drain(TIMEOUT).await;
    }
}

impl Desk {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, LARGEST).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let mut response = Response::new(Full::default());
        if self.is_out.load(Ordering::Acquire) {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if value["id"].is_string() {
            let header = |name: &str| {
                head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
            };
            let (id, signature) = (header("webhook-id"), header("webhook-signature"));
            let delivery = Delivery { body: String::from_utf8_lossy(&body).into_owned(), id, signature };
            let mut taken = self.taken.lock();
            if taken.len() < KEPT {
                taken.push(delivery);
            }
        }
        Ok(response)
    }
}
