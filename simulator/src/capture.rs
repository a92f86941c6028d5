//! Document OCR captures: a link at which a person would upload documents. The simulator needs no upload: after half
//! the callback delay the capture is IN_PROGRESS, and after the whole delay it is COMPLETED.
//!
//! A word in the reference decides the result: `sim-review` gives COMPLETED_REVIEW_REQUIRED, `sim-fail` gives FAILED,
//! and `sim-abandon` gives PENDING for ever.

use bytes::Bytes;
use http::{HeaderValue, Method, header};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::call::Call;
use super::callback::{Callback, Type};
use super::check::Check;
use super::list;
use super::problem::Problem;
use super::record::{Kind, Step};
use super::reply::Reply;
use super::seed::Seed;
use super::time;

const IDENTITY: &str = "IDENTITY_CARD";
const BUSINESS: &str = "BUSINESS_REGISTRATION";
const SELFIE: &str = "SELFIE";

/// A picture of one grey pixel.
const JPEG: &[u8] = &[
    0xff, 0xd8, 0xff, 0xdb, 0x00, 0x43, 0x00, 0x03, 0x02, 0x02, 0x02, 0x02, 0x02, 0x03, 0x02, 0x02, 0x02, 0x03, 0x03,
    0x03, 0x03, 0x04, 0x06, 0x04, 0x04, 0x04, 0x04, 0x04, 0x08, 0x06, 0x06, 0x05, 0x06, 0x09, 0x08, 0x0a, 0x0a, 0x09,
    0x08, 0x09, 0x09, 0x0a, 0x0c, 0x0f, 0x0c, 0x0a, 0x0b, 0x0e, 0x0b, 0x09, 0x09, 0x0d, 0x11, 0x0d, 0x0e, 0x0f, 0x10,
    0x10, 0x11, 0x10, 0x0a, 0x0c, 0x12, 0x13, 0x12, 0x10, 0x13, 0x0f, 0x10, 0x10, 0x10, 0xff, 0xc9, 0x00, 0x0b, 0x08,
    0x00, 0x01, 0x00, 0x01, 0x01, 0x01, 0x11, 0x00, 0xff, 0xcc, 0x00, 0x06, 0x00, 0x10, 0x10, 0x05, 0xff, 0xda, 0x00,
    0x08, 0x01, 0x01, 0x00, 0x00, 0x3f, 0x00, 0xd2, 0xcf, 0x20, 0xff, 0xd9,
];
/// The smallest document that PDF viewers open.
const PDF: &[u8] =
    b"%PDF-1.1\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n";

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<&'a str>,
    types: &'a [String],
    country: &'a str,
    id: &'a str,
    created: &'a str,
    updated: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    capture_link: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

/// One run of a capture: the first run, or a repetition (recapture).
struct Run<'a> {
    id: &'a str,
    reference: Option<&'a str>,
    types: &'a [String],
    /// The first status: `PENDING`, or `RECAPTURE_PENDING`.
    first: &'a str,
    created: Option<String>,
}

/// Answers `POST /v1/identity/document_ocr_captures`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let types = check.choices("types", &[IDENTITY, BUSINESS, SELFIE]);
    if check.optional("country").is_some_and(|country| country != "PH") {
        check.wrong("country", "country must be PH");
    }
    let reference = check.optional("reference_id");
    check.finish()?;
    let id = format!("ocr-{}", Uuid::new_v4());
    let run = Run { id: &id, reference: reference.as_deref(), types: &types, first: "PENDING", created: None };
    let (steps, callback) = run.steps(call);
    let charged = !fails(reference.as_deref());
    Ok(call.store(Kind::Capture, &id, reference.as_deref(), steps).charged(charged).callback(callback))
}

/// Answers `GET /v1/identity/document_ocr_captures/:id`.
pub(super) fn get(call: &Call<'_>) -> Result<Reply, Problem> {
    call.stored(Kind::Capture)
}

/// Answers `GET /v1/identity/document_ocr_captures?reference_id=`, also below the singular `document_ocr_capture`. The
/// links in the answer have the form of the API document.
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    list::list(call, Kind::Capture, "/v1/document_ocr_captures")
}

/// Answers `POST /v1/identity/document_ocr_captures/:id/recapture`. The heading in the API document says GET, so GET is
/// accepted too. A GET without types repeats the types of the run before.
pub(super) async fn again(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let id = call.parameter(0).to_owned();
    let (before, reference) = {
        let records = call.world.records.lock();
        let record = records.find(&call.key.label, Kind::Capture, &id).ok_or_else(Problem::not_found)?;
        (record.at(time::now()), record.reference.clone())
    };
    let before: Value = serde_json::from_slice(&before).unwrap_or_default();
    let mut check = Check::new(&form);
    let types = if *call.method == Method::GET && !form.fields.contains_key("types") {
        let types = before["types"].as_array().map(Vec::as_slice).unwrap_or_default();
        types.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    } else {
        check.choices("types", &[IDENTITY, BUSINESS, SELFIE])
    };
    check.finish()?;
    let run = Run {
        id: &id,
        reference: reference.as_deref(),
        types: &types,
        first: "RECAPTURE_PENDING",
        created: before["created"].as_str().map(str::to_owned),
    };
    let (steps, callback) = run.steps(call);
    let mut records = call.world.records.lock();
    let record = records.find_mut(&call.key.label, Kind::Capture, &id).ok_or_else(Problem::not_found)?;
    record.steps = steps;
    let reply = Reply::stored(record.at(time::now()));
    Ok(reply.charged(!fails(reference.as_deref())).callback(callback))
}

/// Answers `GET /v1/identity/captures/:id/results/:link/download`.
pub(super) fn file(call: &Call<'_>) -> Result<Reply, Problem> {
    let (id, link) = (call.parameter(0), call.parameter(1));
    let object = {
        let records = call.world.records.lock();
        let record = records.find(&call.key.label, Kind::Capture, id).ok_or_else(Problem::not_found)?;
        record.at(time::now())
    };
    let object: Value = serde_json::from_slice(&object).unwrap_or_default();
    let result = object["result"].as_object().ok_or_else(Problem::not_found)?;
    if !result.values().any(|part| part["link"] == link) {
        return Err(Problem::not_found());
    }
    let (content_type, bytes) = if link.ends_with(".pdf") { ("application/pdf", PDF) } else { ("image/jpeg", JPEG) };
    let mut reply = Reply::bytes(HeaderValue::from_static(content_type), Bytes::from_static(bytes));
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{link}\""));
    reply.headers.extend(disposition.map(|value| (header::CONTENT_DISPOSITION, value)));
    Ok(reply)
}

fn fails(reference: Option<&str>) -> bool {
    reference.is_some_and(|reference| reference.contains("sim-fail"))
}

impl Run<'_> {
    fn steps(&self, call: &Call<'_>) -> (Vec<Step>, Option<Callback>) {
        let delay = call.world.options.callback_delay;
        let (half, times) = (call.times(delay / 2), call.times(delay));
        let created = self.created.as_deref().unwrap_or(&times.created);
        let answer = |status, updated, failure_reason, result| {
            let answer = Answer {
                reference_id: self.reference,
                types: self.types,
                country: "PH",
                id: self.id,
                created,
                updated,
                status,
                failure_reason,
                capture_link: format!("https://capture.iluma.example/{}", Seed::of(&["capture", self.id]).uuid()),
                result,
            };
            Bytes::from(serde_json::to_vec(&answer).unwrap_or_default())
        };
        let first = Step { from: times.now, object: answer(self.first, &times.created, None, None) };
        let has = |word| self.reference.is_some_and(|reference| reference.contains(word));
        if has("sim-abandon") {
            return (vec![first], None);
        }
        let object = if fails(self.reference) {
            answer("FAILED", &times.done, Some("TEMPORARY_NETWORK_ERROR"), None)
        } else {
            let status = if has("sim-review") { "COMPLETED_REVIEW_REQUIRED" } else { "COMPLETED" };
            answer(status, &times.done, None, Some(result(self.id, self.types)))
        };
        let progress = Step { from: half.done_at, object: answer("IN_PROGRESS", &half.done, None, None) };
        let last = Step { from: times.done_at, object: object.clone() };
        let kind = Type::DocumentOcrCaptureRequest;
        let callback = Callback { kind, key: call.key.clone(), due: times.done_at, object };
        (vec![first, progress, last], Some(callback))
    }
}

/// Returns the result of a capture: an invented object for each requested type of document.
fn result(id: &str, types: &[String]) -> Value {
    let has = |kind: &str| types.iter().any(|asked| asked == kind);
    let seed = |part: &str| Seed::of(&["capture", id, part]);
    let mut result = json!({});
    if has(IDENTITY) {
        let card = seed("card");
        result["id_card_ocr"] = json!({
            "id": card.uuid(),
            "link": format!("{}.jpeg", seed("card file").uuid()),
            "gender": card.pick(2, &["M", "F"]),
            "address": "Street 17",
            "country": "PH",
            "surname": card.surname(),
            "given_name": card.given_name(),
            "is_tampered": false,
            "date_of_birth": "1985-02-03",
            "date_of_issue": "2018-06-20",
            "document_name": "Driver’s Licence",
            "date_of_expiry": "2037-06-19",
            "id_card_number": format!("P{}A", card.digits(4, 7)),
            "place_of_birth": "KOTA REKAAN",
        });
    }
    if has(SELFIE) {
        result["selfie"] = json!({
            "id": seed("selfie").uuid(),
            "link": format!("{}.jpeg", seed("selfie file").uuid()),
            "are_eyes_open": true,
            "face_mask_detected": false,
            "is_face_cropped": false,
            "multiple_faces_detected": false,
            "is_live": true,
            "confidence": 99,
            "document_name": "Selfie",
        });
    }
    if has(IDENTITY) && has(SELFIE) {
        let score = seed("score").number(0, 100);
        result["face_match_percentage"] = json!({ "is_a_match": score >= 50, "match_score": score as f64 / 100.0 });
    }
    if has(BUSINESS) {
        let business = seed("business");
        result["business_registration_ocr"] = json!({
            "id": business.uuid(),
            "link": format!("{}.pdf", seed("business file").uuid()),
            "address": "KOTA REKAAN",
            "country": "PH",
            "is_tampered": false,
            "business_name": format!("{} LLC", business.surname()),
            "date_of_issue": "2018-05-03",
            "document_name": "Any Document",
            "date_of_expiry": "2038-05-03",
            "business_owner_name": business.name(),
            "registration_number": business.digits(4, 7),
            "date_of_registration": "2018-05-03",
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_has_what_was_asked_for() {
        let parts = |types: &[&str]| {
            let types: Vec<String> = types.iter().map(|kind| (*kind).to_owned()).collect();
            result("ocr-1", &types).as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(parts(&[IDENTITY]), ["id_card_ocr"]);
        assert_eq!(parts(&[BUSINESS]), ["business_registration_ocr"]);
        assert_eq!(parts(&[IDENTITY, SELFIE]), ["face_match_percentage", "id_card_ocr", "selfie"]);
        assert_eq!(result("a", &[IDENTITY.into()]), result("a", &[IDENTITY.into()]));
    }
}
