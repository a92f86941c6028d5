//! Spans of sampled traces, sent to a collector of OpenTelemetry (OTLP over HTTP with protobuf).
//!
//! Invariants: a request that is not sampled makes no span; ending a span never waits for the collector: spans that
//! find no room, and spans that the collector does not take, are dropped and counted; names and attributes come from
//! the configuration and from enums, never from input, and hold neither URLs nor queries.

mod export;
mod layer;
mod tracer;

pub use export::{SpanCounts, TracesError};
pub use layer::traced;
pub use opentelemetry::trace::SpanKind;
pub use tracer::{Ended, OpenSpan, Tracer, request_method};
