//! ID card OCR: the text of an id card, a tax card or a passport.
//!
//! A word in the file's name decides the result: `unreadable` gives no data, `unrecognized` gives
//! IMAGE_RECOGNIZE_ERROR, and `neterror` gives TEMPORARY_NETWORK_ERROR. The recognized text is invented from the file's
//! content.

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

const MAX: u64 = 2 * 1024 * 1024;
const MAX_PIXELS: u32 = 4096;
const FILES: [FileRule; 1] = [FileRule { field: "image", max: MAX }];

#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    status: &'a str,
    created: &'a str,
    updated: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<&'a str>,
}

/// Answers `POST /v1/identity/id_card_images`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&FILES).await?;
    let mut check = Check::new(&form);
    let kind = check.choice("type", &["passport", "indonesia_ktp", "npwp_card"]);
    let reference = check.optional("reference_id");
    let image = check.file("image");
    check.finish()?;
    let Some(image) = image else { return Err(Problem::not_found()) };
    if !matches!(image.content_type.as_str(), "image/png" | "image/bmp" | "image/jpeg" | "image/jpg") {
        return Err(Problem::unsupported("Only PNG, JPG, BMP are supported"));
    }
    if image.pixels.is_some_and(|(width, height)| width.max(height) > MAX_PIXELS) {
        return Err(Problem::too_large("The image is too large (> 4096x4096 px)"));
    }
    let id = Uuid::new_v4().to_string();
    let times = call.times(call.world.options.callback_delay);
    let failure = [("unrecognized", "IMAGE_RECOGNIZE_ERROR"), ("neterror", "TEMPORARY_NETWORK_ERROR")]
        .into_iter()
        .find(|(word, _)| image.name.contains(word))
        .map(|(_, reason)| reason);
    let answer = |status, data, updated, failure_reason| {
        let (created, reference_id) = (times.created.as_str(), reference.as_deref());
        let answer = Answer { id: &id, data, status, created, updated, r#type: &kind, failure_reason, reference_id };
        Bytes::from(serde_json::to_vec(&answer).unwrap_or_default())
    };
    let pending = answer("PENDING", Some(json!({})), &times.created, None);
    let done = match failure {
        Some(_) => answer("FAILED", None, &times.done, failure),
        None => answer("COMPLETED", Some(data(&kind, image)), &times.done, None),
    };
    let steps = vec![Step { from: times.now, object: pending }, Step { from: times.done_at, object: done.clone() }];
    let callback = Callback { kind: Type::IdImageOcrRequest, key: call.key.clone(), due: times.done_at, object: done };
    let reply = call.store(Kind::Ocr, &id, reference.as_deref(), steps);
    Ok(reply.charged(failure != Some("TEMPORARY_NETWORK_ERROR")).callback(Some(callback)))
}

/// Answers `GET /v1/identity/id_card_images/:id`.
pub(super) fn get(call: &Call<'_>) -> Result<Reply, Problem> {
    call.stored(Kind::Ocr)
}

/// Answers `GET /v1/identity/id_card_images?reference_id=`.
pub(super) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    list::list(call, Kind::Ocr, "/v1/identity/id_card_images")
}

fn data(kind: &str, image: &File) -> Value {
    if image.name.contains("unreadable") {
        return json!({});
    }
    let seed = Seed::of(&["card", &image.sha256]);
    match kind {
        "npwp_card" => json!({
            "npwpId": seed.digits(4, 15),
            "address": null,
            "idNumber": null,
            "npwpName": seed.name(),
            "registrationOffice": null,
        }),
        "passport" => json!({
            "gender": seed.pick(2, &["Female", "Male"]),
            "country": "INDONESIA",
            "surname": seed.surname(),
            "given_name": seed.given_name(),
            "is_tampered": false,
            "date_of_birth": "1985-02-05T00:00:00.000Z",
            "date_of_issue": "2020-10-15T00:00:00.000Z",
            "date_of_expiry": "2030-10-14T00:00:00.000Z",
            "place_of_birth": "KOTA REKAAN",
            "passport_number": format!("X{}", seed.digits(4, 7)),
            "issuing_authority": "",
        }),
        _ => json!({
            "idNumber": seed.digits(4, 16),
            "name": seed.name(),
            "religion": seed.pick(2, &["ISLAM", "KRISTEN", "KATHOLIK", "HINDU", "BUDDHA"]),
            "gender": seed.pick(3, &["LAKI-LAKI", "PEREMPUAN"]),
            "birthPlaceBirthday": "KOTA REKAAN,17-10-1975",
            "province": "JAWA REKAAN",
            "city": "KABUPATEN REKAAN",
            "district": "KELINGAN",
            "village": "KELETAN",
            "rtrw": "015/004",
            "address": "JL. REKAAN GG. CONTOH NO.73D/34",
            "occupation": "KARYAWAN SWASTA",
            "expiryDate": "12-08-2036",
            "nationality": "WNI",
            "maritalStatus": "BELUM KAWIN",
        }),
    }
}
