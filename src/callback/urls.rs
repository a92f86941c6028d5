//! Where callbacks may go: the rules for a team's URLs, kept when one is set and again whenever something is sent.
//!
//! Invariant: nothing is ever sent to a link-local address, where cloud metadata services hand out credentials, however
//! it is spelled or looked up.

use http::Uri;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use tower_service::Service;

/// The longest URL: no server takes more.
const LONGEST: usize = 2048;

/// Why nothing is sent to a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not an absolute http or https URL, or one with a user name or a fragment.
    #[error("url must be an absolute http or https URL without user name and fragment")]
    Shape,
    /// Its host is not one of the team's.
    #[error("the host of url is not allowed, platform operations can add it to callback_hosts of the team")]
    Host,
    /// A link-local address.
    #[error("url must not lead to a link-local address")]
    LinkLocal,
}

/// A URL that a team's callbacks may be sent to.
///
/// # Errors
/// It breaks a rule. Names are looked up by [`Permitted`] later, each time anew.
pub(super) fn permitted(text: &str, hosts: &BTreeSet<String>) -> Result<Uri, UrlError> {
    if text.len() > LONGEST || text.contains('#') {
        return Err(UrlError::Shape);
    }
    let uri: Uri = text.parse().map_err(|_| UrlError::Shape)?;
    let authority = uri.authority().ok_or(UrlError::Shape)?;
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    let port = authority.port_u16().is_some() || authority.as_str() == authority.host();
    if !plain || !port || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(UrlError::Shape);
    }
    let host = authority.host().to_ascii_lowercase();
    if host.trim_matches(['[', ']']).parse().is_ok_and(is_link_local) {
        return Err(UrlError::LinkLocal);
    }
    if hosts.contains(&host) { Ok(uri) } else { Err(UrlError::Host) }
}

/// Whether an address is link-local, also as IPv6 spells IPv4 (mapped, compatible, NAT64, 6to4).
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || inner(address).is_some_and(|v4| v4.is_link_local()),
    }
}

fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(join(high, low)),
        [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

/// Looks names up, and leaves out what nothing may be sent to.
#[derive(Clone)]
pub(super) struct Permitted(GaiResolver);

impl Permitted {
    pub(super) fn new() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Permitted {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let found = self.0.call(name);
        Box::pin(async move { only_permitted(found.await?) })
    }
}

fn only_permitted(found: impl Iterator<Item = SocketAddr>) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let permitted: Vec<_> = found.filter(|address| !is_link_local(address.ip())).collect();
    if permitted.is_empty() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "no address that anything may be sent to"));
    }
    Ok(permitted.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> BTreeSet<String> {
        ["lending.internal", "127.0.0.1", "[::1]", "169.254.169.254", "[fe80::1]"].map(str::to_owned).into()
    }

    #[test]
    fn a_url_is_http_and_leads_to_one_of_the_teams_hosts() {
        for good in [
            "https://lending.internal/kyc",
            "http://LENDING.internal:8443/kyc?token=x",
            "http://127.0.0.1:1",
            "http://[::1]:80/",
        ] {
            assert!(permitted(good, &hosts()).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", UrlError::Shape),
            ("/kyc", UrlError::Shape),
            ("lending.internal", UrlError::Shape),
            ("ftp://lending.internal/", UrlError::Shape),
            ("javascript:alert(1)", UrlError::Shape),
            ("https://user@lending.internal/", UrlError::Shape),
            ("https://lending.internal/#x", UrlError::Shape),
            ("https://lending.internal:x/", UrlError::Shape),
            ("https://lending.internal:99999/", UrlError::Shape),
            (&format!("https://lending.internal/{}", "x".repeat(LONGEST)), UrlError::Shape),
            ("https://payments.internal/", UrlError::Host),
            ("https://lending.internal.evil/", UrlError::Host),
            ("https://evil/?lending.internal", UrlError::Host),
            ("http://169.254.169.254/latest", UrlError::LinkLocal),
            ("http://[fe80::1]/", UrlError::LinkLocal),
            ("http://[::ffff:169.254.169.254]/", UrlError::LinkLocal),
            ("http://[::ffff:a9fe:a9fe]/", UrlError::LinkLocal),
        ] {
            assert_eq!(permitted(bad, &hosts()), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_name_leads_to_no_link_local_address() {
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let (good, bad) = (["10.0.0.1:0", "[fd00::1]:0"], ["169.254.1.1:0", "[fe80::1]:0", "[64:ff9b::a9fe:1]:0"]);
        let mixed = addresses(&[&good[..], &bad].concat());
        assert_eq!(only_permitted(mixed.into_iter()).unwrap().collect::<Vec<_>>(), addresses(&good));
        assert!(only_permitted(addresses(&bad).into_iter()).is_err());
        for (text, link_local) in [
            ("169.253.255.255", false),
            ("169.254.0.0", true),
            ("febf::1", true),
            ("fec0::1", false),
            ("::169.254.0.1", true),
            ("2002:a9fe:1::", true),
            ("127.0.0.1", false),
        ] {
            assert_eq!(is_link_local(text.parse().unwrap()), link_local, "{text}");
        }
    }
}
