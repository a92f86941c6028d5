//! The check of a request that has a session instead of a token.

use super::sessions::{Session, Sessions};
use crate::config::Role;
use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};
use subtle::ConstantTimeEq as _;

/// The name of the session's cookie.
pub(super) const COOKIE_NAME: &str = "iluma_gateway_session";
/// The header in which a page's order carries the session's value.
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// Returns the session of a request, if it has one that works. An order needs the session's value too, or this host's origin:
/// a browser also sends the cookie for a page of another port of the same host.
pub(in super::super) fn session(
    sessions: &Sessions,
    (method, headers): (&Method, &HeaderMap),
    role_of: impl FnOnce(&str, &[u8; 32]) -> Option<Role>,
) -> Option<Session> {
    let session = sessions.find(cookie(headers)?, role_of)?;
    (method.is_safe() || is_own_order(&session, headers)).then_some(session)
}

/// Returns true if a page of this console gives the order.
fn is_own_order(session: &Session, headers: &HeaderMap) -> bool {
    if let Some(given) = headers.get(CSRF) {
        return given.as_bytes().ct_eq(session.csrf.as_bytes()).into();
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
}

/// Returns the session id among the request's cookies.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    #[test]
    fn an_order_needs_the_sessions_value_or_the_hosts_own_origin() {
        let sessions = Sessions::new(Clock::system());
        let id = sessions.open(&"ops".into(), [1; 32]);
        let csrf = sessions.find(&id, |_, _| Some(Role::Admin)).expect("it is open").csrf.to_string();
        let own = format!("a=b; {COOKIE_NAME}={id}");
        for (method, fields, expected) in [
            (Method::GET, vec![("cookie", own.as_str())], true),
            (Method::GET, vec![("cookie", "iluma_gateway_session=another")], false),
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
            let found = session(&sessions, (&method, &headers), |_, _| Some(Role::Admin));
            assert_eq!(
                found.is_some(),
                expected,
                "{method} {:?}",
                fields.iter().map(|(name, _)| name).collect::<Vec<_>>()
            );
        }
    }
}
