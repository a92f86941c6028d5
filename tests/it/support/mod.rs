//! Real parts for tests: the gateway, the simulator or an upstream of the test's own, and a plain client.
//!
//! Every part listens on a port that the machine chose and ends with the test; nothing is shared between tests.

mod client;
mod expect;
pub mod h2;
pub mod h2_peer;
mod held;
#[path = "../../../simulator/tests/support/multipart.rs"]
mod multipart;
pub mod process;
mod proxy;
mod redis;
mod redis_proxy;
mod rig;
pub mod tls;
mod upstream;
mod wire;

pub use client::{Answer, Ask, ask, raw};
pub use held::{Held, endless};
pub use multipart::Part;
pub use proxy::Proxy;
pub use redis::Redis;
pub use redis_proxy::{RedisProxy, Spoil};
pub use rig::{Rig, RigBuilder};
pub use upstream::{Heard, Upstream};
pub use wire::{Head, Wire, answer};

use std::time::Duration;
use tempfile::TempDir;

/// How long anything that must happen may take on a busy machine. Nothing waits for it where all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A folder for state. In memory where the machine has a place for that: the databases of all these tests commit
/// thousands of times, and a process that is killed loses nothing of it either way.
pub fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder")
}

/// Waits until `so` holds, looking again whenever the runtime has nothing else to do.
///
/// # Panics
/// If it does not hold within [`PATIENCE`].
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "waited in vain: {what}");
}
