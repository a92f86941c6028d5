//! The trace that a request belongs to (W3C Trace Context).

use http::{HeaderMap, HeaderName};
use std::fmt;
use uuid::Uuid;

const HEADER: HeaderName = HeaderName::from_static("traceparent");
/// The length of a `traceparent` of version 00: `00-<32 digits>-<16 digits>-<2 digits>`.
const LENGTH: usize = 55;

/// The id of a trace, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

/// The trace that a request belongs to, and the caller's span in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span; `None` if the trace begins at the gateway.
    pub parent: Option<Parent>,
}

/// The caller's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The span's id, never zero.
    pub span: [u8; 8],
    /// True if the caller records its spans. It then expects the gateway to record spans too.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Returns the trace of the caller's `traceparent`, or a new trace if that header is missing or malformed.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self::given(headers).unwrap_or_else(Self::new)
    }

    /// Returns a new trace.
    #[must_use]
    pub fn new() -> Self {
        Self { trace: TraceId(Uuid::new_v4().into_bytes()), parent: None }
    }

    /// Returns the trace and the caller's span in `traceparent`. Returns `None` if the request lacks that header,
    /// repeats it, or has an invalid value in it.
    fn given(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(HEADER).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (known, more) = field.as_bytes().split_at_checked(LENGTH)?;
        let (version, rest) = known.split_at_checked(2)?;
        // A later version may have more fields after a dash. Version 00 has no more, and ff is not a version.
        let fits = more.is_empty() || (version != b"00" && more.starts_with(b"-"));
        let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let digits = |bytes: &[u8]| bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let (trace, span, flags) = (&known[3..35], &known[36..52], &known[53..55]);
        let valid = digits(version) && version != b"ff" && digits(span) && digits(flags) && digits(trace);
        let zero = |bytes: &[u8]| bytes.iter().all(|b| *b == b'0');
        if !fits || !dashes || !valid || zero(trace) || zero(span) || rest.is_empty() {
            return None;
        }
        let number = |digits| u128::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let (trace, span, flags) = (number(trace)?, u64::try_from(number(span)?).ok()?, number(flags)?);
        let parent = Parent { span: span.to_be_bytes(), is_sampled: flags & 1 == 1 };
        Some(Self { trace: TraceId(trace.to_be_bytes()), parent: Some(parent) })
    }
}

impl Default for TraceContext {
    fn default() -> Self {
        Self::new()
    }
}

impl TraceId {
    /// Returns the bytes of the id.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Writes the id into `digits` as 32 hex digits, and returns them as text.
    pub fn encode(self, digits: &mut [u8; 32]) -> &str {
        Uuid::from_bytes(self.0).as_simple().encode_lower(digits)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 32]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_valid_traceparent_names_the_trace_and_any_other_is_ignored() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
        for (fields, expected) in [
            (vec![valid.clone()], true),
            (vec![valid.replace("-01", "-00")], true),
            (vec![valid.replacen("00", "cc", 1)], true),
            (vec![format!("{}-more", valid.replacen("00", "cc", 1))], true),
            (vec![format!("{valid}-more")], false),
            (vec![format!("{}more", valid.replacen("00", "cc", 1))], false),
            (vec![valid.replacen("00", "ff", 1)], false),
            (vec![valid.to_uppercase()], false),
            (vec![valid.replace(TRACE, &"0".repeat(32))], false),
            (vec![valid.replace("00f067aa0ba902b7", &"0".repeat(16))], false),
            (vec![valid.replace("4bf", "4bg")], false),
            (vec![valid.replace("-01", "-0x")], false),
            (vec![valid.replace('-', "_")], false),
            (vec![valid[..54].to_owned()], false),
            (vec![String::new()], false),
            (vec![valid.clone(), valid], false),
            (vec![], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in &fields {
                headers.append(HEADER, HeaderValue::from_str(field).unwrap());
            }
            assert_eq!(TraceContext::of(&headers).trace.to_string() == TRACE, expected, "{fields:?}");
        }
    }

    #[test]
    fn the_callers_span_and_its_flag_are_read() {
        for (flags, is_sampled) in [("00", false), ("01", true), ("03", true), ("fe", false)] {
            let field = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
            let headers = HeaderMap::from_iter([(HEADER, field.parse().unwrap())]);
            let parent = Parent { span: [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7], is_sampled };
            assert_eq!(TraceContext::of(&headers).parent, Some(parent), "{flags}");
        }
    }

    #[test]
    fn a_new_trace_is_another_each_time_and_has_32_digits() {
        let [one, other] = [(); 2].map(|()| TraceContext::of(&HeaderMap::new()).trace.to_string());
        assert!(one != other && one.len() == 32 && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one} {other}");
    }
}
