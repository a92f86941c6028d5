//! A bank or watchlist request, as the cache and the reference prefix need it.

use super::body::BodyError;
use super::insert_point::InsertPoint;
use super::prefix::ReferencePrefix;
use crate::base::json_template::Absent;
use bytes::Bytes;

/// The content of a bank or watchlist request.
#[derive(Debug)]
pub struct Question {
    /// All members except `reference_id` in one canonical encoding: equal exactly if the questions are equal.
    pub parameters: Vec<u8>,
    /// The caller's reference as JSON text with its quotes; none if it is absent or null.
    pub reference: Option<Bytes>,
    /// The reason why the answer must not be shared, if there is one.
    pub ambiguity: Option<Ambiguity>,
    /// The place of the prefix; none if the body cannot be read.
    pub(super) place: Option<InsertPoint>,
}

/// Compares meaning and reference; the spelling does not matter.
impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.parameters == other.parameters && self.reference == other.reference && self.ambiguity == other.ambiguity
    }
}

impl Eq for Question {}

/// The reasons why a question must bypass the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// A member is given twice: Iluma may read either one.
    DuplicateMember,
    /// It is nested deeper than any real question.
    Nesting,
    /// It could not be parsed, or not exactly.
    Unreadable,
    /// Its bytes mean something else in the charset that its head declares.
    Charset,
}

impl Question {
    /// Returns a question that could not be parsed, for a route on which Iluma judges that.
    #[must_use]
    pub const fn unreadable() -> Self {
        Self { parameters: Vec::new(), reference: None, ambiguity: Some(Ambiguity::Unreadable), place: None }
    }

    /// Returns the reference of a request whose query may have one as well.
    ///
    /// # Errors
    /// Both have one: Iluma may read either.
    pub fn only_reference(&self, in_query: Option<Bytes>) -> Result<Option<Bytes>, BodyError> {
        match (&self.reference, in_query) {
            (Some(_), Some(_)) => Err(BodyError::Reference),
            (own, in_query) => Ok(own.clone().or(in_query)),
        }
    }

    /// Returns the body that it was parsed from, without a byte order mark. None for an [unreadable](Self::unreadable)
    /// question.
    #[must_use]
    pub fn body(&self) -> Option<&Bytes> {
        self.place.as_ref().map(InsertPoint::whole)
    }

    /// Returns the body that it was parsed from with the reference prefixed. If the caller gave no reference, `absent` says
    /// whether the body gets the bare prefix. None for an [unreadable](Self::unreadable) question.
    #[must_use]
    pub fn prefixed(&self, prefix: &ReferencePrefix, absent: Absent) -> Option<Bytes> {
        self.place.as_ref().map(|place| place.prefixed(prefix, absent))
    }
}
