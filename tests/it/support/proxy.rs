//! A proxy that serves CONNECT and nothing else.

use super::{Head, Upstream, Wire};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;

/// A proxy whose tunnels all lead to one address, whatever the requested name.
pub struct Proxy {
    listener: Upstream,
    asked: Arc<Mutex<Vec<Head>>>,
}

impl Proxy {
    /// Starts a proxy that answers with `status`, and opens the tunnel if that is 200.
    pub async fn to(target: SocketAddr, status: u16) -> Self {
        let asked: Arc<Mutex<Vec<Head>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let listener = Upstream::on_connection(move |stream| {
            let noted = Arc::clone(&noted);
            async move {
                let mut wire = Wire::over(stream);
                let Some(head) = wire.head().await else { return };
                let connect = head.line.starts_with("CONNECT ");
                noted.lock().expect("a record").push(head);
                if !connect || status != 200 {
                    wire.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n")).await;
                    return;
                }
                let mut upstream = TcpStream::connect(target).await.expect("an upstream");
                wire.send("HTTP/1.1 200 Connection established\r\n\r\n").await;
                let _ = tokio::io::copy_bidirectional(&mut wire.stream, &mut upstream).await;
            }
        })
        .await;
        Self { listener, asked }
    }

    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// Returns the heads of the requests that the proxy got.
    pub fn asked(&self) -> Vec<Head> {
        self.asked.lock().expect("a record").clone()
    }
}
