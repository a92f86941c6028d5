//! An HTTP client that returns the whole answer, and a function that sends any bytes.

use super::PATIENCE;
use super::multipart::{Part, multipart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request builder: `ask("POST", url).key(&key).json("{}").send().await`.
#[derive(Debug)]
pub struct Ask {
    request: http::request::Builder,
    body: Bytes,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Returns a request with this method to an absolute URL.
pub fn ask(method: &str, url: impl AsRef<str>) -> Ask {
    Ask { request: Request::builder().method(method).uri(url.as_ref()), body: Bytes::new() }
}

impl Ask {
    /// Adds Basic authentication with the key as user name and no password.
    pub fn key(self, key: &str) -> Self {
        let basic = STANDARD.encode(format!("{key}:"));
        self.header("authorization", format!("Basic {basic}"))
    }

    pub fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.request = self.request.header(name, value.as_ref());
        self
    }

    pub fn json(self, body: impl Into<String>) -> Self {
        self.header("content-type", "application/json").body(body.into())
    }

    pub fn form(self, body: impl Into<String>) -> Self {
        self.header("content-type", "application/x-www-form-urlencoded").body(body.into())
    }

    /// Sets a multipart form as the body.
    pub fn multipart(self, parts: &[Part<'_>]) -> Self {
        self.header("content-type", "multipart/form-data; boundary=between").body(multipart(parts))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the request over a new connection.
    ///
    /// # Panics
    /// Panics if there is no whole answer in time.
    pub async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// Sends the request over a new connection. Returns an error if the connection broke or the answer was late.
    pub async fn try_send(self) -> Result<Answer, String> {
        let request = self.request.body(Full::new(self.body)).map_err(|e| e.to_string())?;
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let exchange = async {
            let (head, body) = client.request(request).await.map_err(|e| format!("{e:?}"))?.into_parts();
            let body = body.collect().await.map_err(|e| format!("{e:?}"))?.to_bytes();
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| "no answer in time".to_owned())?
    }
}

impl Answer {
    /// Returns a header as text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not text)"))
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    ///
    /// # Panics
    /// Panics if the body is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// Sends `bytes` over a new connection and reads until the peer closes it, or until `PATIENCE` is over.
pub async fn raw(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    // The peer may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut got)).await;
    got
}
