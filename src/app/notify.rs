//! The process manager's socket (`$NOTIFY_SOCKET`, systemd's `Type=notify-reload`): ready, reloading, stopping, alive.

use super::stage::Stage;
use sd_notify::NotifyState;

/// Tells that the gateway serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that another configuration is being read; [`ready`] ends it. The time tells the process manager that this is the
/// answer to its order and not to one before.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock can't be read"),
    }
}

/// Tells that the gateway drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells twice in each of the watchdog's periods that the gateway is alive, if the process manager wants to know, until
/// the stage ends. The task runs where requests are served: it says nothing more once the runtime is stuck.
pub(super) fn keep_alive(stage: &Stage) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    stage.spawn_until_end(async move {
        loop {
            tell(&[NotifyState::Watchdog]);
            tokio::time::sleep(period / 2).await;
        }
    });
}

/// Sends a message, if there is a socket to send it to.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot send a message to the process manager ($NOTIFY_SOCKET); is it running?");
    }
}
