//! The access log of the demo's gateway, which the tour reads.

use parking_lot::Mutex;
use std::io::{self, Write};
use std::sync::Arc;

/// A log that the tour can read.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(super) fn lines(&self) -> Vec<String> {
        let written = self.0.lock();
        String::from_utf8_lossy(&written).lines().map(str::to_owned).collect()
    }
}

impl Write for Lines {
    /// Keeps the first megabyte and discards further lines: the tour reads far less, and the demo may serve for days.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock();
        if written.len() + bytes.len() <= 1 << 20 {
            written.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
