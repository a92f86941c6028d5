//! State for unit tests: settings, and the embedded engine in memory.

use super::engine::State;
use super::sqlite::{MIGRATIONS, Sqlite};
use crate::base::byte_size::ByteSize;
use crate::base::clock::Clock;
use crate::base::database::Database;
use crate::base::keyring::EncryptionKey;
use crate::config;
use secrecy::SecretBox;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86400);

/// Returns settings of a gateway without Redis that keeps everything for a day.
pub(crate) fn settings() -> config::State {
    config::State {
        path: "memory".into(),
        root_key: SecretBox::new(Box::new([3; 32])),
        encryption_keys: vec![EncryptionKey { id: "a".into(), key: SecretBox::new(Box::new([4; 32])) }],
        redis: None,
        redis_timeout: Duration::from_millis(50),
        disk_reserve: ByteSize::kib(0),
        retention: config::Retention { owners: DAY, delivered_callbacks: DAY, dead_letters: DAY, ledger: DAY },
    }
}

/// Returns an empty state of the embedded engine, in memory.
pub(crate) fn in_memory(clock: Clock) -> State {
    let database = Database::in_memory(&[MIGRATIONS]).expect("a database in memory");
    State::Sqlite(Arc::new(Sqlite::new(database, &settings(), clock)))
}
