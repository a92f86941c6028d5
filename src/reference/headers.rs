//! The header fields that the gateway passes on, in requests and in answers.

use http::header::{self, HeaderMap, HeaderName};
use std::time::Duration;

/// The field that asks Iluma for a simulated answer (a magic reply).
const MAGIC: HeaderName = HeaderName::from_static("x-magic-reply");

/// Returns true for a hop-by-hop field (RFC 9110, section 7.6.1), which each hop sets itself.
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

/// Returns true for a field with trace ids. Such fields are not forwarded, because Iluma and the teams could then
/// follow requests through each other's systems.
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

/// The header field that carries a request's idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The field that marks an answer as stored: it was given to an earlier request with the same idempotency key.
pub const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Returns true for a field of a request that is not sent to Iluma. It does not include the hop-by-hop fields, which
/// `is_hop_by_hop` recognises.
fn stays_with_request(name: &str) -> bool {
    let credential_or_session = matches!(name, "authorization" | "cookie" | "cookie2");
    // The gateway makes its own host, answers `expect` itself, and has read the cache directives and the idempotency
    // key.
    let for_us = matches!(name, "host" | "expect" | "cache-control" | "pragma" | IDEMPOTENCY_KEY);
    let trace = name == "x-request-id" || is_trace(name);
    // A client can't ask for a part of an answer: a secret that is cut into two parts would be found in neither.
    let part = matches!(name, "range" | "if-range");
    credential_or_session || for_us || trace || part || is_disguise(name)
}

/// Returns true for a field by which a server may see another method, URL, host or client address than the gateway saw.
/// Also returns true for a field that reveals the hops before the gateway, such as `via`. Upper case, `-` and `_` make
/// no difference, because many servers read `_` as `-`, and some drop both. Every name with `_` counts.
fn is_disguise(name: &str) -> bool {
    // Most fields of most requests have these names. The search below would find nothing in them.
    let is_common = matches!(
        name,
        "accept"
            | "accept-encoding"
            | "accept-language"
            | "content-encoding"
            | "content-length"
            | "content-type"
            | "user-agent"
    );
    if is_common {
        return false;
    }
    let folded: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let begins = ["xoriginal", "xreplaced", "xhttpmethod", "xmethod", "xenvoy"];
    let contains = [
        "override",
        "rewrite",
        "forwarded",
        "forwardfor",
        "clientip",
        "clientaddr",
        "realip",
        "realhost",
        "sourceip",
        "ipauthorization",
        "remoteip",
        "remoteaddr",
        "remotehost",
        "connectingip",
        "originatingip",
        "socketip",
        "userip",
        "tunnelmethod",
        "originalurl",
        "originaluri",
        "originalpath",
        "originalhost",
        "originalmethod",
        "requesturi",
        "requesturl",
        "pathinfo",
    ];
    let equals = [
        "via",
        "host",
        "hostname",
        "ip",
        "xip",
        "xhost",
        "xhostname",
        "xurl",
        "xuri",
        "xpath",
        "scriptname",
        "xscriptname",
        "httphost",
        "httpmethod",
        "proxyhost",
        "xproxyhost",
        "xbackendhost",
    ];
    name.contains('_')
        || begins.iter().any(|begin| folded.starts_with(begin))
        || contains.iter().any(|part| folded.contains(part))
        || equals.contains(&folded.as_str())
}

/// Returns true for a field of an answer that is not sent to the client. It does not include the hop-by-hop fields,
/// which `is_hop_by_hop` recognises.
fn stays_with_response(name: &str) -> bool {
    // A session of Iluma's load balancer belongs to the account, not to one team; alt-svc would lead clients around the
    // gateway; the gateway sets the other fields itself.
    matches!(
        name,
        "set-cookie"
            | "set-cookie2"
            | "alt-svc"
            | "x-request-id"
            | "x-gateway-error"
            | "cache-status"
            | "idempotent-replayed"
    ) || is_trace(name)
}

/// Removes the header fields of a request that are not forwarded to Iluma.
pub fn forwardable_request(headers: &mut HeaderMap) {
    keep(headers, stays_with_request);
}

/// Removes the header or trailer fields of an answer that are not passed on to the client.
pub fn forwardable_response(headers: &mut HeaderMap) {
    keep(headers, stays_with_response);
}

/// Removes the trailer fields of a request that are not forwarded to Iluma.
pub fn forwardable_trailers(trailers: &mut HeaderMap) {
    // Trailers may not contain fields of framing and routing (RFC 9110, section 6.5.1).
    keep(trailers, |name| {
        stays_with_request(name) || matches!(name, "content-length" | "content-encoding" | "content-type")
    });
}

/// Removes the fields that describe the body, such as its length or digest. They are wrong once the body has changed.
pub fn forget_body(headers: &mut HeaderMap) {
    for name in ["content-length", "content-md5", "content-digest", "repr-digest", "digest", "etag", "accept-ranges"] {
        headers.remove(name);
    }
}

/// Removes the hop-by-hop fields, the fields for which `stays` is true, and the fields that `Connection` names. If
/// `Connection` names the length, the type or the encoding of the body, these fields are kept nevertheless.
fn keep(headers: &mut HeaderMap, stays: fn(&str) -> bool) {
    let mut dropped: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name.as_str()) || stays(name.as_str())).cloned().collect();
    let nominated = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // hyper needs the framing, and a body without its type or its encoding would be misread: naming these fields is
        // an attack.
        .filter(|name| ![header::CONTENT_LENGTH, header::CONTENT_TYPE, header::CONTENT_ENCODING].contains(name));
    dropped.extend(nominated);
    for name in dropped {
        headers.remove(name);
    }
}

/// Returns true if the request asks for a simulated answer. A field with an empty value counts too.
#[must_use]
pub fn is_magic(headers: &HeaderMap) -> bool {
    headers.contains_key(MAGIC)
}

/// The cache directives of a request (RFC 9111, section 5.2.1) that the gateway obeys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Directives {
    /// True if the answer must come from upstream.
    pub no_cache: bool,
    /// True if nothing of this exchange may be stored.
    pub no_store: bool,
    /// True if the answer must come from the cache.
    pub only_if_cached: bool,
    /// The largest age of an acceptable answer; `None` for any age.
    pub max_age: Option<Duration>,
}

impl Directives {
    /// Reads the directives of a request. Malformed directives are ignored.
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

    /// Returns the directives with a `max_age` of at most `most`. A missing `max_age` becomes `most`. If `most` is
    /// `None`, nothing changes.
    #[must_use]
    pub fn at_most(self, most: Option<Duration>) -> Self {
        Self { max_age: self.max_age.into_iter().chain(most).min(), ..self }
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
            ("connection", "keep-alive, X-Private, Content-Length, Content-Type, Content-Encoding"),
            ("content-encoding", "identity"),
            ("x-private", "1"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("cookie", "a=b"),
            ("traceparent", "00-1-2-01"),
            ("x-datadog-trace-id", "1"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/businesses"),
            ("range", "bytes=0-1"),
            ("x_magic_reply", "PENDING"),
            ("expect", "100-continue"),
            ("host", "gateway"),
            ("upgrade", "h2c"),
            ("idempotency-key", "k"),
            ("content-type", "application/json"),
            ("x-magic-reply", "PENDING"),
            ("accept", "*/*"),
        ]);
        forwardable_request(&mut sent);
        let mut left: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-encoding", "content-length", "content-type", "x-magic-reply"]);
    }

    #[test]
    fn no_spelling_of_an_override_goes_to_iluma() {
        for name in [
            "x_original_url",
            "x-original.url",
            "x-amz-original-url",
            "x-middleware-rewrite",
            "x-tunnel-method",
            "x-forward-for",
            "x-client-addr",
            "x-source-ip",
            "x-custom-ip-authorization",
            "x-ip",
            "ip",
            "x-real-host",
            "host.",
            "x_http_method",
            "x-http-method",
            "x-method-override",
            "x_forwarded_host",
            "xforwardedhost",
            "x-forwarded-anything",
            "x-host",
            "x-rewrite-uri",
            "forwarded",
            "via",
            "x-real-ip",
            "true-client-ip",
            "x-cluster-client-ip",
            "cf-connecting-ip",
            "remote-addr",
            "any_name",
        ] {
            let mut sent = headers(&[(name, "1")]);
            forwardable_request(&mut sent);
            assert!(sent.is_empty(), "{name}");
            let mut trailers = headers(&[(name, "1")]);
            forwardable_trailers(&mut trailers);
            assert!(trailers.is_empty(), "{name}");
        }
        for name in ["accept-language", "x-magic-reply", "x-sim-fault", "user-agent", "origin", "x-request-kind"] {
            let mut sent = headers(&[(name, "1")]);
            forwardable_request(&mut sent);
            assert!(sent.contains_key(name), "{name}");
        }
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
            ("idempotent-replayed", "true"),
            ("etag", "\"1\""),
        ]);
        forwardable_response(&mut got);
        assert_eq!(got.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
    }

    #[test]
    fn a_request_may_only_shorten_what_its_team_takes() {
        let seconds = |age: Option<u64>| age.map(Duration::from_secs);
        for (asked, team, expected) in [
            (None, None, None),
            (Some(60), None, Some(60)),
            (None, Some(600), Some(600)),
            (Some(60), Some(600), Some(60)),
            (Some(6000), Some(600), Some(600)),
            (Some(0), Some(600), Some(0)),
        ] {
            let directives = Directives { max_age: seconds(asked), ..Directives::default() };
            assert_eq!(directives.at_most(seconds(team)).max_age, seconds(expected), "{asked:?} {team:?}");
        }
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
