//! Persons, without saying who: tags by which what is kept about somebody is found again, to be erased.
//!
//! Invariants: nobody without the root key can tell from a tag whom it means; a request, an answer, a callback and an order
//! to erase give the same tag for the same person, in whichever case, spacing or field the person stands in them.

use crate::base::json::{Items, Members};
use crate::base::keyring::Pseudonymizer;
use std::collections::BTreeSet;

/// One person by one means of identification.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag([u8; 16]);

impl Tag {
    /// The tag's bytes, for storage.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A tag from storage; none if these are no tag's bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tag(…)")
    }
}

/// A means of identification, and the names of the fields that hold one (`iluma-api.txt`, all requests and answers).
const FIELDS: &[(&str, &[&str])] = &[
    ("nik", &["nik", "id_card_number", "ktp_number"]),
    ("npwp", &["npwp", "npwp_number", "tax_number"]),
    ("trn", &["trn_number"]),
    ("phone", &["phone", "phone_number", "mobile_number"]),
    ("email", &["email"]),
    (
        "name",
        &[
            "name",
            "full_name",
            "request_name",
            "bank_account_holder_name",
            "account_holder_name",
            "business_owner_name",
        ],
    ),
];

/// Two fields that mean somebody only together.
const ACCOUNT: [&str; 2] = ["bank_code", "bank_account_number"];
const NAME: [&str; 2] = ["given_name", "surname"];

/// How deep answers nest; no documented one goes deeper than 5.
const DEEPEST: usize = 16;
/// More persons than any document names; what is over it is not found again by a tag of its own.
const MOST_TAGS: usize = 256;

/// Why an order to erase names nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "name the person by bank_code and bank_account_number, by given_name and surname, or by one of nik, npwp, trn_number, \
     phone_number, email, name; as strings, and nothing else"
)]
pub struct NotAPerson;

/// Makes tags.
#[derive(Clone, Debug)]
pub struct Persons(Pseudonymizer);

impl Persons {
    /// Tags that derive from the root key: the same on every node and after every start.
    #[must_use]
    pub fn new(root: &[u8; 32]) -> Self {
        Self(Pseudonymizer::new(root, "persons v1"))
    }

    /// Everybody whom a JSON text names, at any depth; nobody in what is not JSON.
    #[must_use]
    pub fn in_json(&self, text: &[u8]) -> BTreeSet<Tag> {
        let mut tags = BTreeSet::new();
        if let Ok(text) = std::str::from_utf8(text) {
            self.collect(text, DEEPEST, &mut tags);
        }
        tags
    }

    /// Everybody whom these fields name.
    #[must_use]
    pub fn in_fields<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> BTreeSet<Tag> {
        let mut tags = BTreeSet::new();
        self.collect_fields(fields, &mut tags);
        tags
    }

    /// The person whom an order to erase names: one JSON object of strings, each of which belongs to a means of
    /// identification.
    ///
    /// # Errors
    /// It names nobody, or has a field that names nobody by itself.
    pub fn named(&self, order: &[u8]) -> Result<BTreeSet<Tag>, NotAPerson> {
        let text = std::str::from_utf8(order).map_err(|_| NotAPerson)?;
        let Members(members) = serde_json::from_str(text).map_err(|_| NotAPerson)?;
        let fields = members.iter().map(|(name, value)| {
            let value: String = serde_json::from_str(value.get()).map_err(|_| NotAPerson)?;
            Ok((name.as_ref(), value))
        });
        let fields = fields.collect::<Result<Vec<(&str, String)>, NotAPerson>>()?;
        let known = |name: &str| FIELDS.iter().any(|(_, names)| names.contains(&name));
        for (name, value) in &fields {
            let partner = [ACCOUNT, NAME].into_iter().find(|pair| pair.contains(name));
            let whole = partner.is_some_and(|pair| pair.iter().all(|half| fields.iter().any(|(name, _)| name == half)));
            if value.trim().is_empty() || !(known(name) || whole) {
                return Err(NotAPerson);
            }
        }
        let tags = self.in_fields(fields.iter().map(|(name, value)| (*name, value.as_str())));
        if tags.is_empty() { Err(NotAPerson) } else { Ok(tags) }
    }

    fn collect(&self, text: &str, depth: usize, tags: &mut BTreeSet<Tag>) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if text.starts_with('[')
            && let Ok(Items(items)) = serde_json::from_str(text)
        {
            items.iter().for_each(|item| self.collect(item.get(), depth, tags));
        } else if let Ok(Members(members)) = serde_json::from_str(text) {
            let plain = |value: &str| match value.as_bytes().first() {
                Some(b'"') => serde_json::from_str::<String>(value).ok(),
                // Careless clients send account numbers as numbers.
                Some(b'-' | b'0'..=b'9') => Some(value.to_owned()),
                _ => None,
            };
            let fields: Vec<(&str, String)> =
                members.iter().filter_map(|(name, value)| Some((name.as_ref(), plain(value.get())?))).collect();
            self.collect_fields(fields.iter().map(|(name, value)| (*name, value.as_str())), tags);
            members.iter().for_each(|(_, value)| self.collect(value.get(), depth, tags));
        }
    }

    fn collect_fields<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a str)> + Clone, tags: &mut BTreeSet<Tag>) {
        let value = |wanted: &str| {
            fields.clone().find(|(name, value)| *name == wanted && !value.trim().is_empty()).map(|(_, value)| value)
        };
        if let [Some(bank), Some(number)] = ACCOUNT.map(value) {
            // The same bank has two codes, by version of the API.
            let bank = normal(bank);
            let number: String = number.chars().filter(|c| c.is_alphanumeric()).collect();
            self.add("account", &format!("{}\n{}", bank.strip_prefix("id_").unwrap_or(&bank), number), tags);
        }
        if let [Some(given), Some(surname)] = NAME.map(value) {
            self.add("name", &normal(&format!("{given} {surname}")), tags);
        }
        for (name, value) in fields.clone() {
            if let Some((kind, _)) = FIELDS.iter().find(|(_, names)| names.contains(&name))
                && !value.trim().is_empty()
            {
                let value = match *kind {
                    "name" | "email" => normal(value),
                    // Numbers are written with any separators.
                    _ => value.chars().filter(|c| c.is_alphanumeric()).collect(),
                };
                self.add(kind, &value, tags);
            }
        }
    }

    fn add(&self, kind: &str, value: &str, tags: &mut BTreeSet<Tag>) {
        if tags.len() < MOST_TAGS {
            let [name, _] = *self.0.name([kind.as_bytes(), value.as_bytes()]).as_chunks::<16>().0 else { return };
            tags.insert(Tag(name));
        }
    }
}

/// In one case, with single spaces.
fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persons() -> Persons {
        Persons::new(&[4; 32])
    }

    fn named(order: &str) -> BTreeSet<Tag> {
        persons().named(order.as_bytes()).unwrap()
    }

    #[test]
    fn a_person_is_the_same_wherever_they_stand() {
        let account = named(r#"{"bank_code":"BCA","bank_account_number":"12"}"#);
        let name = named(r#"{"given_name":"Contoh","surname":"Demo"}"#);
        let nik = named(r#"{"nik":"3171234567890123"}"#);
        for (text, tags) in [
            (r#"{"bank_account_number":"12","bank_code":"BCA","reference_id":"r"}"#, &account),
            (r#"{"bank_account_number":12,"bank_code":"ID_BCA"}"#, &account),
            (r#"{"given_name":" contoh","surname":"DEMO "}"#, &name),
            (r#"{"result":{"account_holder_name":"CONTOH  DEMO"}}"#, &name),
            (r#"[{"a":[{"id_card_number":"3171 2345 6789 0123"}]}]"#, &nik),
        ] {
            assert_eq!(&persons().in_json(text.as_bytes()), tags, "{text}");
        }
        let form = [("bank_code", "BCA"), ("bank_account_number", "12")];
        assert_eq!(persons().in_fields(form.into_iter()), account);
        let both = persons().in_json(
            br#"{"bank_code":"BCA","bank_account_number":"12","given_name":"Contoh","surname":"Demo","nik":"3171234567890123"}"#,
        );
        assert_eq!(both, &(&account | &name) | &nik);
    }

    #[test]
    fn another_person_is_another() {
        let account = named(r#"{"bank_code":"BCA","bank_account_number":"12"}"#);
        for other in [
            r#"{"bank_code":"BCA","bank_account_number":"123"}"#,
            r#"{"bank_code":"BCA","bank_account_number":"1"}"#,
            r#"{"bank_code":"BNI","bank_account_number":"12"}"#,
            r#"{"nik":"12"}"#,
        ] {
            assert!(named(other).is_disjoint(&account), "{other}");
        }
        assert!(Persons::new(&[5; 32]).named(br#"{"nik":"1"}"#).unwrap().is_disjoint(&named(r#"{"nik":"1"}"#)));
        assert_ne!(named(r#"{"nik":"1"}"#), named(r#"{"phone":"1"}"#));
    }

    #[test]
    fn an_order_names_somebody_exactly() {
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"bank_code":"BCA"}"#,
            r#"{"bank_account_number":"12"}"#,
            r#"{"bank_code":"BCA","bank_account_number":""}"#,
            r#"{"given_name":"A"}"#,
            r#"{"nik":1}"#,
            r#"{"nik":"1","shoe_size":"42"}"#,
            r#"{"nik":"1","bank_code":"BCA"}"#,
        ] {
            assert_eq!(persons().named(bad.as_bytes()), Err(NotAPerson), "{bad}");
        }
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(persons().in_json(deep.as_bytes()).is_empty());
        let many = (0..1000).map(|n| format!(r#"{{"nik":"{n}"}}"#)).collect::<Vec<_>>().join(",");
        assert_eq!(persons().in_json(format!("[{many}]").as_bytes()).len(), MOST_TAGS);
    }
}
