//! Parses the body of a request by the content type that its head declares.

use super::body::BodyError;
use super::content::{Ambiguity, RequestContent};
use super::content_type::{Charset, Kind};
use super::{form, json};
use bytes::Bytes;
use http::HeaderMap;

impl RequestContent {
    /// Parses a JSON or form body.
    ///
    /// # Errors
    /// Returns an error if the body is encoded, malformed or of another type. Also returns an error if the reference
    /// can't be read exactly, because the answer could not repeat it to the caller.
    pub fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Self, BodyError> {
        let (kind, charset) = Kind::with_charset(headers)?;
        let mut content = match kind {
            Kind::Json => json::content(body)?,
            Kind::Form => form::content(body)?,
            Kind::Multipart(_) => return Err(BodyError::UnknownType),
        };
        match charset {
            Charset::Utf8 => {}
            Charset::Ascii if body.is_ascii() => {}
            Charset::Ascii | Charset::Other => content.ambiguity = Some(Ambiguity::Charset),
        }
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

    fn headers(content_type: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())])
    }

    fn parse(content_type: &str, body: &str) -> Result<RequestContent, BodyError> {
        RequestContent::parse(&headers(content_type), &Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn json_and_forms_are_known_and_shared_in_utf8_alone() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;charset=\"UTF-8\""] {
            assert!(parse(good, "{}").is_ok(), "{good}");
        }
        assert!(parse("application/x-www-form-urlencoded", "a=b").is_ok());
        for bad in ["text/plain", "multipart/form-data; boundary=x", ""] {
            assert_eq!(parse(bad, "{}"), Err(BodyError::UnknownType), "{bad}");
        }
        let ambiguity = |kind: &str, body: &str| parse(kind, body).unwrap().ambiguity;
        assert_eq!(ambiguity("application/json; charset=us-ascii", r#"{"a":"x"}"#), None);
        assert_eq!(ambiguity("application/json; charset=us-ascii", r#"{"a":"é"}"#), Some(Ambiguity::Charset));
        for odd in ["utf-16", "iso-8859-1", "utf-8;charset=utf-8", "utf-8; charset*=x"] {
            let kind = format!("application/json; charset={odd}");
            assert_eq!(ambiguity(&kind, "{}"), Some(Ambiguity::Charset), "{odd}");
            let headers = headers(&kind);
            assert!(matches!(Kind::of(&headers), Err(BodyError::UnknownType)), "{odd}");
        }
        assert!(
            RequestContent::parse(&HeaderMap::new(), &Bytes::from_static(b"{}")).is_ok(),
            "as it is without the gateway"
        );
        let mut encoded = headers("application/json");
        encoded.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(RequestContent::parse(&encoded, &Bytes::from_static(b"{}")), Err(BodyError::Encoded));
        let mut twice = headers("application/json");
        twice.append(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        assert_eq!(RequestContent::parse(&twice, &Bytes::from_static(b"{}")), Err(BodyError::UnknownType));
    }

    #[test]
    fn a_form_asks_the_same_question_as_json() {
        let form =
            parse("application/x-www-form-urlencoded", "bank_code=BCA&bank_account_number=001+2%34&reference_id=r");
        let json =
            parse("application/json", r#"{"reference_id":"r","bank_account_number":"001 24","bank_code":"BCA"}"#);
        assert_eq!(form, json);
        assert!(form.is_ok());
    }
}
