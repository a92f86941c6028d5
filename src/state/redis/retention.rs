//! Erasure of persons, and removal of old entries.

use super::super::error::StateError;
use super::super::idempotency::KEPT;
use super::super::model::{EARLY, Erased, LATE};
use super::super::times::length;
use super::engine::{MOST_TOUCHED, Redis};
use crate::config::Retention;
use crate::iluma::person::Tag;
use crate::redis::scripts::state::{ERASE, SWEEP};
use redis::ScriptInvocation;
use std::time::Duration;

impl Redis {
    pub(in super::super) async fn erase(&self, tags: &[Tag]) -> Result<Erased, StateError> {
        let mut erased = Erased::default();
        for tag in tags {
            let person = self.secrecy.person(tag);
            let (mut first, mut more) = (true, true);
            while more {
                let erase = |call: &mut ScriptInvocation<'_>| {
                    call.arg(&person).arg(u8::from(first)).arg(MOST_TOUCHED);
                };
                let (owners, callbacks, deliveries, answers, rest): (u64, u64, u64, u64, bool) =
                    self.run(&ERASE, erase).await?;
                erased.owners += owners;
                erased.callbacks += callbacks;
                erased.deliveries += deliveries;
                erased.answers += answers;
                (first, more) = (false, rest);
            }
        }
        Ok(erased)
    }

    pub(in super::super) async fn sweep(&self) -> Result<u64, StateError> {
        let Retention { owners, delivered_callbacks: delivered, dead_letters: dead, .. } = self.retention;
        // A person is kept as long as any entry that the person leads to.
        let persons = owners.max(delivered).max(dead).max(KEPT) + EARLY + LATE;
        let mut swept = 0;
        for (list, age) in [
            ("deliveries:delivered", delivered),
            ("deliveries:known", delivered),
            ("deliveries:dead", dead),
            // Such a delivery belongs to a team that is not configured any more.
            ("deliveries:queued", dead),
            ("callbacks:kept", Duration::ZERO),
            ("callbacks:known", delivered),
            ("callbacks:unowned", Duration::ZERO),
            ("owners", owners),
            ("claims", KEPT),
            ("sessions", Duration::ZERO),
            ("persons", persons),
            ("erased", persons),
        ] {
            let sweep = |call: &mut ScriptInvocation<'_>| {
                call.arg(list).arg(length(age)).arg(MOST_TOUCHED);
            };
            swept += self.run::<u64>(&SWEEP, sweep).await?;
        }
        Ok(swept)
    }
}
