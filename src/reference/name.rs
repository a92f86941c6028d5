//! The names of parameters that some servers read as the reference.

/// The parameter that gets the prefix.
pub(super) const REFERENCE: &str = "reference_id";

/// The reference's name without its underscore. Some servers drop such characters from names.
const FOLDED: &str = "referenceid";

/// The meaning of a parameter's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// All servers read the parameter as the reference.
    Reference,
    /// Some servers read the parameter as the reference.
    Ambiguous,
    /// No server reads the parameter as the reference.
    Other,
}

/// Returns the meaning of a parameter's name in JSON, a form, a query or a multipart body, as various servers read it.
/// Some servers read `reference_id[0]` and `[reference_id]` as `reference_id` (qs, PHP, Rack). Others ignore case, trim
/// names, cut them at NUL, or replace dots and spaces by underscores (PHP). Others read `referenceId` and
/// `reference-id` as the same field (Jackson, Spring).
pub(super) fn named(name: &str) -> Named {
    if name == REFERENCE {
        Named::Reference
    } else if folded(name).eq(FOLDED.chars()) || begins_with_reference(name) {
        Named::Ambiguous
    } else {
        Named::Other
    }
}

/// Returns the meaning of a name whose beginning is `name`; its end is unknown. A name that may turn out to be the
/// reference's name is ambiguous.
pub(super) fn named_so_far(name: &str) -> Named {
    let mut expected = FOLDED.chars();
    let may_become = folded(name).all(|letter| expected.next() == Some(letter));
    if may_become || begins_with_reference(name) { Named::Ambiguous } else { Named::Other }
}

/// Returns the letters and digits of a name in lower case.
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars().flat_map(char::to_lowercase).filter(|letter| letter.is_alphanumeric())
}

/// Returns true if a name begins with `reference_id`, for servers that cut a name off at an unusual character, such as
/// `[`.
fn begins_with_reference(name: &str) -> bool {
    let skipped = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | '"' | '\'' | '\u{feff}');
    let name = name.trim_start_matches(skipped).as_bytes();
    let Some((head, tail)) = name.split_at_checked(REFERENCE.len()) else { return false };
    let same = |(byte, wanted): (&u8, u8)| {
        byte.eq_ignore_ascii_case(&wanted) || (wanted == b'_' && matches!(byte, b'.' | b' ' | b'+'))
    };
    let ends = tail.first().is_none_or(|b| b.is_ascii() && !b.is_ascii_alphanumeric() && !matches!(b, b'_' | b'-'));
    head.iter().zip(REFERENCE.bytes()).all(same) && ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_some_server_reads_as_the_reference_is_ambiguous() {
        assert_eq!(named("reference_id"), Named::Reference);
        for name in [
            "reference_id[]",
            "reference_id[0]",
            "[reference_id]",
            "Reference_Id",
            " reference_id",
            "reference_id ",
            "reference.id",
            "reference id",
            "reference-id",
            "referenceId",
            "REFERENCEID",
            "_reference__id_",
            "re\u{200b}ference_id",
            "reference_\u{130}d",
            "reference_id\0x",
            "reference_id.x",
            "\"reference_id\"",
            "\u{feff}reference_id",
        ] {
            assert_eq!(named(name), Named::Ambiguous, "{name}");
        }
        for name in ["reference", "reference_ids", "reference_id_2", "my_reference_id", "", "é", "preference_id"] {
            assert_eq!(named(name), Named::Other, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_cut_off_is_judged_by_what_it_may_become() {
        for name in ["", "   ", "----reference", "reference_id", "reference_id]x"] {
            assert_eq!(named_so_far(name), Named::Ambiguous, "{name}");
        }
        for name in ["x", "reference_ix", "referenceids", "data"] {
            assert_eq!(named_so_far(name), Named::Other, "{name}");
        }
    }
}
