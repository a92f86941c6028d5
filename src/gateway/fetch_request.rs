//! A question that the cache may answer, with the call that answers it otherwise.

use super::owners::Asker;
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

/// A question that the cache may answer.
pub(super) struct FetchRequest {
    pub(super) slot: CacheSlot,
    pub(super) route: RouteName,
    pub(super) directives: Directives,
    /// The caller's reference, as JSON text.
    pub(super) reference: Option<Bytes>,
    /// The tenant of the call, by index; none for health.
    pub(super) tenant: Option<usize>,
    /// The account whose credential the call carries, by index; none for health.
    pub(super) account: Option<usize>,
    pub(super) outgoing: Outgoing,
    /// The persons that the question names.
    pub(super) tags: BTreeSet<Tag>,
    /// The team that comes to own the record in the answer, if the answer has one.
    pub(super) asker: Option<Asker>,
    /// The prefix of its reference toward Iluma.
    pub(super) prefix: Option<ReferencePrefix>,
    /// The reason for which the cache is bypassed, if it is.
    pub(super) bypass: Option<&'static str>,
}

impl FetchRequest {
    /// Builds a GET whose answer is the same for everybody in the scope of `slot`.
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
            asker: None,
            prefix: None,
            bypass: None,
        }
    }
}
