//! The bank name validator in all its versions.
//!
//! The last two digits of the account number decide what the bank says ([`Finding::of`]); everything else about the
//! account is invented from its bank and number.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::bank_codes;
use super::call::{Call, Times};
use super::callback::{Callback, Type};
use super::check::{Check, is_digits};
use super::problem::Problem;
use super::record::{Kind, Step};
use super::reply::Reply;
use super::route::Version;
use super::seed::{Seed, short_id};
use super::time;

/// The accepted numbers of digits in an account number. Real Indonesian account numbers have 8 to 18 digits.
const NUMBER: std::ops::RangeInclusive<usize> = 5..=20;

/// Answers `POST /v*/identity/bank_account_data_requests` and `POST /v*/identity/bank_account_validation_details`.
pub(super) async fn post(call: &mut Call<'_>, kind: Type) -> Result<Reply, Problem> {
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let account = Account {
        version: call.version,
        number: check.numeric("bank_account_number"),
        code: check.required("bank_code"),
        reference: check.optional("reference_id"),
        wanted: [check.optional("given_name"), check.optional("surname")],
        id: if call.version < Version::V1_1 { short_id() } else { format!("bknv_{}", short_id()) },
    };
    check.finish()?;
    let bank = bank_codes::bank(call.version, &account.code).ok_or_else(|| {
        let message = "Destination bank is not supported";
        Problem::new(StatusCode::BAD_REQUEST, "UNSUPPORTED_BANK_CODE_ERROR", message)
    })?;
    if !is_digits(&account.number, NUMBER) {
        let message = "Destination bank account number is invalid";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "BANK_ACCOUNT_NUMBER_VALIDATION_ERROR", message));
    }
    if let Some(magic) = call.magic() {
        return magic_reply(call, &account, bank, kind, &magic);
    }
    let finding = Finding::of(&account.number);
    let progress = Progress::of(call, bank, &account.number, finding);
    let times = call.times(progress.wait());
    let first = match progress {
        Progress::Never | Progress::New(_) => State::Pending,
        Progress::Duplicate(_) => State::Waiting,
        Progress::Known => State::Done(finding),
    };
    let mut steps = vec![Step { from: times.now, object: account.object(bank, first, &times) }];
    if matches!(progress, Progress::New(_) | Progress::Duplicate(_)) {
        steps.push(Step { from: times.done_at, object: account.object(bank, State::Done(finding), &times) });
    }
    let due = match progress {
        // A result that is known at once is also sent as a callback, after the usual delay.
        Progress::Known => call.times(call.world.options.callback_delay).done_at,
        _ => times.done_at,
    };
    let last = steps.last().filter(|_| progress != Progress::Never);
    let callback = last.map(|step| Callback { kind, key: call.key.clone(), due, object: step.object.clone() });
    let reply = call.store(Kind::Bank, &account.id, account.reference.as_deref(), steps);
    Ok(reply.charged(finding != Finding::NetworkError).callback(callback))
}

/// Answers the `GET` of a bank request by its id, on both paths.
pub(super) fn get(call: &Call<'_>) -> Result<Reply, Problem> {
    call.stored(Kind::Bank)
}

/// The state of the bank's answer about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// The bank never answers.
    Never,
    /// The answer is known already.
    Known,
    /// The answer will be known after this time.
    New(Duration),
    /// The answer will be known after this time, and an earlier request waits for it too.
    Duplicate(Duration),
}

impl Progress {
    fn of(call: &Call<'_>, bank: &str, number: &str, finding: Finding) -> Self {
        let options = &call.world.options;
        if number.ends_with("66") {
            return Self::Never;
        }
        if number.ends_with("55") || !options.pending_first {
            return Self::Known;
        }
        let now = time::now();
        let account = format!("{}/{bank}/{number}", if call.key.live { "live" } else { "development" });
        let mut asked = call.world.asked.lock();
        match asked.ready_at(&account) {
            Some(ready) if ready > now => return Self::Duplicate(ready - now),
            Some(ready) if now - ready < options.recent && finding != Finding::NetworkError => return Self::Known,
            _ => {}
        }
        asked.note(account, now.checked_add(options.callback_delay).unwrap_or(now));
        Self::New(options.callback_delay)
    }

    fn wait(self) -> Duration {
        match self {
            Self::Never | Self::Known => Duration::ZERO,
            Self::New(wait) | Self::Duplicate(wait) => wait,
        }
    }
}

/// Answers with the state that `x-magic-reply` asks for. The state of such a record never changes.
fn magic_reply(call: &Call<'_>, account: &Account, bank: &str, kind: Type, magic: &str) -> Result<Reply, Problem> {
    let old = call.version < Version::V1_1;
    let state = match magic {
        "PENDING" => State::Pending,
        "WAITING_ON_BANK" => State::Waiting,
        "SUCCESS" if old => State::Done(Finding::NORMAL),
        "FAILED" if old => State::Done(Finding::NotFound),
        "COMPLETED_FOUND" if !old => State::Done(Finding::NORMAL),
        "COMPLETED_NOT_FOUND" if !old => State::Done(Finding::NotFound),
        "TEMPORARY_NETWORK_ERROR" if !old => State::Done(Finding::NetworkError),
        _ => return Err(Problem::field("x-magic-reply", "this magic reply is not known here")),
    };
    let times = call.times(Duration::ZERO);
    let object = account.object(bank, state, &times);
    let due = times.now.checked_add(call.world.options.callback_delay).unwrap_or(times.now);
    let callback = matches!(state, State::Done(_)).then(|| {
        let object = object.clone();
        Callback { kind, key: call.key.clone(), due, object }
    });
    let steps = vec![Step { from: times.now, object }];
    let reply = call.store(Kind::Bank, &account.id, account.reference.as_deref(), steps);
    Ok(reply.charged(state != State::Done(Finding::NetworkError)).callback(callback))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    /// Another request about the same account is being processed.
    Waiting,
    Done(Finding),
}

/// The bank's answer about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Found { is_virtual: bool, review: bool },
    NotFound,
    NetworkError,
}

impl Finding {
    const NORMAL: Self = Self::Found { is_virtual: false, review: false };

    fn of(number: &str) -> Self {
        match number.get(number.len().saturating_sub(2)..).unwrap_or("") {
            "00" => Self::NotFound,
            "99" => Self::NetworkError,
            "88" => Self::Found { is_virtual: true, review: false },
            "77" => Self::Found { is_virtual: false, review: true },
            _ => Self::NORMAL,
        }
    }
}

/// A bank request: its parameters, and the id that the simulator gives it.
struct Account {
    version: Version,
    number: String,
    code: String,
    reference: Option<String>,
    /// The given name and the surname that the request asks to compare with the holder's name, from v2 on.
    wanted: [Option<String>; 2],
    id: String,
}

/// The JSON object that answers a bank request in v1. All its fields are on one level.
#[derive(Serialize)]
struct Flat<'a> {
    status: &'a str,
    bank_account_number: &'a str,
    bank_code: &'a str,
    updated: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bank_account_holder_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_normal_account: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<&'a str>,
}

/// The JSON object that answers a bank request in v1.1 and later. The result is an object inside it.
#[derive(Serialize)]
struct Nested<'a> {
    status: &'a str,
    bank_account_number: &'a str,
    bank_code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    updated: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    is_found: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_holder_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_virtual_account: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    need_review: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_matching_result: Option<&'static str>,
}

impl Account {
    fn object(&self, bank: &str, state: State, times: &Times) -> Bytes {
        let lower = self.number.ends_with("22");
        let status = |text: &'static str| if lower { text.to_ascii_lowercase() } else { text.to_owned() };
        let done = matches!(state, State::Done(_));
        let updated = if done { &times.done } else { &times.created };
        let failure = (state == State::Done(Finding::NetworkError)).then_some("TEMPORARY_NETWORK_ERROR");
        let holder = Seed::of(&["bank", bank, &self.number]).name();
        let written = if self.version < Version::V1_1 {
            let (name, normal, failure, text) = match state {
                State::Pending => (None, None, None, "PENDING"),
                State::Waiting => (None, None, None, "WAITING_ON_BANK"),
                State::Done(Finding::Found { is_virtual, .. }) => {
                    (Some(holder), Some(self.boolean(!is_virtual)), None, "SUCCESS")
                }
                State::Done(Finding::NotFound) => (None, None, Some("BANK_ACCOUNT_NOT_FOUND_ERROR"), "FAILED"),
                State::Done(Finding::NetworkError) => (None, None, failure, "FAILED"),
            };
            serde_json::to_vec(&Flat {
                status: &status(text),
                bank_account_number: &self.number,
                bank_code: &self.code,
                updated,
                bank_account_holder_name: name,
                is_normal_account: normal,
                failure_reason: failure,
                id: &self.id,
                reference_id: self.reference.as_deref(),
            })
        } else {
            let (result, text) = match state {
                State::Pending => (None, "PENDING"),
                State::Waiting => (None, "WAITING_ON_BANK"),
                State::Done(Finding::Found { is_virtual, review }) => {
                    let outcome = Outcome {
                        is_found: self.boolean(true),
                        name_matching_result: self.matching(&holder),
                        account_holder_name: Some(holder),
                        is_virtual_account: Some(self.boolean(is_virtual)),
                        need_review: review.then(|| self.boolean(true)),
                    };
                    (Some(outcome), "COMPLETED")
                }
                State::Done(Finding::NotFound) => {
                    let outcome = Outcome {
                        is_found: self.boolean(false),
                        account_holder_name: None,
                        is_virtual_account: None,
                        need_review: None,
                        name_matching_result: None,
                    };
                    (Some(outcome), "COMPLETED")
                }
                State::Done(Finding::NetworkError) => (None, "FAILED"),
            };
            serde_json::to_vec(&Nested {
                status: &status(text),
                bank_account_number: &self.number,
                bank_code: &self.code,
                created: done.then_some(&times.created),
                updated,
                id: &self.id,
                failure_reason: failure,
                reference_id: self.reference.as_deref(),
                result,
            })
        };
        written.unwrap_or_default().into()
    }

    /// Returns a boolean as Iluma writes it: as a JSON boolean, or as a string for account numbers that end in 33.
    fn boolean(&self, value: bool) -> Value {
        if self.number.ends_with("33") { value.to_string().into() } else { value.into() }
    }

    /// Compares the requested names with the holder's name. Returns MATCH if both are equal, UNCLEAR if they share a
    /// word, else NOT_MATCH. Returns `None` before v2, and if no name was given.
    fn matching(&self, holder: &str) -> Option<&'static str> {
        if self.version < Version::V2 || self.wanted.iter().all(Option::is_none) {
            return None;
        }
        let wanted = self.wanted.iter().flatten().cloned().collect::<Vec<_>>().join(" ").to_uppercase();
        let words: Vec<&str> = wanted.split_whitespace().collect();
        let known: Vec<&str> = holder.split_whitespace().collect();
        Some(if words == known {
            "MATCH"
        } else if words.iter().any(|word| known.contains(word)) {
            "UNCLEAR"
        } else {
            "NOT_MATCH"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(version: Version, number: &str, names: [Option<&str>; 2]) -> Account {
        Account {
            version,
            number: number.into(),
            code: "BCA".into(),
            reference: None,
            wanted: names.map(|name| name.map(Into::into)),
            id: "i".into(),
        }
    }

    #[test]
    fn endings_decide() {
        assert_eq!(Finding::of("1234567800"), Finding::NotFound);
        assert_eq!(Finding::of("1234567899"), Finding::NetworkError);
        assert_eq!(Finding::of("1234567888"), Finding::Found { is_virtual: true, review: false });
        assert_eq!(Finding::of("1"), Finding::NORMAL);
    }

    #[test]
    fn names_are_compared_from_v2_on() {
        let holder = "ARUNIKA WANAJATI";
        let matching = |version, names| account(version, "1234567890", names).matching(holder);
        assert_eq!(matching(Version::V2, [Some("Arunika"), Some("wanajati")]), Some("MATCH"));
        assert_eq!(matching(Version::V2, [Some("Arunika"), None]), Some("UNCLEAR"));
        assert_eq!(matching(Version::V2_2, [Some("Other"), None]), Some("NOT_MATCH"));
        assert_eq!(matching(Version::V2, [None, None]), None);
        assert_eq!(matching(Version::V1_1, [Some("Arunika"), Some("Wanajati")]), None);
    }
}
