//! The delivery of results to the URLs that an account set. The number of waiting callbacks is bounded.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::callback::{Callback, destination};
use super::world::World;

/// The largest number of callbacks that wait for their time or for an answer.
const MAX_WAITING: usize = 20_000;

/// Sends a callback `copies` times when it is due, in a task of its own. If too many callbacks wait already, drops and
/// counts it.
pub(super) fn send(world: &Arc<World>, callback: Callback, copies: u32) {
    let world = Arc::clone(world);
    if world.webhooks.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
        world.webhooks.waiting.fetch_sub(1, Ordering::SeqCst);
        world.tally.callbacks(|count| count.dropped += 1);
        return;
    }
    let generation = world.webhooks.generation.load(Ordering::SeqCst);
    let executor = world.webhooks.executor.clone();
    executor.spawn(async move {
        tokio::time::sleep_until(callback.due.into()).await;
        for _ in 0..copies {
            if generation == world.webhooks.generation.load(Ordering::SeqCst) {
                deliver(&world, &callback).await;
            }
        }
        world.webhooks.waiting.fetch_sub(1, Ordering::SeqCst);
    });
}

/// Sends a callback now, and repeats it until it is answered 2xx or the attempts are used up.
pub(super) async fn deliver(world: &World, callback: &Callback) {
    let url = world.urls.lock().find(&callback.key.label, callback.kind);
    let Some(uri) = url.as_deref().and_then(destination) else {
        world.tally.callbacks(|count| count.no_url += 1);
        return;
    };
    let mut pause = world.options.callback_retry;
    for attempt in 1..=world.options.callback_attempts.max(1) {
        world.tally.callbacks(|count| count.attempts += 1);
        let status = world.webhooks.post(&world.options, &callback.key, uri.clone(), callback.object.clone()).await;
        if status.is_some_and(|status| status.is_success()) {
            world.tally.callbacks(|count| count.delivered += 1);
            return;
        }
        if attempt < world.options.callback_attempts {
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(world.options.callback_retry_max);
        }
    }
    world.tally.callbacks(|count| count.failed += 1);
}
