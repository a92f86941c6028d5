//! Business document OCR. Documents of 500 MB pass through in pieces.
//!
//! A word in the file's name decides the result: `unreadable` gives empty values, and `neterror` gives
//! TEMPORARY_NETWORK_ERROR.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::{File, FileRule};
use super::call::Call;
use super::callback::{Callback, Type};
use super::check::Check;
use super::list;
use super::problem::Problem;
use super::record::{Kind, Step};
use super::reply::Reply;
use super::seed::Seed;

const FILES: [FileRule; 1] = [FileRule { field: "image", max: 500 * 1024 * 1024 }];

#[derive(Serialize)]
struct Answer<'a> {
    reference_id: &'a str,
    r#type: &'a str,
    country: &'a str,
    document_name: &'a str,
    id: &'a str,
    created: &'a str,
    updated: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
}

/// Answers `POST /v1/identity/document_ocr_requests`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&FILES).await?;
    let mut check = Check::new(&form);
    let reference = check.required("reference_id");
    let kind = check.choice("type", &["BUSINESS_REGISTRATION"]);
    let country = check.choice("country", &["ID"]);
    let document = check.choice("document_name", &["SK_MENKEH"]);
    let image = check.file("image");
    check.finish()?;
    let Some(image) = image else { return Err(Problem::not_found()) };
    let types = ["image/png", "image/pdf", "application/pdf", "image/jpeg", "image/jpg"];
    if !types.contains(&image.content_type.as_str()) {
        return Err(Problem::unsupported("Only PNG, JPG, PDF, JPEG are supported"));
    }
    let id = format!("ocr-{}", Uuid::new_v4());
    let times = call.times(call.world.options.callback_delay);
    let answer = |status, updated, result, failure_reason| {
        let answer = Answer {
            reference_id: &reference,
            r#type: &kind,
            country: &country,
            document_name: &document,
            id: &id,
            created: &times.created,
            updated,
            status,
            result,
            failure_reason,
        };
        Bytes::from(serde_json::to_vec(&answer).unwrap_or_default())
    };
    let failed = image.name.contains("neterror");
    let pending = answer("PENDING", &times.created, Some(json!({})), None);
    let done = if failed {
        answer("FAILED", &times.done, None, Some("TEMPORARY_NETWORK_ERROR"))
    } else {
        answer("COMPLETED", &times.done, Some(result(image)), None)
    };
    let steps = vec![Step { from: times.now, object: pending }, Step { from: times.done_at, object: done.clone() }];
    let kind = Type::BusinessDocumentOcrRequest;
    let callback = Callback { kind, key: call.key.clone(), due: times.done_at, object: done };
    Ok(call.store(Kind::Document, &id, Some(&reference), steps).charged(!failed).callback(Some(callback)))
}

/// Answers `GET /v1/identity/document_ocr_requests/:id`.
pub(super) fn get(call: &Call<'_>) -> Result<Reply, Problem> {
    call.stored(Kind::Document)
}

/// Answers `GET /v1/identity/document_ocr_requests?reference_id=`.
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    list::list(call, Kind::Document, "/v1/identity/document_ocr_requests")
}

fn result(image: &File) -> Value {
    let nothing = json!({ "value": null, "confidence_level": 0 });
    if image.name.contains("unreadable") {
        let lists = ["director_names", "commisioner_names", "shareholder_names"];
        let values = [
            "sk_menkeh_number",
            "akta_number",
            "legal_entity_name",
            "date_of_registration",
            "notary",
            "establishment_place",
        ];
        let lists = lists.iter().map(|name| json!({ "name": name, "values": [] }));
        let data: Vec<Value> =
            lists.chain(values.iter().map(|name| json!({ "name": name, "values": nothing }))).collect();
        return json!({ "pages": 1, "data": data });
    }
    let seed = Seed::of(&["document", &image.sha256]);
    let person = |which: &str| sure(&Seed::of(&[which, &image.sha256]).name());
    json!({
        "pages": 1 + seed.number(3, 9),
        "data": [
            { "name": "director_names", "values": [person("first director"), person("second director")] },
            { "name": "commisioner_names", "values": [person("commissioner")] },
            { "name": "shareholder_names", "values": [person("shareholder"), sure("PT SAHAM REKAAN")] },
            { "name": "sk_menkeh_number", "values": sure(&format!("AHU-{}.AH.01.01.TAHUN 2016", seed.digits(5, 7))) },
            { "name": "legal_entity_name", "values": sure(&format!("PT {} REKAAN", seed.surname())) },
            { "name": "date_of_registration", "values": sure("07 Oktober 2016") },
            { "name": "document_date", "values": sure("03 November 2016") },
            { "name": "akta_number", "values": sure("02") },
            { "name": "notary", "values": person("notary") },
            { "name": "place_of_registration", "values": sure("KOTA REKAAN") },
        ],
    })
}

fn sure(value: &str) -> Value {
    let thousandths = Seed::of(&["confidence", value]).number(0, 1000);
    json!({ "value": value, "confidence_level": 99.0 + thousandths as f64 / 1000.0 })
}
