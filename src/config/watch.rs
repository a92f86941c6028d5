//! Tells when the configuration, a secret or a certificate has changed on disk.
//!
//! Folders are watched, not files: editors and deployment tools rename a new file over the old one, and Kubernetes
//! swaps a symbolic link to a folder. What happened in a folder is then compared with how the files looked before, so
//! that a busy neighbour (the database, a log) causes no reload. Invariants: at most one notice is queued; nothing
//! polls; a change after [`Watch::changed`] has returned is noticed by the next call.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// A watch over some files.
#[derive(Debug)]
pub struct Watch {
    watcher: RecommendedWatcher,
    notices: mpsc::Receiver<()>,
    folders: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Option<Look>>,
    /// There is a reason to look that is not in the channel: a notice whose wait was given up, or another list.
    pending: bool,
}

impl Watch {
    /// Watches the files from now on.
    ///
    /// # Errors
    /// If the system cannot watch, or a file's folder is not there.
    pub fn new(files: &[PathBuf]) -> notify::Result<Self> {
        // One notice says all there is to say; more would be the same again.
        let (sender, notices) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error, such as events that were lost, is a reason to look as well.
            if event.map_or(true, |event| matters(event.kind)) {
                let _ = sender.try_send(());
            }
        })?;
        let mut watch = Self { watcher, notices, folders: BTreeSet::new(), files: BTreeMap::new(), pending: false };
        watch.set_files(files)?;
        Ok(watch)
    }

    /// Waits until a file has changed, appeared or gone, and the writing has stopped. Cancel safe.
    pub async fn changed(&mut self) {
        loop {
            if !self.pending && self.notices.recv().await.is_none() {
                // The watcher lives as long as `self`; should it end all the same, nothing will ever change.
                return std::future::pending().await;
            }
            self.pending = true;
            self.quiet().await;
            self.pending = false;
            if self.changes() {
                return;
            }
        }
    }

    /// Watches these files instead. A file that was watched before is compared with how it looked when
    /// [`Watch::changed`] last returned, so no change is lost in between.
    ///
    /// # Errors
    /// As [`Watch::new`]; the folders that can be watched are.
    pub fn set_files(&mut self, files: &[PathBuf]) -> notify::Result<()> {
        let mut before = std::mem::take(&mut self.files);
        for file in files {
            let look = before.remove(file).unwrap_or_else(|| Look::at(file));
            self.files.insert(file.clone(), look);
        }
        // While the folders change hands nothing is noticed, so the next wait begins with a look.
        self.pending = true;
        self.watch_folders()
    }

    /// Waits until no notice has come for a while, but not for ever.
    async fn quiet(&mut self) {
        for _ in 0..MAX_ROUNDS {
            tokio::time::sleep(QUIET).await;
            if self.notices.try_recv().is_err() {
                break;
            }
        }
    }

    /// Whether a file looks different from before.
    fn changes(&mut self) -> bool {
        let changed = self.look();
        if changed {
            // Links may lead elsewhere now. A folder that has gone comes back with a notice from the one above it.
            let _ = self.watch_folders();
            // What happened meanwhile caused no notice; it belongs to this change, which nobody has acted on yet.
            self.look();
        }
        changed
    }

    /// Takes a new look at each file, and tells whether one differs from the last.
    fn look(&mut self) -> bool {
        let mut differs = false;
        for (file, before) in &mut self.files {
            let now = Look::at(file);
            differs |= *before != now;
            *before = now;
        }
        differs
    }

    fn watch_folders(&mut self) -> notify::Result<()> {
        let wanted: BTreeSet<PathBuf> = self.files.keys().flat_map(|file| folders(file)).collect();
        for folder in std::mem::take(&mut self.folders) {
            // A path may be another folder by now, so those that stay are taken up again too.
            let _ = self.watcher.unwatch(&folder);
        }
        let mut result = Ok(());
        for folder in wanted {
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.folders.insert(folder);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }
}

/// Reading a file is no change; reloading would cause the next reload.
fn matters(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// How a file looks from outside; another look means another content, or at least a reason to read it again.
#[derive(Debug, PartialEq, Eq)]
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

/// The folders in which something happens when the file is replaced: its own, and that of every link on the way.
fn folders(file: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut paths = vec![std::path::absolute(file).unwrap_or_else(|_| file.to_owned())];
    for _ in 0..MAX_LINKS {
        let Some(path) = paths.pop() else { break };
        found.extend(path.parent().map(Path::to_owned));
        for part in path.ancestors() {
            let (Ok(target), Some(folder)) = (part.read_link(), part.parent()) else { continue };
            found.insert(folder.to_owned());
            paths.push(match path.strip_prefix(part) {
                Ok(rest) if !rest.as_os_str().is_empty() => folder.join(target).join(rest),
                _ => folder.join(target),
            });
        }
    }
    found
}

/// Longer than a tool takes from one file to the next, shorter than anyone waits for.
const QUIET: Duration = Duration::from_millis(200);
/// Two seconds: a file that is written to all the time is looked at all the same.
const MAX_ROUNDS: usize = 10;
/// Linux follows no more in one path.
const MAX_LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tokio::time::timeout;

    /// Far longer than a notice takes.
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_file_that_is_written_in_place_or_renamed_over_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.toml");
        fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(std::slice::from_ref(&file)).unwrap();
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
        let mut watch = Watch::new(&[at("gateway.toml")]).unwrap();
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
        let mut watch = Watch::new(std::slice::from_ref(&file)).unwrap();
        fs::write(folder.path().join("gateway.db"), "x").unwrap();
        fs::read(&file).unwrap();
        assert!(timeout(3 * QUIET, watch.changed()).await.is_err());
        // The wait was given up in the middle; the change is noticed all the same.
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
        let mut watch = Watch::new(std::slice::from_ref(&kept)).unwrap();
        fs::write(&kept, "ab").unwrap();
        watch.set_files(&[kept, added.clone()]).unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        fs::write(&added, "ab").unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
        watch.set_files(&[]).unwrap();
        fs::write(&added, "abc").unwrap();
        assert!(timeout(3 * QUIET, watch.changed()).await.is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Watch::new(&[folder.path().join("none").join("gateway.toml")]).is_err());
    }
}
