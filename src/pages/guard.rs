//! Checks a request that has a session instead of a token or a key.

use super::sessions::{Session, Sessions};
use crate::state::StateError;
use http::header::{COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};

/// The header in which an order from a page carries the session's secret value.
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// Returns the session of a request; `None` if the request has no valid session. `name` is the name of the session's
/// cookie. `standing` is the function that [`Sessions::find`] takes.
///
/// A request that may change something also needs the session's secret value or this host's origin. The cookie alone is
/// no proof, because a browser sends it for pages of other ports of the same host too.
///
/// # Errors
/// Returns an error if state can't be read, and this node has no recent copy of the session.
pub async fn session<T>(
    sessions: &Sessions,
    name: &str,
    (method, headers): (&Method, &HeaderMap),
    standing: impl FnOnce(&str, &[u8; 32]) -> Option<T>,
) -> Result<Option<Session<T>>, StateError> {
    let Some(id) = cookie(headers, name) else { return Ok(None) };
    let session = sessions.find(id, standing).await?;
    Ok(session.filter(|session| method.is_safe() || is_own_order(session, headers)))
}

/// Returns true if an order comes from the session's own pages. The order must carry the session's secret value. If it
/// carries no value at all, its `origin` must be this host.
fn is_own_order<T>(session: &Session<T>, headers: &HeaderMap) -> bool {
    if let Some(given) = headers.get(CSRF) {
        return session.has_value(given.as_bytes());
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(ORIGIN), text(HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
}

/// Returns the value of the request's cookie `name`; `None` if the request has no such cookie.
#[must_use]
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), value.parse().expect("a value"))
        };
        fields.iter().map(field).collect()
    }

    #[test]
    fn an_order_needs_the_sessions_value_or_the_hosts_own_origin() {
        let session = Session { holder: "ops".into(), standing: (), csrf: "the value".into() };
        for (fields, expected) in [
            (vec![], false),
            (vec![("x-csrf-token", "the value")], true),
            (vec![("x-csrf-token", "another"), ("origin", "http://a:1")], false),
            (vec![("origin", "http://a:1")], true),
            (vec![("origin", "http://a:2")], false),
            (vec![("origin", "null")], false),
        ] {
            let given = headers(&[&[("host", "a:1")], &fields[..]].concat());
            assert_eq!(is_own_order(&session, &given), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (fields, expected) in [
            (vec![("cookie", "a=b; session=one")], Some("one")),
            (vec![("cookie", "a=b"), ("cookie", "session=one")], Some("one")),
            (vec![("cookie", "my_session=one; session2=two")], None),
            (vec![], None),
        ] {
            assert_eq!(cookie(&headers(&fields), "session"), expected, "{fields:?}");
        }
    }
}
