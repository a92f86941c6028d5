//! The commands' output: text for people, to a reader that may have gone.
//!
//! Invariants: no output ends in a panic; a reader that has gone (`… | head -1`) ends a command quietly, and a disk that
//! is full ends it with a message; nobody waits for ever for a standard error that is not read.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// The longest time that a message waits for somebody to read it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The reason why text did not arrive at the standard output.
#[derive(Debug, thiserror::Error)]
#[error("the standard output can't be written: {0}")]
pub(super) struct OutputError(#[source] io::Error);

impl OutputError {
    /// Returns true if the reader has gone, which is its own decision and no fault.
    #[must_use]
    pub(super) fn is_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints text to the standard output as it is.
///
/// # Errors
/// The reader has gone, or the disk is full.
pub(super) fn print(text: impl Display) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(OutputError)
}

/// Prints a line to the standard output.
///
/// # Errors
/// As [`print()`].
pub(super) fn line(text: impl Display) -> Result<(), OutputError> {
    print(format_args!("{text}\n"))
}

/// Prints a line to the standard error, as far as somebody reads it.
pub(super) fn complain(text: impl Display) {
    let text = format!("{text}\n");
    let (told, done) = sync_channel(1);
    // A pipe that is full and not read blocks who writes to it.
    let writer = std::thread::Builder::new().name("standard-error".into()).spawn(move || {
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = told.try_send(());
    });
    if writer.is_ok() {
        let _ = done.recv_timeout(PATIENCE);
    }
}

/// Returns the output error behind an error, if there is one.
#[must_use]
pub(super) fn behind<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e OutputError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(output) = error.downcast_ref() {
            return Some(output);
        }
        next = error.source();
    }
    None
}
