//! Scans JSON or a form for another team's prefix, piece by piece.

use super::body::BodyError;
use super::form::loosely;
use super::judge::Judge;
use super::prefix::{ReferencePrefix, ReferencePrefixes};
use super::scan_form::FormReader;
use super::scan_json::{JsonReader, unescaped};

/// Scans JSON or a form for another team's prefix while it passes.
pub(super) struct ForeignPrefixScanner {
    judge: Judge,
    reader: Reader,
}

enum Reader {
    Json(JsonReader),
    Form(FormReader),
}

impl ForeignPrefixScanner {
    pub(super) fn json(own: &ReferencePrefix, prefixes: &ReferencePrefixes) -> Self {
        Self {
            judge: Judge::new(own.clone(), prefixes.clone(), unescaped),
            reader: Reader::Json(JsonReader::default()),
        }
    }

    pub(super) fn form(own: &ReferencePrefix, prefixes: &ReferencePrefixes) -> Self {
        Self { judge: Judge::new(own.clone(), prefixes.clone(), loosely), reader: Reader::Form(FormReader::body()) }
    }

    /// Scans the next piece. After an error no byte of the piece may pass.
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<(), BodyError> {
        match &mut self.reader {
            Reader::Json(json) => json.feed(data, &mut self.judge),
            Reader::Form(form) => form.feed(data, &mut self.judge),
        }
    }
}
