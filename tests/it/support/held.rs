//! Upstreams that hold their answers: one answers when the test says so, one never ends its answer.

use super::{Upstream, Wire, answer, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// An upstream that reads whole requests and holds the answers until the test releases them.
pub struct Held {
    pub upstream: Upstream,
    arrived: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Held {
    pub async fn start() -> Self {
        let (arrived, answered, gate) = (Arc::default(), Arc::default(), Arc::new(Semaphore::new(0)));
        let shared = (Arc::clone(&arrived), Arc::clone(&answered), Arc::clone(&gate));
        let upstream = Upstream::on_connection(move |stream| {
            let (arrived, answered, gate): (Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Semaphore>) = shared.clone();
            async move {
                let mut wire = Wire::over(stream);
                while wire.request().await.is_some() {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.expect("a gate").forget();
                    wire.send(answer(200, r#"{"status":"COMPLETED","result":{"is_found":true}}"#)).await;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .await;
        Self { upstream, arrived, answered, gate }
    }

    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// Waits until `count` requests have arrived in all.
    pub async fn holds(&self, count: usize) {
        until(&format!("{count} requests at upstream"), || self.arrived() >= count).await;
    }

    pub fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// Releases `count` answers: of waiting requests, and then of future ones.
    pub fn release(&self, count: usize) {
        self.gate.add_permits(count);
    }
}

/// Starts an upstream whose answers never end, except those to POSTs. The returned flag becomes true when the client
/// closes the connection.
pub async fn endless() -> (Upstream, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let tell = Arc::clone(&gone);
    let upstream = Upstream::on_connection(move |stream| {
        let tell = Arc::clone(&tell);
        async move {
            let mut wire = Wire::over(stream);
            let Some(heard) = wire.request().await else { return };
            if heard.method == "POST" {
                wire.send(answer(200, "{}")).await;
                return;
            }
            wire.send("HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n").await;
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
            while wire.stream.write_all(chunk.as_bytes()).await.is_ok() {}
            tell.store(true, Ordering::SeqCst);
        }
    })
    .await;
    (upstream, gone)
}
