//! The context of one tenant's request. A handler takes the whole context, instead of its parts.

use super::call_reference::CallReference;
use super::claim::Idempotency;
use super::core::Gateway;
use super::owners::Requester;
use super::request_log::RequestLog;
use super::runtime::{Account, RuntimeConfig};
use crate::base::bounded_body::BodyTimeouts;
use crate::iluma::routes::Route;
use crate::reference::{self, ReferencePrefix, ReferencePrefixes};
use crate::reply::Rejection;
use crate::tenant::Tenant;
use bytes::Bytes;
use http_body::Body;
use std::sync::Arc;

/// One tenant's request that was authenticated and admitted.
pub(super) struct Exchange<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) config: &'a Arc<RuntimeConfig>,
    pub(super) tenant: &'a Tenant,
    pub(super) route: Route,
    pub(super) log: &'a mut RequestLog,
    /// The role of a request with an idempotency key; `None` for a request without a key, and once the request's own
    /// call has begun.
    pub(super) idempotency: Option<Idempotency>,
    /// The reference of the calls that the request makes from now on.
    pub(super) call: CallReference,
}

impl<'a> Exchange<'a> {
    /// Returns the account whose credential the tenant's calls carry.
    pub(super) fn account(&self) -> &'a Account {
        &self.config.accounts[self.tenant.account_index]
    }

    /// Returns the tenant's reference prefix, and the prefixes of all teams of its account; `None` if the account adds
    /// no prefixes.
    pub(super) fn prefix(&self) -> Option<(ReferencePrefix, &'a ReferencePrefixes)> {
        self.config.prefix(self.tenant)
    }

    /// Returns the tenant's reference prefix, and the prefixes of all teams of its account. Both are needed even if the
    /// account adds no prefixes, because no reference may begin with another team's prefix.
    pub(super) fn prefixes(&self) -> (ReferencePrefix, &'a ReferencePrefixes) {
        self.config.prefixes(self.tenant)
    }

    /// Returns true if the request repeats an earlier one whose answer is stored. Nothing is sent for such a request.
    pub(super) fn is_repetition(&self) -> bool {
        matches!(self.idempotency, Some(Idempotency::Repetition(_)))
    }

    /// Returns the tenant as the requester of a record.
    pub(super) fn requester(&self) -> Requester {
        Requester {
            tenant: self.tenant.name.clone(),
            account: self.tenant.account.clone(),
            kind: self.route.callback_type,
            asked: self.log.asked(),
        }
    }

    /// Reads the request's body whole.
    pub(super) async fn read<B: Body<Data = Bytes>>(&mut self, body: B) -> Result<Bytes, Rejection> {
        let timeouts = self.config.upstream.timeouts();
        let log = &*self.log;
        let timeouts = BodyTimeouts { idle: timeouts.idle, total: timeouts.answer };
        let body = reference::read(body, timeouts, |bytes| log.reserve_room(bytes)).await?;
        self.log.request_bytes = body.len() as u64;
        Ok(body)
    }
}
