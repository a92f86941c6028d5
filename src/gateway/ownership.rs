//! The ownership of a record, and a team's view of Iluma's answer about it.
//!
//! Invariant: a record of another team gets the same answer as a record that does not exist, after the same call to
//! Iluma, and with the same bytes.

use super::core::Gateway;
use super::exchange::Exchange;
use super::owners::{Owned, Requester};
use super::received::Received;
use super::replies::{is_absent, of_parts, stripped};
use super::send;
use crate::cache::{Entry, Hit};
use crate::iluma::record_id;
use crate::iluma::route_name::RouteName;
use crate::redis::Budget;
use crate::reference::{Ownership, PrefixStripper, Record, ReferencePrefixes, reference_text};
use crate::reply::{self, Rejection, ReplyBody};
use crate::state::{Copy, Made, Owner, StateError};
use crate::upstream::Collected;
use bytes::Bytes;
use http::Response;

/// The owner of a record according to state, which is read before Iluma is called.
pub(super) enum Known {
    /// The team is an owner.
    Own(Owner),
    /// The team is not known as an owner; `taken` is true if another team is known as one.
    Unknown { taken: bool },
    /// State can't be read.
    Unavailable,
}

impl Known {
    /// Returns true if an earlier answer may have contained the record's id: the record has an owner, or state can't be
    /// read.
    pub(super) const fn is_named(&self) -> bool {
        match self {
            Self::Unknown { taken: false } => false,
            Self::Unknown { taken: true } | Self::Own(_) | Self::Unavailable => true,
        }
    }

    pub(super) fn of(state: Result<(Option<Owner>, bool), StateError>) -> Self {
        match state {
            Ok((Some(owner), _)) => Self::Own(owner),
            Ok((None, taken)) => Self::Unknown { taken },
            Err(_) => Self::Unavailable,
        }
    }
}

/// The team's view of Iluma's answer about a record.
pub(super) enum Seen {
    /// The whole record: the team owns it.
    Own(Bytes),
    /// Nothing: the team does not own the record, the record does not exist, or Iluma's answer shows no record.
    Nothing,
}

/// Decides whether a team sees a record. A team that state knows as an owner sees it. Otherwise the prefix in the
/// record's reference decides. A record without a prefix is shown only to the fallback owner, if no other team is known
/// to own it. Returns an error if state has to decide and can't be read.
pub(super) fn may_see(ownership: Ownership, known: &Known, owns_unprefixed: bool) -> Result<bool, Rejection> {
    match (ownership, known) {
        (_, Known::Own(_)) | (Ownership::Own, _) => Ok(true),
        (Ownership::Foreign, _) => Ok(false),
        (Ownership::Unprefixed, Known::Unavailable) => Err(Rejection::OwnerUnknown),
        (Ownership::Unprefixed, Known::Unknown { taken }) => Ok(owns_unprefixed && !taken),
    }
}

impl Exchange<'_> {
    /// Reads the owner of a record from state.
    pub(super) async fn known_owner(&self, id: &str) -> Known {
        let (tenant, owners) = (self.tenant, &self.gateway.owners);
        Known::of(owners.of_in_time(&tenant.name, &tenant.account, id, &self.log.redis).await)
    }

    /// Checks that the team owns the record in the path, by a GET of that record. Returns `Ok(None)` if the team owns
    /// it, and the refusal "not found" if not. If Iluma fails to answer, returns the response that reports this
    /// failure.
    pub(super) async fn check_owner(&mut self) -> Result<Option<Response<ReplyBody>>, Rejection> {
        let id = self.route.record.clone().ok_or(Rejection::Internal)?;
        // The GET is needed even if state knows the team as an owner: the answer of a file or a recapture has no id
        // that proves that it belongs to this record.
        let known = self.known_owner(&id).await;
        let target = self.route.capture().ok_or(Rejection::NotFound)?;
        let received = self.get(RouteName::CaptureGet, target, send::own_head()).await?;
        match self.see(&id, &known, &received).await? {
            Seen::Own(_) => Ok(None),
            Seen::Nothing if is_absent(&received.collected) => Err(Rejection::NotFound),
            Seen::Nothing => Ok(Some(self.failed(&known, received.collected))),
        }
    }

    /// Returns the team's view of Iluma's answer about a record. If state does not know the team as an owner,
    /// [`may_see`] decides. A team that sees the record becomes an owner in state.
    pub(super) async fn see(&self, id: &str, known: &Known, received: &Received) -> Result<Seen, Rejection> {
        if !received.is_success() {
            return Ok(Seen::Nothing);
        }
        let prefixes = self.prefix();
        let none = ReferencePrefixes::of([]);
        let prefixes_of_all = prefixes.as_ref().map_or(&none, |(_, prefixes)| *prefixes);
        let Some(record) = Record::of_answer(&received.answer, prefixes_of_all) else { return Ok(Seen::Nothing) };
        if !record.id.as_deref().is_some_and(|own| record_id::is_named_by(own, id)) {
            return Ok(Seen::Nothing);
        }
        if let Known::Own(owner) = known {
            return Ok(Seen::Own(record.with(owner.reference.as_deref())));
        }
        let ownership = prefixes.as_ref().map_or(Ownership::Unprefixed, |(prefix, _)| record.ownership(prefix));
        if !may_see(ownership, known, self.tenant.owns_unprefixed)? {
            return Ok(Seen::Nothing);
        }
        // From now on state knows the owner, and the next answer may come from memory.
        let tags: Vec<_> = received.answer.persons().iter().copied().collect();
        let owned = Owned { id, reference: record.reference.as_deref(), awaits: true, tags: &tags };
        self.gateway.owners.own(&self.requester(), owned, &self.log.redis).await;
        Ok(Seen::Own(record.own()))
    }

    /// Builds the answer for a failure of Iluma's. The answer reveals nothing about a record: only the record's owner
    /// sees the failure's text.
    pub(super) fn failed(&self, known: &Known, mut answer: Collected) -> Response<ReplyBody> {
        let Known::Own(owner) = known else { return reply::withheld_failure(answer.status) };
        let Some((prefix, prefixes)) = self.prefix() else {
            return of_parts(answer.status, answer.headers, ReplyBody::full(answer.body));
        };
        // The failure may still contain the record's reference, whichever team made it.
        if let Some(record) = Record::read(&answer.body, prefixes) {
            answer.body = record.seen_by(&prefix);
        }
        let reference = owner.reference.as_deref().and_then(reference_text);
        stripped(answer, &PrefixStripper::new(prefix, reference.as_deref()))
    }
}

impl Gateway {
    /// Makes the team an owner of the record in an answer from the cache. For a final answer, also creates the callback
    /// that Iluma would have sent after a call.
    pub(super) async fn own_hit(&self, requester: &Requester, hit: &Hit, reference: Option<&[u8]>, redis: &Budget) {
        let Entry { id: Some(id), pending, tags, body, .. } = &*hit.entry else { return };
        self.owners.own(requester, Owned { id, reference, awaits: *pending, tags }, redis).await;
        if *pending {
            return;
        }
        if let Some(kind) = requester.kind
            && self.callbacks.may_listen(&requester.tenant)
        {
            let (tenant, reference, body) =
                (requester.tenant.clone(), reference.map(Bytes::copy_from_slice), body.with(reference));
            let copy = Copy { tenant, reference, body };
            let (account, id) = (requester.account.clone(), id.to_string());
            self.callbacks.hit(Made { account, id, kind, copy, tags: tags.to_vec() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_who_sees_a_record() {
        let own = || {
            Known::Own(Owner {
                tenant: "lending".parse().unwrap(),
                reference: None,
                since: std::time::SystemTime::UNIX_EPOCH,
            })
        };
        let (free, taken) = (|| Known::Unknown { taken: false }, || Known::Unknown { taken: true });
        let unavailable = || Known::Unavailable;
        let (yes, no, untold) = (Ok(true), Ok(false), Err(Rejection::OwnerUnknown));
        for (ownership, known, owns_unprefixed, expected) in [
            (Ownership::Own, free(), false, yes),
            (Ownership::Own, taken(), false, yes),
            (Ownership::Own, unavailable(), false, yes),
            (Ownership::Foreign, free(), true, no),
            (Ownership::Foreign, unavailable(), true, no),
            // The team received the record by a hit or a shared call.
            (Ownership::Foreign, own(), false, yes),
            (Ownership::Unprefixed, own(), false, yes),
            (Ownership::Unprefixed, free(), false, no),
            (Ownership::Unprefixed, free(), true, yes),
            (Ownership::Unprefixed, taken(), true, no),
            (Ownership::Unprefixed, unavailable(), true, untold),
            (Ownership::Unprefixed, unavailable(), false, untold),
        ] {
            assert_eq!(may_see(ownership, &known, owns_unprefixed), expected, "{ownership:?}");
        }
    }
}
