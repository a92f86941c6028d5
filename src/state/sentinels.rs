//! Sentinels: stored fingerprints of the keys of state, by which a wrong key is refused before it does harm.
//!
//! Invariant: a configured key has the fingerprint that state has stored under its name, or state has not stored the
//! name yet. A fingerprint is a keyed hash, which does not reveal the key.

use super::error::StateError;
use crate::base::database::{Database, DatabaseError};
use crate::base::keyring::{self, Keyring};
use crate::config;
use crate::redis::scripts::node as scripts;
use crate::redis::{Budget, RedisClient, RedisFailure, keys};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The name of the root key's sentinel. The names of encryption keys' sentinels begin with `key:`.
const ROOT: &str = "root";

/// The error for a configured key that differs from the key with which state was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongKey {
    /// The root key is wrong. The text names the store that was written with another root key.
    #[error(
        "state.root_key is not the one that {0} was written with: put the former root key back; it is never rotated. A \
         new deployment needs an empty state.path and a Redis database of its own"
    )]
    Root(&'static str),
    /// An encryption key is wrong.
    #[error(
        "state.encryption_keys: the key {id:?} is not the one that {place} was written with: put the former key back \
         under this id, and give a new key an id of its own"
    )]
    Encryption {
        /// The key's id.
        id: String,
        /// The name of the store that was written with another key under this id.
        place: &'static str,
    },
}

/// The reason why keys could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A key is wrong.
    #[error(transparent)]
    Wrong(#[from] WrongKey),
    /// State can't be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database file can't be read. The members are the path of the file and the error.
    #[error("state.path: {} can't be read: {}; {}", .0.display(), .1, advice(.1))]
    File(PathBuf, rusqlite::Error),
}

/// Returns the advice for an operator, if this error is the reason why the database file can't be read.
fn advice(error: &rusqlite::Error) -> &'static str {
    match DatabaseError::from(error) {
        DatabaseError::Damaged => {
            "the file is damaged: restore a backup with iluma-gateway restore, which sets the file aside; do not delete it"
        }
        DatabaseError::Unwritable => {
            "look at the disk, which may be full or fail, and at the permissions of the file and its folder"
        }
        DatabaseError::Refused | DatabaseError::Closed => "restore a backup if the error stays",
    }
}

impl From<DatabaseError> for KeyError {
    fn from(error: DatabaseError) -> Self {
        Self::State(error.into())
    }
}

/// Returns the name and the fingerprint of each configured key, the root key first.
fn fingerprints(settings: &config::State) -> Vec<(String, [u8; 32])> {
    let root = (ROOT.to_owned(), keyring::fingerprint(settings.root_key.expose_secret()));
    let keyring = Keyring::new(&settings.encryption_keys);
    let keys = keyring.fingerprints().map(|(id, fingerprint)| (format!("key:{id}"), *fingerprint));
    std::iter::once(root).chain(keys).collect()
}

/// Compares `ours`, the configured keys, with `known`, the keys of a store. Returns the configured keys that the store
/// does not know yet, or an error for the first key whose fingerprint differs. `place` names the store in the error.
fn compare(
    known: &BTreeMap<String, Vec<u8>>,
    ours: &[(String, [u8; 32])],
    place: &'static str,
) -> Result<Vec<(String, [u8; 32])>, WrongKey> {
    for (name, fingerprint) in ours {
        if known.get(name).is_some_and(|known| known != fingerprint) {
            return Err(wrong(name, place));
        }
    }
    Ok(ours.iter().filter(|(name, _)| !known.contains_key(name)).cloned().collect())
}

fn wrong(name: &str, place: &'static str) -> WrongKey {
    match name.strip_prefix("key:") {
        Some(id) => WrongKey::Encryption { id: id.to_owned(), place },
        None => WrongKey::Root(place),
    }
}

fn known(connection: &Connection) -> rusqlite::Result<BTreeMap<String, Vec<u8>>> {
    let mut select = connection.prepare("SELECT name, fingerprint FROM key_sentinels")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// Verifies the configured keys against a node's own database. Stores the fingerprints of the keys that the database
/// does not know yet.
///
/// # Errors
/// Returns an error if a key is wrong, or if the database can't be used.
pub async fn verify_database(database: &Database, settings: &config::State) -> Result<(), KeyError> {
    let ours = fingerprints(settings);
    let verify = move |connection: &Connection| {
        let new = match compare(&known(connection)?, &ours, "state.path") {
            Ok(new) => new,
            Err(wrong) => return Ok(Err(wrong)),
        };
        for (name, fingerprint) in new {
            connection.execute("INSERT INTO key_sentinels VALUES (?1, ?2)", params![name, fingerprint])?;
        }
        Ok(Ok(()))
    };
    Ok(database.write(verify).await??)
}

/// Verifies the configured keys against the database file of a node that may be running, and changes nothing. If the
/// file is missing or has no sentinels, every key is accepted.
///
/// # Errors
/// Returns an error if a key is wrong, or if the file can't be read.
pub fn verify_file(settings: &config::State) -> Result<(), KeyError> {
    if !settings.path.exists() {
        return Ok(());
    }
    let read = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&settings.path, flags)?;
        let table = "SELECT 1 FROM sqlite_master WHERE name = 'key_sentinels'";
        let has_sentinels = connection.query_row(table, [], |_| Ok(())).optional()?.is_some();
        if has_sentinels { known(&connection) } else { Ok(BTreeMap::new()) }
    };
    let known = read().map_err(|error| KeyError::File(settings.path.clone(), error))?;
    compare(&known, &fingerprints(settings), "state.path")?;
    Ok(())
}

/// The fingerprints of the configured keys, for the comparison with the fingerprints that are stored in Redis.
#[derive(Debug, Clone)]
pub struct Sentinels {
    root: String,
    keys: Vec<(String, String)>,
}

impl Sentinels {
    /// Computes the fingerprints of the configured keys.
    #[must_use]
    pub fn new(settings: &config::State) -> Self {
        let mut keys: Vec<_> =
            fingerprints(settings).into_iter().map(|(name, bytes)| (name, hex::encode(bytes))).collect();
        // The first fingerprint is that of the root key.
        let (_, root) = keys.remove(0);
        Self { root, keys }
    }

    /// Verifies the keys against the fingerprints in Redis. If `note` is true, it stores the fingerprints that Redis
    /// does not know yet.
    ///
    /// # Errors
    /// Returns an error if a key is wrong, or if Redis can't be read.
    pub async fn verify(&self, redis: &RedisClient, note: bool) -> Result<(), KeyError> {
        let mut call = scripts::SENTINELS.key(redis.keys().key_sentinels());
        call.arg(u8::from(note));
        for (name, fingerprint) in &self.keys {
            call.arg(name).arg(fingerprint);
        }
        let other: String = redis.script(&Budget::background(), &call).await.map_err(StateError::from)?;
        if !other.is_empty() {
            return Err(wrong(&other, "Redis").into());
        }
        let root = keys::root_sentinel();
        if note {
            let mut set = redis::cmd("SET");
            set.arg(&root).arg(&self.root).arg("NX");
            let _: Result<Option<String>, RedisFailure> = redis.command_at(&root, &Budget::background(), &set).await;
        }
        let get = redis::cmd("GET").arg(&root).clone();
        match redis.command_at::<Option<String>>(&root, &Budget::background(), &get).await {
            Ok(Some(known)) if known != self.root => Err(WrongKey::Root("Redis").into()),
            Ok(_) | Err(RedisFailure::Unexpected) => Ok(()),
            Err(error @ RedisFailure::Out) => Err(StateError::from(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures;
    use super::*;
    use crate::base::keyring::EncryptionKey;
    use secrecy::SecretBox;
    use std::path::Path;

    fn settings(path: &Path, root: u8, keys: &[(&str, u8)]) -> config::State {
        let key = |(id, seed): &(&str, u8)| EncryptionKey {
            id: (*id).to_owned(),
            key: SecretBox::new(Box::new([*seed; 32])),
        };
        config::State {
            path: path.to_owned(),
            root_key: SecretBox::new(Box::new([root; 32])),
            encryption_keys: keys.iter().map(key).collect(),
            ..fixtures::settings()
        }
    }

    #[tokio::test]
    async fn a_database_refuses_keys_that_it_was_not_written_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let root = || Err::<(), _>("root".to_owned());
        let key = |id: &str| Err::<(), _>(id.to_owned());
        type Case = (u8, &'static [(&'static str, u8)], Result<(), String>);
        let cases: [Case; 8] = [
            (1, &[("a", 1)], Ok(())),
            (1, &[("a", 1)], Ok(())),
            (2, &[("a", 1)], root()),
            (1, &[("a", 9)], key("a")),
            (1, &[("b", 2), ("a", 1)], Ok(())),
            (1, &[("b", 2)], Ok(())),
            (1, &[("b", 2), ("a", 9)], key("a")),
            (2, &[("c", 3)], root()),
        ];
        for (root, keys, expected) in cases {
            let settings = settings(&path, root, keys);
            let named = |error: KeyError| match error {
                KeyError::Wrong(WrongKey::Root(_)) => "root".to_owned(),
                KeyError::Wrong(WrongKey::Encryption { id, .. }) => id,
                KeyError::State(_) | KeyError::File(..) => error.to_string(),
            };
            let file = verify_file(&settings).map_err(named);
            let database = Database::open(&path, &[super::super::sqlite::MIGRATIONS]).unwrap();
            let opened = verify_database(&database, &settings).await.map_err(named);
            database.close().await;
            assert_eq!(opened, expected, "{root} {keys:?}");
            assert_eq!(file, expected, "check says the same: {root} {keys:?}");
        }
    }

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::write(&path, [&b"SQLite format 3\0"[..], &[0xff; 4096]].concat()).unwrap();
        let told = verify_file(&settings(&path, 1, &[("a", 1)])).unwrap_err().to_string();
        assert!(told.starts_with(&format!("state.path: {} can't be read: ", path.display())), "{told}");
        assert!(told.contains("the file is damaged: restore a backup"), "{told}");
    }
}
