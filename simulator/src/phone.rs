//! Phone numbers: their age and whether they are in use. The API document does not show the answers. The answers here
//! are plausible inventions.

use serde_json::json;
use uuid::Uuid;

use super::call::Call;
use super::check::{Check, is_digits};
use super::problem::Problem;
use super::reply::Reply;
use super::seed::Seed;

/// Answers `GET /v1/fraud/phone_numbers/:number/age`.
pub(super) fn age(call: &Call<'_>) -> Result<Reply, Problem> {
    let number = call.parameter(0);
    if !is_phone(number) {
        return Err(Problem::field("number", "the phone number must be like +62xxx or 08xxx"));
    }
    let id = format!("phna_{}", Uuid::new_v4());
    if number.ends_with("99") {
        let reason = "TEMPORARY_NETWORK_ERROR";
        return Ok(Reply::json(
            &json!({ "id": id, "phone_number": number, "status": "FAILED", "failure_reason": reason }),
        ));
    }
    let found = !number.ends_with("00");
    let months = found.then(|| Seed::of(&["phone", local(number)]).number(0, 120));
    let result = json!({ "is_found": found, "age_months": months });
    Ok(Reply::json(&json!({ "id": id, "phone_number": number, "status": "COMPLETED", "result": result })).charged(true))
}

/// Answers `POST /v2/identity/phone_numbers/validate` with `phone_number` and, optionally, `reference_id`.
pub(super) async fn validate(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let number = check.required("phone_number");
    let reference = check.optional("reference_id");
    if !number.is_empty() && !is_phone(&number) {
        check.wrong("phone_number", "phone_number must be like +62xxx or 08xxx");
    }
    check.finish()?;
    let mut answer = json!({ "id": format!("phnv_{}", Uuid::new_v4()), "phone_number": number });
    if let Some(reference) = reference {
        answer["reference_id"] = reference.into();
    }
    let failed = number.ends_with("99");
    if failed {
        answer["status"] = "FAILED".into();
        answer["failure_reason"] = "TEMPORARY_NETWORK_ERROR".into();
    } else {
        let carrier = Seed::of(&["carrier", local(&number)]).pick(0, &["REKAANSEL", "NUSATEL", "AWANSEL"]).to_owned();
        answer["status"] = "COMPLETED".into();
        answer["result"] = json!({ "is_active": !number.ends_with("00"), "carrier": carrier });
    }
    Ok(Reply::json(&answer).charged(!failed))
}

/// Returns true for `+62xxx` and `08xxx`, the forms of the API document's id card verification.
pub(super) fn is_phone(number: &str) -> bool {
    let rest = number.strip_prefix("+62").or_else(|| number.strip_prefix("08"));
    rest.is_some_and(|rest| is_digits(rest, 5..=13))
}

/// Returns the digits after the country prefix: the same for `+6281…` and `081…`.
fn local(number: &str) -> &str {
    number.strip_prefix("+62").or_else(|| number.strip_prefix('0')).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_forms_are_phone_numbers() {
        assert!(is_phone("+6281234567890") && is_phone("081234567890"));
        assert!(!is_phone("12345678") && !is_phone("08x2345678") && !is_phone(""));
        assert_eq!(local("+6281234"), local("081234"));
    }
}
