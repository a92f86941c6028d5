//! Diagnostics on standard error as JSON lines; no caller ever waits for them.
//!
//! The first of equal warnings within a second is written, and the others are counted.

use std::io::{self, Write};
use std::panic;
use std::sync::Arc;

use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use super::diagnostic::{Diagnostic, Shared};
use super::lines::{Lines, LogWriter, PERIOD};
use super::repeats::Repeats;
use crate::base::clock::Clock;
use crate::telemetry::redact::Redactor;

/// Sends diagnostics to standard error as JSON lines. A panic is logged with its position only, because its message may
/// quote input. The environment variable `RUST_LOG` overrides `level`; crates other than this one are always capped at
/// `warn`. Returns `None` and changes nothing if a subscriber is set already.
///
/// # Errors
/// Returns an error if the system can't start a thread.
pub fn diagnostics(level: tracing::Level, redactor: Redactor) -> io::Result<Option<LogWriter>> {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let (written, writer) = Written::start(Box::new(io::stderr()), redactor)?;
    let of_panics = written.clone();
    if tracing::subscriber::set_global_default(subscriber(level, directives.as_deref(), written)).is_err() {
        return Ok(None);
    }
    panic::set_hook(Box::new(move |panic| of_panics.write(&panicked(panic.location()))));
    Ok(Some(writer))
}

fn subscriber(level: tracing::Level, directives: Option<&str>, written: Written) -> impl Subscriber + Send + Sync {
    let wanted = directives
        .filter(|directives| !directives.is_empty())
        .and_then(|directives| EnvFilter::builder().parse(directives).ok())
        .unwrap_or_else(|| EnvFilter::default().add_directive(level.into()));
    let cap = Targets::new().with_target("iluma_gateway", LevelFilter::TRACE).with_default(LevelFilter::WARN);
    tracing_subscriber::registry().with(written.with_filter(wanted.and(cap)))
}

fn panicked(place: Option<&panic::Location<'_>>) -> Diagnostic {
    let file = place.map(panic::Location::file);
    Diagnostic::made("panic", &[("file", file.into()), ("line", place.map(panic::Location::line).into())])
}

/// A layer of `tracing` that writes diagnostics to a log.
#[derive(Clone, Debug)]
struct Written {
    lines: Lines,
    repeats: Arc<Repeats>,
    clock: Clock,
}

impl Written {
    fn start(out: Box<dyn Write + Send>, redactor: Redactor) -> io::Result<(Self, LogWriter)> {
        let (repeats, clock) = (Arc::new(Repeats::default()), Clock::system());
        let (of_tick, time) = (Arc::clone(&repeats), clock.clone());
        let tick = move |last: bool, out: &mut Vec<u8>| {
            for (diagnostic, left_out) in of_tick.take(time.now(), last) {
                out.extend_from_slice(&diagnostic.line(time.wall(), Some(left_out)));
            }
        };
        let (lines, writer) = Lines::start("diagnostics", out, redactor, PERIOD, Some(Box::new(tick)))?;
        Ok((Self { lines, repeats, clock }, writer))
    }

    fn write(&self, diagnostic: &Diagnostic) {
        if diagnostic.is_warning() && !self.repeats.admit(diagnostic, self.clock.now()) {
            return;
        }
        let line = diagnostic.line(self.clock.wall(), None);
        self.lines.push(line.len(), |out| out.extend_from_slice(&line));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Written {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Shared::of(attributes));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut diagnostic = Diagnostic::of(event);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(shared) = span.extensions().get::<Shared>() {
                diagnostic.add_request(shared);
            }
        }
        self.write(&diagnostic);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::Sink;
    use super::*;
    use serde_json::Value;

    /// Returns the text that the events of `cause` write to the log.
    fn diagnosed(directives: Option<&str>, cause: impl FnOnce()) -> String {
        let sink = Sink::default();
        let (written, writer) = Written::start(Box::new(sink.clone()), Redactor::new(Vec::new())).unwrap();
        tracing::subscriber::with_default(subscriber(tracing::Level::INFO, directives, written), cause);
        writer.finish();
        sink.text()
    }

    fn own_and_foreign() {
        tracing::info!(target: "iluma_gateway::cache", account = 1_234_567_890_u64, "for siti@example.com");
        tracing::debug!(target: "iluma_gateway::cache", "own debug");
        tracing::warn!(target: "hyper", "foreign warning");
        tracing::info!(target: "hyper", "foreign info");
    }

    #[test]
    fn diagnostics_are_scrubbed_and_foreign_ones_capped() {
        let text = diagnosed(None, own_and_foreign);
        assert!(text.contains(r#""message":"for [redacted]""#) && text.contains(r#""account":"[redacted]""#), "{text}");
        assert!(text.contains("foreign warning") && text.contains(r#""time":"2"#), "{text}");
        assert!(!text.contains("foreign info") && !text.contains("own debug"), "{text}");
        assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));

        let text = diagnosed(Some("trace"), own_and_foreign);
        assert!(text.contains("own debug") && !text.contains("foreign info"), "{text}");
        let text = diagnosed(Some("hyper=trace"), own_and_foreign);
        assert!(text.contains("foreign warning") && !text.contains("foreign info") && !text.contains("siti"), "{text}");
        let text = diagnosed(Some("a=b=c"), own_and_foreign);
        assert!(text.contains("foreign warning"), "what cannot be read counts as not set");
    }

    #[test]
    fn a_line_names_the_request_that_it_belongs_to() {
        let (request, trace) = ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "4bf92f3577b34da6a3ce929d0e0e4736");
        let text = diagnosed(Some("debug"), || {
            let span = tracing::debug_span!(target: "iluma_gateway::gateway", "request", request_id = %request, trace_id = %trace);
            span.in_scope(|| tracing::debug!(target: "iluma_gateway::cache", "no stored answer"));
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((line["request_id"].as_str(), line["trace_id"].as_str()), (Some(request), Some(trace)), "{line}");
        let text = diagnosed(None, || {
            let span = tracing::debug_span!(target: "iluma_gateway::gateway", "request", request_id = %request);
            assert!(span.is_none(), "without debug no request has a span");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn a_line_has_the_access_logs_names_for_the_same_things() {
        let id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
        let text = diagnosed(None, || {
            tracing::info!(target: "iluma_gateway::cache", request_id = %id, tries = 2, known = true, "not stored");
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24), "{line}");
        assert_eq!((line["level"].as_str(), line["request_id"].as_str()), (Some("INFO"), Some(id)));
        assert_eq!(line["target"], "iluma_gateway::cache");
        let fields = &line["fields"];
        assert_eq!(fields["message"], "not stored");
        assert_eq!((fields["tries"].as_i64(), fields["known"].as_bool()), (Some(2), Some(true)));
    }

    #[test]
    fn equal_warnings_are_one_line_and_a_count() {
        let text = diagnosed(None, || {
            for n in 0..500 {
                tracing::warn!(target: "iluma_gateway::upstream", account = "live", "Iluma did not answer");
                tracing::info!(target: "iluma_gateway::upstream", n, "not a warning");
            }
        });
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let warnings: Vec<&Value> = lines.iter().filter(|line| line["level"] == "WARN").collect();
        assert!((2..5).contains(&warnings.len()), "one line, and a count for each second: {warnings:?}");
        let left_out: u64 = warnings.iter().filter_map(|line| line["fields"]["left_out"].as_u64()).sum();
        let written = warnings.iter().filter(|line| line["fields"]["left_out"].is_null()).count() as u64;
        assert_eq!((written, left_out), (1, 499));
        assert_eq!(warnings[1]["fields"]["account"], "live", "the count says what it counts");
        assert_eq!(lines.len() - warnings.len(), 500, "only warnings are limited");
    }

    #[test]
    fn diagnostics_are_installed_once() {
        let _first = diagnostics(tracing::Level::WARN, Redactor::new(Vec::new())).unwrap();
        assert!(diagnostics(tracing::Level::WARN, Redactor::new(Vec::new())).unwrap().is_none());
    }

    #[test]
    fn a_panic_tells_its_place_alone() {
        let line = panicked(Some(panic::Location::caller())).line(std::time::SystemTime::UNIX_EPOCH, None);
        let line: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["fields"]["message"], "panic");
        assert_eq!(line["fields"]["file"], "src/telemetry/logs/diagnostics.rs");
        assert!(line["fields"]["line"].is_number());
    }
}
