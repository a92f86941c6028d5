//! The settings of the listener that a health check asks if the gateway is ready.
//!
//! Only this part of the file is read. A probe must not fail because of a secret that only the gateway's process may
//! read. It must also not fail because of a faulty edit that the running gateway has refused.

use super::fault::{Fault, Faults};
use super::reader::{self, Reader};
use super::{listener, load, tls};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::path::Path;

/// The listener that the health check connects to.
#[derive(Debug)]
pub struct Probe {
    /// The key of the listener's section: `status`, or `admin` if there is no `status`.
    pub listener: &'static str,
    /// Address and port.
    pub address: SocketAddr,
    /// The TLS settings of the listener, if it uses TLS.
    pub tls: Option<ProbeTls>,
    /// True if connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// The TLS settings with which the health check connects to the listener.
#[derive(Debug)]
pub struct ProbeTls {
    /// The listener's own certificate, the only one that the probe trusts.
    pub certificate: CertificateDer<'static>,
    /// The listener's own chain and key, with which the probe authenticates if the listener requires a client
    /// certificate.
    pub identity: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
}

impl Probe {
    /// Reads the listener from a configuration file.
    ///
    /// # Errors
    /// Returns an error if the file can't be read, or if the listener's own keys have faults.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let (path, text) = load::read_file(path)?;
        let (own, defaults) = (reader::parse(&text)?, reader::parse(load::DEFAULTS)?);
        let env = |name: &str| std::env::var(name).ok();
        let reader = Reader::new(path.parent().unwrap_or(Path::new(".")), &env);
        let root = reader.root(&own, &defaults);
        let name = if own.contains_key("status") { "status" } else { "admin" };
        let section = root.section(name);
        let read = listener::read(&section);
        let identity = section.maybe("tls", |table| tls::identity(&table.table()?));
        drop((section, root));
        let faults: Vec<Fault> = reader.finish(&own).faults;
        let faults = || faults.into_iter().filter(|fault| fault.key().starts_with(name)).collect();
        let Some(read) = read else { return Err(Faults::new(faults())) };
        let tls = match (read.tls, identity) {
            (Some(tls), Some(identity)) => Some(ProbeTls { certificate: tls.certificate, identity }),
            (None, None) if !has_tls(&own, name) => None,
            _ => return Err(Faults::new(faults())),
        };
        Ok(Self { listener: name, address: read.listen, tls, proxy_protocol: read.proxy_protocol })
    }
}

fn has_tls(own: &toml::Table, name: &str) -> bool {
    own.get(name).and_then(|section| section.get("tls")).is_some()
}
