//! The commands' output, as text for people.
//!
//! Invariants: no output ends in a panic; a closed pipe (`… | head -1`) ends a command without a message, and a full
//! disk ends it with one; no command waits without end for a reader of its standard error.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// The longest time for which the write of a message to the standard error may block.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why text was not written to the standard output.
#[derive(Debug, thiserror::Error)]
#[error("the standard output can't be written: {0}")]
pub(super) struct OutputError(#[source] io::Error);

impl OutputError {
    /// Returns true if the reader has closed the pipe. That is the reader's decision and no fault.
    #[must_use]
    pub(super) fn is_gone(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Prints text to the standard output unchanged.
///
/// # Errors
/// Returns an error if the reader has closed the pipe, or if the disk is full.
pub(super) fn print(text: impl Display) -> Result<(), OutputError> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(OutputError)
}

/// Prints a line to the standard output.
///
/// # Errors
/// Returns the errors of [`print()`].
pub(super) fn line(text: impl Display) -> Result<(), OutputError> {
    print(format_args!("{text}\n"))
}

/// Prints a line to the standard error. If nothing reads the standard error, this function returns after 5 seconds.
pub(super) fn complain(text: impl Display) {
    let text = format!("{text}\n");
    let (told, done) = sync_channel(1);
    // A full pipe without a reader blocks its writer.
    let writer = std::thread::Builder::new().name("standard-error".into()).spawn(move || {
        let _ = io::stderr().write_all(text.as_bytes());
        let _ = told.try_send(());
    });
    if writer.is_ok() {
        let _ = done.recv_timeout(TIMEOUT);
    }
}

/// Returns the [`OutputError`] in an error: the error itself, or one of its sources. Returns `None` if there is none.
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
