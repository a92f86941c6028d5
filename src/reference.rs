//! Request bodies, parsed once, and the reference prefix: toward Iluma a reference is `<tenant>:<reference>`.
//!
//! Invariants: a body is held only up to its bound; a body that [`RequestContent::parse`] accepts has exactly one
//! meaning, or is marked as ambiguous (repeated members are noticed, no number is read as a string, nothing invalid is
//! replaced); the tenant's credential, hop-by-hop fields, cookies and trace context are never forwarded; prefixing and
//! stripping change the caller's reference and no other byte; all work is linear in the length of the client's input.

mod body;
mod boundary;
mod canonical;
mod content;
mod content_type;
mod fingerprint;
mod foreign_prefix;
mod form;
mod headers;
mod idempotency_key;
mod insert_point;
mod json;
mod judge;
mod multipart;
mod name;
mod parameters;
mod parse;
mod part_head;
mod parts_hash;
mod pieces;
mod prefix;
mod query;
mod quote;
mod scan;
mod scan_encoded;
mod scan_form;
mod scan_json;
mod stream;
mod strip;

pub use body::{BodyError, LARGEST_BODY, read};
pub use boundary::Boundary;
pub use content::{Ambiguity, RequestContent};
pub use content_type::{Kind, essence};
pub use fingerprint::{Fingerprint, FingerprintedBody, Fingerprinting, Readable, content_class};
pub use headers::{
    Directives, IDEMPOTENT_REPLAYED, forget_body, forwardable_request, forwardable_response, forwardable_trailers,
    is_magic,
};
pub use idempotency_key::{IdempotencyKey, MalformedKey};
pub use prefix::{ReferencePrefix, ReferencePrefixes, reference_json, reference_text};
pub use scan::{EncodedBody, scan_body, scan_query};
pub use stream::{FilteredBody, Outcome, StreamError};
pub use strip::{Answer, List, Ownership, PrefixStripper, Record};

#[cfg(test)]
mod tests;
