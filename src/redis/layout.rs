//! The version of the layout of keys and values in Redis, which every node checks before it uses a Redis.
//!
//! Invariant: a node never reads or writes keys of a layout that it does not know.

use super::diagnosis::Cause;
use super::keys::{KeySpace, LAYOUT_VERSION};
use super::scripts;
use redis::aio::MultiplexedConnection;

/// Writes the layout version to a Redis that has none, and refuses a layout that this version does not know.
pub(super) async fn check(connection: &mut MultiplexedConnection, keys: &KeySpace) -> Result<(), Cause> {
    let mut script = scripts::layout::CHECK.key(keys.layout());
    let found: String = script.arg(LAYOUT_VERSION).invoke_async(connection).await.map_err(|error| Cause::of(&error))?;
    if found != LAYOUT_VERSION.to_string() {
        return Err(Cause::UnknownLayout(found.chars().filter(char::is_ascii_digit).take(10).collect()));
    }
    let mut exists = redis::cmd("EXISTS");
    keys.before_layouts().for_each(|key| {
        exists.arg(key);
    });
    // An error counts as no old keys: a cluster may have them in other slots, or the user may not read them.
    let found: Result<u64, _> = exists.query_async(connection).await;
    if found.is_ok_and(|count| count > 0) { Err(Cause::OldLayout(keys.prefix_before_layouts())) } else { Ok(()) }
}
