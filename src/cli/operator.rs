//! Commands that give a running gateway an operator's order, by its admin listener.

use crate::base::client_tls;
use crate::config::Settings;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret as _;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An order waits for every node, which takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// Answers are a few numbers; a listing of usage for a year has some megabytes.
const LARGEST_ANSWER: usize = 64 << 20;
/// A person has a handful of fields.
const LARGEST_ORDER: u64 = 64 << 10;

/// Where the gateway is.
#[derive(clap::Args, Debug)]
pub struct Target {
    /// The configuration of the running gateway: its admin listener and token.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The admin listener, if it is not where the configuration says, such as `https://gateway-1.internal:9090`.
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
    /// Certificates to trust beside the platform's, if the admin listener's is of a private CA; PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show, where the admin listener has a client_ca; PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key; PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Options of `purge`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  iluma-gateway purge --config config.toml --route cft\n  iluma-gateway purge --config config.toml --tenant lending"
)]
#[group(skip)]
pub struct Purge {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    what: What,
}

/// What is purged: one of these.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// The answers of a route: bank, cft or bank_codes.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// The answers that serve one team alone (share_cache = false).
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Every answer.
    #[arg(long)]
    all: bool,
}

/// Options of `erase`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The person stands on standard input, so that no process list and no shell history has them:\n  \
                  {\"bank_code\":\"BCA\",\"bank_account_number\":\"…\"}, {\"given_name\":\"…\",\"surname\":\"…\"} or {\"nik\":\"…\"}\n\n\
                  Example: iluma-gateway erase --config config.toml <person.json"
)]
pub struct Erase {
    #[command(flatten)]
    target: Target,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The configuration.
    #[error(transparent)]
    Configuration(#[from] crate::config::Faults),
    /// There is no token to show.
    #[error("admin.token is not set, so the gateway takes no orders")]
    NoToken,
    /// The order can't be read.
    #[error("the order can't be read from standard input: {0}")]
    Input(#[from] io::Error),
    /// A file of certificates, or of a key.
    #[error("{0} can't be used: {1}")]
    Pem(PathBuf, &'static str),
    /// A certificate and a key, or the machine's trust store.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Nobody answers.
    #[error("the gateway can't be asked at {0}: is it running, and is its certificate trusted?")]
    Unreachable(Uri),
    /// It answered with an error.
    #[error("{0}")]
    Refused(String),
}

/// Purges stored answers; says what was removed.
///
/// # Errors
/// The order was not carried out, or not everywhere.
pub async fn purge(order: Purge) -> Result<String, OperatorError> {
    let what = match (order.what.route, order.what.tenant) {
        (Some(route), _) => serde_json::json!({ "route": route }),
        (None, Some(tenant)) => serde_json::json!({ "tenant": tenant }),
        (None, None) => serde_json::json!({ "all": true }),
    };
    order.target.ask(Method::POST, "/v1/cache/purge", what.to_string().into()).await
}

/// Erases the person who stands on standard input; says what was removed.
///
/// # Errors
/// The order was not carried out, or not everywhere.
pub async fn erase(order: Erase) -> Result<String, OperatorError> {
    let mut person = Vec::new();
    io::stdin().lock().take(LARGEST_ORDER).read_to_end(&mut person)?;
    order.target.ask(Method::POST, "/v1/erase", person.into()).await
}

impl Target {
    /// Asks the admin API; gives back what it says.
    ///
    /// # Errors
    /// It can't be asked, or says no.
    pub async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<String, OperatorError> {
        let settings = Settings::load(&self.config)?;
        let token = settings.admin.token.as_ref().ok_or(OperatorError::NoToken)?;
        let scheme = if settings.admin.listener.tls.is_some() { "https" } else { "http" };
        let listener = format!("{scheme}://{}", reachable(settings.admin.listener.listen));
        let base = self.admin.as_ref().map_or(listener, |url| url.to_string().trim_end_matches('/').to_owned());
        let target: Uri = format!("{base}{path}").parse().map_err(|_| OperatorError::Refused("no such URL".into()))?;
        let unreachable = || OperatorError::Unreachable(target.clone());

        let mut bearer =
            HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| unreachable())?;
        bearer.set_sensitive(true);
        let request = Request::builder().method(method).uri(&target).header(AUTHORIZATION, bearer);
        let request =
            request.header(CONTENT_TYPE, "application/json").body(Full::new(body)).map_err(|_| unreachable())?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.tls()?).https_or_http().enable_http1();
        let connector = connector.wrap_connector(http);
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let answer = async {
            let response = client.request(request).await.map_err(|_| unreachable())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|_| unreachable())?;
            Ok::<_, OperatorError>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        match tokio::time::timeout(PATIENCE, answer).await.map_err(|_| unreachable())?? {
            (StatusCode::OK, body) => Ok(body),
            (_, body) => Err(OperatorError::Refused(body)),
        }
    }

    fn tls(&self) -> Result<ClientConfig, OperatorError> {
        let trusted = self.ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let unusable = |_| OperatorError::Pem(key.clone(), "it has no PEM private key");
                let private = PrivateKeyDer::from_pem_file(key).map_err(unusable)?;
                Ok(client_tls::client_config_as(&trusted, certificates(cert)?, private)?)
            }
            _ => Ok(client_tls::client_config(&trusted)?),
        }
    }
}

/// The certificates of a PEM file, one at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, OperatorError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| OperatorError::Pem(file.to_owned(), "it is not a list of PEM certificates"))
}

/// Where a listener is reached on its own machine: one that listens everywhere does so on loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
