//! Upstreams that a test defines: by an answer for each request, or by the bytes of each connection.

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it arrived at an upstream.
#[derive(Debug, Clone)]
pub struct Heard {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An upstream that runs until it is dropped.
pub struct Upstream {
    addr: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Starts an upstream that answers every request with a success that a cache may store.
    pub async fn agreeing() -> Self {
        Self::answering(|_| {
            let body = Full::new(Bytes::from_static(br#"{"status":"COMPLETED","result":{"is_found":true}}"#));
            Response::builder().header("content-type", "application/json").body(body).expect("a response")
        })
        .await
    }

    /// Starts an upstream that answers every request with the response that `answer` returns.
    pub async fn answering<F>(answer: F) -> Self
    where
        F: Fn(&Heard) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    {
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let record = Arc::clone(&heard);
        let upstream = Self::on_connection(move |stream| {
            let (answer, record) = (answer.clone(), Arc::clone(&record));
            let service = service_fn(move |request: Request<Incoming>| {
                let (answer, record) = (answer.clone(), Arc::clone(&record));
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let target = parts.uri.to_string();
                    let heard = Heard { method: parts.method.to_string(), target, headers: parts.headers, body };
                    record.lock().expect("a record").push(heard.clone());
                    Ok::<_, Infallible>(answer(&heard))
                }
            });
            async move {
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { heard, ..upstream }
    }

    /// Starts an upstream whose connections `serve` handles.
    pub async fn on_connection<F, T>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self { addr, heard: Arc::default(), _tasks: tasks }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the requests in the order of arrival. The list is empty for an upstream that handles connections itself.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("a record").clone()
    }
}
