//! Sessions of people, stored in Redis.

use super::super::error::StateError;
use super::super::sessions::{ABSOLUTE, IDLE, MOST_SESSIONS, SessionKind, SessionName, StoredSession};
use super::super::times::length;
use super::engine::Redis;
use super::fields::{Fields, parsed};
use crate::redis::scripts::state::{CLOSE_SESSION, OPEN_SESSION, SESSION};
use std::time::Duration;

impl Redis {
    pub(in super::super) async fn open_session(
        &self,
        name: SessionName,
        holder: String,
        secret: [u8; 32],
    ) -> Result<(), StateError> {
        self.run(&OPEN_SESSION, |call| {
            call.arg(&name).arg(&holder).arg(&secret).arg(length(IDLE)).arg(length(ABSOLUTE)).arg(MOST_SESSIONS);
        })
        .await
    }

    pub(in super::super) async fn session(
        &self,
        kind: SessionKind,
        name: SessionName,
    ) -> Result<Option<StoredSession>, StateError> {
        let row: Fields = self
            .run(&SESSION, |call| {
                call.arg(&name).arg(length(IDLE));
            })
            .await?;
        let Ok([holder, secret, left]) = <[_; 3]>::try_from(row) else { return Ok(None) };
        let (holder, secret) = (String::from_utf8(holder).ok(), <[u8; 32]>::try_from(secret).ok());
        let (Some(holder), Some(secret)) = (holder, secret) else { return Err(StateError::Refused) };
        let left = Duration::from_millis(parsed(&left).unwrap_or(0));
        Ok(kind.holder_in(&holder).map(|holder| StoredSession { holder, secret, left }))
    }

    pub(in super::super) async fn close_session(&self, name: SessionName) -> Result<(), StateError> {
        self.run(&CLOSE_SESSION, |call| {
            call.arg(&name);
        })
        .await
    }
}
