//! References in the query of a target.

use super::body::BodyError;
use super::form;
use super::prefix::ReferencePrefix;
use crate::base::json_template::{Absent, join};
use bytes::Bytes;
use http::uri::PathAndQuery;

impl ReferencePrefix {
    /// Returns `target` with the prefix added to the `reference_id` in its query, and the caller's own reference as
    /// JSON text with its quotes. If the query has no reference, the second value is `None`, and `absent` decides
    /// whether the query gets the bare prefix. For lists `absent` is [`Absent::Leave`], because Iluma itself refuses a
    /// list without a reference.
    ///
    /// # Errors
    /// Returns an error if `reference_id` is given twice, or can't be read exactly.
    pub fn target(&self, target: &PathAndQuery, absent: Absent) -> Result<(PathAndQuery, Option<Bytes>), BodyError> {
        let query = Bytes::copy_from_slice(target.query().unwrap_or_default().as_bytes());
        let (place, reference) = form::query(&query)?;
        let prefixed = place.prefixed(self, absent);
        if prefixed == query {
            return Ok((target.clone(), reference));
        }
        let whole = join(&[target.path().as_bytes(), b"?", &prefixed]);
        // The text was a valid target before, and all characters of a prefix are valid in a target.
        let target = PathAndQuery::from_maybe_shared(whole).map_err(|_| BodyError::Malformed)?;
        Ok((target, reference))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{RequestContent, reference_text};
    use http::HeaderMap;
    use http::header::CONTENT_TYPE;
    use proptest::prelude::*;

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    fn prefix() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn prefixed(content_type: &str, body: &str, absent: Absent) -> Result<String, BodyError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let content = RequestContent::parse(&headers, &Bytes::copy_from_slice(body.as_bytes()))?;
        Ok(String::from_utf8(content.prefixed(&prefix(), absent).unwrap().to_vec()).unwrap())
    }

    fn target(target: &str, absent: Absent) -> Result<(String, Option<String>), BodyError> {
        let (target, reference) = prefix().target(&target.parse().unwrap(), absent)?;
        Ok((target.to_string(), reference.map(|json| reference_text(&json).unwrap())))
    }

    #[test]
    fn only_the_reference_of_a_body_changes() {
        for (kind, body, expected) in [
            (JSON, r#"{"reference_id":"foo"}"#, r#"{"reference_id":"lending:foo"}"#),
            (
                JSON,
                r#" { "a" : 1.50 , "reference_id" : "f\u00f6\/" } "#,
                r#" { "a" : 1.50 , "reference_id" : "lending:f\u00f6\/" } "#,
            ),
            (JSON, r#"{"reference\u005fid":"","b":[]}"#, r#"{"reference\u005fid":"lending:","b":[]}"#),
            (JSON, r#"{"reference_id":"lending:foo"}"#, r#"{"reference_id":"lending:lending:foo"}"#),
            (
                JSON,
                r#"{"a":{"reference_id":"in"},"reference_id":"é"}"#,
                r#"{"a":{"reference_id":"in"},"reference_id":"lending:é"}"#,
            ),
            (FORM, "a=1&reference_id=foo&b=+", "a=1&reference_id=lending%3Afoo&b=+"),
            (FORM, "reference%5Fid=%66", "reference%5Fid=lending%3A%66"),
            (FORM, "reference_id=", "reference_id=lending%3A"),
            (FORM, "a&reference_id", "a&reference_id=lending%3A"),
        ] {
            for absent in [Absent::Insert, Absent::Leave] {
                assert_eq!(prefixed(kind, body, absent).as_deref(), Ok(expected), "{body}");
            }
        }
        for (kind, body, expected) in [
            (JSON, r"{}", r#"{"reference_id":"lending:"}"#),
            (JSON, "{ }\n", "{\"reference_id\":\"lending:\" }\n"),
            (JSON, "{\"a\" : 1 }\n", "{\"a\" : 1,\"reference_id\":\"lending:\" }\n"),
            (JSON, r#"{"a":{"reference_id":"in"}}"#, r#"{"a":{"reference_id":"in"},"reference_id":"lending:"}"#),
            (JSON, r#"{"reference_id": null ,"a":1}"#, r#"{"reference_id": "lending:" ,"a":1}"#),
            (FORM, "", "reference_id=lending%3A"),
            (FORM, "a=1", "a=1&reference_id=lending%3A"),
            (FORM, "a=1&", "a=1&reference_id=lending%3A"),
        ] {
            assert_eq!(prefixed(kind, body, Absent::Insert).as_deref(), Ok(expected), "{body}");
            assert_eq!(prefixed(kind, body, Absent::Leave).as_deref(), Ok(body), "{body}");
        }
    }

    #[test]
    fn a_reference_that_servers_read_in_two_ways_is_refused() {
        for name in [
            "reference_id[]",
            "reference_id[0]",
            "[reference_id]",
            "Reference_Id",
            " reference_id",
            "reference_id ",
            "reference.id",
            "reference id",
            "reference_id\0x",
            "reference_id.x",
            "\"reference_id\"",
            "\u{feff}reference_id",
        ] {
            let encoded: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            for form in [format!("{encoded}=x"), format!("reference_id=a&{encoded}=x")] {
                assert_eq!(prefixed(FORM, &form, Absent::Insert), Err(BodyError::Reference), "{form}");
                assert_eq!(target(&format!("/x?{form}"), Absent::Leave), Err(BodyError::Reference), "{form}");
            }
        }
        for form in ["a=1;reference_id=x", "reference_id=a;reference_id=b", "a;reference_id"] {
            assert_eq!(prefixed(FORM, form, Absent::Insert), Err(BodyError::Reference), "{form}");
            assert_eq!(target(&format!("/x?{form}"), Absent::Leave), Err(BodyError::Reference), "{form}");
        }
        for json in [
            r#"{"reference_id":"a","REFERENCE_ID":"b"}"#,
            r#"{" reference_id":"a"}"#,
            r#"{"reference_id[]":"a"}"#,
            r#"{"referenceId":"a","reference_id":"b"}"#,
            r#"{"reference-\u0069d":"a"}"#,
        ] {
            assert_eq!(prefixed(JSON, json, Absent::Insert), Err(BodyError::Reference), "{json}");
        }
        for form in [r#"{"reference_id":"a"}"#, " \n{}", "\u{feff}{\"reference_id\":\"a\"}"] {
            assert_eq!(prefixed(FORM, form, Absent::Insert), Err(BodyError::Mistyped), "{form}");
        }
    }

    #[test]
    fn a_reference_has_at_most_four_kibibytes_once_it_is_decoded() {
        for (letter, escaped, encoded) in [("a", r"\u0061", "%61"), ("\"", r"\u0022", "%22")] {
            let (most, over) = (4096, 4097);
            for (count, fits) in [(most, true), (over, false)] {
                let text = letter.repeat(count);
                let plain = format!(r#"{{"reference_id":{}}}"#, serde_json::to_string(&text).unwrap());
                let json = format!(r#"{{"reference_id":"{}"}}"#, escaped.repeat(count));
                let form = format!("reference_id={}", encoded.repeat(count));
                for (kind, body) in [(JSON, &plain), (JSON, &json), (FORM, &form)] {
                    let result = prefixed(kind, body, Absent::Insert).map(|_| ());
                    assert_eq!(result, if fits { Ok(()) } else { Err(BodyError::Reference) }, "{kind} {count}");
                }
                let result = target(&format!("/x?{form}"), Absent::Leave).map(|_| ());
                assert_eq!(result, if fits { Ok(()) } else { Err(BodyError::Reference) }, "query {count}");
            }
        }
    }

    #[test]
    fn only_the_reference_of_a_query_changes() {
        for (given, expected, reference) in [
            ("/v1/x?reference_id=foo&limit=1", "/v1/x?reference_id=lending%3Afoo&limit=1", Some("foo")),
            ("/v1/x?limit=%zz&reference_id=a%2Bb+c", "/v1/x?limit=%zz&reference_id=lending%3Aa%2Bb+c", Some("a+b c")),
            ("/v1/x?reference_id=a:b%3Ac", "/v1/x?reference_id=lending%3Aa:b%3Ac", Some("a:b:c")),
            ("/v1/x?reference_id=", "/v1/x?reference_id=lending%3A", Some("")),
            ("/v1/x?reference_id", "/v1/x?reference_id=lending%3A", Some("")),
            ("/v1/x?limit=1", "/v1/x?limit=1", None),
            ("/v1/x?", "/v1/x?", None),
            ("/v1/x", "/v1/x", None),
        ] {
            let expected = (expected.to_owned(), reference.map(str::to_owned));
            assert_eq!(target(given, Absent::Leave), Ok(expected), "{given}");
        }
        let inserted = Ok(("/v1/x?limit=1&reference_id=lending%3A".to_owned(), None));
        assert_eq!(target("/v1/x?limit=1", Absent::Insert), inserted);
        assert_eq!(target("/x", Absent::Insert), Ok(("/x?reference_id=lending%3A".to_owned(), None)));
        for bad in ["/x?reference_id=a&reference_id=a", "/x?reference_id=%", "/x?reference_id=%ff", "/x?%zz=1"] {
            assert_eq!(target(bad, Absent::Leave), Err(BodyError::Reference), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_was_prefixed_reads_as_the_prefix_and_the_reference(
            reference in any::<String>(),
            before in "[a-z]{0,3}",
            ascii in any::<bool>(),
        ) {
            let expected = format!("lending:{reference}");
            let mut text = serde_json::to_string(&reference).unwrap();
            if ascii {
                text = text.chars().map(|c| if c.is_ascii() { c.to_string() } else {
                    c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect()
                }).collect();
            }
            let body = format!(r#"{{"x{before}":1, "reference_id":{text}}}"#);
            let value: serde_json::Value = serde_json::from_str(&prefixed(JSON, &body, Absent::Insert).unwrap()).unwrap();
            prop_assert_eq!(value["reference_id"].as_str(), Some(expected.as_str()));
            prop_assert_eq!(value.as_object().unwrap().len(), 2);

            let form = form_urlencoded::Serializer::new(String::new())
                .append_pair(&format!("x{before}"), "1").append_pair("reference_id", &reference).finish();
            let pairs: Vec<_> = form_urlencoded::parse(prefixed(FORM, &form, Absent::Insert).unwrap().as_bytes())
                .into_owned().collect();
            prop_assert_eq!(&pairs[1], &("reference_id".to_owned(), expected.clone()));
            let (target, own) = target(&format!("/v1/list?{form}"), Absent::Leave).unwrap();
            let query = target.strip_prefix("/v1/list?").unwrap();
            prop_assert_eq!(form_urlencoded::parse(query.as_bytes()).into_owned().collect::<Vec<_>>(), pairs);
            prop_assert_eq!(own, Some(reference));
        }
    }
}
