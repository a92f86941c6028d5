//! Connections of the gateway's own commands to a listener that expects a header of the PROXY protocol.

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tower::Service;

/// The header that a load balancer sends for its own checks of the gateway (version 2, command LOCAL). It names no
/// client.
pub(super) const LOCAL: &[u8; 16] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";

/// A connector that sends the header [`LOCAL`] at the beginning of each connection if `with_header` is true.
#[derive(Clone, Debug)]
pub(super) struct ProxyConnector {
    pub(super) http: HttpConnector,
    pub(super) with_header: bool,
}

impl Service<Uri> for ProxyConnector {
    type Response = TokioIo<TcpStream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Uri>::poll_ready(&mut self.http, cx).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let (connecting, with_header) = (self.http.call(target), self.with_header);
        Box::pin(async move {
            let mut stream = connecting.await?;
            if with_header {
                stream.inner_mut().write_all(LOCAL).await?;
            }
            Ok(stream)
        })
    }
}
