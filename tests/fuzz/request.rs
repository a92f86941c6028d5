//! Fuzzes the first stages of a request: random bytes as HTTP/1 requests pass hyper, which has the settings of
//! `src/server.rs`, and then the stages.
//!
//! Properties for every input: nothing panics and nothing waits for ever; the routed path is in normal form and means
//! the requested one; a forbidden word is never an unknown path; no private header of the caller is forwarded.
#![no_main]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, HeaderMap, HeaderName, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use iluma_gateway::iluma::route_name::RouteName;
use iluma_gateway::iluma::routes::{Kind, NormalPath, Route, Table};
use iluma_gateway::reference::{self, BodyError, Directives, Question};
use iluma_gateway::server::Bounds;
use iluma_gateway::state::KeyTable;
use iluma_gateway::tenant::{Authenticated, Tenants};
use iluma_gateway::upstream::OutgoingBody;
use libfuzzer_sys::fuzz_target;
use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::{Builder, Runtime};

/// The size of hyper's buffer, which is private to `src/server.rs`.
const BUFFER: usize = 64 << 10;

/// The longest wait on the paused clock, which moves only while all tasks wait.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Headers that must never be forwarded, whether or not `Connection` names them.
const STAYS: [&str; 30] = [
    "authorization",
    "cookie",
    "cookie2",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
    "host",
    "expect",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-datadog-trace-id",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-forwarded-uri",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-forwarded-method",
];

struct World {
    runtime: Runtime,
    table: Table,
    tenants: Tenants,
    keys: KeyTable,
    bounds: Bounds,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let settings = support::settings("http://127.0.0.1:1");
    World {
        runtime: Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime"),
        table: Table::new(&settings.routes),
        tenants: Tenants::new(&settings),
        keys: KeyTable::of_configuration(&settings),
        bounds: Bounds::new(&settings.server, &settings.upstream),
    }
});

fuzz_target!(|data: &[u8]| WORLD.runtime.block_on(connection(data)));

/// The time that the client stays after it sent everything. The paused clock moves only when all other tasks wait, so
/// their work is done first. hyper ends a request as soon as its client leaves.
const STAY: Duration = Duration::from_millis(1);

/// Runs one connection: the bytes are sent, then the sending half is closed; every answer is read.
async fn connection(data: &[u8]) {
    let (bounds, begin) = (WORLD.bounds, tokio::time::Instant::now());
    // The number of bytes selects the pieces and whether the client stays, so that a seed consists of nothing but HTTP.
    let (near, far) = tokio::io::duplex([BUFFER, 509, 17][data.len() % 3]);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_header_size(bounds.header_bytes)
        .max_headers(bounds.headers)
        .max_buf_size(BUFFER.max(bounds.header_bytes))
        .serve_connection(
            TokioIo::new(near),
            service_fn(|request| async { Ok::<_, Infallible>(handle(request).await) }),
        );
    let (mut answers, mut requests) = tokio::io::split(far);
    let send = async {
        // The server may have closed the connection.
        let _ = requests.write_all(data).await;
        if data.len() % 8 != 0 {
            tokio::time::sleep(STAY).await;
        }
        let _ = requests.shutdown().await;
    };
    let mut rest = tokio::io::sink();
    let take = tokio::io::copy(&mut answers, &mut rest);
    let all = async { tokio::join!(served, send, take) };
    assert!(tokio::time::timeout(PATIENCE, all).await.is_ok(), "everybody waits");
    assert!(begin.elapsed() <= 2 * STAY, "a task waited for a timeout");
}

async fn handle(request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let target = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("*"));
    let Ok(route) = WORLD.table.find(request.method(), &target) else { return answer(StatusCode::BAD_REQUEST) };
    check_route(request.method(), &target, &route);
    let known = check_tenant(request.headers());

    let (mut parts, body) = request.into_parts();
    check_directives(&parts.headers);
    let original = parts.headers.clone();
    reference::forwardable_request(&mut parts.headers);
    check_forwarded(&original, &parts.headers);

    if let Kind::CachedRequest(_) = route.kind {
        match reference::read(body, PATIENCE, PATIENCE, |_| true).await {
            Ok(body) => check_question(&original, &body),
            Err(error) => assert_ne!(error, BodyError::TooSlow),
        }
    } else {
        let mut body = OutgoingBody::stream(body, reference::forwardable_trailers);
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(trailers) = frame.trailers_ref() {
                for name in STAYS.iter().chain(&["te", "content-length", "content-type"]) {
                    assert!(!trailers.contains_key(*name), "{name} in trailers");
                }
            }
        }
    }
    answer(if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED })
}

fn answer(status: StatusCode) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = status;
    response
}

fn check_route(method: &Method, asked: &PathAndQuery, route: &Route) {
    let (target, path) = (&route.target, route.target.path());
    assert_eq!(target.query(), asked.query(), "the query changed");

    // Routing the result again gives the same row.
    let again = WORLD.table.find(method, target).expect("a normal form has a normal form");
    assert_eq!((again.name, again.kind, &again.target), (route.name, route.kind, target));
    let normal = NormalPath::parse(path).expect("what is routed is in normal form");
    assert_eq!(normal.as_str(), path);

    // These are the invariants in the documentation of `NormalPath`, in other words.
    let inner = path.strip_prefix('/').expect("it begins with /");
    assert!(path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\'), "{path:?}");
    let segments: Vec<&str> = match inner.strip_suffix('/').unwrap_or(inner) {
        "" if inner.is_empty() => vec![],
        text => text.split('/').collect(),
    };
    assert!(normal.segments().eq(segments.iter().copied()), "{path:?}");
    for segment in &segments {
        assert!(!segment.is_empty(), "an empty segment in {path:?}");
        let plain = decoded(segment.as_bytes(), usize::MAX);
        assert!(!plain.iter().any(|b| matches!(b, b'/' | b'\\')), "a hidden slash in {path:?}");
        let bare = plain.split(|b| *b == b';').next().unwrap_or_default();
        assert!(!matches!(bare, b"." | b".."), "a dot segment in {path:?}");
    }
    for (at, _) in path.match_indices('%') {
        let digits = path.get(at + 1..at + 3).expect("two digits behind %");
        let byte = u8::from_str_radix(digits, 16).expect("hexadecimal digits behind %");
        assert_eq!(digits, format!("{byte:02X}"), "{path:?}");
        assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "{path:?} hides {byte:#x}");
    }

    // The forwarded path is the requested one; letter case and one trailing slash may differ on a known row.
    let (was, is) = (decoded(asked.path().as_bytes(), 1), decoded(path.as_bytes(), 1));
    let known = !matches!(route.name, RouteName::Other | RouteName::Forbidden);
    if known {
        let trim = |path: &[u8]| path.strip_suffix(b"/").unwrap_or(path).to_ascii_lowercase();
        assert_eq!(trim(&was), trim(&is), "{asked:?}");
    } else {
        assert_eq!(was, is, "{asked:?}");
    }

    let forbidden = asked.path().split('/').any(|segment| {
        let plain = decoded(segment.as_bytes(), usize::MAX);
        let bare = plain.split(|b| *b == b';').next().unwrap_or_default();
        ["callback", "businesses", "api_keys"].iter().any(|word| bare.eq_ignore_ascii_case(word.as_bytes()))
    });
    assert!(!(forbidden && route.name == RouteName::Other), "{asked:?} is not forbidden");
}

/// Decodes percent-encoding up to `rounds` times; text that is not encoded stays.
fn decoded(text: &[u8], rounds: usize) -> Vec<u8> {
    let mut text = text.to_vec();
    for _ in 0..rounds {
        let mut next = Vec::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
            match (text[at], digit(at + 1), digit(at + 2)) {
                (b'%', Some(high), Some(low)) => {
                    next.push((high << 4 | low) as u8);
                    at += 3;
                }
                (byte, ..) => {
                    next.push(byte);
                    at += 1;
                }
            }
        }
        if next == text {
            break;
        }
        text = next;
    }
    text
}

/// Checks that only a request with the team's key is authenticated. Returns true if this request is.
fn check_tenant(headers: &HeaderMap) -> bool {
    let known = WORLD.tenants.authenticate(headers, &WORLD.keys, std::time::UNIX_EPOCH);
    let Ok(Authenticated { tenant, .. }) = known else { return false };
    assert_eq!(tenant.name.as_str(), "lending");
    let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
    assert_eq!(values.len(), 1);
    let basic = STANDARD.encode(format!("{}:", support::TEAM_KEY));
    let value = values[0].as_bytes();
    assert!(value.ends_with(support::TEAM_KEY.as_bytes()) || value.ends_with(basic.as_bytes()), "{value:?}");
    true
}

fn check_directives(headers: &HeaderMap) {
    let directives = Directives::of(headers);
    let said = |word: &str| {
        headers
            .get_all(CACHE_CONTROL)
            .iter()
            .any(|value| support::contains(&value.as_bytes().to_ascii_lowercase(), word.as_bytes()))
    };
    assert!(!directives.no_cache || said("no-cache"));
    assert!(!directives.no_store || said("no-store"));
    assert!(!directives.only_if_cached || said("only-if-cached"));
    assert!(directives.max_age.is_none() || said("max-age"));
}

fn check_forwarded(original: &HeaderMap, forwarded: &HeaderMap) {
    for name in STAYS {
        assert!(!forwarded.contains_key(name), "{name} is forwarded");
    }
    let nominated = original.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    for name in nominated.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()) {
        // The gateway may send these two on its own.
        if !matches!(name.as_str(), "content-length" | "te") {
            assert!(!forwarded.contains_key(&name), "{name} is forwarded, against Connection");
        }
    }
    for name in forwarded.keys() {
        if name == TE {
            assert!(forwarded.get_all(TE).iter().eq(["trailers"]));
        } else {
            assert!(forwarded.get_all(name).iter().eq(original.get_all(name).iter()), "{name} changed");
        }
    }
    assert_eq!(
        reference::is_magic(forwarded),
        reference::is_magic(original) && forwarded.contains_key("x-magic-reply")
    );
    let mut again = forwarded.clone();
    reference::forwardable_request(&mut again);
    assert_eq!(again, *forwarded);
}

fn check_question(headers: &HeaderMap, body: &Bytes) {
    assert!(body.len() <= reference::LARGEST_BODY);
    let question = Question::parse(headers, body);
    assert_eq!(question, Question::parse(headers, body));
    if let Ok(Question { reference: Some(reference), .. }) = question {
        assert!(serde_json::from_slice::<String>(&reference).is_ok(), "the reference is no JSON string");
    }
}
