//! The free space of a disk, and the reserve that is kept for data that must not be lost.

use std::path::{Path, PathBuf};

/// A disk with a reserve: an amount of free space that is kept for important data.
#[derive(Debug, Clone)]
pub struct Disk {
    folder: PathBuf,
    reserve: u64,
}

impl Disk {
    /// Returns the disk that has `file`, with a reserve in bytes; 0 means no reserve.
    #[must_use]
    pub fn of(file: &Path, reserve: u64) -> Self {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { folder: folder.to_owned(), reserve }
    }

    /// Returns the bytes that the gateway's user may still write; `None` if the file system does not report it.
    #[must_use]
    pub fn free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Returns true if less than the reserve is free. A disk whose free space is unknown is not low.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.reserve > 0 && self.free().is_some_and(|free| free < self.reserve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_its_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let free = Disk::of(&file, 0).free().unwrap();
        assert!(free > 0);
        for (reserve, low) in [(0, false), (1, false), (free / 2, false), (u64::MAX, true)] {
            assert_eq!(Disk::of(&file, reserve).is_low(), low, "{reserve}");
        }
        assert!(!Disk::of(Path::new("/nowhere/x.db"), u64::MAX).is_low());
    }
}
