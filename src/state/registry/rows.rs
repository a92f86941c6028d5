//! Rows of the registry, and the merge of two copies of the registry, as pure functions.

use std::collections::BTreeMap;

/// The kind of a row. It decides what the row's name and value mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    /// The record of a key. The row's name is the key's id.
    Key,
    /// The end of a key in milliseconds since 1970. The row's name is the key's id. For a revoked key the number is
    /// negative, and its absolute value is the time of the revocation.
    End,
    /// The minute of a key's last use in milliseconds since 1970. The row's name is the key's id.
    Used,
    /// The suspension of a tenant. The row's name is the tenant's name. The value is twice the version of the
    /// suspension, plus one while the tenant is suspended.
    Suspension,
}

/// The rule by which one of two values of a row is kept: the first, the smallest, or the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Once,
    Least,
    Most,
}

impl Field {
    pub(super) const ALL: [Self; 4] = [Self::Key, Self::End, Self::Used, Self::Suspension];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::End => "end",
            Self::Used => "used",
            Self::Suspension => "suspension",
        }
    }

    pub(super) const fn rule(self) -> Rule {
        match self {
            Self::Key => Rule::Once,
            Self::End => Rule::Least,
            Self::Used | Self::Suspension => Rule::Most,
        }
    }
}

impl Rule {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Least => "least",
            Self::Most => "most",
        }
    }
}

/// The name of a row: its kind, and the key's id or the tenant's name.
pub(super) type Name = (Field, String);

/// Rows of the registry: a whole copy, or the rows of an order.
pub(super) type Rows = BTreeMap<Name, String>;

/// Returns the rows of `news` that `known` lacks, or whose value supersedes the value in `known`.
pub(super) fn changes(known: &Rows, news: &Rows) -> Rows {
    let is_change = |(name, value): &(&Name, &String)| supersedes(name.0, known.get(*name).map(String::as_str), value);
    news.iter().filter(is_change).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn supersedes(field: Field, known: Option<&str>, value: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    match (field.rule(), known) {
        (Rule::Once, None) => true,
        (Rule::Once, Some(_)) => false,
        (Rule::Least, known) => number(value).is_some_and(|new| known.and_then(number).is_none_or(|old| new < old)),
        (Rule::Most, known) => number(value).is_some_and(|new| known.and_then(number).is_none_or(|old| new > old)),
    }
}

/// Returns a row's name in the form in which Redis stores it: the kind, a colon, and the rest of the name.
pub(super) fn field_of((field, name): &Name) -> String {
    format!("{}:{name}", field.as_str())
}

/// Reads a row's name from the form in which Redis stores it; `None` if the kind is unknown.
pub(super) fn name_of(text: &str) -> Option<Name> {
    let (field, name) = text.split_once(':')?;
    let field = Field::ALL.into_iter().find(|known| known.as_str() == field)?;
    Some((field, name.to_owned()))
}

/// Returns a value of a suspension that supersedes the stored value `known`. `now` is in milliseconds since 1970.
pub(super) fn suspension(known: Option<&str>, now: i64, is_suspended: bool) -> String {
    let version = known.and_then(|text| text.parse::<i64>().ok()).map_or(now, |known| (known / 2 + 1).max(now));
    (version * 2 + i64::from(is_suspended)).to_string()
}

/// Returns true if the value of a suspension says that the tenant is suspended.
pub(super) fn is_suspended(value: &str) -> bool {
    value.parse::<i64>().is_ok_and(|value| value % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_moves_one_way() {
        for (field, known, value, expected) in [
            (Field::Key, None, "a", true),
            (Field::Key, Some("a"), "b", false),
            (Field::End, None, "5", true),
            (Field::End, Some("5"), "4", true),
            (Field::End, Some("5"), "6", false),
            (Field::End, Some("-5"), "4", false),
            (Field::End, Some("damaged"), "4", true),
            (Field::End, None, "damaged", false),
            (Field::Used, Some("5"), "6", true),
            (Field::Used, Some("5"), "5", false),
            (Field::Suspension, Some("7"), "6", false),
        ] {
            assert_eq!(supersedes(field, known, value), expected, "{field:?} {known:?} {value}");
        }
    }

    #[test]
    fn the_last_order_about_a_suspension_wins_on_a_slow_clock_too() {
        let first = suspension(None, 1000, true);
        let second = suspension(Some(&first), 10, false);
        let third = suspension(Some(&second), 10, true);
        assert!(is_suspended(&first) && !is_suspended(&second) && is_suspended(&third));
        assert!(supersedes(Field::Suspension, Some(&first), &second));
        assert!(supersedes(Field::Suspension, Some(&second), &third));
    }

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for field in Field::ALL {
            assert_eq!(name_of(&field_of(&(field, "a:b".to_owned()))), Some((field, "a:b".to_owned())));
        }
        assert_eq!(name_of("other:x"), None);
    }
}
