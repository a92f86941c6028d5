//! Fields of entries, in the form that scripts take and return.

use crate::iluma::callback_type::CallbackType;
use std::str::FromStr;

/// The fields of one entry, as bytes, in the order in which a script returns them.
pub(super) type Fields = Vec<Vec<u8>>;

pub(super) fn text_of(kind: Option<CallbackType>) -> &'static str {
    kind.map_or("", CallbackType::as_str)
}

pub(super) fn parsed<T: FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}
