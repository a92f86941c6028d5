//! The process manager's socket (`$NOTIFY_SOCKET`, systemd's `Type=notify-reload`): ready, reloading, stopping, alive.

use super::stage::Stage;
use sd_notify::NotifyState;
use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Reports that the gateway serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reports that a reload has begun; [`ready`] reports its end. The message contains the monotonic time. The process
/// manager compares this time with the time of its reload order, and so knows that the message answers the order.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock can't be read"),
    }
}

/// Reports that the gateway drains.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Reports twice in each watchdog period that the gateway is alive, until the stage ends. If the process manager has no
/// watchdog, nothing is reported. The task shares the runtime with requests, so the reports stop when the runtime is
/// stuck.
pub(super) fn keep_alive(stage: &Stage) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else { return };
    stage.spawn_until_end(async move {
        loop {
            tell(&[NotifyState::Watchdog]);
            tokio::time::sleep(period / 2).await;
        }
    });
}

/// Sends a message to the process manager. Does nothing if `$NOTIFY_SOCKET` is not set.
fn tell(states: &[NotifyState<'_>]) {
    let socket = env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let sent = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => send_abstract(name, states),
        None => sd_notify::notify(states),
    };
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot send a message to the process manager ($NOTIFY_SOCKET); is it running?");
    }
}

/// Sends a message to a socket in the abstract namespace, which has no file (sd_notify(3)). The library `sd_notify`
/// supports only sockets with files.
fn send_abstract(name: &[u8], states: &[NotifyState<'_>]) -> io::Result<()> {
    let message: String = states.iter().map(|state| format!("{state}\n")).collect();
    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(message.as_bytes(), &address).map(drop)
}
