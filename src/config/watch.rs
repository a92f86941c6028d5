//! Notices that the configuration, a secret or a certificate has changed on disk.
//!
//! The files' metadata is polled twice a second, which costs microseconds. Polling follows the current links to the
//! files (Kubernetes swaps a link to a folder), and works on every file system. A busy file in the same folder, such as
//! the database, causes no work.
//!
//! Invariant: a change after [`Watch::changed`] has returned is noticed by the next call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A watch over files, with the fingerprint that each file had last.
#[derive(Debug)]
pub struct Watch {
    files: Looks,
}

/// The fingerprint of each watched file; `None` for a missing file.
type Looks = BTreeMap<PathBuf, Option<Look>>;

impl Watch {
    /// Makes a watch over these files, beginning now.
    #[must_use]
    pub fn new(files: &[PathBuf]) -> Self {
        let mut watch = Self { files: Looks::new() };
        watch.set_files(files);
        watch
    }

    /// Waits until a file has changed, appeared or been removed. Then waits until the files have been unchanged for 200
    /// ms, two seconds at most. The method is cancel safe.
    pub async fn changed(&mut self) {
        loop {
            let mut now = self.look().await;
            if now != self.files {
                for _ in 0..MAX_ROUNDS {
                    tokio::time::sleep(QUIET).await;
                    let later = self.look().await;
                    if std::mem::replace(&mut now, later) == now {
                        break;
                    }
                }
                self.files = now;
                return;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Watches these files instead. A file that was watched before is compared with the fingerprint that it had when
    /// [`Watch::changed`] last returned, so no change since then is lost.
    pub fn set_files(&mut self, files: &[PathBuf]) {
        let mut before = std::mem::take(&mut self.files);
        for file in files {
            let look = before.remove(file).unwrap_or_else(|| Look::at(file));
            self.files.insert(file.clone(), look);
        }
    }

    /// Reads the fingerprint of each file in a blocking thread, because a file system may hang.
    async fn look(&self) -> Looks {
        let files: Vec<PathBuf> = self.files.keys().cloned().collect();
        let look = || files.into_iter().map(|file| (file.clone(), Look::at(&file))).collect();
        // The task does not panic; if it did, nothing would count as changed.
        tokio::task::spawn_blocking(look).await.unwrap_or_else(|_| self.files.clone())
    }
}

/// The fingerprint of a file. If it differs from an earlier one, the content may have changed, and the file is read
/// again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    path: PathBuf,
    length: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Look {
    fn at(file: &Path) -> Option<Self> {
        let path = file.canonicalize().ok()?;
        let metadata = path.metadata().ok()?;
        Some(Self { length: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata), path })
    }
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

/// The polling interval. It is short, so that an operator who changes a file sees the effect soon.
const EVERY: Duration = Duration::from_millis(500);
/// The time without changes after which the writing counts as ended: longer than a tool takes from one file to the
/// next.
const QUIET: Duration = Duration::from_millis(200);
/// The largest number of waits of [`QUIET`], two seconds in all. So a file that is written continuously is still
/// reported.
const MAX_ROUNDS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::time::timeout;

    /// The longest wait in tests, far longer than a notice takes.
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_file_that_is_written_in_place_or_renamed_over_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.toml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(std::slice::from_ref(&file));
        fs::write(&file, "ab").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        fs::write(folder.path().join("new"), "cd").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        fs::remove_file(&file).unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        fs::write(&file, "e").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_swapped_link_as_kubernetes_makes_it_is_noticed_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let version = |name: &str, text: &str| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("gateway.toml"), text).unwrap();
        };
        version("..1", "a");
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/gateway.toml", at("gateway.toml")).unwrap();
        let mut watch = Watch::new(&[at("gateway.toml")]);
        for (old, new) in [("..1", "..2"), ("..2", "..3")] {
            version(new, "a");
            std::os::unix::fs::symlink(new, at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
            fs::remove_dir_all(at(old)).unwrap();
            timeout(SOON, watch.changed()).await.unwrap();
        }
        fs::write(at("..3").join("gateway.toml"), "in place").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn a_neighbour_and_a_reader_cause_no_notice() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.toml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(std::slice::from_ref(&file));
        fs::write(folder.path().join("gateway.db"), "x").unwrap();
        fs::read(&file).unwrap();
        assert!(timeout(3 * EVERY, watch.changed()).await.is_err());
        // The wait was cancelled in the middle; the change is still noticed.
        fs::write(&file, "ab").unwrap();
        assert!(timeout(QUIET / 4, watch.changed()).await.is_err());
        timeout(SOON, watch.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn the_list_can_be_replaced_without_losing_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let (kept, added) = (folder.path().join("gateway.toml"), other.path().join("secret"));
        fs::write(&kept, "a").unwrap();
        fs::write(&added, "a").unwrap();
        let mut watch = Watch::new(std::slice::from_ref(&kept));
        fs::write(&kept, "ab").unwrap();
        watch.set_files(&[kept, added.clone()]);
        timeout(SOON, watch.changed()).await.unwrap();
        fs::write(&added, "ab").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        watch.set_files(&[]);
        fs::write(&added, "abc").unwrap();
        assert!(timeout(3 * EVERY, watch.changed()).await.is_err());
    }
}
