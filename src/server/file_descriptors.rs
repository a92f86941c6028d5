//! The number of files and sockets that the process may have open.

use rlimit::Resource;
use std::io;

/// The limits of open file descriptors before and after [`raise`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The soft limit that the process was started with.
    pub before: u64,
    /// The soft limit now.
    pub now: u64,
}

/// Raises the soft limit (RLIMIT_NOFILE) to the hard limit. Many systems start processes with a soft limit of 1,024,
/// because some old programs need it. A server needs far more.
///
/// # Errors
/// Returns an error if the system refuses.
pub fn raise() -> io::Result<Limit> {
    let (before, _) = Resource::NOFILE.get()?;
    let now = rlimit::increase_nofile_limit(u64::MAX)?;
    Ok(Limit { before, now })
}
