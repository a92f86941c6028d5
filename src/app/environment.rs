//! The surroundings of an app: what a process has and a test replaces.

use crate::base::clock::Clock;
use std::io::{self, Write};

/// The surroundings of an app, beside its settings.
pub struct Environment {
    /// Sink of the access log's lines.
    pub access_log: Box<dyn Write + Send>,
    /// Clock of all parts.
    pub clock: Clock,
    /// True if the process is the app's own: then its diagnostics and panics are written as the app's are.
    pub diagnostics: bool,
}

impl Environment {
    /// Returns the surroundings of a process that serves: standard output and the machine's time.
    #[must_use]
    pub fn of_process() -> Self {
        Self { access_log: Box::new(io::stdout()), clock: Clock::system(), diagnostics: true }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).finish_non_exhaustive()
    }
}
