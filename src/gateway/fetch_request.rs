//! A request that the cache may answer, and its call to Iluma for the case that the cache does not.

use super::call_reference::CallReference;
use super::owners::Requester;
use super::send;
use crate::cache::CacheSlot;
use crate::iluma::person::Tag;
use crate::iluma::route_name::RouteName;
use crate::reference::{Directives, ReferencePrefix};
use crate::tenant::Tenant;
use crate::upstream::Outgoing;
use bytes::Bytes;
use http::HeaderMap;
use http::uri::PathAndQuery;
use std::collections::BTreeSet;

/// A request that the cache may answer.
pub(super) struct FetchRequest {
    pub(super) slot: CacheSlot,
    pub(super) route: RouteName,
    pub(super) directives: Directives,
    /// The caller's reference, as JSON text.
    pub(super) reference: Option<Bytes>,
    /// The index of the call's tenant; `None` for health.
    pub(super) tenant: Option<usize>,
    /// The index of the account whose credential the call carries; `None` for health.
    pub(super) account: Option<usize>,
    pub(super) outgoing: Outgoing,
    /// The persons that the request names.
    pub(super) tags: BTreeSet<Tag>,
    /// The team that becomes an owner of the record in the answer; `None` if the answer makes no owner.
    pub(super) requester: Option<Requester>,
    /// The prefix that the request's reference gets at Iluma; `None` if it gets no prefix.
    pub(super) prefix: Option<ReferencePrefix>,
    /// The reference by which the ledger may settle the call.
    pub(super) call: CallReference,
    /// The reason why the request bypasses the cache; `None` if it does not.
    pub(super) bypass: Option<&'static str>,
}

impl FetchRequest {
    /// Builds a GET whose answer is the same for all tenants in the scope of `slot`.
    pub(super) fn get(
        slot: CacheSlot,
        route: RouteName,
        tenant: Option<&Tenant>,
        directives: Directives,
        (target, headers): (PathAndQuery, HeaderMap),
    ) -> Self {
        Self {
            slot,
            route,
            directives,
            reference: None,
            tenant: tenant.map(|tenant| tenant.index),
            account: tenant.map(|tenant| tenant.account_index),
            outgoing: send::get(target, headers),
            tags: BTreeSet::new(),
            requester: None,
            prefix: None,
            call: CallReference::None,
            bypass: None,
        }
    }
}
