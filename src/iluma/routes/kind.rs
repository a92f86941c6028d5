//! The kinds of rows of the route table: the handler, the charge, the treatment of references.

use crate::iluma::subject::Subject;
use http::Method;

/// The handler of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Reads the body of a request and answers it from the cache if possible.
    CachedRequest(Subject),
    /// Answers with a record by its id. A final answer is cached. For its owners a pending record is polled at most
    /// once a second, unless a request asks for a call of its own.
    CachedRecord(Subject),
    /// Answers with a public list, cached for every tenant of an account.
    PublicList(Subject),
    /// Answers with Iluma's health, without a key.
    Health(Subject),
    /// Makes a record, or repeats the capture of one. The record's reference is prefixed, and the tenant becomes an
    /// owner.
    Submission,
    /// Answers with one record by its id, or with a list of records. The tenant sees only its own records.
    Records,
    /// Answers with a file that belongs to a record.
    File,
    /// Streams the bodies of the request and of the answer.
    Streamed,
    /// Serves a callback setting of the tenant. The setting never reaches Iluma.
    CallbackSetting,
    /// Serves the team's own API.
    OwnApi,
    /// Answers OPTIONS with the path's methods, and sends nothing. No row has this kind: the router sets it by the
    /// method.
    Options,
    /// Refuses the request.
    Forbidden,
    /// Serves paths that match no row; `upstream.unknown_routes` decides if they are forwarded.
    Unknown,
    /// Refuses a path in a collection of records that matches no row. No row has this kind: the router sets it by the
    /// path.
    Closed,
    /// Refuses a path below the team's own API that matches no row. No row has this kind: the router sets it by the
    /// path.
    Absent,
}

impl Kind {
    /// Returns true if each request goes to Iluma, because the cache stores no answers of this kind.
    #[must_use]
    pub const fn is_always_sent(self) -> bool {
        match self {
            Self::Submission | Self::Records | Self::File | Self::Streamed | Self::Unknown => true,
            Self::CachedRequest(_)
            | Self::CachedRecord(_)
            | Self::PublicList(_)
            | Self::Health(_)
            | Self::CallbackSetting
            | Self::OwnApi
            | Self::Options
            | Self::Forbidden
            | Self::Closed
            | Self::Absent => false,
        }
    }

    /// Returns the subject under which the cache stores the answers; `None` if the cache stores no answers of this
    /// kind.
    #[must_use]
    pub const fn subject(self) -> Option<Subject> {
        match self {
            Self::CachedRequest(subject)
            | Self::CachedRecord(subject)
            | Self::PublicList(subject)
            | Self::Health(subject) => Some(subject),
            Self::Submission
            | Self::Records
            | Self::File
            | Self::Streamed
            | Self::CallbackSetting
            | Self::OwnApi
            | Self::Options
            | Self::Forbidden
            | Self::Unknown
            | Self::Closed
            | Self::Absent => None,
        }
    }

    /// Returns true if an operator's `[[routes]]` entry may name a row of this kind in `like`. Such a row is a part of
    /// Iluma's API.
    #[must_use]
    pub const fn is_of_ilumas_api(self) -> bool {
        match self {
            Self::CachedRequest(_)
            | Self::CachedRecord(_)
            | Self::PublicList(_)
            | Self::Submission
            | Self::Records
            | Self::File
            | Self::Streamed => true,
            Self::Health(_)
            | Self::CallbackSetting
            | Self::OwnApi
            | Self::Options
            | Self::Forbidden
            | Self::Unknown
            | Self::Closed
            | Self::Absent => false,
        }
    }

    /// Returns the method of all rows of this kind; `None` if the rows of this kind may have different methods.
    #[must_use]
    pub const fn only_method(self) -> Option<Method> {
        match self {
            Self::CachedRequest(_) => Some(Method::POST),
            Self::PublicList(_) => Some(Method::GET),
            Self::CachedRecord(_)
            | Self::Health(_)
            | Self::Submission
            | Self::Records
            | Self::File
            | Self::Streamed
            | Self::CallbackSetting
            | Self::OwnApi
            | Self::Options
            | Self::Forbidden
            | Self::Unknown
            | Self::Closed
            | Self::Absent => None,
        }
    }
}

/// Iluma's charge for the calls of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Iluma never charges.
    Never,
    /// Iluma's answer decides if Iluma charges; `ledger::charge` has the rules.
    Answered,
    /// The charge is unknown, because the row is not documented.
    Unknown,
}

/// The treatment of references before they are sent to Iluma.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// A reference gets the tenant's prefix.
    Prefixed,
    /// A reference passes unchanged, unless it has another tenant's prefix.
    Checked,
    /// The row takes no reference, or nothing is sent.
    Untouched,
}
