//! Certificates made for one test, and both sides of TLS with them.

use super::Upstream;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use iluma_gateway::base::clock::Clock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate with its key.
pub struct Leaf {
    cert_pem: String,
    key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        Self { pem: cert.pem(), der: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// Makes a certificate for a name or an address.
    pub fn leaf(&self, name: &str) -> Leaf {
        self.signed(CertificateParams::new(vec![name.to_owned()]).expect("parameters"))
    }

    /// Makes a certificate that expires in `days` days, at the beginning of that day.
    pub fn leaf_until(&self, name: &str, days: u64) -> Leaf {
        self.leaf_of_day(name, Clock::system().wall() + Duration::from_secs(days * 86400))
    }

    /// Makes a certificate that expired `days` days ago, at the beginning of that day.
    pub fn expired_leaf(&self, name: &str, days: u64) -> Leaf {
        self.leaf_of_day(name, Clock::system().wall() - Duration::from_secs(days * 86400))
    }

    fn leaf_of_day(&self, name: &str, end: SystemTime) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let text = humantime::format_rfc3339_seconds(end).to_string();
        let part = |range: std::ops::Range<usize>| text[range].parse::<u16>().expect("a number");
        let day = |range| u8::try_from(part(range)).expect("a day");
        params.not_after = rcgen::date_time_ymd(part(0..4).into(), day(5..7), day(8..10));
        self.signed(params)
    }

    fn signed(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
            chain: vec![cert.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        }
    }

    /// Writes the authority's certificate into a folder.
    pub fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, &self.pem).expect("a file");
        path
    }
}

impl Leaf {
    /// Writes `cert.pem` and `key.pem` into a folder, and returns the TOML line of a listener that uses them.
    pub fn write(&self, folder: &Path, client_ca: Option<&Path>) -> String {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, &self.cert_pem).expect("a file");
        std::fs::write(&key, &self.key_pem).expect("a file");
        let client_ca = client_ca.map(|path| format!(", client_ca = {path:?}")).unwrap_or_default();
        format!("tls = {{ cert = {cert:?}, key = {key:?}{client_ca} }}")
    }

    /// Returns the server side of TLS with this certificate, for the ALPN protocols `protocols`.
    pub fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let config = ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(self.chain.clone(), self.key.clone_key()).expect("a server's side");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Connects to an address by TLS, and expects a certificate for 127.0.0.1 from one authority. Shows the certificate
/// `own` if there is one, and offers the ALPN protocols.
pub async fn connect(
    to: SocketAddr,
    trusted: &Authority,
    own: Option<&Leaf>,
    protocols: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der.clone()).expect("a root");
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match own {
        Some(leaf) => config.with_client_auth_cert(leaf.chain.clone(), leaf.key.clone_key()).expect("a client's side"),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Starts an upstream with a certificate. It answers with its path and body, and records the HTTP version of each
/// request.
pub async fn secure_upstream(leaf: &Leaf, protocols: &[&str]) -> (Upstream, Arc<Mutex<Vec<Version>>>) {
    let acceptor = leaf.acceptor(protocols);
    let versions: Arc<Mutex<Vec<Version>>> = Arc::default();
    let noted = Arc::clone(&versions);
    let upstream = Upstream::on_connection(move |stream| {
        let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let service = service_fn(move |request: Request<Incoming>| {
                let noted = Arc::clone(&noted);
                async move {
                    noted.lock().expect("a record").push(request.version());
                    let path = request.uri().path().to_owned();
                    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let body = format!(r#"{{"path":"{path}","bytes":{}}}"#, body.len());
                    let response = Response::builder().header("content-type", "application/json");
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).expect("a response"))
                }
            });
            let io = TokioIo::new(stream);
            if h2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
            }
        }
    })
    .await;
    (upstream, versions)
}
