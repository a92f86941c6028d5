//! NPWP, the tax number. The API document shows neither request nor answer: both are plausible inventions.

use serde_json::json;
use uuid::Uuid;

use super::call::Call;
use super::check::{Check, is_digits};
use super::problem::Problem;
use super::reply::Reply;
use super::seed::Seed;

/// Answers `POST /v0/identity/npwp_data_requests` with `account_number` (15 or 16 digits, dots and dashes allowed) and,
/// optionally, `reference_id`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let number = check.numeric("account_number");
    let reference = check.optional("reference_id");
    let digits: String = number.chars().filter(|c| !matches!(c, '.' | '-')).collect();
    if !number.is_empty() && !is_digits(&digits, 15..=16) {
        check.wrong("account_number", "account_number must be 15 or 16 digits");
    }
    check.finish()?;
    let mut answer = json!({ "id": format!("npwp_{}", Uuid::new_v4()), "account_number": number });
    if let Some(reference) = reference {
        answer["reference_id"] = reference.into();
    }
    let failed = digits.ends_with("99");
    if failed {
        answer["status"] = "FAILED".into();
        answer["failure_reason"] = "TEMPORARY_NETWORK_ERROR".into();
    } else if digits.ends_with("00") {
        answer["status"] = "COMPLETED".into();
        answer["result"] = json!({ "is_found": false });
    } else {
        answer["status"] = "COMPLETED".into();
        answer["result"] = json!({ "is_found": true, "name": Seed::of(&["npwp", &digits]).name() });
    }
    Ok(Reply::json(&answer).charged(!failed))
}
