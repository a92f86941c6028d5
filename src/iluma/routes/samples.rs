//! Examples of requests, for the team portal. All values are invented, and belong to no person.

use crate::iluma::route_name::RouteName;

/// An example of a request, for the paths of a row that contain a given text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The text that these paths contain; empty if the example is for every path of the row.
    pub path: &'static str,
    /// The version that replaces `v*` in the path; empty if the path has no version.
    pub version: &'static str,
    /// The body.
    pub body: SampleBody,
}

/// The body of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleBody {
    /// A JSON object.
    Json(&'static str),
    /// A multipart form: the names and values of its fields. A value with `@` in front names a file.
    Form(&'static [(&'static str, &'static str)]),
    /// No body.
    None,
}

const fn json(path: &'static str, version: &'static str, body: &'static str) -> Sample {
    Sample { path, version, body: SampleBody::Json(body) }
}

const fn form(version: &'static str, fields: &'static [(&'static str, &'static str)]) -> Sample {
    Sample { path: "", version, body: SampleBody::Form(fields) }
}

const fn bare(version: &'static str) -> Sample {
    Sample { path: "", version, body: SampleBody::None }
}

const BANK: &str = r#"{"bank_code": "BCA", "bank_account_number": "1234567890", "reference_id": "example-1"}"#;
const PERSON: &str = r#"{"given_name": "EXAMPLE", "surname": "NAME"}"#;
const KTP: &str = r#"{"nik": "1234567890123456", "name": "EXAMPLE NAME"}"#;
const NPWP: &str = r#"{"account_number": "123456789012345"}"#;
const PHONE: &str = r#"{"phone_number": "081200000000"}"#;
const DRAWDOWN: &str = r#"{"reference_id": "example-1", "amount": 100000}"#;
const CAPTURE: &str = r#"{"types": ["IDENTITY_CARD"], "country": "PH", "reference_id": "example-1"}"#;
const URL: &str = r#"{"type": "NAME_VALIDATOR_REQUEST", "url": "https://team.example.com/callbacks"}"#;
const GRACE: &str = r#"{"grace": "24h"}"#;
const SINCE: &str = r#"{"since": "2026-01-31T09:00:00+07:00"}"#;
const ENDPOINT: &str = r#"{"type": "NAME_VALIDATOR_REQUEST"}"#;
const FACES: &[(&str, &str)] = &[("image_one", "@selfie.png"), ("image_two", "@card.png")];
const CARD: &[(&str, &str)] = &[("type", "indonesia_ktp"), ("image", "@card.png"), ("reference_id", "example-1")];
const SELFIE: &[(&str, &str)] = &[
    ("name", "EXAMPLE NAME"),
    ("id_card_number", "1234567890123456"),
    ("birthdate", "31-12-1990"),
    ("phone", "081200000000"),
    ("selfie", "@selfie.png"),
    ("ktp_image", "@card.png"),
];
const DOCUMENT: &[(&str, &str)] = &[
    ("image", "@document.pdf"),
    ("type", "BUSINESS_REGISTRATION"),
    ("country", "ID"),
    ("document_name", "SK_MENKEH"),
    ("reference_id", "example-1"),
];
const RECAPTURE: Sample = Sample { path: "/recapture", version: "v1", body: SampleBody::None };

/// Returns the examples of a row. The example of a path is the first one whose `path` text is in that path.
pub(super) const fn of(name: RouteName) -> &'static [Sample] {
    match name {
        RouteName::Bank => const { &[json("/bank_account_data_requests", "v1.1", BANK), json("", "v1.2", BANK)] },
        RouteName::BankGet => const { &[bare("v1.1")] },
        RouteName::Cft => const { &[json("", "v1", PERSON)] },
        RouteName::Ktp => const { &[json("/ktp_name", "v1", KTP), json("", "v2", KTP)] },
        RouteName::Npwp => const { &[json("", "v0", NPWP)] },
        RouteName::Phone => const { &[json("/validate", "v2", PHONE), bare("v1")] },
        RouteName::Drawdown => const { &[json("", "v1", DRAWDOWN)] },
        RouteName::Face => const { &[form("v2", FACES)] },
        RouteName::IdCard => const { &[form("v1", SELFIE)] },
        RouteName::Ocr => const { &[form("v1", CARD)] },
        RouteName::Document => const { &[form("v1", DOCUMENT)] },
        RouteName::Capture => const { &[RECAPTURE, json("", "v1", CAPTURE)] },
        RouteName::CallbackUrls => const { &[json("", "v1", URL)] },
        RouteName::Gateway => {
            const { &[json("/rotate", "", GRACE), json("/replay", "", SINCE), json("/callbacks", "", ENDPOINT)] }
        }
        RouteName::BankCodes
        | RouteName::OcrGet
        | RouteName::DocumentGet
        | RouteName::CaptureGet
        | RouteName::CaptureFile
        | RouteName::CallbackToken
        | RouteName::Health
        | RouteName::Forbidden
        | RouteName::Other => const { &[bare("v1")] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iluma::routes::table::ROUTES;
    use http::Method;

    #[test]
    fn every_path_with_a_body_has_an_example_that_is_json_or_a_form() {
        for row in &ROUTES {
            for (method, path) in row.patterns().filter(|(_, path)| !path.starts_with("_gateway/log")) {
                let sample = row.sample(path);
                let needs_body = method != Method::GET && !path.ends_with("/recapture");
                let has_body = sample.is_some_and(|sample| sample.body != SampleBody::None);
                assert!(has_body || !needs_body, "{method} {path}");
                if let Some(SampleBody::Json(text)) = sample.map(|sample| sample.body) {
                    let value: serde_json::Value = serde_json::from_str(text).expect(path);
                    let members = value.as_object().expect("an object");
                    // Python spells these words differently.
                    assert!(members.values().all(|value| !value.is_boolean() && !value.is_null()), "{path}");
                }
            }
        }
    }
}
