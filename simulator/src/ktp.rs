//! KTP: checks that a NIK is on record and that the name belongs to it. Only live keys are accepted.

use serde_json::json;
use uuid::Uuid;

use super::call::Call;
use super::check::{Check, is_digits};
use super::problem::Problem;
use super::reply::Reply;

/// Answers `POST /v1/identity/ktp_name/validations`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let (nik, name_match) = asked(call).await?;
    if nik.ends_with("99") {
        return Ok(Reply::json(
            &json!({ "nik": nik, "status": "FAILED", "failure_reason": "TEMPORARY_NETWORK_ERROR" }),
        ));
    }
    // The document's example has the boolean as a string.
    let answer = json!({ "nik": nik, "status": status(&nik), "name_match": name_match.to_string() });
    Ok(Reply::json(&answer).charged(true))
}

/// Answers `POST /v2/identity/ktp_data_requests`. The request is as for `ktp_name/validations`. The answer's shape is
/// not documented.
pub(super) async fn data(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let (nik, name_match) = asked(call).await?;
    let id = format!("ktpd_{}", Uuid::new_v4());
    if nik.ends_with("99") {
        let answer = json!({ "id": id, "nik": nik, "status": "FAILED", "failure_reason": "TEMPORARY_NETWORK_ERROR" });
        return Ok(Reply::json(&answer));
    }
    let result = json!({ "is_found": status(&nik) == "FOUND", "name_match": name_match });
    Ok(Reply::json(&json!({ "id": id, "nik": nik, "status": "COMPLETED", "result": result })).charged(true))
}

async fn asked(call: &mut Call<'_>) -> Result<(String, bool), Problem> {
    if !call.key.live {
        return Err(Problem::key());
    }
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let nik = check.numeric("nik");
    check.required("name");
    if !nik.is_empty() && !is_digits(&nik, 16..=16) {
        check.wrong("nik", "nik must be 16 numeric characters");
    }
    check.finish()?;
    let name_match = !nik.ends_with("00") && !nik.ends_with("11");
    Ok((nik, name_match))
}

fn status(nik: &str) -> &'static str {
    if nik.ends_with("00") { "NOT_FOUND" } else { "FOUND" }
}
