//! The access log: one JSON line for each request.

use std::cell::Cell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::lines::{Lines, LogWriter, PERIOD};
use super::live::{LiveLines, Shown};
use super::stamp::{STAMP, since_epoch, stamp};
use crate::base::name::TenantName;
use crate::base::trace_context::TraceId;
use crate::iluma::route_name::RouteName;
use crate::telemetry::CacheOutcome;
use crate::telemetry::redact::Redactor;

/// The bound on the length of a line in bytes, without its two texts (method and reason). The longest possible line has
/// about 530 bytes, and a test compares it with the bound.
const LONGEST: usize = 656;

/// The fields of a request's line. The line has no other data: no path, no header, no body.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The moment at which the request arrived.
    pub time: SystemTime,
    /// The request's id, as in the header `x-request-id`.
    pub request_id: Uuid,
    /// The trace that the request belongs to.
    pub trace_id: TraceId,
    /// The client's address; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// The tenant that owns the request's key; `None` if the key is unknown.
    pub tenant: Option<&'a TenantName>,
    /// The row of the route table.
    pub route: RouteName,
    /// The method, as a name from a fixed list; `OTHER` for an unknown method.
    pub method: &'static str,
    /// The status of the answer; 499 if the caller hung up before the answer was complete.
    pub status: u16,
    /// The result of the cache for the request.
    pub cache: CacheOutcome,
    /// The time from the request's head to the last byte of the answer.
    pub duration: Duration,
    /// The duration of the upstream call that this request made. On streamed routes it ends with the answer's head.
    /// `None` if the request made no call.
    pub upstream_duration: Option<Duration>,
    /// The part of the duration in which the request waited for Redis.
    pub redis_duration: Duration,
    /// The number of bytes of the request's body.
    pub request_bytes: u64,
    /// The number of bytes of the answer's body.
    pub response_bytes: u64,
    /// The status of upstream's answer; `None` if this request made no call, or got no answer.
    pub upstream_status: Option<u16>,
    /// The reason of the gateway's own refusal, as in the header `x-gateway-error`; `None` if the gateway did not
    /// refuse the request.
    pub reason: Option<&'static str>,
}

/// The access log, with one JSON line for each request. Clones are cheap; writing never waits for the sink and never
/// fails.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: Lines,
    live: LiveLines,
}

impl AccessLog {
    /// Starts the thread that writes the lines to `out`.
    ///
    /// # Errors
    /// Returns an error if the system can't start a thread.
    pub fn start(out: Box<dyn Write + Send>, redactor: Redactor) -> io::Result<(Self, LogWriter)> {
        let live = LiveLines::default();
        let shown = Shown { out, live: live.clone() };
        let (lines, writer) = Lines::start("access-log", Box::new(shown), redactor, PERIOD, None)?;
        Ok((Self { lines, live }, writer))
    }

    /// Logs a request. Takes about a tenth of a microsecond.
    pub fn write(&self, record: &Record<'_>) {
        let since = since_epoch(record.time);
        let stamp = this_second(since.as_secs());
        let most = LONGEST + record.method.len() + record.reason.map_or(0, str::len);
        self.lines.push(most, |out| line(out, record, &stamp, since.subsec_millis()));
    }

    /// Returns the source of the written lines, to which operators can subscribe.
    #[must_use]
    pub fn live(&self) -> LiveLines {
        self.live.clone()
    }

    /// Returns the number of lost lines: there was no room for them, the log had ended, or the sink refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }
}

/// Returns the timestamp text of a second, which is counted from 1970. Each thread formats it only once for all its
/// requests of that second.
fn this_second(second: u64) -> [u8; STAMP] {
    thread_local! {
        static LAST: Cell<(u64, [u8; STAMP])> = const { Cell::new((u64::MAX, [0; STAMP])) };
    }
    let last = LAST.try_with(Cell::get).ok().filter(|(known, _)| *known == second);
    last.map_or_else(
        || {
            let text = stamp(second);
            let _ = LAST.try_with(|last| last.set((second, text)));
            text
        },
        |(_, text)| text,
    )
}

fn line(out: &mut Vec<u8>, record: &Record<'_>, stamp: &[u8; STAMP], millis: u32) {
    let mut numbers = itoa::Buffer::new();
    let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamp);
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
    out.extend_from_slice(b"Z\",\"level\":\"INFO\",\"request_id\":\"");
    out.extend_from_slice(record.request_id.hyphenated().encode_lower(&mut id).as_bytes());
    out.extend_from_slice(b"\",\"trace_id\":\"");
    out.extend_from_slice(record.trace_id.encode(&mut [0; 32]).as_bytes());
    if let Some(client) = record.client {
        out.extend_from_slice(b"\",\"client\":\"");
        address(out, client);
    }
    match record.tenant {
        Some(tenant) => {
            out.extend_from_slice(b"\",\"tenant\":\"");
            out.extend_from_slice(tenant.as_str().as_bytes());
            out.extend_from_slice(b"\",\"route\":\"");
        }
        None => out.extend_from_slice(b"\",\"tenant\":null,\"route\":\""),
    }
    out.extend_from_slice(record.route.as_str().as_bytes());
    out.extend_from_slice(b"\",\"method\":\"");
    word(out, record.method);
    out.extend_from_slice(b"\",\"status\":");
    out.extend_from_slice(numbers.format(record.status).as_bytes());
    out.extend_from_slice(b",\"cache\":\"");
    out.extend_from_slice(record.cache.as_str().as_bytes());
    out.extend_from_slice(b"\",\"duration_us\":");
    out.extend_from_slice(numbers.format(micros(record.duration)).as_bytes());
    if let Some(duration) = record.upstream_duration {
        out.extend_from_slice(b",\"upstream_us\":");
        out.extend_from_slice(numbers.format(micros(duration)).as_bytes());
    }
    if !record.redis_duration.is_zero() {
        out.extend_from_slice(b",\"redis_us\":");
        out.extend_from_slice(numbers.format(micros(record.redis_duration)).as_bytes());
    }
    out.extend_from_slice(b",\"request_bytes\":");
    out.extend_from_slice(numbers.format(record.request_bytes).as_bytes());
    out.extend_from_slice(b",\"response_bytes\":");
    out.extend_from_slice(numbers.format(record.response_bytes).as_bytes());
    if let Some(status) = record.upstream_status {
        out.extend_from_slice(b",\"upstream_status\":");
        out.extend_from_slice(numbers.format(status).as_bytes());
    }
    if let Some(reason) = record.reason {
        out.extend_from_slice(b",\"reason\":\"");
        word(out, reason);
        out.push(b'"');
    }
    out.extend_from_slice(b"}\n");
}

/// Writes an address, which needs no JSON escapes.
fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        // The general formatter costs more, and every line has an address.
        IpAddr::V4(address) => {
            let mut numbers = itoa::Buffer::new();
            for (place, octet) in address.octets().into_iter().enumerate() {
                if place > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(numbers.format(octet).as_bytes());
            }
        }
        // Writing to memory does not fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

/// Writes a text from the program's own code. A text that would need JSON escapes becomes `?`.
fn word(out: &mut Vec<u8>, text: &'static str) {
    if text.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\') {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.push(b'?');
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn digit(number: u32) -> u8 {
    b'0' + (number % 10) as u8
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::Sink;
    use super::*;

    fn start(sink: &Sink) -> (AccessLog, LogWriter) {
        AccessLog::start(Box::new(sink.clone()), Redactor::new(Vec::new())).unwrap()
    }

    fn trace() -> TraceId {
        let field = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), field)]);
        crate::base::trace_context::TraceContext::of(&headers).trace
    }

    fn record(tenant: Option<&TenantName>) -> Record<'_> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_416_716_007),
            request_id: "3f2504e0-4f89-41d3-9a0c-0305e82c3301".parse().unwrap(),
            trace_id: trace(),
            client: None,
            tenant,
            route: RouteName::Bank,
            method: "POST",
            status: 200,
            cache: CacheOutcome::Hit,
            duration: Duration::from_nanos(15_999),
            upstream_duration: None,
            redis_duration: Duration::ZERO,
            request_bytes: 143,
            response_bytes: 412,
            upstream_status: None,
            reason: None,
        }
    }

    #[test]
    fn a_line_has_the_fields_of_its_record_and_nothing_else() {
        let (sink, tenant) = (Sink::default(), "lending".parse().unwrap());
        let (log, writer) = start(&sink);
        log.write(&record(Some(&tenant)));
        log.write(&Record {
            status: 429,
            cache: CacheOutcome::None,
            duration: Duration::from_secs(12),
            upstream_duration: Some(Duration::from_micros(11_234_567)),
            redis_duration: Duration::from_micros(812),
            response_bytes: 123_456_789,
            upstream_status: Some(503),
            reason: Some("rate_limited"),
            client: Some([192, 0, 2, 7].into()),
            ..record(None)
        });
        writer.finish();
        assert_eq!(
            sink.text(),
            concat!(
                r#"{"time":"2026-11-23T06:51:56.007Z","level":"INFO","request_id":"3f2504e0-4f89-41d3-9a0c-0305e82c3301","#,
                r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
                r#""tenant":"lending","route":"bank","method":"POST","status":200,"cache":"hit","duration_us":15,"#,
                r#""request_bytes":143,"response_bytes":412}"#,
                "\n",
                r#"{"time":"2026-11-23T06:51:56.007Z","level":"INFO","request_id":"3f2504e0-4f89-41d3-9a0c-0305e82c3301","#,
                r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","#,
                r#""client":"192.0.2.7","tenant":null,"route":"bank","method":"POST","status":429,"cache":"-","duration_us":12000000,"#,
                r#""upstream_us":11234567,"redis_us":812,"request_bytes":143,"response_bytes":123456789,"upstream_status":503,"#,
                r#""reason":"rate_limited"}"#,
                "\n",
            )
        );
        assert_eq!(log.dropped(), 0);
    }

    #[test]
    fn the_longest_line_fits_the_room_that_is_kept_for_it() {
        let tenant = "t".repeat(32).parse().unwrap();
        let most = Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 100),
            status: u16::MAX,
            route: RouteName::CallbackToken,
            cache: CacheOutcome::Collapsed,
            duration: Duration::MAX,
            upstream_duration: Some(Duration::MAX),
            redis_duration: Duration::MAX,
            request_bytes: u64::MAX,
            response_bytes: u64::MAX,
            upstream_status: Some(u16::MAX),
            reason: Some("\"not a word\""),
            client: Some("2001:db8:ffff:ffff:ffff:ffff:192.168.200.200".parse().unwrap()),
            ..record(Some(&tenant))
        };
        let mut out = Vec::new();
        line(&mut out, &most, &stamp(u64::from(u32::MAX) * 100), 999);
        assert!(out.len() <= LONGEST, "{}", out.len());
        assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
    }

    #[test]
    fn every_line_passes_the_scrubber() {
        let (sink, tenant) = (Sink::default(), "team-081234567890".parse().unwrap());
        let redactor = Redactor::new(Vec::new());
        let (log, writer) = AccessLog::start(Box::new(sink.clone()), redactor.clone()).unwrap();
        log.write(&record(Some(&tenant)));
        writer.finish();
        assert!(sink.text().contains(r#""tenant":"team-[redacted]""#), "{}", sink.text());
        assert_eq!(redactor.total(), 1);
    }
}
