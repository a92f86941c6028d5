//! The reference of an upstream call, by which the ledger settles the call if its answer is lost.

use crate::base::name::AccountName;
use crate::iluma::answer::Answer;
use crate::iluma::route_name::RouteName;
use crate::ledger::Referrer;
use crate::reference::{Outcome, ReferencePrefix, reference_text};
use std::fmt;
use std::sync::Arc;

/// The reference of an upstream call, as far as the ledger needs it.
#[derive(Clone, Default)]
pub(super) enum CallReference {
    /// The call has no reference that the ledger needs.
    #[default]
    None,
    /// The call makes a record with this reference. If the account adds prefixes, the text includes the prefix.
    Known(String),
    /// The call makes a record, and its body is streamed. Once the reference was read from the body, it is in the
    /// `Outcome`, without this prefix. Iluma gets it with the prefix.
    Streamed(ReferencePrefix, Arc<Outcome>),
    /// The call is a GET of a record whose id is in no answer that this gateway knows. The answer of the call that made
    /// the record may be lost. So the record's reference may settle that call.
    Unanswered,
}

impl CallReference {
    /// Returns the reference of a call that makes a record. `json` is the caller's own reference, as JSON text. Returns
    /// [`Self::None`] if the caller gave no reference, an empty one, or one that is no text.
    pub(super) fn of(prefix: Option<&ReferencePrefix>, json: Option<&[u8]>) -> Self {
        prefixed(prefix, json).map_or(Self::None, Self::Known)
    }

    /// Returns the reference of a GET of a record. `is_named` is true if an earlier answer may have contained the
    /// record's id. Returns [`Self::Unanswered`] if `is_named` is false, else [`Self::None`].
    pub(super) const fn of_get(is_named: bool) -> Self {
        if is_named { Self::None } else { Self::Unanswered }
    }

    /// Makes the end of a streamed body wait until the call's reference is in the ledger. Does nothing if the body is
    /// not streamed.
    pub(super) fn write_before_end(&self, referrer: Referrer, account: AccountName, route: RouteName) {
        let Self::Streamed(prefix, outcome) = self else { return };
        let prefix = prefix.clone();
        outcome.before_end(move |json| {
            Box::pin(async move {
                if let Some(text) = prefixed(Some(&prefix), Some(&json)) {
                    referrer.refer(&account, route, &text).await;
                }
            })
        });
    }

    /// Returns the reference as Iluma knows it; `None` if the call has no reference, or if the reference was not read
    /// yet.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Known(text) => Some(text.clone()),
            Self::Streamed(prefix, outcome) => {
                let json = outcome.result()?.ok()??;
                prefixed(Some(prefix), Some(&json))
            }
            Self::None | Self::Unanswered => None,
        }
    }
}

/// Returns the reference in an answer, as Iluma knows it; `None` if the answer has no reference.
pub(super) fn answered(answer: &Answer) -> Option<String> {
    answer.reference().and_then(|json| reference_text(json))
}

fn prefixed(prefix: Option<&ReferencePrefix>, json: Option<&[u8]>) -> Option<String> {
    let text = json.and_then(reference_text).filter(|text| !text.is_empty())?;
    Some(match prefix {
        Some(prefix) => format!("{}:{text}", prefix.tenant()),
        None => text,
    })
}

impl fmt::Debug for CallReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A log must not contain a reference.
        f.write_str("CallReference(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_call_has_the_reference_that_its_answer_will_have() {
        let prefix = ReferencePrefix::of(&"lending".parse().unwrap());
        let text = |prefix, json: Option<&str>| CallReference::of(prefix, json.map(str::as_bytes)).text();
        for (prefix, json, expected) in [
            (Some(&prefix), Some(r#""r""#), Some("lending:r")),
            (Some(&prefix), Some(r#""\u0072""#), Some("lending:r")),
            (Some(&prefix), Some(r#""""#), None),
            (Some(&prefix), None, None),
            (None, Some(r#""r""#), Some("r")),
            (None, Some("7"), None),
        ] {
            assert_eq!(text(prefix, json).as_deref(), expected, "{json:?}");
        }
        let answer = |body: &str| answered(&Answer::parse(&Bytes::copy_from_slice(body.as_bytes()), None));
        assert_eq!(answer(r#"{"id":"a","reference_id":"lending\u003ar"}"#).as_deref(), Some("lending:r"));
        assert_eq!(answer(r#"{"id":"a"}"#), None);
    }
}
