//! `iluma-gateway healthcheck`: a container's health check, for images without curl.

use super::operator::reachable;
use super::proxy_header::LOCAL;
use crate::base::client_tls;
use crate::config::{Faults, Probe};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The longest wait for the answer. A healthy gateway answers far earlier, and the usual limits of health checks are
/// longer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest accepted answer, in bytes. A normal answer is one line.
const LONGEST_ANSWER: usize = 64 << 10;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway healthcheck --config /etc/iluma-gateway/config.toml")]
pub(super) struct Args {
    /// The configuration of the running gateway, with its status or admin listener.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// The reason why the gateway is not ready, or why its readiness is unknown.
#[derive(Debug, thiserror::Error)]
pub(super) enum HealthError {
    #[error(transparent)]
    Configuration(#[from] Faults),
    #[error("{0}.listen has port 0, so the system chooses another one at each start; give the listener a port")]
    NoPort(&'static str),
    #[error("{0}.tls: {1}")]
    Tls(&'static str, rustls::Error),
    #[error("nothing answers at {0}: {1}; is the gateway running?")]
    Unreachable(SocketAddr, Box<dyn std::error::Error + Send + Sync>),
    #[error("{0} did not answer within {wait} s", wait = TIMEOUT.as_secs())]
    Silent(SocketAddr),
    #[error("not ready: {0}")]
    NotReady(String),
}

/// Asks the gateway for its readiness.
///
/// # Errors
/// Returns an error if the gateway is not ready, or does not answer.
pub(super) async fn run(args: &Args) -> Result<(), HealthError> {
    let probe = Probe::load(&args.config)?;
    if probe.address.port() == 0 {
        return Err(HealthError::NoPort(probe.listener));
    }
    let address = reachable(probe.address);
    let tls = match probe.tls {
        None => None,
        Some(tls) => {
            let config = client_tls::client_config_for(tls.certificate, tls.identity);
            Some(config.map_err(|error| HealthError::Tls(probe.listener, error))?)
        }
    };
    let unreachable = |error: Box<dyn std::error::Error + Send + Sync>| HealthError::Unreachable(address, error);
    let asked = async {
        let mut stream = TcpStream::connect(address).await.map_err(|error| unreachable(error.into()))?;
        if probe.proxy_protocol {
            stream.write_all(LOCAL).await.map_err(|error| unreachable(error.into()))?;
        }
        match tls {
            None => ask(stream, address).await.map_err(unreachable),
            Some(config) => {
                let name = ServerName::from(address.ip());
                let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
                ask(stream.map_err(|error| unreachable(error.into()))?, address).await.map_err(unreachable)
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, asked).await.map_err(|_| HealthError::Silent(address))?? {
        (StatusCode::OK, _) => Ok(()),
        (status, answer) => Err(HealthError::NotReady(format!("{status}: {}", answer.trim()))),
    }
}

/// Requests `/readyz` over a connection. Returns the status and the text of the answer.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    address: SocketAddr,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz").header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}
