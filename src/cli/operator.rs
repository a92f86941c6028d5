//! Sends an operator's order to a running gateway's admin listener.

use super::proxy_header::ProxyConnector;
use crate::base::client_tls;
use crate::config::Settings;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
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
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest wait for the answer to an order. It is longer than the minute within which the gateway answers.
const TIMEOUT: Duration = Duration::from_secs(65);
/// The largest accepted answer. Most answers are a few numbers; a year's usage has some megabytes.
const LARGEST_ANSWER: usize = 64 << 20;

/// The address of the gateway, and the credentials for it.
#[derive(clap::Args, Debug)]
pub(super) struct Target {
    /// The configuration of the running gateway: its admin listener and token.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The admin listener, if it is not where the configuration says, such as `https://gateway-1.internal:9090`.
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
    /// A PEM file with certificates to trust in addition to the platform's, such as a private CA.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A PEM file with the client certificate, if the admin listener has a client_ca.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// A PEM file with the private key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// The reason why an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperatorError {
    /// The configuration has faults.
    #[error(transparent)]
    Configuration(#[from] crate::config::Faults),
    /// The configuration has no token.
    #[error("admin.token is not set, so the gateway takes no orders")]
    NoToken,
    /// The order can't be read from standard input.
    #[error("can't read the order from standard input: {0}")]
    Input(#[from] io::Error),
    /// A file of certificates, or of a key, can't be used.
    #[error("{0} can't be used: {1}")]
    Pem(PathBuf, &'static str),
    /// The certificate does not fit its key, or the machine has no trust store.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// Nothing listens at the address.
    #[error(
        "nothing listens at {0}: is the gateway running, and is this its admin listener? --admin URL names another"
    )]
    NotRunning(Uri),
    /// The listener's certificate is not trusted.
    #[error(
        "the certificate of {0} is not trusted ({1}): give its CA with --ca FILE, and the name in it with --admin URL"
    )]
    NotTrusted(Uri, String),
    /// The listener requires a client certificate.
    #[error("{0} wants a client certificate that its client_ca has issued: give one with --cert FILE and --key FILE")]
    NoCertificate(Uri),
    /// Only one side uses TLS. Holds the URL, and the protocol that the listener does not speak.
    #[error("{0} does not speak {1}: give the listener's URL with --admin, with https:// if it has TLS")]
    OtherScheme(Uri, &'static str),
    /// The answer takes too long.
    #[error("{0} did not answer within {wait} s: it may be overloaded, or a firewall may drop the connection", wait = TIMEOUT.as_secs())]
    Silent(Uri),
    /// The connection ended for another reason.
    #[error("no answer from the gateway at {0}: {1}")]
    Unreachable(Uri, String),
    /// The gateway can't reach the other nodes, so its answer has no entries of theirs. Holds what is missing.
    #[error("the answer is not complete ({0}): repeat the command once the gateway reaches Redis again")]
    Partial(String),
    /// The gateway answered with an error, or the URL is invalid. Holds the text for the operator.
    #[error("{0}")]
    Refused(String),
}

impl Target {
    /// Sends a request to the admin API for an answer in JSON. Returns the body of the answer.
    ///
    /// # Errors
    /// Returns an error if there is no answer, or if the answer is an error or not complete.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<String, OperatorError> {
        self.ask_for("application/json", (method, path, body)).await
    }

    /// Sends a request to the admin API for an answer of the media type `accepted`. Returns the body of the answer.
    ///
    /// # Errors
    /// Returns an error if there is no answer, or if the answer is an error or not complete.
    pub(super) async fn ask_for(
        &self,
        accepted: &'static str,
        (method, path, body): (Method, &str, Bytes),
    ) -> Result<String, OperatorError> {
        let settings = Settings::load(&self.config)?;
        let strongest = settings.admin.tokens.values().max_by_key(|(_, role)| *role).map(|(token, _)| token);
        let token = settings.admin.token.as_ref().or(strongest).ok_or(OperatorError::NoToken)?;
        let scheme = if settings.admin.listener.tls.is_some() { "https" } else { "http" };
        let listener = format!("{scheme}://{}", reachable(settings.admin.listener.listen));
        let base = self.admin.as_ref().map_or(listener, |url| url.to_string().trim_end_matches('/').to_owned());
        let target: Uri = format!("{base}{path}").parse().map_err(|_| OperatorError::Refused("no such URL".into()))?;
        let no_request = || OperatorError::Refused("there is no such URL".into());
        let failed = |error: &(dyn Error + 'static)| failure(&target, error);

        let mut bearer =
            HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).map_err(|_| no_request())?;
        bearer.set_sensitive(true);
        let request =
            Request::builder().method(method).uri(&target).header(AUTHORIZATION, bearer).header(ACCEPT, accepted);
        let request =
            request.header(CONTENT_TYPE, "application/json").body(Full::new(body)).map_err(|_| no_request())?;
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(self.tls()?).https_or_http().enable_http1();
        // A listener behind load balancers expects a PROXY header from this client too. With --admin, the load balancer
        // at that URL adds the header.
        let with_header = self.admin.is_none() && settings.admin.listener.proxy_protocol;
        let connector = connector.wrap_connector(ProxyConnector { http, with_header });
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let answer = async {
            let response = client.request(request).await.map_err(|error| failed(&error))?;
            let status = response.status();
            let missing = response.headers().get("x-gateway-partial").and_then(|missing| missing.to_str().ok());
            let missing = missing.map(str::to_owned);
            let body =
                Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|error| failed(&*error))?;
            Ok::<_, OperatorError>((status, missing, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        match tokio::time::timeout(TIMEOUT, answer).await.map_err(|_| OperatorError::Silent(target.clone()))?? {
            (StatusCode::OK, None, body) => Ok(body),
            (StatusCode::OK, Some(missing), _) => Err(OperatorError::Partial(missing)),
            (_, _, body) => Err(OperatorError::Refused(body)),
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

/// Finds the reason why a gateway gave no answer, in an error and its sources.
fn failure(target: &Uri, error: &(dyn Error + 'static)) -> OperatorError {
    let mut next = Some(error);
    let mut last = String::new();
    while let Some(error) = next {
        last = error.to_string();
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
            return OperatorError::NotRunning(target.clone());
        }
        if let Some(told) =
            io.and_then(rustls_error).or_else(|| error.downcast_ref()).and_then(|error| tls_failure(target, error))
        {
            return told;
        }
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            return OperatorError::OtherScheme(target.clone(), "HTTP in clear");
        }
        next = error.source();
    }
    OperatorError::Unreachable(target.clone(), last)
}

/// Returns the TLS error inside an I/O error. I/O errors may wrap each other, and `source` does not return the wrapped
/// error.
fn rustls_error(mut error: &io::Error) -> Option<&rustls::Error> {
    loop {
        let inside = error.get_ref()?;
        match inside.downcast_ref::<io::Error>() {
            Some(wrapped) => error = wrapped,
            None => return inside.downcast_ref(),
        }
    }
}

fn tls_failure(target: &Uri, error: &rustls::Error) -> Option<OperatorError> {
    use rustls::AlertDescription::{
        BadCertificate, CertificateRequired, CertificateUnknown, HandshakeFailure, UnknownCA,
    };
    match error {
        rustls::Error::InvalidCertificate(why) => Some(OperatorError::NotTrusted(target.clone(), why.to_string())),
        rustls::Error::AlertReceived(
            BadCertificate | CertificateRequired | CertificateUnknown | HandshakeFailure | UnknownCA,
        ) => Some(OperatorError::NoCertificate(target.clone())),
        rustls::Error::InvalidMessage(_) => Some(OperatorError::OtherScheme(target.clone(), "TLS")),
        _ => None,
    }
}

/// Reads the certificates of a PEM file. Returns an error if the file has none.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, OperatorError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| OperatorError::Pem(file.to_owned(), "it is not a list of PEM certificates"))
}

/// Returns the address at which a listener is reached on its own machine. An unspecified address becomes the loopback
/// address.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}
