//! The parts of a callback's body that the gateway reads: its id and its reference.

use super::record_id;
use crate::base::json::{Items, Members};
use crate::base::json_template::{Absent, JsonTemplate};
use crate::base::name::TenantName;
use bytes::Bytes;

/// The deepest nesting that is read in the search for an id; no documented body is nested deeper than 5.
const DEEPEST: usize = 16;

/// A callback's body, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallbackBody {
    /// The id at Iluma's usual position, the member `id`; `None` if that member is absent, `null` or empty.
    pub id: Option<String>,
    /// The first id anywhere in the body, by which operators find the callback. It is empty if the members named `id`
    /// have no usable value. `None` if no member is named `id`, as in Iluma's test payload.
    pub any_id: Option<String>,
    /// The value of `reference_id`, unescaped.
    pub reference: Option<String>,
    template: JsonTemplate,
}

/// The error for a body that no callback can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the body must be one JSON object, with an id of at most 256 characters; id and reference_id may each stand in it only once"
)]
pub struct Malformed;

impl CallbackBody {
    /// Reads a body.
    ///
    /// # Errors
    /// Returns an error if the body is not a JSON object, if its id is not a text or is too long, or if its id or
    /// reference is repeated.
    pub fn parse(raw: &Bytes) -> Result<Self, Malformed> {
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
        if id.as_deref().is_some_and(|id| record_id::within_bound(id).is_none()) {
            return Err(Malformed);
        }
        let any_id = id.clone().or_else(|| nested_id(&members, DEEPEST));
        // A reference that is no text belongs to no team.
        let reference = only("reference_id")?.and_then(|value| string(value).ok().flatten());
        let template = JsonTemplate::around(text, &members, Absent::Insert).ok_or(Malformed)?;
        Ok(Self { id, any_id, reference, template })
    }

    /// Returns the tenant that the reference's prefix names, and the rest of the reference as JSON text. The rest is
    /// `None` if the team gave no reference. Returns `None` if the reference has no valid prefix.
    pub fn prefix(&self) -> Option<(TenantName, Option<Bytes>)> {
        let (tenant, own) = self.reference.as_deref()?.split_once(':')?;
        let own = if own.is_empty() { None } else { serde_json::to_vec(own).ok().map(Bytes::from) };
        Some((tenant.parse().ok()?, own))
    }

    /// Returns the body with the team's own reference, which is JSON text with its quotes. If `reference` is `None`,
    /// the body has no `reference_id`. Every other byte is unchanged.
    pub fn with(&self, reference: Option<&[u8]>) -> Bytes {
        self.template.with(reference)
    }
}

/// Returns the value of the first usable member named `id`, in any letter case, among `members` or nested in them. A
/// usable value is a text or a number. Returns an empty text if the members named `id` have no usable value, or if the
/// nesting is deeper than `depth`. `None` if no member is named `id`.
fn nested_id(members: &Members<'_>, depth: usize) -> Option<String> {
    let Some(depth) = depth.checked_sub(1) else { return Some(String::new()) };
    let mut found = None;
    for (name, value) in &members.0 {
        let text = value.get();
        let inner = if name.eq_ignore_ascii_case("id") { Some(plain(text)) } else { below(text, depth) };
        match inner {
            Some(id) if !id.is_empty() => return Some(id),
            Some(_) => found = inner,
            None => {}
        }
    }
    found
}

/// Returns the first id inside a value, in the same form as `nested_id`.
fn below(text: &str, depth: usize) -> Option<String> {
    if text.starts_with('{') {
        return nested_id(&serde_json::from_str(text).ok()?, depth);
    }
    if !text.starts_with('[') {
        return None;
    }
    let Some(depth) = depth.checked_sub(1) else { return Some(String::new()) };
    let Items(items) = serde_json::from_str(text).ok()?;
    let mut ids = items.iter().filter_map(|item| below(item.get(), depth)).peekable();
    let first = ids.peek().cloned();
    ids.find(|id| !id.is_empty()).or(first)
}

/// Returns the value of a JSON text or number if it can be an id, else an empty text.
fn plain(text: &str) -> String {
    let id = match text.as_bytes().first() {
        Some(b'"') => serde_json::from_str::<String>(text).unwrap_or_default(),
        Some(b'-' | b'0'..=b'9') => text.to_owned(),
        _ => String::new(),
    };
    if record_id::within_bound(&id).is_none() { String::new() } else { id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callback_is_read_in_linear_time() {
        use crate::base::linear::{assert_linear, repeated};
        for (before, piece, behind) in [
            (r#"{"id":"1""#, r#","a":1"#, "}"),
            (r#"{"id":"1""#, r#","id":"2""#, "}"),
            (r#"{"id":"1","reference_id":""#, "a:", r#""}"#),
            (r#"{"id":"1","data":"#, "[", ""),
            (r#"{"id":""#, r"\\u0061", r#""}"#),
        ] {
            assert_linear(
                &format!("{before}{piece}"),
                |size| repeated(before, piece, behind, size),
                |text| {
                    if let Ok(body) = CallbackBody::parse(&Bytes::copy_from_slice(text.as_bytes())) {
                        let _ = body.with(Some(b"\"x\""));
                    }
                },
            );
        }
    }
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<CallbackBody, Malformed> {
        CallbackBody::parse(&Bytes::copy_from_slice(text.as_bytes()))
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
        for (text, any_id) in [
            ("{}", None),
            (r#"{"type":"X","test":true,"data":{"url":"x"}}"#, None),
            (r#"{"reference_id":"a","ids":[1]}"#, None),
            (r#"{"id":"a"}"#, Some("a")),
            (r#"{"id":"a","data":{"id":"b"}}"#, Some("a")),
            (r#"{"id":""}"#, Some("")),
            (r#"{"id":null}"#, Some("")),
            (r#"{"ID":"a"}"#, Some("a")),
            (r#"{"id":"","data":{"id":"b"}}"#, Some("b")),
            (r#"{"type":"X","data":{"id":"b"}}"#, Some("b")),
            (r#"{"data":[{"x":1},{"id":{}},{"id":7}]}"#, Some("7")),
            (r#"{"data":{"id":[]}}"#, Some("")),
        ] {
            assert_eq!(parse(text).map(|body| body.any_id), Ok(any_id.map(str::to_owned)), "{text}");
        }
        let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
        assert_eq!(parse(&deep).map(|body| body.any_id), Ok(Some(String::new())), "it may have an id");
        for none in ["{}", r#"{"id":null}"#, r#"{"id":""}"#, r#"{"type":"X","test":true}"#] {
            assert_eq!(id(none), Ok(None), "{none}");
        }
        let long = format!(r#"{{"id":"{}"}}"#, "x".repeat(record_id::LONGEST_ID + 1));
        for bad in ["", "x", "[]", "null", r#"{"id":1}"#, r#"{"id":"1","id":"1"}"#, r#"{"id":"1""#, "{}{}", &long] {
            assert_eq!(id(bad), Err(Malformed), "{bad}");
        }
        assert_eq!(id(r#"{"id":"1","reference_id":"a","reference_id":"b"}"#), Err(Malformed));
    }

    #[test]
    fn a_prefix_names_a_tenant_and_its_reference() {
        let prefix = |reference: &str| parse(&format!(r#"{{"reference_id":{reference}}}"#)).unwrap().prefix();
        let prefixed = |team: &str, own: Option<&'static str>| Some((team.parse().unwrap(), own.map(Bytes::from)));
        assert_eq!(prefix(r#""lending:foo""#), prefixed("lending", Some(r#""foo""#)));
        assert_eq!(prefix(r#""lending:""#), prefixed("lending", None));
        assert_eq!(prefix(r#""lending:a:\"b""#), prefixed("lending", Some(r#""a:\"b""#)));
        for none in ["null", "1", r#""foo""#, r#"":foo""#, r#""Lending:foo""#, r#""a team:foo""#] {
            assert_eq!(prefix(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = CallbackBody::parse(&bytes.into());
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
                prop_assert_eq!(CallbackBody::parse(&put).unwrap().reference, Some(own.clone()));
            }
        }
    }
}
