//! The host that an HTTP request names (RFC 9112, section 3.2).

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderValue, Request, Version};

/// A fault of the `Host` field. The gateway answers 400, because two servers may read such a request differently, and
/// an attacker can exploit that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An HTTP/1.1 request has no `Host` field.
    #[error("the Host header is missing; HTTP/1.1 requests need one")]
    Missing,
    /// The request has more than one `Host` field.
    #[error("the request has more than one Host header; send exactly one")]
    Repeated,
    /// The value is not a host with or without a port, or the request's target has a user name, such as `user@host`.
    #[error("the Host header is not a valid host, such as \"gateway.example.com\" or \"10.0.0.1:8080\"")]
    Invalid,
    /// An HTTP/2 request has a `Host` field that differs from `:authority`.
    #[error("the Host header differs from :authority; send one of the two")]
    Different,
}

/// Checks the `Host` field of a request.
///
/// # Errors
/// Returns an error if an HTTP/1.1 request lacks the field, if the field is repeated, or if its value is not a host.
/// Also returns an error if the field of an HTTP/2 request differs from `:authority` (RFC 9113, section 8.3.1), or if
/// the request's target has a user name.
pub fn check<B>(request: &Request<B>) -> Result<(), HostError> {
    if let Some(authority) = request.uri().authority() {
        if authority.as_str().contains('@') {
            return Err(HostError::Invalid);
        }
        // HTTP/1.1 ignores the field if the target names the host.
        if let (Version::HTTP_2, Some(host)) = (request.version(), request.headers().get(HOST))
            && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        {
            return Err(HostError::Different);
        }
    }
    let mut fields = request.headers().get_all(HOST).iter();
    match (fields.next(), fields.next()) {
        (None, _) if request.version() == Version::HTTP_11 => Err(HostError::Missing),
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err(HostError::Repeated),
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => Err(HostError::Invalid),
    }
}

/// Returns true for a host with or without a port. An empty text is not a host (RFC 9110, section 4.2.1).
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    // Nearly every request names a plain host: a look at its bytes costs less than parsing an authority.
    if is_plain(bytes) {
        return true;
    }
    if bytes.is_empty() || bytes.contains(&b'@') {
        return false;
    }
    let Ok(authority) = Authority::try_from(bytes) else { return false };
    let port = &authority.as_str()[authority.host().len()..];
    let port_is_number = port.strip_prefix(':').unwrap_or(port).bytes().all(|byte| byte.is_ascii_digit());
    !authority.host().is_empty() && port_is_number
}

/// Returns true for a host that consists of letters, digits, dots and hyphens, with or without a port.
fn is_plain(bytes: &[u8]) -> bool {
    let name = bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')).count();
    match bytes.split_at(name) {
        ([], _) => false,
        (_, [b':', port @ ..]) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        (_, rest) => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_names_the_same_host_and_no_user() {
        for (version, target, host, expected) in [
            (Version::HTTP_2, "https://gateway.test/a", None, Ok(())),
            (Version::HTTP_2, "https://gateway.test/a", Some("GATEWAY.test"), Ok(())),
            (Version::HTTP_2, "https://gateway.test/a", Some("other.test"), Err(HostError::Different)),
            (Version::HTTP_2, "https://gateway.test/a", Some("gateway.test:81"), Err(HostError::Different)),
            (Version::HTTP_2, "https://user@gateway.test/a", None, Err(HostError::Invalid)),
            (Version::HTTP_11, "http://user@gateway.test/a", Some("gateway.test"), Err(HostError::Invalid)),
            (Version::HTTP_11, "http://gateway.test/a", Some("other.test"), Ok(())),
            (Version::HTTP_11, "/a", Some("gateway.test"), Ok(())),
        ] {
            let mut request = Request::builder().version(version).uri(target);
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            assert_eq!(check(&request.body(()).unwrap()), expected, "{version:?} {target} {host:?}");
        }
    }

    #[test]
    fn one_host_is_wanted_and_it_must_be_one() {
        let (missing, repeated, invalid) = (HostError::Missing, HostError::Repeated, HostError::Invalid);
        let cases: [(Version, &[&str], Option<HostError>); 21] = [
            (Version::HTTP_11, &["gateway.test"], None),
            (Version::HTTP_11, &["gateway.test:8080"], None),
            (Version::HTTP_11, &["gateway.test:"], None),
            (Version::HTTP_11, &["my_service.ns-1"], None),
            (Version::HTTP_11, &["127.0.0.1:0"], None),
            (Version::HTTP_11, &["[::1]"], None),
            (Version::HTTP_11, &["[::1]:8080"], None),
            (Version::HTTP_11, &["xn--bcher-kva.example"], None),
            (Version::HTTP_11, &[], Some(missing)),
            (Version::HTTP_10, &[], None),
            (Version::HTTP_2, &[], None),
            (Version::HTTP_11, &["a", "a"], Some(repeated)),
            (Version::HTTP_10, &["a", "b"], Some(repeated)),
            (Version::HTTP_2, &["a", "b"], Some(repeated)),
            (Version::HTTP_11, &[""], Some(invalid)),
            (Version::HTTP_11, &[":80"], Some(invalid)),
            (Version::HTTP_11, &["a b"], Some(invalid)),
            (Version::HTTP_11, &["user@a"], Some(invalid)),
            (Version::HTTP_11, &["a:b"], Some(invalid)),
            (Version::HTTP_11, &["http://a/"], Some(invalid)),
            (Version::HTTP_11, &["a,b/c"], Some(invalid)),
        ];
        for (version, hosts, expected) in cases {
            let mut request = Request::builder().version(version).body(()).unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, HeaderValue::from_str(host).unwrap());
            }
            assert_eq!(check(&request).err(), expected, "{version:?} {hosts:?}");
        }
    }
}
