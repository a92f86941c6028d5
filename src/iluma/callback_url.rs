//! The URLs and addresses that callbacks may go to.
//!
//! The same rules check URLs in the configuration, a URL that a team sets, and the address of each connection.
//!
//! Invariant: no callback goes to a link-local, multicast, unspecified, broadcast or cloud metadata address. This also
//! holds for other spellings of such an address, for IPv6 addresses that embed it, and for addresses from a look-up of
//! a name.

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest URL in bytes. Common servers do not accept a longer request line.
const MAX_URL: usize = 2048;

/// The longest host name in bytes (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 255;

/// Addresses of cloud metadata services outside the link-local networks. These services hand out credentials too.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// The reason why a URL is refused for callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text is not an absolute http or https URL, is too long, has a user name or a fragment, or has a malformed
    /// host.
    #[error(
        "url must be an absolute http or https URL without user name and fragment; an IPv4 address in it must be four \
         decimal numbers"
    )]
    Shape,
    /// The host is not one of the team's hosts.
    #[error("the host of url is not allowed; platform operations can add it to callback_hosts of the team")]
    Host,
    /// The host is an address that no callback may go to.
    #[error("url must not lead to a link-local, multicast, unspecified or cloud metadata address")]
    Address,
}

/// Returns true for an address that no callback may go to: link-local, multicast, unspecified, broadcast, or the
/// address of a cloud metadata service. An IPv6 address that embeds such an IPv4 address counts too.
#[must_use]
pub fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_forbidden_v4(address),
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_multicast()
                || address.is_unicast_link_local()
                || METADATA_V6.contains(&address)
                || is_forbidden_embedding(address)
        }
    }
}

fn is_forbidden_v4(address: Ipv4Addr) -> bool {
    is_this_network(address)
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
        || METADATA_V4.contains(&address)
}

/// Returns true for 0.0.0.0/8, which systems treat as the machine itself.
const fn is_this_network(address: Ipv4Addr) -> bool {
    address.octets()[0] == 0
}

/// Returns true if an IPv6 address embeds a forbidden IPv4 address.
fn is_forbidden_embedding(address: Ipv6Addr) -> bool {
    let s = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    let last = join(s[6], s[7]);
    match s {
        // The loopback address has the form of an IPv4-compatible address for 0.0.0.1.
        [0, 0, 0, 0, 0, 0, 0, 1] => false,
        // Compatible, mapped (RFC 4291), translated (RFC 2765), and the well-known prefix of NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            is_forbidden_v4(last)
        }
        // The local prefix of NAT64 (RFC 8215): an operator chooses its length, so the IPv4 address may be at each
        // position of RFC 6052. Unused positions are zero.
        [0x64, 0xff9b, 1, ..] => {
            let bytes = address.octets();
            let places = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
            let mut found = places.map(|place| Ipv4Addr::from(place.map(|at| bytes[at]))).into_iter();
            let is_empty = found.clone().all(is_this_network);
            is_empty || found.any(|v4| !is_this_network(v4) && is_forbidden_v4(v4))
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_forbidden_v4(join(high, low)),
        // Teredo (RFC 4380): the server, and the client's address with every bit inverted.
        [0x2001, 0, high, low, ..] => is_forbidden_v4(join(high, low)) || is_forbidden_v4(join(!s[6], !s[7])),
        // ISATAP (RFC 5214).
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => is_forbidden_v4(last),
        _ => false,
    }
}

/// Returns a host in its normal form: in lower case, and without a dot at the end. An IPv6 address is in brackets and
/// in its canonical spelling. Returns `None` if the text is neither a name nor an address, or if it is an IPv4 address
/// that is not written as four decimal numbers.
#[must_use]
pub fn normal_host(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Some(format!("[{address}]"));
    }
    let name = text.strip_suffix('.').unwrap_or(&text);
    let fits = name.parse::<Authority>().is_ok_and(|authority| authority.as_str() == authority.host());
    if name.is_empty() || name.len() > MAX_HOST || name.contains(['[', ']', '@']) || !fits {
        return None;
    }
    // Resolvers read `127.1`, `0x7f000001` and `2130706433` as addresses; programs that compare hosts read them as
    // names.
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    if is_number && name.parse::<Ipv4Addr>().is_err() {
        return None;
    }
    Some(name.to_owned())
}

/// Checks that a host in its normal form is not a forbidden address. A name passes: its addresses are checked before
/// each connection.
///
/// # Errors
/// Returns an error if the host is a forbidden address.
pub fn permitted_host(host: &str) -> Result<(), UrlError> {
    let address = host.trim_matches(['[', ']']).parse();
    if address.is_ok_and(is_forbidden) { Err(UrlError::Address) } else { Ok(()) }
}

/// A URL that callbacks may go to, in its normal form. The scheme is in lower case, and the host has the form of
/// [`normal_host`]. There is no port if it is the scheme's default port. The path is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackUrl {
    uri: Uri,
    host: String,
}

impl CallbackUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// Returns an error if the text is not an http or https URL of the accepted form, or if its host is a forbidden
    /// address.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        // `Uri` silently drops a fragment.
        if text.len() > MAX_URL || text.contains('#') {
            return Err(UrlError::Shape);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Shape)?;
        let authority = uri.authority().ok_or(UrlError::Shape)?;
        let has_port = authority.as_str() != authority.host();
        if authority.as_str().contains('@') || (has_port && authority.port_u16().is_none()) {
            return Err(UrlError::Shape);
        }
        let (scheme, implied) = match uri.scheme_str() {
            Some("http") => (Scheme::HTTP, 80),
            Some("https") => (Scheme::HTTPS, 443),
            _ => return Err(UrlError::Shape),
        };
        let host = normal_host(authority.host()).ok_or(UrlError::Shape)?;
        permitted_host(&host)?;
        let normal = match authority.port_u16().filter(|port| *port != implied) {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let uri = Uri::builder().scheme(scheme).authority(normal).path_and_query(path).build();
        Ok(Self { uri: uri.map_err(|_| UrlError::Shape)?, host })
    }

    /// Reads a URL whose host must be one of `hosts`, which are in their normal form.
    ///
    /// # Errors
    /// Returns the errors of [`CallbackUrl::parse`], and an error if the host is not one of `hosts`.
    pub fn permitted(text: &str, hosts: &BTreeSet<String>) -> Result<Self, UrlError> {
        let url = Self::parse(text)?;
        if hosts.contains(&url.host) { Ok(url) } else { Err(UrlError::Host) }
    }

    /// Returns the host in its normal form.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the URL in its normal form.
    #[must_use]
    pub fn into_uri(self) -> Uri {
        self.uri
    }
}

impl std::fmt::Display for CallbackUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> BTreeSet<String> {
        ["lending.internal", "127.0.0.1", "[::1]", "169.254.169.254", "[fe80::1]", "0.0.0.0"].map(str::to_owned).into()
    }

    #[test]
    fn no_address_is_reached_by_another_spelling() {
        // The table has each forbidden IPv4 address, and an allowed one, in every embedding.
        for (v4, forbidden) in [
            ("169.254.169.254", true),
            ("169.254.0.0", true),
            ("0.0.0.0", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("192.0.0.192", true),
            ("224.0.0.1", true),
            ("239.255.255.255", true),
            ("255.255.255.255", true),
            ("169.253.255.255", false),
            ("100.100.100.201", false),
            ("10.1.2.3", false),
            ("127.0.0.1", false),
        ] {
            let v4: Ipv4Addr = v4.parse().unwrap();
            let [a, b, c, d] = v4.octets();
            let inverted = Ipv4Addr::from(!u32::from(v4));
            let embedded = [
                format!("::ffff:{v4}"),
                format!("::{v4}"),
                format!("::ffff:0:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("64:ff9b:1:{a:02x}{b:02x}:{c:x}:{d:02x}00::"),
                format!("64:ff9b:1:{a:02x}:{b:02x}:{c:02x}{d:02x}::"),
                format!("64:ff9b:1:0:{a:02x}:{b:02x}{c:02x}:{d:02x}00::"),
                format!("64:ff9b:1::{v4}"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
                format!("2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}::f5ff:fffe"),
                format!("2001:0:a01:203::{inverted}"),
                format!("2001:db8::5efe:{v4}"),
            ];
            assert_eq!(is_forbidden(v4.into()), forbidden, "{v4}");
            for text in embedded {
                let v6: Ipv6Addr = text.parse().unwrap_or_else(|_| panic!("{text}"));
                assert_eq!(is_forbidden(v6.into()), forbidden, "{text} for {v4}");
            }
        }
        for (v6, forbidden) in [
            ("::", true),
            ("fe80::1", true),
            ("febf::1", true),
            ("ff02::1", true),
            ("fd00:ec2::254", true),
            ("fd20:ce::254", true),
            ("64:ff9b:1::", true),
            ("::1", false),
            ("fec0::1", false),
            ("fd00:ec2::253", false),
            ("fd00::1", false),
            ("2001:db8::1", false),
            ("::ffff:0.1.2.3", true),
            ("0.1.2.3", true),
        ] {
            assert_eq!(is_forbidden(v6.parse().unwrap()), forbidden, "{v6}");
        }
    }

    #[test]
    fn a_host_has_one_spelling() {
        for (text, normal) in [
            ("Lending.Internal", Some("lending.internal")),
            ("lending.internal.", Some("lending.internal")),
            ("FE80::0:1", Some("[fe80::1]")),
            ("[::FFFF:127.0.0.1]", Some("[::ffff:127.0.0.1]")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("a.0x.example", Some("a.0x.example")),
            ("127.1", None),
            ("0177.0.0.1", None),
            ("2130706433", None),
            ("0x7f000001", None),
            ("127.0.0.0x1", None),
            ("", None),
            (".", None),
            ("a:1", None),
            ("a/b", None),
            ("user@a", None),
            ("[a]", None),
        ] {
            assert_eq!(normal_host(text).as_deref(), normal, "{text}");
        }
        assert_eq!(normal_host(&"x".repeat(MAX_HOST + 1)), None);
    }

    #[test]
    fn a_url_has_one_spelling() {
        for (text, normal) in [
            ("HTTPS://LENDING.internal.:443", "https://lending.internal/"),
            ("http://lending.internal:80/KYC?a=B", "http://lending.internal/KYC?a=B"),
            ("http://lending.internal:443/", "http://lending.internal:443/"),
            ("http://[::0001]:8080?x", "http://[::1]:8080/?x"),
        ] {
            assert_eq!(CallbackUrl::parse(text).unwrap().to_string(), normal, "{text}");
        }
    }

    #[test]
    fn a_url_is_http_and_leads_to_one_of_the_teams_hosts() {
        for good in [
            "https://lending.internal/kyc",
            "http://LENDING.internal:8443/kyc?token=x",
            "http://127.0.0.1:1",
            "http://[::1]:80/",
        ] {
            assert!(CallbackUrl::permitted(good, &hosts()).is_ok(), "{good}");
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
            ("http://2852039166/", UrlError::Shape),
            (&format!("https://lending.internal/{}", "x".repeat(MAX_URL)), UrlError::Shape),
            ("https://payments.internal/", UrlError::Host),
            ("https://lending.internal.evil/", UrlError::Host),
            ("https://evil/?lending.internal", UrlError::Host),
            ("http://169.254.169.254/latest", UrlError::Address),
            ("http://169.254.169.254./latest", UrlError::Address),
            ("http://[fe80::1]/", UrlError::Address),
            ("http://[::ffff:169.254.169.254]/", UrlError::Address),
            ("http://[::ffff:a9fe:a9fe]/", UrlError::Address),
            ("http://0.0.0.0:8080/", UrlError::Address),
            ("http://[::]:8080/", UrlError::Address),
        ] {
            assert_eq!(CallbackUrl::permitted(bad, &hosts()), Err(why), "{bad}");
        }
    }
}
