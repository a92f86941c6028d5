//! Individual photo authentication: compares an id card's details and a selfie with the records, for live keys only.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use uuid::Uuid;

use super::body::FileRule;
use super::call::Call;
use super::check::{Check, is_digits};
use super::phone::is_phone;
use super::problem::Problem;
use super::reply::Reply;

const MAX: u64 = 2 * 1024 * 1024;
const MIN: u64 = 100 * 1024;
const MIN_PIXELS: u32 = 500;
const FILES: [FileRule; 2] = [FileRule { field: "selfie", max: MAX }, FileRule { field: "ktp_image", max: MAX }];

/// The documented reasons. A NIK that ends in 01 gets the first reason, a NIK that ends in 10 the last one.
const REASONS: [&str; 10] = [
    "NIK is Invalid",
    "Selfie is Invalid",
    "Full Name Not Match",
    "DOB Not Match",
    "Selfie Not Match, Score More Than 30, Less Than 70",
    "Selfie Not Match, Score More Than 0, Below 30",
    "Full Name Not Match & DOB Not Match",
    "Full Name Not Match & Selfie Not Match",
    "DOB Not Match & Selfie Not Match",
    "Full Name Not Match & DOB Not Match & Selfie Not Match",
];

#[derive(Serialize)]
struct Answer {
    id: String,
    created: String,
    updated: String,
    id_card_number: String,
    name: String,
    birthdate: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    status: &'static str,
    is_verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'static str>,
}

/// Answers `POST /v1/identity/id_card_verifications`.
pub(super) async fn post(call: &mut Call<'_>) -> Result<Reply, Problem> {
    if !call.key.live {
        let message = "The API key does not have the permission to perform this request";
        return Err(Problem::new(StatusCode::FORBIDDEN, "API_KEY_IS_NOT_LIVE_ERROR", message));
    }
    let form = call.form(&FILES).await?;
    let mut check = Check::new(&form);
    let name = check.required("name");
    let nik = check.required("id_card_number");
    let birthdate = check.required("birthdate");
    let (phone, email) = (check.optional("phone"), check.optional("email"));
    let files = [check.file("selfie"), check.file("ktp_image")];
    if !name.is_empty() && !(2..=100).contains(&name.chars().count()) {
        check.wrong("name", "name must have 2 to 100 characters");
    }
    if !nik.is_empty() && !is_digits(&nik, 16..=16) {
        check.wrong("id_card_number", "id_card_number must be 16 numeric characters");
    }
    if !birthdate.is_empty() && !is_date(&birthdate) {
        check.wrong("birthdate", "birthdate must be DD-MM-YYYY");
    }
    if phone.as_deref().is_some_and(|phone| !is_phone(phone)) {
        check.wrong("phone", "phone must be like +62xxx or 08xxx");
    }
    if email.as_deref().is_some_and(|email| !email.contains('@')) {
        check.wrong("email", "email must be an e-mail address");
    }
    check.finish()?;
    for file in files.into_iter().flatten() {
        if !matches!(file.content_type.as_str(), "image/jpeg" | "image/png") {
            return Err(Problem::unsupported("Selfie image is of wrong file type"));
        }
        let narrow = file.pixels.is_some_and(|(width, height)| width.min(height) < MIN_PIXELS);
        if file.size < MIN || narrow {
            return Err(Problem::too_small("Selfie image too small (< 100 KB or < 500x500 pixels)"));
        }
    }
    let reason = failure(&nik);
    let failed = reason == Some("TEMPORARY_NETWORK_ERROR");
    let times = call.times(Duration::ZERO);
    let answer = Answer {
        id: format!("idvr_{}", Uuid::new_v4()),
        created: times.created,
        updated: times.done,
        id_card_number: nik,
        name,
        birthdate,
        phone,
        email,
        status: if failed { "FAILED" } else { "COMPLETED" },
        is_verified: reason.is_none(),
        failure_reason: reason,
    };
    Ok(Reply::json(&answer).charged(!failed))
}

fn failure(nik: &str) -> Option<&'static str> {
    match nik.get(nik.len().saturating_sub(2)..)?.parse::<usize>().ok()? {
        0 => Some("NIK not found"),
        99 => Some("TEMPORARY_NETWORK_ERROR"),
        ending => REASONS.get(ending - 1).copied(),
    }
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [day, month, year] = parts.as_slice() else { return false };
    let within = |part: &str, digits: usize, range: std::ops::RangeInclusive<u32>| {
        is_digits(part, digits..=digits) && part.parse().is_ok_and(|number| range.contains(&number))
    };
    within(day, 2, 1..=31) && within(month, 2, 1..=12) && within(year, 4, 1900..=2100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_give_the_documented_reasons() {
        assert_eq!(failure("3275031210930000"), Some("NIK not found"));
        assert_eq!(failure("3275031210930001"), Some("NIK is Invalid"));
        assert_eq!(failure("3275031210930010"), Some(REASONS[9]));
        assert_eq!(failure("3275031210930011"), None);
        assert_eq!(failure("3275031210930099"), Some("TEMPORARY_NETWORK_ERROR"));
    }

    #[test]
    fn dates_are_day_month_year() {
        assert!(is_date("12-10-1991"));
        for bad in ["1991-10-12", "32-01-1991", "1-1-1991", "12/10/1991", "", "12-10-1991-1"] {
            assert!(!is_date(bad), "{bad}");
        }
    }
}
