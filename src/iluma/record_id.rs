//! Ids of Iluma's records, in the one form in which the gateway compares them.

use percent_encoding::percent_decode_str;

/// The longest accepted id, in bytes. Iluma's ids have 24 to 41 characters.
pub const LONGEST_ID: usize = 256;

/// Returns the id unchanged; `None` if it is empty, or longer than [`LONGEST_ID`].
#[must_use]
pub fn within_bound(id: &str) -> Option<&str> {
    (1..=LONGEST_ID).contains(&id.len()).then_some(id)
}

/// Returns true if a segment of a path, which may be percent-encoded, names this id.
#[must_use]
pub fn is_named_by(id: &str, segment: &str) -> bool {
    within_bound(id).is_some() && percent_decode_str(segment).decode_utf8().is_ok_and(|segment| segment == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_names_exactly_one_id() {
        for (id, segment, expected) in [
            ("5f1a", "5f1a", true),
            ("5f:a", "5f%3Aa", true),
            ("5f1a", "5F1A", false),
            ("5f1a", "5f1a%00", false),
            ("", "", false),
        ] {
            assert_eq!(is_named_by(id, segment), expected, "{id} {segment}");
        }
    }
}
