//! The headers of pages and their files, and the cookie of a session.

use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue};

/// The content security policy of pages. Scripts and styles come only from files of this origin, and never from the
/// page itself.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);

/// The header that forbids pages of other origins to embed a page or a file of this origin.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Returns the headers of a page.
#[must_use]
pub const fn page_headers() -> [(HeaderName, HeaderValue); 6] {
    [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    ]
}

/// Returns the headers of a file. A browser may keep the file for a year, because its path changes with its content.
#[must_use]
pub const fn asset_headers(media_type: &'static str) -> [(HeaderName, HeaderValue); 4] {
    [
        (CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    ]
}

/// Returns the `set-cookie` of a session for the paths below `path`. `secure` is true for a client that speaks TLS.
#[must_use]
pub fn session_cookie(name: &str, id: &str, path: &str, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={id}; Path={path}; HttpOnly; SameSite=Strict{secure}")
}

/// Returns the `set-cookie` that removes a session's cookie.
#[must_use]
pub fn ended_cookie(name: &str, path: &str) -> String {
    format!("{}; Max-Age=0", session_cookie(name, "", path, false))
}
