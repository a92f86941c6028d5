//! The environment of an app: the parts of a process that a test replaces.

use crate::base::clock::Clock;
use std::io::{self, Write};

/// The parts of a process that an app uses in addition to its settings.
pub struct Environment {
    /// The sink of the access log's lines.
    pub access_log: Box<dyn Write + Send>,
    /// The clock of all parts.
    pub clock: Clock,
    /// True if the whole process belongs to the app. Then the app writes the process's diagnostics and panics in its
    /// own format, and raises the limit of open files.
    pub diagnostics: bool,
}

impl Environment {
    /// Returns the environment of a process that serves: standard output and the machine's time.
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
