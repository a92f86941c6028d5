//! One diagnostic as a line of JSON. A field that is also in the access log has the same name in both.

use std::fmt;
use std::hash::{Hash as _, Hasher};
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::Attributes;
use tracing::{Event, Level};

use super::stamp::moment;

/// The largest number of characters that are kept of a field.
const LONGEST_FIELD: usize = 8 * 1024;

/// The fields that name the request. A line has them beside `time` and `level`, as in the access log. Diagnostics that
/// differ only in these fields count as equal.
const SHARED: [&str; 2] = ["request_id", "trace_id"];

/// A diagnostic without its time.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    level: Level,
    target: String,
    shared: Map<String, Value>,
    fields: Map<String, Value>,
}

impl Diagnostic {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let (level, target) = (*event.metadata().level(), event.metadata().target().to_owned());
        let mut diagnostic = Self { level, target, shared: Map::new(), fields: Map::new() };
        event.record(&mut diagnostic);
        diagnostic
    }

    /// Returns a diagnostic with a message of the gateway itself, at the level `ERROR`.
    pub(super) fn made(message: &str, fields: &[(&str, Value)]) -> Self {
        let target = "iluma_gateway".to_owned();
        let mut diagnostic = Self { level: Level::ERROR, target, shared: Map::new(), fields: Map::new() };
        diagnostic.add("message", message.into());
        fields.iter().for_each(|(name, value)| diagnostic.add(name, value.clone()));
        diagnostic
    }

    /// Returns true for warnings and errors.
    pub(super) fn is_warning(&self) -> bool {
        self.level <= Level::WARN
    }

    /// Hashes the content by which diagnostics are compared.
    pub(super) fn hash_content(&self, hasher: &mut impl Hasher) {
        (self.level, &self.target).hash(hasher);
        for (name, value) in &self.fields {
            (name, value.to_string()).hash(hasher);
        }
    }

    /// Returns the line with its newline. For the diagnostic itself, `left_out` is `None`. For a line that reports
    /// suppressed repeats of the diagnostic, `left_out` is their number.
    pub(super) fn line(&self, time: SystemTime, left_out: Option<u64>) -> Vec<u8> {
        let mut line = Map::new();
        line.insert("time".into(), moment(time).into());
        line.insert("level".into(), self.level.as_str().into());
        line.insert("target".into(), self.target.as_str().into());
        let mut fields = self.fields.clone();
        match left_out {
            // The suppressed repeats may belong to several requests, so their line names no request.
            Some(left_out) => drop(fields.insert("left_out".into(), left_out.into())),
            None => line.extend(self.shared.clone()),
        }
        line.insert("fields".into(), fields.into());
        let mut line = Value::from(line).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// Adds the fields of a span that encloses the diagnostic. Fields that the diagnostic has already are not replaced.
    pub(super) fn add_request(&mut self, span: &Shared) {
        for (name, value) in &span.0 {
            self.shared.entry(name).or_insert_with(|| value.clone());
        }
    }

    fn add(&mut self, name: &str, value: Value) {
        let fields = if SHARED.contains(&name) { &mut self.shared } else { &mut self.fields };
        fields.insert(name.to_owned(), value);
    }

    fn add_text(&mut self, field: &Field, mut text: String) {
        if let Some((end, _)) = text.char_indices().nth(LONGEST_FIELD) {
            text.truncate(end);
            text.push('…');
        }
        self.add(field.name(), text.into());
    }
}

/// The request's fields in a span, which are copied to each diagnostic inside the span.
#[derive(Debug, Default)]
pub(super) struct Shared(Map<String, Value>);

impl Shared {
    pub(super) fn of(attributes: &Attributes<'_>) -> Self {
        let mut shared = Self::default();
        attributes.record(&mut shared);
        shared
    }
}

impl Visit for Shared {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SHARED.contains(&field.name()) {
            self.0.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }
}

impl Visit for Diagnostic {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add_text(field, value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value.into());
    }
}
