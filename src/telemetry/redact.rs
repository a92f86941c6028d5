//! The scrubber, the second barrier: it removes personal data and secrets from a line before it leaves the process.
//!
//! The first barrier is that lines consist of listed fields. The second barrier removes data that is in such a field by
//! mistake, for example in the text of a dependency's error. It may remove more than necessary.
//!
//! Invariants: a line of valid JSON stays valid JSON; scrubbing a line a second time changes nothing (a line is
//! scrubbed until nothing more is found); no input makes it panic; the time is linear in the length of the line.

mod redactor;
mod scan;
mod secrets;
mod spans;

pub use redactor::Redactor;
