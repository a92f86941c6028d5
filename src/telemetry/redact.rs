//! The second wall: takes personal data and secrets out of a line that is about to leave the process.
//!
//! The first wall is that lines are made of listed fields; this one is for what slips through all the same, such as
//! the text of a dependency's error. It prefers to take too much.
//!
//! Invariants: a line of valid JSON stays valid JSON; scrubbing twice is scrubbing once (a line is scrubbed until
//! nothing more is found); no input makes it panic; the time is linear in the length of the line.

mod redactor;
mod scan;
mod secrets;
mod spans;

pub use redactor::Redactor;
