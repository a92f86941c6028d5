//! Hand-outs of leased entries, which a cancelled caller gives back.

use super::super::error::StateError;
use super::engine::Redis;
use std::sync::Arc;
use tokio::sync::oneshot;

/// An entry that is handed out under a lease.
pub(super) trait Leased: Send + Sync + Sized + 'static {
    /// Ends the lease, so that the entry can be handed out again at once.
    fn give_back(&self, engine: &Redis) -> impl Future<Output = Result<(), StateError>> + Send;
}

/// Entries that have not reached their caller yet. If this value is dropped, the entries are given back.
struct HandOut<T: Leased> {
    engine: Arc<Redis>,
    entries: Vec<T>,
}

impl<T: Leased> Drop for HandOut<T> {
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        // At the end of a process nothing can be given back: the leases end by themselves.
        if entries.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let engine = Arc::clone(&self.engine);
        self.engine.tasks.spawn(async move {
            for entry in entries {
                // If this fails, the lease ends by itself.
                let _ = entry.give_back(&engine).await;
            }
        });
    }
}

/// Runs `step`, which leases entries, and returns these entries. If the caller is cancelled, `step` still runs to its
/// end, and the entries are given back.
pub(super) async fn hand_out<T: Leased>(
    engine: &Arc<Redis>,
    step: impl Future<Output = Result<Vec<T>, StateError>> + Send + 'static,
) -> Result<Vec<T>, StateError> {
    let (answer, answered) = oneshot::channel();
    let owner = Arc::clone(engine);
    engine.tasks.spawn(async move {
        let handed = step.await.map(|entries| HandOut { engine: owner, entries });
        let _ = answer.send(handed);
    });
    let handed: Result<HandOut<T>, StateError> = answered.await.unwrap_or(Err(StateError::Unavailable));
    handed.map(|mut handed| std::mem::take(&mut handed.entries))
}
