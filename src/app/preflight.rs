//! The checks before serving: `check` reports their findings, and `run` refuses to start with faults.

use crate::config::{Fault, Faults, Settings};
use crate::redis::diagnosis::Grade;
use crate::redis::{self, KeySpace};
use secrecy::ExposeSecret as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The findings of the checks. They contain no secret.
#[derive(Debug, Default)]
pub struct Findings {
    /// The faults with which the gateway can't work.
    pub faults: Vec<Fault>,
    /// The warnings: valid but probably unintended settings, and faults that may end by themselves.
    pub warnings: Vec<Fault>,
}

impl Findings {
    /// Refuses settings with faults.
    ///
    /// # Errors
    /// Returns all faults, if there are any.
    pub fn refuse(&self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults::new(self.faults.clone())) }
    }
}

/// Checks the path of the state and each Redis. It also writes the layout version to a Redis that has none.
pub async fn look(settings: &Settings) -> Findings {
    let mut findings = Findings { faults: Vec::new(), warnings: settings.warnings.clone() };
    findings.faults.extend(state_file(&settings.state.path));
    let keys = KeySpace::new(settings.state.root_key.expose_secret());
    let redis = settings.state.redis.iter();
    for target in redis.flat_map(|redis| [Some(&redis.main), redis.cache.as_ref()]).flatten() {
        if let Some(cause) = redis::examine(target, keys.clone()).await {
            let finding = Fault::new(target.name, format!("Redis at {}: {cause}", target.place()));
            match cause.grade() {
                Grade::Fault => findings.faults.push(finding),
                Grade::Warning => findings.warnings.push(finding),
            }
        }
    }
    findings
}

/// Returns the reason why a path can't hold a database; `None` if it can.
fn state_file(path: &Path) -> Option<Fault> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fault = |problem: String| Some(Fault::new("state.path", problem));
    let (shown, place) = (path.display(), folder.display());
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return fault(format!("{place} is not a folder; give a file in a folder, such as {EXAMPLE}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fault(format!(
                "the folder {place} does not exist; make it (mkdir -p {place}), or give a file in another folder, such as {EXAMPLE}"
            ));
        }
        Err(error) => return fault(format!("the folder {place} can't be read: {error}")),
    }
    if path.is_dir() {
        return fault(format!("{shown} is a folder; give a file, such as {EXAMPLE}"));
    }
    // SQLite keeps files beside the database, so the folder must accept new ones.
    let probe = folder.join(format!(".iluma-gateway-{}", uuid::Uuid::new_v4()));
    if let Err(error) = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe) {
        return fault(format!("the folder {place} can't be written: {error}; let the gateway's user write it"));
    }
    let _ = fs::remove_file(&probe);
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => fault(format!("{shown} can't be opened: {error}; let the gateway's user read and write it")),
        Ok(file) if !may_be_database(&file) => {
            fault(format!("{shown} is no database, or a damaged one; give another path, or restore a backup"))
        }
        Ok(_) => None,
    }
}

/// Returns true if the file is empty or unreadable, or if it begins like an SQLite database.
fn may_be_database(file: &File) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut begin = Vec::with_capacity(MAGIC.len());
    match file.take(MAGIC.len() as u64).read_to_end(&mut begin) {
        // A file that can't be read is reported when the database is opened.
        Err(_) | Ok(0) => true,
        Ok(_) => begin == MAGIC,
    }
}

const EXAMPLE: &str = "/var/lib/iluma-gateway/iluma-gateway.db";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_where_no_database_can_be_is_told_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "").unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("text"), "no database").unwrap();
        fs::write(at("database"), b"SQLite format 3\0 and so on").unwrap();
        for (path, expected) in [
            (at("none/x.db"), "does not exist; make it (mkdir -p "),
            (at("file/x.db"), "is not a folder; give a file in a folder"),
            (at("folder"), "is a folder; give a file"),
            (at("text"), "is no database, or a damaged one"),
        ] {
            let told = state_file(&path).map(|fault| fault.to_string()).unwrap_or_default();
            let place = folder.path().to_str().unwrap();
            assert!(told.starts_with("state.path: ") && told.contains(expected) && told.contains(place), "{told}");
        }
        for good in [at("x.db"), at("file"), at("database")] {
            assert_eq!(state_file(&good), None, "{good:?}");
        }
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 4, "nothing is left behind: {left:?}");
    }
}
