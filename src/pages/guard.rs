//! The check of a request that has a session instead of a token or a key.

use super::sessions::{Session, Sessions};
use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};

/// The header in which a page's order carries the session's value.
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// Returns the session of a request, if it has one that works; `name` is that of the cookie. An order needs the session's value
/// too, or this host's origin: a browser also sends the cookie for a page of another port of the same host.
pub fn session<T>(
    sessions: &Sessions,
    name: &str,
    (method, headers): (&Method, &HeaderMap),
    standing: impl FnOnce(&str, &[u8; 32]) -> Option<T>,
) -> Option<Session<T>> {
    let session = sessions.find(cookie(headers, name)?, standing)?;
    (method.is_safe() || is_own_order(&session, headers)).then_some(session)
}

/// Returns true if a page of this host gives the order.
fn is_own_order<T>(session: &Session<T>, headers: &HeaderMap) -> bool {
    if let Some(given) = headers.get(CSRF) {
        return session.has_value(given.as_bytes());
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
}

/// Returns the session id in the request's cookie of this name.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn an_order_needs_the_sessions_value_or_the_hosts_own_origin() {
        let sessions = Sessions::new(Clock::system());
        let id = sessions.open("ops", [1; 32]);
        let csrf = sessions.find(&id, |_, _| Some(())).expect("it is open").csrf.to_string();
        let own = format!("a=b; session={id}");
        for (method, fields, expected) in [
            (Method::GET, vec![("cookie", own.as_str())], true),
            (Method::GET, vec![("cookie", "session=another")], false),
            (Method::GET, vec![], false),
            (Method::POST, vec![("cookie", &own)], false),
            (Method::POST, vec![("cookie", &own), ("x-csrf-token", &csrf)], true),
            (Method::POST, vec![("cookie", &own), ("x-csrf-token", "another"), ("origin", "http://a:1")], false),
            (Method::POST, vec![("cookie", &own), ("origin", "http://a:1")], true),
            (Method::POST, vec![("cookie", &own), ("origin", "http://a:2")], false),
            (Method::DELETE, vec![("cookie", &own), ("origin", "null")], false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "a:1".parse().expect("a host"));
            for (name, value) in &fields {
                headers.insert(HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"));
            }
            let found = session(&sessions, "session", (&method, &headers), |_, _| Some(()));
            assert_eq!(
                found.is_some(),
                expected,
                "{method} {:?}",
                fields.iter().map(|(name, _)| name).collect::<Vec<_>>()
            );
        }
    }
}
