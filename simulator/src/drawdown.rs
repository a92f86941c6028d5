//! Credit drawdowns. The API document shows neither request nor answer: both are plausible inventions.

use serde_json::{Value, json};
use uuid::Uuid;

use super::call::Call;
use super::check::Check;
use super::problem::Problem;
use super::reply::Reply;

/// Answers `POST /v1/credit/drawdowns` with `amount` (rupiah, positive) and, optionally, `reference_id`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let reference = check.optional("reference_id");
    let amount = match form.fields.get("amount") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => None,
    };
    let amount = amount.filter(|amount: &f64| amount.is_finite() && *amount > 0.0);
    if amount.is_none() {
        check.wrong("amount", "amount is required and must be positive");
    }
    check.finish()?;
    let mut answer = json!({ "id": format!("drwd_{}", Uuid::new_v4()), "status": "COMPLETED", "amount": amount });
    if let Some(reference) = reference {
        answer["reference_id"] = reference.into();
    }
    Ok(Reply::json(&answer).charged(true))
}
