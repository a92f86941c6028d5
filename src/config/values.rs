//! Values with a unit or a shape: time spans, sizes, addresses, URLs.

use super::reader::Entry;
use crate::base::byte_size::ByteSize;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

impl Entry<'_> {
    /// Reads a time span in a range, such as `"1h 30m"`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Ok(duration) = humantime::parse_duration(self.text()?) else {
            self.fault("must be a time span with units, such as \"500ms\", \"30s\" or \"1h 30m\"");
            return None;
        };
        if !range.contains(&duration) {
            let [from, to] = [*range.start(), *range.end()].map(humantime::format_duration);
            self.fault(format!("must be from {from} to {to}"));
            return None;
        }
        Some(duration)
    }

    /// Reads a share: a number from 0 to 1.
    pub(super) fn share(&self) -> Option<f64> {
        // TOML's 0 and 1 are whole numbers.
        let whole = self.value().as_integer().and_then(|number| i32::try_from(number).ok()).map(f64::from);
        let share = self.value().as_float().or(whole).filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            self.fault("must be a number from 0 to 1, such as 0.01");
        }
        share
    }

    /// Reads an amount of bytes in a range, such as `"256MiB"`.
    pub(super) fn size(&self, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        let size = self.parsed::<ByteSize>()?;
        if !range.contains(&size) {
            self.fault(format!("must be from {} to {}", range.start(), range.end()));
            return None;
        }
        Some(size)
    }

    /// Reads an address and a port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let address = self.text()?.parse().ok();
        if address.is_none() {
            self.fault("must be an address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"");
        }
        address
    }

    /// Reads a URL that has one of the schemes, only the allowed `parts`, and no user name or password.
    pub(super) fn url(&self, schemes: &[&str], parts: UrlParts) -> Option<http::Uri> {
        let text = self.text()?;
        match url(text, schemes, parts) {
            Ok(url) => Some(url),
            Err(problem) => {
                self.fault(problem);
                None
            }
        }
    }
}

/// The parts that a URL may have after its authority.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UrlParts {
    /// The URL ends after its authority.
    Authority,
    /// The URL may have a path.
    Path,
    /// The URL may have a path and a query.
    Query,
}

/// Parses a URL. The error never repeats the text: URLs contain user names, passwords and tokens.
fn url(text: &str, schemes: &[&str], parts: UrlParts) -> Result<http::Uri, String> {
    let shape = || format!("must be a URL with a host, beginning with {}", schemes.join(":// or ") + "://");
    // `http::Uri` silently drops a fragment.
    if text.len() > MAX_URL || text.contains('#') {
        return Err(format!("must be a URL of at most {MAX_URL} bytes, without #"));
    }
    let url: http::Uri = text.parse().map_err(|_| shape())?;
    let authority = url.authority().ok_or_else(shape)?;
    if !url.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) {
        return Err(shape());
    }
    if authority.as_str().contains('@') {
        return Err("must not have a user name or password in it".to_owned());
    }
    if authority.host().is_empty() || (authority.port_u16().is_none() && authority.as_str() != authority.host()) {
        return Err(shape());
    }
    if parts == UrlParts::Authority && (!matches!(url.path(), "" | "/") || url.query().is_some()) {
        return Err("must end after the host and port: no path, no query".to_owned());
    }
    if parts == UrlParts::Path && url.query().is_some() {
        return Err("must not have a query".to_owned());
    }
    Ok(url)
}

/// The longest URL in characters: all browsers and proxies accept URLs up to this length.
const MAX_URL: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_scheme_a_host_and_only_allowed_parts() {
        for (text, parts) in [
            ("https://api.iluma.ai", UrlParts::Authority),
            ("http://127.0.0.1:9/", UrlParts::Authority),
            ("http://[::1]:80", UrlParts::Authority),
            ("https://a.example/b", UrlParts::Path),
            ("https://a.example/b?c=d", UrlParts::Query),
        ] {
            assert!(url(text, &["http", "https"], parts).is_ok(), "{text}");
        }
        for (text, parts) in [
            ("", UrlParts::Query),
            ("api.iluma.ai", UrlParts::Query),
            ("/path", UrlParts::Query),
            ("ftp://a.example", UrlParts::Query),
            ("https://", UrlParts::Query),
            ("https://:443", UrlParts::Query),
            ("https://a.example:99999", UrlParts::Query),
            ("https://user:word@a.example", UrlParts::Query),
            ("https://a.example#part", UrlParts::Query),
            ("https://a.example/?q", UrlParts::Path),
            ("https://a.example/v1", UrlParts::Authority),
        ] {
            assert!(url(text, &["http", "https"], parts).is_err(), "{text}");
        }
    }
}
