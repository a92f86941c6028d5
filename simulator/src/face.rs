//! Comparison of two faces.

use serde_json::json;

use super::body::FileRule;
use super::call::Call;
use super::check::Check;
use super::problem::Problem;
use super::reply::Reply;
use super::seed::{Seed, short_id};

const MAX: u64 = 2 * 1024 * 1024;
const FILES: [FileRule; 2] = [FileRule { field: "image_one", max: MAX }, FileRule { field: "image_two", max: MAX }];

/// Answers `POST /v2/identity/face_comparisons`. On this route every fault of an image is an `API_VALIDATION_ERROR`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = match call.form(&FILES).await {
        Err(problem) if problem.code == "FILE_TOO_LARGE" => return Err(Problem::field("image", problem.message)),
        other => other?,
    };
    let mut check = Check::new(&form);
    let (one, two) = (check.file("image_one"), check.file("image_two"));
    for (field, file) in [("image_one", one), ("image_two", two)] {
        if file.is_some_and(|file| !matches!(file.content_type.as_str(), "image/jpeg" | "image/png" | "image/bmp")) {
            check.wrong(field, "only PNG, JPG/JPEG, BMP are supported");
        }
    }
    check.finish()?;
    let (Some(one), Some(two)) = (one, two) else { return Err(Problem::not_found()) };
    let named = |word| one.name.contains(word) || two.name.contains(word);
    let id = short_id();
    let answer = if named("neterror") {
        return Ok(Reply::json(&json!({ "status": "FAILED", "failure_reason": "TEMPORARY_NETWORK_ERROR", "id": id })));
    } else if named("noface") {
        json!({ "status": "FAILED", "failure_reason": "No face detected in image", "id": id })
    } else {
        let tenths = Seed::of(&[&one.sha256, &two.sha256]).number(0, 100);
        let lowest = if named("mismatch") { 12.0 } else { 90.0 };
        json!({ "status": "COMPLETED", "match_percentage": lowest + tenths as f64 / 10.0, "id": id })
    };
    Ok(Reply::json(&answer).charged(true))
}
