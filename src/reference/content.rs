//! A bank or watchlist request, parsed for the cache and the reference prefix.

use super::body::BodyError;
use super::insert_point::InsertPoint;
use super::prefix::ReferencePrefix;
use crate::base::json_template::Absent;
use bytes::Bytes;

/// The content of a bank or watchlist request.
#[derive(Debug)]
pub struct RequestContent {
    /// All members except `reference_id`, in a canonical encoding. Two encodings are equal exactly if the requests mean
    /// the same. The encoding is empty if the body can't be read.
    pub parameters: Vec<u8>,
    /// The caller's reference as JSON text with its quotes; `None` if it is absent or null.
    pub reference: Option<Bytes>,
    /// The reason why the answer must not be shared with other requests; `None` if it may be.
    pub ambiguity: Option<Ambiguity>,
    /// The body, with the position at which the prefix is inserted; `None` if the body can't be read.
    pub(super) place: Option<InsertPoint>,
}

/// Compares the parameters, the reference and the ambiguity. The bytes of the bodies may differ.
impl PartialEq for RequestContent {
    fn eq(&self, other: &Self) -> bool {
        self.parameters == other.parameters && self.reference == other.reference && self.ambiguity == other.ambiguity
    }
}

impl Eq for RequestContent {}

/// The reason why a request must bypass the cache: two readers may understand it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguity {
    /// A member is given twice: Iluma may read either one.
    DuplicateMember,
    /// The body is nested deeper than any real request.
    Nesting,
    /// The body could not be parsed, or a member's name could not be read exactly.
    Unreadable,
    /// The head declares a charset in which the bytes may mean something else.
    Charset,
}

impl RequestContent {
    /// Returns the content of a request that could not be parsed. Some routes forward such a request, and leave the
    /// refusal to Iluma.
    #[must_use]
    pub const fn unreadable() -> Self {
        Self { parameters: Vec::new(), reference: None, ambiguity: Some(Ambiguity::Unreadable), place: None }
    }

    /// Returns the reference of a request as JSON text: that of this body, or that of the query (`in_query`). Returns
    /// `None` if neither has a reference.
    ///
    /// # Errors
    /// Returns an error if both have a reference: Iluma may read either one.
    pub fn only_reference(&self, in_query: Option<Bytes>) -> Result<Option<Bytes>, BodyError> {
        match (&self.reference, in_query) {
            (Some(_), Some(_)) => Err(BodyError::Reference),
            (own, in_query) => Ok(own.clone().or(in_query)),
        }
    }

    /// Returns the body that was parsed. A byte order mark of a JSON body is removed. Returns `None` for an
    /// [unreadable](Self::unreadable) request.
    #[must_use]
    pub fn body(&self) -> Option<&Bytes> {
        self.place.as_ref().map(InsertPoint::whole)
    }

    /// Returns the parsed body with the reference prefixed. If the caller gave no reference, `absent` decides whether
    /// the body gets the bare prefix. Returns `None` for an [unreadable](Self::unreadable) request.
    #[must_use]
    pub fn prefixed(&self, prefix: &ReferencePrefix, absent: Absent) -> Option<Bytes> {
        self.place.as_ref().map(|place| place.prefixed(prefix, absent))
    }
}
