//! Finds the address of a client behind load balancers.
//!
//! Invariants: a header counts only if a trusted load balancer sent it; the client is the rightmost address that is not
//! a trusted load balancer, because a client can invent everything to the left of its own address.

use http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// The client's address.
    pub address: IpAddr,
    /// True if the client uses TLS, toward the gateway or toward the load balancer.
    pub secure: bool,
}

/// The other end of a connection: a client, or a load balancer in front of many clients.
#[derive(Debug, Clone)]
pub struct Peer {
    address: IpAddr,
    secure: bool,
    trusted: Arc<[IpNet]>,
}

impl Peer {
    /// Makes a peer. `secure` is true for a connection with TLS. `trusted` has the networks of the load balancers that
    /// are trusted.
    #[must_use]
    pub fn new(address: IpAddr, secure: bool, trusted: Arc<[IpNet]>) -> Self {
        Self { address: address.to_canonical(), secure, trusted }
    }

    /// Returns the client of a request that came over this connection.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap) -> Client {
        if !self.trusts(self.address) {
            return Client { address: self.address, secure: self.secure };
        }
        Client { address: self.forwarded_for(headers), secure: self.is_secure(headers) }
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// Returns the rightmost address of `x-forwarded-for` that is not a trusted load balancer. If all are trusted load
    /// balancers, returns the leftmost address. If there is no address, returns the peer's own. A text that is not an
    /// address ends the search, because nothing to the left of it can be trusted.
    fn forwarded_for(&self, headers: &HeaderMap) -> IpAddr {
        let mut last = self.address;
        for field in headers.get_all(FORWARDED_FOR).iter().rev() {
            let Ok(field) = field.to_str() else { return last };
            for entry in field.rsplit(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                let Some(address) = address(entry) else { return last };
                last = address;
                if !self.trusts(address) {
                    return last;
                }
            }
        }
        last
    }

    /// Returns true if the nearest load balancer reports TLS in `x-forwarded-proto`. Without that header it returns
    /// true if this connection itself uses TLS.
    fn is_secure(&self, headers: &HeaderMap) -> bool {
        let last = headers.get_all(FORWARDED_PROTO).iter().next_back().and_then(|field| field.to_str().ok());
        let scheme = last.and_then(|field| field.rsplit(',').next()).map(str::trim);
        scheme.map_or(self.secure, |scheme| scheme.eq_ignore_ascii_case("https"))
    }
}

/// Parses an address with or without a port, because some load balancers add the port. Returns `None` for other texts.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(peer: &str, trusted: &[&str], headers: &[(&'static str, &str)]) -> (String, bool) {
        let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let Client { address, secure } = Peer::new(peer.parse().unwrap(), false, trusted).client(&map);
        (address.to_string(), secure)
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_load_balancer() {
        let inside: &[&str] = &["10.0.0.0/8", "fd00::/8"];
        let cases: [(&str, &[&str], &[&str], &str); 14] = [
            ("10.0.0.1", inside, &["203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", inside, &["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            ("10.0.0.1", inside, &["1.1.1.1, 203.0.113.7, 10.1.2.3"], "203.0.113.7"),
            ("10.0.0.1", inside, &["1.1.1.1", "203.0.113.7 , 10.1.2.3"], "203.0.113.7"),
            ("10.0.0.1", inside, &["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
            ("10.0.0.1", inside, &[], "10.0.0.1"),
            ("10.0.0.1", inside, &[""], "10.0.0.1"),
            ("10.0.0.1", inside, &["203.0.113.7, unknown"], "10.0.0.1"),
            ("10.0.0.1", inside, &["203.0.113.7, _hidden, 10.1.2.3"], "10.1.2.3"),
            ("10.0.0.1", inside, &["203.0.113.7:4711"], "203.0.113.7"),
            ("10.0.0.1", inside, &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("::ffff:10.0.0.1", inside, &["::ffff:203.0.113.7"], "203.0.113.7"),
            ("198.51.100.1", inside, &["203.0.113.7"], "198.51.100.1"),
            ("10.0.0.1", &[], &["203.0.113.7"], "10.0.0.1"),
        ];
        for (peer, trusted, fields, expected) in cases {
            let headers: Vec<_> = fields.iter().map(|field| (FORWARDED_FOR, *field)).collect();
            assert_eq!(client(peer, trusted, &headers).0, expected, "{peer} {trusted:?} {fields:?}");
        }
    }

    #[test]
    fn the_scheme_is_the_nearest_load_balancers_word() {
        let cases: [(&str, &[&str], bool); 6] = [
            ("10.0.0.1", &["https"], true),
            ("10.0.0.1", &["HTTPS"], true),
            ("10.0.0.1", &["https, http"], false),
            ("10.0.0.1", &["http", "https"], true),
            ("10.0.0.1", &[], false),
            ("198.51.100.1", &["https"], false),
        ];
        for (peer, fields, secure) in cases {
            let headers: Vec<_> = fields.iter().map(|field| (FORWARDED_PROTO, *field)).collect();
            assert_eq!(client(peer, &["10.0.0.0/8"], &headers).1, secure, "{peer} {fields:?}");
        }
    }
}
