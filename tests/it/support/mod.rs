//! Real parts for tests: the gateway, the simulator or an upstream that the test defines, and a plain client.
//!
//! Every part listens on a port that the system chose and ends with the test; tests share nothing.

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
mod topology;
mod upstream;
mod wire;

pub use client::{Answer, Ask, ask, raw};
pub use held::{Held, endless};
pub use multipart::Part;
pub use proxy::Proxy;
pub use redis::{Program, Redis};
pub use redis_proxy::{RedisProxy, Spoil};
pub use rig::{Rig, RigBuilder};
pub use topology::{Cluster, MASTER, Sentinels, Topology};
pub use upstream::{Heard, Upstream};
pub use wire::{Head, Wire, answer};

use std::time::Duration;
use tempfile::TempDir;

/// The longest time of anything that must happen, on a busy machine. A test without a fault never waits that long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Returns a folder for state, in a memory file system if the machine has one. The databases of these tests commit
/// thousands of times. A killed process loses nothing in memory either.
pub fn folder() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder")
}

/// Waits until `so` returns true. Checks it every 2 ms.
///
/// # Panics
/// Panics if it does not return true within [`PATIENCE`].
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "waited in vain: {what}");
}
