//! The exporter: it takes the spans that wait, and sends them to the collector in batches.

use crate::base::client_tls;
use crate::base::tasks::Tasks;
use crate::config::Otlp;
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use opentelemetry::KeyValue;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The largest number of spans in a batch: some 200 KiB.
const BATCH: usize = 512;
/// The time for which a batch waits for further spans before it is sent.
const DELAY: Duration = Duration::from_millis(500);
/// The longest time for one batch, from the connection to the end of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time that a shutdown waits for the batch that is being sent, and then again for all remaining batches.
const LAST_TIMEOUT: Duration = Duration::from_millis(800);
/// The largest number of bytes that are read of a collector's answer.
const LONGEST_ANSWER: usize = 64 << 10;

/// The reason why spans can't be exported.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The machine has no usable trust store, or a certificate is invalid.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The exporter refuses the endpoint.
    #[error("telemetry.otlp.endpoint: {0}")]
    Endpoint(String),
}

/// The numbers of ended spans, by outcome.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl SpanCounts {
    /// Returns each count with the label of its outcome.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 2] {
        [("exported", self.exported.load(Ordering::Relaxed)), ("dropped", self.dropped.load(Ordering::Relaxed))]
    }

    pub(super) fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }
}

/// Makes the exporter for a collector. Its connections run in `tasks`, and `node` names this instance.
pub(super) fn exporter(otlp: &Otlp, node: &str, tasks: &Tasks) -> Result<SpanExporter, TracesError> {
    let tls = client_tls::client_config(&otlp.extra_ca)?;
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(TIMEOUT));
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_all_versions().wrap_connector(tcp);
    let client = Client::builder(tasks.clone()).pool_timer(TokioTimer::new()).timer(TokioTimer::new()).build(connector);
    let endpoint = format!("{}/v1/traces", otlp.endpoint.to_string().trim_end_matches('/'));
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { client })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(TIMEOUT)
        .build()
        .map_err(|error| TracesError::Endpoint(error.to_string()))?;
    let attributes = [
        ("service.name", "iluma-gateway".to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", node.to_owned()),
    ];
    let attributes = attributes.map(|(key, value)| KeyValue::new(key, value));
    exporter.set_resource(&Resource::builder_empty().with_attributes(attributes).build());
    Ok(exporter)
}

/// Sends spans in batches until `stop` is cancelled, and then sends the spans that still wait.
pub(super) async fn export(
    exporter: SpanExporter,
    mut waiting: mpsc::Receiver<SpanData>,
    counts: Arc<SpanCounts>,
    stop: CancellationToken,
) {
    let mut is_failing = false;
    while let Some(Some(first)) = stop.run_until_cancelled(waiting.recv()).await {
        let _: Option<()> = stop.run_until_cancelled(tokio::time::sleep(DELAY)).await;
        let mut sending = pin!(send(&exporter, batch(Some(first), &mut waiting), &counts));
        let sent = match stop.run_until_cancelled(&mut sending).await {
            Some(sent) => sent,
            // A shutdown does not wait for a collector that hangs.
            None => {
                tokio::time::timeout(LAST_TIMEOUT, sending).await.unwrap_or(Err("no answer before the end".to_owned()))
            }
        };
        match (&sent, is_failing) {
            (Err(error), false) => {
                tracing::warn!(error, "the trace collector does not accept spans, so they are dropped; will retry");
            }
            (Ok(()), true) => tracing::info!("the trace collector accepts spans again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        is_failing = sent.is_err();
    }
    let last = async {
        loop {
            let batch = batch(None, &mut waiting);
            if batch.is_empty() || send(&exporter, batch, &counts).await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LAST_TIMEOUT, last).await;
}

fn batch(first: Option<SpanData>, waiting: &mut mpsc::Receiver<SpanData>) -> Vec<SpanData> {
    let mut batch: Vec<_> = first.into_iter().collect();
    while batch.len() < BATCH
        && let Ok(span) = waiting.try_recv()
    {
        batch.push(span);
    }
    batch
}

/// The number of spans in a batch that is being sent. The spans count as dropped if this value is dropped before the
/// batch was exported, for example by a timeout.
struct Batch<'a>(u64, &'a SpanCounts);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.1.dropped(self.0);
    }
}

async fn send(exporter: &SpanExporter, spans: Vec<SpanData>, counts: &SpanCounts) -> Result<(), String> {
    let mut batch = Batch(spans.len() as u64, counts);
    let exported = tokio::time::timeout(TIMEOUT, exporter.export(spans)).await;
    exported.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
    counts.exported.fetch_add(std::mem::take(&mut batch.0), Ordering::Relaxed);
    Ok(())
}

/// The HTTP client of the exporter.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}
