//! Begins and ends spans.

use super::export::{self, SpanCounts, TracesError};
use crate::base::tasks::Tasks;
use crate::base::trace_context::{Parent, TraceContext};
use crate::config::Otlp;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The number of values that the random part of a trace's id can have.
const ALL: u64 = 1 << 56;

/// The largest number of spans that wait for the exporter: some 2 MiB.
const MOST_WAITING: usize = 2048;

/// Begins spans. Clones share the exporter. A tracer without a collector begins no span.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Exporting>>);

#[derive(Debug)]
struct Exporting {
    /// A trace that begins here is sampled if the random part of its id is below this number.
    below: u64,
    spans: mpsc::Sender<SpanData>,
    counts: Arc<SpanCounts>,
}

/// A sampled span that has begun. Dropping it records nothing.
#[derive(Debug)]
pub struct OpenSpan {
    exporting: Arc<Exporting>,
    context: TraceContext,
    id: SpanId,
}

/// The data of a span that has ended.
#[derive(Debug)]
pub struct Ended {
    /// `Server` for a request that the gateway answered, `Client` for a request that it made.
    pub kind: SpanKind,
    /// Method and path pattern, or another name from an enum.
    pub name: Cow<'static, str>,
    /// The time at which the span began.
    pub began: SystemTime,
    /// The duration of the span.
    pub took: Duration,
    /// Attributes by the semantic conventions of OpenTelemetry for HTTP.
    pub attributes: Vec<(&'static str, Value)>,
    /// True if the work failed, as the semantic conventions of OpenTelemetry define it.
    pub is_error: bool,
}

/// Converts a method's label of the log to a value of `http.request.method`. The semantic conventions name an unknown
/// method `_OTHER`, and the log names it `OTHER`.
#[must_use]
pub fn request_method(label: &'static str) -> &'static str {
    if label == "OTHER" { "_OTHER" } else { label }
}

impl Tracer {
    /// Starts the exporter in `tasks`. When `stop` is cancelled, the exporter sends the spans that wait, and ends.
    /// `node` names this instance.
    ///
    /// # Errors
    /// Returns an error if the collector's certificate or endpoint can't be used.
    pub fn start(otlp: &Otlp, node: &str, tasks: &Tasks, stop: CancellationToken) -> Result<Self, TracesError> {
        let (spans, waiting) = mpsc::channel(MOST_WAITING);
        let counts = Arc::new(SpanCounts::default());
        let exporter = export::exporter(otlp, node, tasks)?;
        tasks.spawn(export::export(exporter, waiting, Arc::clone(&counts), stop));
        // The product of a share and 2^56 is exact enough for a sample.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share is from 0 to 1")]
        let below = (otlp.sample * ALL as f64) as u64;
        Ok(Self(Some(Arc::new(Exporting { below, spans, counts }))))
    }

    /// Returns the counts of ended spans. A tracer without a collector has counts of 0.
    #[must_use]
    pub fn counts(&self) -> Arc<SpanCounts> {
        self.0.as_ref().map(|exporting| Arc::clone(&exporting.counts)).unwrap_or_default()
    }

    /// Begins a span if its trace is sampled; otherwise returns `None`. For a trace that the caller began, the caller
    /// decides if it is sampled. For a trace that begins here, the configured share decides.
    #[must_use]
    pub fn begin(&self, context: TraceContext) -> Option<OpenSpan> {
        let exporting = self.0.as_ref()?;
        let is_sampled = match context.parent {
            Some(Parent { is_sampled, .. }) => is_sampled,
            None => random_part(context.trace.bytes()) < exporting.below,
        };
        is_sampled.then(|| OpenSpan { exporting: Arc::clone(exporting), context, id: fresh() })
    }
}

impl OpenSpan {
    /// Ends the span, and queues it for the exporter. If there is no room, the span is dropped and counted.
    pub fn end(self, ended: Ended) {
        let (parent, is_remote) = match self.context.parent {
            Some(Parent { span, .. }) => (SpanId::from_bytes(span), true),
            None => (SpanId::INVALID, false),
        };
        self.exporting.take(self.data(self.id, (parent, is_remote), ended));
    }

    /// Queues a child of this span for the exporter. The child has ended already.
    pub fn child(&self, ended: Ended) {
        self.exporting.take(self.data(fresh(), (self.id, false), ended));
    }

    fn data(&self, id: SpanId, (parent_span_id, parent_span_is_remote): (SpanId, bool), ended: Ended) -> SpanData {
        let Ended { kind, name, began, took, attributes, is_error } = ended;
        let trace = TraceId::from_bytes(self.context.trace.bytes());
        SpanData {
            span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::NONE),
            parent_span_id,
            parent_span_is_remote,
            span_kind: kind,
            name,
            start_time: began,
            end_time: began + took,
            attributes: attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: if is_error { Status::error("") } else { Status::Unset },
            instrumentation_scope: InstrumentationScope::builder("iluma-gateway").build(),
        }
    }
}

impl Exporting {
    fn take(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped(1);
        }
    }
}

/// Returns the last 56 bits of a trace's id, which are random (W3C Trace Context, level 2). Some of the other bits are
/// fixed, because the gateway's ids are UUIDs.
fn random_part(id: [u8; 16]) -> u64 {
    let [.., a, b, c, d, e, f, g] = id;
    u64::from_be_bytes([0, a, b, c, d, e, f, g])
}

/// Returns a new id for a span, which is not zero.
fn fresh() -> SpanId {
    let bytes = uuid::Uuid::new_v4().into_bytes();
    // The upper half has the version among its bits, and is never zero.
    SpanId::from_bytes(bytes.first_chunk().copied().unwrap_or([1; 8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(below: u64) -> (Tracer, mpsc::Receiver<SpanData>) {
        let (spans, waiting) = mpsc::channel(1);
        (Tracer(Some(Arc::new(Exporting { below, spans, counts: Arc::default() }))), waiting)
    }

    fn ended() -> Ended {
        Ended {
            kind: SpanKind::Server,
            name: "GET /health".into(),
            began: SystemTime::UNIX_EPOCH,
            took: Duration::from_secs(2),
            attributes: vec![("http.route", "/health".into())],
            is_error: false,
        }
    }

    #[test]
    fn the_caller_decides_and_otherwise_the_share() {
        let context = |parent: Option<bool>| TraceContext {
            parent: parent.map(|is_sampled| Parent { span: [1; 8], is_sampled }),
            ..TraceContext::new()
        };
        for (below, parent, expected) in
            [(0, None, false), (ALL, None, true), (0, Some(true), true), (ALL, Some(false), false)]
        {
            assert_eq!(tracer(below).0.begin(context(parent)).is_some(), expected, "{below} {parent:?}");
        }
        assert!(Tracer::default().begin(context(Some(true))).is_none());
        let half = tracer(ALL / 2).0;
        let sampled = (0..2000).filter(|_| half.begin(TraceContext::new()).is_some()).count();
        assert!((850..1150).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_child_has_its_parents_trace_and_spans_without_room_are_counted() {
        let (tracer, mut waiting) = tracer(ALL);
        let context = TraceContext { parent: Some(Parent { span: [7; 8], is_sampled: true }), ..TraceContext::new() };
        let open = tracer.begin(context).unwrap();
        open.child(ended());
        let child = waiting.try_recv().unwrap();
        let id = open.id;
        open.end(ended());
        let parent = waiting.try_recv().unwrap();
        assert_eq!(child.parent_span_id, id);
        assert_eq!((parent.span_context.span_id(), parent.parent_span_id), (id, SpanId::from_bytes([7; 8])));
        assert_eq!((child.parent_span_is_remote, parent.parent_span_is_remote), (false, true));
        assert_eq!(child.span_context.trace_id(), parent.span_context.trace_id());
        assert_eq!(parent.end_time, SystemTime::UNIX_EPOCH + Duration::from_secs(2));
        for _ in 0..3 {
            tracer.begin(context).unwrap().end(ended());
        }
        assert_eq!(tracer.counts().all(), [("exported", 0), ("dropped", 2)]);
    }
}
