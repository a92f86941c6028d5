//! What a callback's body says to the gateway: its id, and the reference in it.

use crate::base::json::Members;
use crate::base::json_template::{Absent, JsonTemplate};
use crate::base::name::TenantName;
use bytes::Bytes;

/// The longest id that is taken for one; Iluma's have 24 or 36 characters.
const LONGEST_ID: usize = 256;

/// A callback's body, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    /// None in Iluma's test payload.
    pub(super) id: Option<String>,
    /// `reference_id`, unescaped.
    pub(super) reference: Option<String>,
    spliced: JsonTemplate,
}

/// Why a body can't be a callback's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the body must be one JSON object, with an id of at most 256 characters, and no member of these twice: id, reference_id"
)]
pub struct Malformed;

impl Body {
    /// Reads a body.
    ///
    /// # Errors
    /// It is not a JSON object, or has no id that can be told.
    pub(super) fn parse(raw: &Bytes) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(raw).map_err(|_| Malformed)?;
        let members: Members<'_> = serde_json::from_str(text).map_err(|_| Malformed)?;
        let only = |name: &str| {
            let mut found = members.0.iter().filter(|(known, _)| known == name);
            match (found.next(), found.next()) {
                (_, Some(_)) => Err(Malformed),
                (found, None) => Ok(found.map(|(_, value)| value.get())),
            }
        };
        let string = |value: &str| serde_json::from_str::<Option<String>>(value).map_err(|_| Malformed);
        let id = only("id")?.map(string).transpose()?.flatten().filter(|id| !id.is_empty());
        if id.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
            return Err(Malformed);
        }
        // What is no string is nobody's reference.
        let reference = only("reference_id")?.and_then(|value| string(value).ok().flatten());
        let spliced = JsonTemplate::around(text, &members, Absent::Insert).ok_or(Malformed)?;
        Ok(Self { id, reference, spliced })
    }

    /// The team that the reference is sealed with, and its own reference as JSON text: none if it gave none.
    pub(super) fn seal(&self) -> Option<(TenantName, Option<Bytes>)> {
        let (tenant, own) = self.reference.as_deref()?.split_once(':')?;
        let own = if own.is_empty() { None } else { serde_json::to_vec(own).ok().map(Bytes::from) };
        Some((tenant.parse().ok()?, own))
    }

    /// The body for whoever gave this reference (JSON text with its quotes), or none. Every other byte stays.
    pub(super) fn with(&self, reference: Option<&[u8]>) -> Bytes {
        self.spliced.with(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Body, Malformed> {
        Body::parse(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn every_owner_gets_the_same_bytes_with_its_own_reference() {
        for (body, with, without) in [
            (
                r#"{"id":"1","reference_id":"t:x","b":2}"#,
                r#"{"id":"1","reference_id":"N","b":2}"#,
                r#"{"id":"1","b":2}"#,
            ),
            (r#"{"reference_id":"t:x" , "id":"1"}"#, r#"{"reference_id":"N" , "id":"1"}"#, r#"{ "id":"1"}"#),
            (r#"{"reference_id":null}"#, r#"{"reference_id":"N"}"#, "{}"),
            (r#"{"id":"1" }"#, r#"{"id":"1","reference_id":"N" }"#, r#"{"id":"1" }"#),
            (" {} ", r#" {"reference_id":"N"} "#, " {} "),
        ] {
            let body = parse(body).unwrap();
            assert_eq!(body.with(Some(br#""N""#)), with);
            assert_eq!(body.with(None), without);
        }
    }

    #[test]
    fn an_id_is_told_exactly_or_not_at_all() {
        let id = |text: &str| parse(text).map(|body| body.id);
        assert_eq!(id(r#"{"id":"a\u0062"}"#), Ok(Some("ab".into())));
        for none in ["{}", r#"{"id":null}"#, r#"{"id":""}"#, r#"{"type":"X","test":true}"#] {
            assert_eq!(id(none), Ok(None), "{none}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(LONGEST_ID + 1));
        for bad in ["", "x", "[]", "null", r#"{"id":1}"#, r#"{"id":"1","id":"1"}"#, r#"{"id":"1""#, "{}{}", &long] {
            assert_eq!(id(bad), Err(Malformed), "{bad}");
        }
        assert_eq!(id(r#"{"id":"1","reference_id":"a","reference_id":"b"}"#), Err(Malformed));
    }

    #[test]
    fn a_seal_names_a_team_and_its_reference() {
        let seal = |reference: &str| parse(&format!(r#"{{"reference_id":{reference}}}"#)).unwrap().seal();
        let sealed = |team: &str, own: Option<&'static str>| Some((team.parse().unwrap(), own.map(Bytes::from)));
        assert_eq!(seal(r#""lending:foo""#), sealed("lending", Some(r#""foo""#)));
        assert_eq!(seal(r#""lending:""#), sealed("lending", None));
        assert_eq!(seal(r#""lending:a:\"b""#), sealed("lending", Some(r#""a:\"b""#)));
        for none in ["null", "1", r#""foo""#, r#"":foo""#, r#""Lending:foo""#, r#""a team:foo""#] {
            assert_eq!(seal(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Body::parse(&bytes.into());
        }

        #[test]
        fn a_reference_put_in_is_the_one_that_is_read(members in proptest::collection::btree_map("[a-h]{1,3}", any::<i32>(), 0..4), own in ".{0,20}", at in 0..5_usize) {
            let mut fields: Vec<_> = members.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
            let plain = format!("{{{}}}", fields.join(","));
            fields.insert(at.min(fields.len()), r#""reference_id":"t:x""#.into());
            let body = parse(&format!("{{{}}}", fields.join(","))).unwrap();
            prop_assert_eq!(body.with(None), &plain);
            let own_text = serde_json::to_string(&own).unwrap();
            for body in [body, parse(&plain).unwrap()] {
                let put = body.with(Some(own_text.as_bytes()));
                prop_assert_eq!(Body::parse(&put).unwrap().reference, Some(own.clone()));
            }
        }
    }
}
