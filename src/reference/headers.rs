//! What passes of a message's head, either way.

use http::header::{self, HeaderMap, HeaderName};
use std::time::Duration;

/// Fields between two neighbours (RFC 9110, section 7.6.1), of which each hop makes its own.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Ids of a trace, which would let either side follow requests through the other's systems.
fn is_trace(name: &str) -> bool {
    matches!(
        name,
        "traceparent"
            | "tracestate"
            | "baggage"
            | "b3"
            | "uber-trace-id"
            | "sentry-trace"
            | "x-amzn-trace-id"
            | "x-cloud-trace-context"
    ) || name.starts_with("x-b3-")
        || name.starts_with("x-datadog-")
}

/// What a request leaves at the gateway beside its hop-by-hop fields.
fn stays_with_request(name: &str) -> bool {
    let credential_or_session = matches!(name, "authorization" | "cookie" | "cookie2");
    // The connection's authority is upstream's own; the body's readiness was settled with us, the cache told us.
    let for_us = matches!(name, "host" | "expect" | "cache-control" | "pragma");
    let trace = name == "x-request-id" || is_trace(name);
    // What makes some servers see another method or path than the one that was routed.
    let disguise = name.contains("override")
        || name.starts_with("x-original-")
        || name.starts_with("x-rewrite-")
        || name == "x-http-method";
    // How the request came to us is our network's own business; some of these override host and path, too.
    let way_here = matches!(name, "forwarded" | "via" | "x-real-ip" | "x-client-ip" | "true-client-ip")
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-");
    credential_or_session || for_us || trace || disguise || way_here
}

/// What an answer leaves at the gateway beside its hop-by-hop fields.
fn stays_with_response(name: &str) -> bool {
    // Sessions that upstream's load balancer opens are the account's, not one team's; alt-svc would send clients
    // around the gateway; of the rest the gateway says its own.
    matches!(name, "set-cookie" | "set-cookie2" | "alt-svc" | "x-request-id" | "x-gateway-error" | "cache-status")
        || is_trace(name)
}

/// Takes from a request's head what is not forwarded.
pub fn forwardable_request(headers: &mut HeaderMap) {
    keep(headers, stays_with_request);
}

/// Takes from an answer's head or trailers what is not passed on.
pub fn forwardable_response(headers: &mut HeaderMap) {
    keep(headers, stays_with_response);
}

/// Takes from a request's trailers what is not forwarded.
pub fn forwardable_trailers(trailers: &mut HeaderMap) {
    // A field of framing or routing has no business behind the body (RFC 9110, section 6.5.1).
    keep(trailers, |name| {
        stays_with_request(name) || matches!(name, "content-length" | "content-encoding" | "content-type")
    });
}

/// Takes from a head, either way, what no longer holds once the body behind it was changed.
pub fn forget_body(headers: &mut HeaderMap) {
    for name in ["content-length", "content-md5", "content-digest", "repr-digest", "digest", "etag", "accept-ranges"] {
        headers.remove(name);
    }
}

/// Drops hop-by-hop fields, those that `Connection` names, and those that `stays` names.
fn keep(headers: &mut HeaderMap, stays: fn(&str) -> bool) {
    let mut dropped: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name.as_str()) || stays(name.as_str())).cloned().collect();
    let nominated = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // Framing is hyper's, and without its type a body would be read as another: to drop these is an attack.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE);
    dropped.extend(nominated);
    for name in dropped {
        headers.remove(name);
    }
}

/// Whether the request asks for a simulated answer; an empty value does too.
#[must_use]
pub fn is_magic(headers: &HeaderMap) -> bool {
    headers.contains_key("x-magic-reply")
}

/// What a request tells caches (RFC 9111, section 5.2.1), as far as it means something here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    /// The answer must come from upstream.
    pub no_cache: bool,
    /// Nothing of this exchange may be kept.
    pub no_store: bool,
    /// No answer without upstream, please.
    pub only_if_cached: bool,
    /// The oldest answer that will do.
    pub max_age: Option<Duration>,
}

impl Directives {
    /// The directives of a request; what is malformed is as if it were not there.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|v| v.to_str().ok());
        for directive in values.flat_map(|value| value.split(',')) {
            let (name, argument) = match directive.split_once('=') {
                Some((name, argument)) => (name.trim(), argument.trim().trim_matches('"')),
                None => (directive.trim(), ""),
            };
            if name.eq_ignore_ascii_case("no-cache") {
                directives.no_cache = true;
            } else if name.eq_ignore_ascii_case("no-store") {
                directives.no_store = true;
            } else if name.eq_ignore_ascii_case("only-if-cached") {
                directives.only_if_cached = true;
            } else if name.eq_ignore_ascii_case("max-age")
                && let Ok(seconds) = argument.parse()
            {
                directives.max_age = Some(Duration::from_secs(seconds));
            }
        }
        directives
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let field =
            |(name, value): &(&str, &str)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in fields.iter().map(field) {
            map.append::<HeaderName>(name, value);
        }
        map
    }

    #[test]
    fn a_request_leaves_credential_hops_cookies_and_traces_behind() {
        let mut sent = headers(&[
            ("authorization", "Basic x"),
            ("connection", "keep-alive, X-Private, Content-Length, Content-Type"),
            ("x-private", "1"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("cookie", "a=b"),
            ("traceparent", "00-1-2-01"),
            ("x-datadog-trace-id", "1"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/businesses"),
            ("expect", "100-continue"),
            ("host", "gateway"),
            ("upgrade", "h2c"),
            ("content-type", "application/json"),
            ("x-magic-reply", "PENDING"),
            ("accept", "*/*"),
        ]);
        forwardable_request(&mut sent);
        let mut left: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "content-type", "x-magic-reply"]);
    }

    #[test]
    fn a_changed_body_leaves_nothing_behind_that_tells_of_the_old_one() {
        let mut headers = HeaderMap::new();
        for name in ["content-length", "content-md5", "content-digest", "repr-digest", "digest", "etag", "content-type"]
        {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        forget_body(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["content-type"]);
    }

    #[test]
    fn trailers_hold_no_framing_and_no_credential() {
        let mut trailers = headers(&[("authorization", "x"), ("content-length", "1"), ("x-checksum", "1")]);
        forwardable_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-checksum"]);
    }

    #[test]
    fn an_answer_leaves_sessions_and_hops_behind() {
        let mut got = headers(&[
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("alt-svc", "h3=\":443\""),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("etag", "\"1\""),
        ]);
        forwardable_response(&mut got);
        assert_eq!(got.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }

    #[test]
    fn directives_are_read_in_any_case_and_place() {
        let directives = |value: &str| Directives::of(&headers(&[("cache-control", value)]));
        assert_eq!(directives(""), Directives::default());
        assert!(directives("No-Cache").no_cache);
        let all = directives("only-if-cached, max-age=\"60\" ,no-store");
        assert_eq!((all.only_if_cached, all.no_store, all.max_age), (true, true, Some(Duration::from_secs(60))));
        assert_eq!(directives("max-age=x").max_age, None);
        assert_eq!(directives("max-age").max_age, None);
    }
}
