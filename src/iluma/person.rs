//! Person tags: keyed hashes of identity numbers and names, by which everything about a person is found and erased.
//!
//! Invariants: without the root key a tag does not reveal its person; a request, an answer, a callback and an order to
//! erase give the same tag for the same person, in any letter case, spacing or field; every field of Iluma's API
//! document is either a means of identification, or an exception with a reason (a test checks this).

use crate::base::json::{self, Items, Members};
use crate::base::keyring::Pseudonymizer;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

/// The tag of a person: a keyed hash of one means of identification, such as an identity number or a name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag([u8; 16]);

impl Tag {
    /// Returns the tag's bytes, for storage.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Makes a tag from stored bytes; `None` if the length is wrong.
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

/// The means of identification, each with the names of the fields that hold it in Iluma's requests and answers.
const FIELDS: &[(&str, &[&str])] = &[
    ("nik", &["nik", "id_card_number", "ktp_number", "idNumber"]),
    ("npwp", &["npwp", "npwp_number", "tax_number", "npwpId"]),
    ("trn", &["trn_number"]),
    ("passport", &["passport_number"]),
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
            "npwpName",
        ],
    ),
];

/// Two fields that identify a person only together.
const ACCOUNT: [&str; 2] = ["bank_code", "bank_account_number"];

/// The two fields of a name. Many people share a given name, so one tag is made of both fields if both are given.
const NAME: [&str; 2] = ["given_name", "surname"];

/// The names of those entries of a business document whose values are names of persons. An entry has the form
/// `{"name":"director_names","values":[{"value":"…"}]}`.
const DOCUMENT_NAMES: &[&str] =
    &["director_names", "commisioner_names", "commissioner_names", "shareholder_names", "notary"];
const DOCUMENT_ENTRY: [&str; 2] = ["name", "values"];

/// The deepest nesting that is read; no documented answer is nested deeper than 5.
const DEEPEST: usize = 16;
/// The largest number of tags for one text. No document names so many persons. Further persons in the text get no tag.
const MOST_TAGS: usize = 256;

/// The error for an order to erase that names no person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "give the person as one JSON object of strings, and nothing else: bank_code and bank_account_number; or given_name, with \
     surname if there is one; or any of nik, npwp, trn_number, passport_number, phone_number, email, name"
)]
pub struct NotAPerson;

/// The maker of person tags.
#[derive(Clone, Debug)]
pub struct Persons(Pseudonymizer);

impl Persons {
    /// Derives the maker of tags from the root key. With the same key it makes the same tags, on every node and after
    /// every start.
    #[must_use]
    pub fn new(root: &[u8; 32]) -> Self {
        Self(Pseudonymizer::new(root, "persons v1"))
    }

    /// Returns a tag for every person that a JSON text names, at any depth; no tags for a text that is not JSON.
    #[must_use]
    pub fn in_json(&self, text: &[u8]) -> BTreeSet<Tag> {
        let mut tags = BTreeSet::new();
        if let Ok(text) = std::str::from_utf8(text) {
            self.collect(text, DEEPEST, &mut tags);
        }
        tags
    }

    /// Returns a tag for every person that these fields name.
    #[must_use]
    pub fn in_fields<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> BTreeSet<Tag> {
        let mut tags = BTreeSet::new();
        self.collect_fields(fields, &mut tags);
        tags
    }

    /// Returns the tags of the person whom an order to erase names. The order is one JSON object of strings. Each of
    /// its members identifies a person, alone or together with other members.
    ///
    /// # Errors
    /// Returns an error if the order names no person, or has a field that does not help to identify a person.
    pub fn named(&self, order: &[u8]) -> Result<BTreeSet<Tag>, NotAPerson> {
        let text = std::str::from_utf8(order).map_err(|_| NotAPerson)?;
        let Members(members) = serde_json::from_str(text).map_err(|_| NotAPerson)?;
        let fields = members.iter().map(|(name, value)| {
            let value: String = serde_json::from_str(value.get()).map_err(|_| NotAPerson)?;
            Ok((name.as_ref(), value))
        });
        let fields = fields.collect::<Result<Vec<(&str, String)>, NotAPerson>>()?;
        let given: HashSet<&str> = fields.iter().map(|(name, _)| *name).collect();
        let known = |name: &str| FIELDS.iter().any(|(_, names)| names.contains(&name));
        let has = |wanted: &str| given.contains(wanted);
        for (name, value) in &fields {
            let is_whole =
                (ACCOUNT.contains(name) && ACCOUNT.into_iter().all(has)) || (NAME.contains(name) && has(NAME[0]));
            if value.trim().is_empty() || !(known(name) || is_whole) {
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
                Some(b'"') => json::text(value).map(Cow::into_owned),
                // Some clients write account numbers as JSON numbers.
                Some(b'-' | b'0'..=b'9') => Some(value.to_owned()),
                _ => None,
            };
            let mut fields: Vec<(&str, String)> =
                members.iter().filter_map(|(name, value)| Some((name.as_ref(), plain(value.get())?))).collect();
            if let Some((_, values)) = members.iter().find(|(name, _)| name == DOCUMENT_ENTRY[1])
                && let Some(at) = fields.iter().position(|(name, _)| *name == DOCUMENT_ENTRY[0])
            {
                // The name of an entry is not a person's name.
                let (_, entry) = fields.swap_remove(at);
                if DOCUMENT_NAMES.contains(&entry.as_str()) {
                    self.collect_values(values.get(), depth, tags);
                }
            }
            self.collect_fields(fields.iter().map(|(name, value)| (*name, value.as_str())), tags);
            members.iter().for_each(|(_, value)| self.collect(value.get(), depth, tags));
        }
    }

    /// Adds the names among the values of an entry of a business document: a text, `{"value":…}`, or a list of either.
    fn collect_values(&self, text: &str, depth: usize, tags: &mut BTreeSet<Tag>) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Ok(name) = serde_json::from_str::<String>(text) {
            // An academic degree follows a comma.
            let plain = name.split(',').next().unwrap_or_default();
            for name in [name.as_str(), plain] {
                if !name.trim().is_empty() {
                    self.add("name", &normal(name), tags);
                }
            }
        } else if let Ok(Items(items)) = serde_json::from_str(text) {
            items.iter().for_each(|item| self.collect_values(item.get(), depth, tags));
        } else if let Ok(Members(members)) = serde_json::from_str(text) {
            let values = members.iter().filter(|(name, _)| name == "value");
            values.for_each(|(_, value)| self.collect_values(value.get(), depth, tags));
        }
    }

    fn collect_fields<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a str)> + Clone, tags: &mut BTreeSet<Tag>) {
        let value = |wanted: &str| {
            fields.clone().find(|(name, value)| *name == wanted && !value.trim().is_empty()).map(|(_, value)| value)
        };
        if let [Some(bank), Some(number)] = ACCOUNT.map(value) {
            // A bank's code differs between versions of the API: in one version it has the prefix `id_`.
            let bank = normal(bank);
            let number: String = number.chars().filter(|c| c.is_alphanumeric()).collect();
            self.add("account", &format!("{}\n{}", bank.strip_prefix("id_").unwrap_or(&bank), number), tags);
        }
        match NAME.map(value) {
            [Some(given), Some(surname)] => self.add("name", &normal(&format!("{given} {surname}")), tags),
            [Some(name), None] | [None, Some(name)] => self.add("name", &normal(name), tags),
            [None, None] => {}
        }
        for (name, value) in fields.clone() {
            if let Some((kind, _)) = FIELDS.iter().find(|(_, names)| names.contains(&name))
                && !value.trim().is_empty()
            {
                if let ("phone", Some(number)) = (*kind, national(value)) {
                    self.add(kind, &number, tags);
                }
                let value = match *kind {
                    "name" | "email" => normal(value),
                    "passport" => value.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect(),
                    // Numbers may have any separators.
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

/// Returns an Indonesian phone number with its country code: `0812…`, `62812…` and `+62 812…` are the same phone.
/// `None` if the text has no digit except `0`. The caller also makes a tag of the number as it was given, because
/// earlier versions stored that tag.
fn national(number: &str) -> Option<String> {
    let digits: String = number.chars().filter(char::is_ascii_digit).collect();
    // After the trunk prefix `0` there is no country code. An area code may look like a country code.
    let own = match digits.strip_prefix("00") {
        None if digits.starts_with('0') => &digits,
        international => {
            let international = international.unwrap_or(&digits);
            international.strip_prefix("62").unwrap_or(international)
        }
    };
    let own = own.trim_start_matches('0');
    (!own.is_empty()).then(|| format!("+62{own}"))
}

/// Returns a text in lower case, with single spaces.
fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persons_are_found_in_linear_time() {
        use crate::base::linear::{assert_linear, repeated};
        for (before, piece, behind) in [
            ("[", "[1],", "1]"),
            ("", r#"{"a":"#, ""),
            (r#"{"nik":1"#, r#","given_name":"a""#, "}"),
            (r#"{"nik":"1""#, r#","nik":"2""#, "}"),
            (r#"{"name":""#, "a ", r#""}"#),
            (r#"{"bank_code":"a","bank_account_number":""#, r"\\u0031", r#""}"#),
            (r#"{"x":"y""#, r#","bank_code":"a""#, "}"),
        ] {
            assert_linear(
                &format!("{before}{piece}"),
                |size| repeated(before, piece, behind, size),
                |text| {
                    let _ = persons().in_json(text.as_bytes());
                    let _ = persons().named(text.as_bytes());
                },
            );
        }
    }

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
    fn a_phone_is_the_same_however_its_country_is_written() {
        let spellings =
            ["081234567890", "+62 812-3456-7890", "6281234567890", "0062 81234567890", "+62 (0)812 34567890"];
        for order in spellings {
            let order = named(&format!(r#"{{"phone_number":"{order}"}}"#));
            for text in spellings {
                let found = persons().in_json(format!(r#"{{"mobile_number":"{text}"}}"#).as_bytes());
                assert!(!found.is_disjoint(&order), "{text}");
            }
            let other = persons().in_json(br#"{"phone":"081234567891"}"#);
            assert!(other.is_disjoint(&order));
        }
        // 0622 is an area code.
        let area = named(r#"{"phone_number":"062212345"}"#);
        assert!(!persons().in_json(br#"{"phone":"+6262212345"}"#).is_disjoint(&area));
        assert!(persons().in_json(br#"{"phone":"+62212345"}"#).is_disjoint(&area));
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
            r#"{"surname":"A"}"#,
            r#"{"given_name":" "}"#,
            r#"{"given_name":"A","surname":""}"#,
            r#"{"nik":1}"#,
            r#"{"nik":"1","shoe_size":"42"}"#,
            r#"{"nik":"1","bank_code":"BCA"}"#,
        ] {
            assert_eq!(persons().named(bad.as_bytes()), Err(NotAPerson), "{bad}");
        }
    }

    #[test]
    fn many_people_have_one_name_alone() {
        let order = named(r#"{"given_name":"Sukarno"}"#);
        for text in [
            r#"{"given_name":"SUKARNO"}"#,
            r#"{"given_name":"SUKARNO","surname":""}"#,
            r#"{"given_name":"SUKARNO","surname":null}"#,
            r#"{"request_name":"Sukarno "}"#,
            r#"{"data":{"surname":"Sukarno"}}"#,
        ] {
            assert_eq!(persons().in_json(text.as_bytes()), order, "{text}");
        }
        let both = persons().in_json(br#"{"given_name":"Sukarno","surname":"Demo"}"#);
        assert!(both.is_disjoint(&order), "it is another person");
    }

    #[test]
    fn documents_name_persons_in_fields_of_their_own() {
        let name = |name: &str| named(&format!(r#"{{"name":"{name}"}}"#));
        for (text, tags) in [
            (r#"{"data":{"idNumber":"31 71"}}"#, named(r#"{"nik":"3171"}"#)),
            (r#"{"data":{"npwpId":"12.3"}}"#, named(r#"{"npwp":"123"}"#)),
            (r#"{"data":{"npwpName":"CONTOH DEMO"}}"#, name("Contoh Demo")),
            (r#"{"data":{"passport_number":"E00007734"}}"#, named(r#"{"passport_number":"e 0000-7734"}"#)),
            (
                r#"{"result":{"data":[{"name":"director_names","values":[{"value":"CONTOH SATU"},{"value":"CONTOH DUA"}]}]}}"#,
                &name("contoh satu") | &name("contoh dua"),
            ),
            (r#"[{"name":"notary","values":{"value":"CONTOH,SH"}}]"#, &name("contoh,sh") | &name("contoh")),
            (r#"[{"values":["CONTOH"],"name":"shareholder_names"}]"#, name("contoh")),
            (r#"[{"name":"legal_entity_name","values":{"value":"PT CONTOH"}}]"#, BTreeSet::new()),
            (r#"[{"name":"commisioner_names","values":{"value":null}}]"#, BTreeSet::new()),
        ] {
            assert_eq!(persons().in_json(text.as_bytes()), tags, "{text}");
        }
    }

    /// The names of all fields in the examples and tables of Iluma's API document, requests and answers.
    const DOCUMENTED: &[&str] = &[
        "account_holder_name",
        "address",
        "after_id",
        "aliases",
        "are_eyes_open",
        "bank_account_holder_name",
        "bank_account_number",
        "bank_code",
        "birthPlaceBirthday",
        "birthdate",
        "business_name",
        "business_owner_name",
        "business_registration_ocr",
        "capture_link",
        "city",
        "confidence",
        "confidence_level",
        "country",
        "country_code",
        "created",
        "data",
        "date_of_birth",
        "date_of_expiry",
        "date_of_issue",
        "date_of_registration",
        "district",
        "document_name",
        "email",
        "expiryDate",
        "face_mask_detected",
        "face_match_percentage",
        "failure_reason",
        "gender",
        "given_name",
        "has_more",
        "href",
        "id",
        "idNumber",
        "id_card_number",
        "id_card_ocr",
        "image",
        "image_one",
        "image_two",
        "is_a_match",
        "is_face_cropped",
        "is_found",
        "is_live",
        "is_normal_account",
        "is_tampered",
        "is_verified",
        "is_virtual_account",
        "issuing_authority",
        "ktp_image",
        "limit",
        "link",
        "links",
        "maritalStatus",
        "match_percentage",
        "match_score",
        "method",
        "multiple_faces_detected",
        "name",
        "name_match",
        "nationality",
        "need_review",
        "nik",
        "npwpId",
        "npwpName",
        "occupation",
        "origin",
        "pages",
        "passport_number",
        "phone",
        "pid",
        "place_of_birth",
        "province",
        "reference_id",
        "registrationOffice",
        "registration_number",
        "rel",
        "religion",
        "request_name",
        "result",
        "results",
        "rtrw",
        "selfie",
        "status",
        "surname",
        "trn_number",
        "type",
        "types",
        "updated",
        "value",
        "values",
        "village",
    ];

    /// The names of the entries of a business document.
    const DOCUMENTED_ENTRIES: &[&str] = &[
        "director_names",
        "commisioner_names",
        "shareholder_names",
        "sk_menkeh_number",
        "legal_entity_name",
        "date_of_registration",
        "document_date",
        "akta_number",
        "notary",
        "place_of_registration",
        "establishment_place",
    ];

    /// The fields and entries that are no means of identification, each group with its reason.
    const EXCEPTIONS: &[(&str, &[&str])] = &[
        (
            "It is a place or date of birth, or an address; many people share it.",
            &[
                "address",
                "birthPlaceBirthday",
                "birthdate",
                "city",
                "date_of_birth",
                "district",
                "nationality",
                "place_of_birth",
                "province",
                "rtrw",
                "village",
            ],
        ),
        ("It describes many people.", &["gender", "maritalStatus", "occupation", "religion"]),
        (
            "It belongs to a document, which is found by the number or name of its person.",
            &[
                "akta_number",
                "country",
                "country_code",
                "date_of_expiry",
                "date_of_issue",
                "date_of_registration",
                "document_date",
                "document_name",
                "establishment_place",
                "expiryDate",
                "issuing_authority",
                "place_of_registration",
                "registrationOffice",
                "registration_number",
                "sk_menkeh_number",
            ],
        ),
        ("It names a company.", &["business_name", "legal_entity_name"]),
        ("It belongs to a person on a public list, who is found by name.", &["aliases", "origin", "pid"]),
        (
            "It is the result of a comparison or a check.",
            &[
                "are_eyes_open",
                "confidence",
                "confidence_level",
                "face_mask_detected",
                "face_match_percentage",
                "failure_reason",
                "is_a_match",
                "is_face_cropped",
                "is_found",
                "is_live",
                "is_normal_account",
                "is_tampered",
                "is_verified",
                "is_virtual_account",
                "match_percentage",
                "match_score",
                "multiple_faces_detected",
                "name_match",
                "need_review",
            ],
        ),
        ("It names a record, which is found by its person.", &["id", "reference_id"]),
        (
            "It is a picture, or leads to one; it is in no text.",
            &["capture_link", "href", "image", "image_one", "image_two", "ktp_image", "link", "links", "selfie"],
        ),
        (
            "It contains other fields, which are read.",
            &["business_registration_ocr", "data", "id_card_ocr", "result", "results", "value", "values"],
        ),
        (
            "It tells the state, type or page of a record or a list.",
            &[
                "after_id", "created", "has_more", "limit", "method", "pages", "rel", "status", "type", "types",
                "updated",
            ],
        ),
    ];

    #[test]
    fn every_documented_field_identifies_a_person_or_is_an_exception() {
        let exceptions: Vec<&str> = EXCEPTIONS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let means = |name: &str| {
            FIELDS.iter().any(|(_, names)| names.contains(&name)) || ACCOUNT.contains(&name) || NAME.contains(&name)
        };
        let mut faults = Vec::new();
        for (name, means) in DOCUMENTED
            .iter()
            .map(|name| (*name, means(name)))
            .chain(DOCUMENTED_ENTRIES.iter().map(|name| (*name, DOCUMENT_NAMES.contains(name))))
        {
            match (means, exceptions.contains(&name)) {
                (false, false) => faults.push(format!("{name} is neither a means of identification nor an exception")),
                (true, true) => faults.push(format!("{name} is both")),
                (true, false) | (false, true) => {}
            }
        }
        let is_documented = |name: &&str| DOCUMENTED.contains(name) || DOCUMENTED_ENTRIES.contains(name);
        faults.extend(
            exceptions.iter().filter(|name| !is_documented(name)).map(|name| format!("{name} is not documented")),
        );
        assert!(faults.is_empty(), "{faults:#?}");
    }

    #[test]
    fn depth_and_number_are_bounded() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(persons().in_json(deep.as_bytes()).is_empty());
        let many = (0..1000).map(|n| format!(r#"{{"nik":"{n}"}}"#)).collect::<Vec<_>>().join(",");
        assert_eq!(persons().in_json(format!("[{many}]").as_bytes()).len(), MOST_TAGS);
    }
}
