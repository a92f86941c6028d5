//! A team's own settings: its callback URLs, its token, its signing secret. None of them ever reaches Iluma.
//!
//! Invariants: a URL is accepted only after it answered a test payload with 2xx; a team learns that a test failed, but
//! not why, so that it can't explore a network by tests.

use super::config::Team;
use super::service::Callbacks;
use super::tokens::TokenSubstitution;
use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::callback_url::{CallbackUrl, UrlError};
use crate::state::{AttemptRecord, Endpoint, StateError};
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A callback type and its URL. The URL is in its normal form. Both are shown as `{"type","url"}`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UrlSetting {
    /// The type of the callbacks.
    #[serde(rename = "type", serialize_with = "as_text")]
    pub kind: CallbackType,
    /// The URL for these callbacks.
    pub url: String,
}

fn as_text<S: serde::Serializer>(kind: &CallbackType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

/// The reason why a setting is refused, or can't be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The body is neither a JSON object nor a form with `type` and `url`.
    #[error("the body must be a JSON object or a form with type and url")]
    Malformed,
    /// There is no such type.
    #[error(
        "type must be one of NAME_VALIDATOR_REQUEST, BANK_NAME_VALIDATOR_DETAILS, ID_IMAGE_OCR_REQUEST, \
         BUSINESS_DOCUMENT_OCR_REQUEST, DOCUMENT_OCR_CAPTURE_REQUEST"
    )]
    Type,
    /// The URL is not allowed.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The test payload was not answered with 2xx, for any reason.
    #[error("url must answer a test payload with a status of 2xx: the test failed")]
    Test,
    /// State can't be read or written. The answer is 503.
    #[error("callback settings can't be read or written now; try again")]
    Unavailable,
}

impl From<StateError> for SettingError {
    fn from(_: StateError) -> Self {
        Self::Unavailable
    }
}

impl Callbacks {
    /// Returns a team's URLs by type: the URLs that the team set itself, and the configured URLs for the other types.
    ///
    /// # Errors
    /// Returns an error if state can't be read.
    pub async fn urls(&self, tenant: &TenantName) -> Result<Vec<UrlSetting>, SettingError> {
        let config = self.config.load_full();
        let mut urls = config.teams.get(tenant).map(|team| team.urls.clone()).unwrap_or_default();
        urls.extend(self.state.urls(tenant).await?);
        Ok(urls.into_iter().map(|(kind, url)| UrlSetting { kind, url }).collect())
    }

    /// Returns the URL for a team's callbacks of a type: the URL that the team set, else the configured URL. Returns
    /// `None` if no URL is set or configured.
    pub(super) async fn url(
        &self,
        tenant: &TenantName,
        team: &Team,
        kind: CallbackType,
    ) -> Result<Option<String>, StateError> {
        let own = self.state.urls(tenant).await?.into_iter().find(|(known, _)| *known == kind);
        Ok(own.map(|(_, url)| url).or_else(|| team.urls.get(&kind).cloned()))
    }

    /// Tests a URL, and sets it as the team's URL for a callback type. `body` has both, as JSON, or as a form if
    /// `content_type` says so.
    ///
    /// # Errors
    /// Returns an error if the body or the URL is refused, if the URL's test fails, or if state can't be written.
    pub async fn set_url(
        &self,
        tenant: &TenantName,
        content_type: Option<&str>,
        body: &Bytes,
    ) -> Result<UrlSetting, SettingError> {
        let (kind, url) = parse(content_type, body)?;
        let config = self.config.load_full();
        let team = config.teams.get(tenant).ok_or(SettingError::Unavailable)?;
        let url = CallbackUrl::permitted(&url, &team.hosts)?.to_string();
        let tested = self.send_test(team, kind, &url).await;
        if !tested.result.is_success() {
            // Only operators see the reason.
            tracing::info!(%tenant, result = %tested.result, "the test of a callback URL failed");
            return Err(SettingError::Test);
        }
        self.state.set_url(tenant, kind, &url).await?;
        Ok(UrlSetting { kind, url })
    }

    /// Resets the URL of a type, or of all types, to the configured URL. Returns all of the team's URLs after that. The
    /// query or the body names the type; the body is JSON, or a form if `content_type` says so.
    ///
    /// # Errors
    /// Returns an error if the query or the body is refused. Also returns an error if state can't be read or written;
    /// then some of the URLs may be reset already.
    pub async fn reset_urls(
        &self,
        tenant: &TenantName,
        query: &str,
        (content_type, body): (Option<&str>, &Bytes),
    ) -> Result<Vec<UrlSetting>, SettingError> {
        let kind = named_kind(query, content_type, body)?;
        let kinds = kind.map_or_else(|| CallbackType::ALL.to_vec(), |kind| vec![kind]);
        let endpoints: Vec<_> = kinds.into_iter().map(|kind| Endpoint { tenant: tenant.clone(), kind }).collect();
        self.state.delete_urls(&endpoints).await?;
        self.urls(tenant).await
    }

    /// Sends a signed test payload. Its body has no id, like the body with which Iluma tests a URL.
    pub(super) async fn send_test(&self, team: &Team, kind: CallbackType, url: &str) -> AttemptRecord {
        let test = json!({ "type": kind.as_str(), "test": true, "message": "This is a test of your callback URL" });
        let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
        let (timeout, client) = (self.config.load().timeout, self.client.load_full());
        client.send(team, timeout, url, (&id, test.to_string().into())).await.attempt
    }

    /// Returns the answer at `authentication_tokens` for the team: Iluma's answer, with the team's own token in place
    /// of the account's. `upstream` is the body of Iluma's answer. If it is missing, or is no JSON object or list, the
    /// gateway makes the whole answer.
    #[must_use]
    pub fn tokens(&self, tenant: &TenantName, upstream: Option<&[u8]>) -> Bytes {
        let config = self.config.load();
        let team = config.teams.get(tenant);
        let token = team.map_or("", |team| team.credentials.token.expose_secret());
        let account = team.and_then(|team| config.accounts.get(&team.account));
        let known = account.map_or(&[][..], |account| &account.tokens);
        let plain: Vec<&str> = known.iter().map(|token| token.expose_secret()).collect();
        // Iluma's answer arrives with its secrets masked, so the masked forms are replaced too.
        let covered: Vec<String> = plain.iter().map(|token| "*".repeat(token.len())).collect();
        let known: Vec<&str> = plain.iter().copied().chain(covered.iter().map(String::as_str)).collect();
        let shape = upstream.and_then(|body| serde_json::from_slice::<Value>(body).ok());
        let shape = shape.filter(|shape| shape.is_object() || shape.is_array());
        let shape = shape.unwrap_or_else(|| json!({ "callback_authentication_token": "" }));
        serde_json::to_vec(&TokenSubstitution::new(&shape, &known, token).apply(shape)).unwrap_or_default().into()
    }

    /// Returns the secrets that sign a team's callbacks, as JSON: `webhook_secret` is the current secret, and
    /// `webhook_secrets` lists all secrets.
    #[must_use]
    pub fn webhook_secret(&self, tenant: &TenantName) -> Bytes {
        let config = self.config.load();
        let secrets = config.teams.get(tenant).map_or(&[][..], |team| &team.credentials.secrets);
        let secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose_secret()).collect();
        let shown = json!({ "webhook_secret": secrets.first(), "webhook_secrets": secrets });
        serde_json::to_vec(&shown).unwrap_or_default().into()
    }
}

/// Returns the callback type that a query or a body names as `type`. Returns `None` if both have no members.
fn named_kind(query: &str, content_type: Option<&str>, body: &[u8]) -> Result<Option<CallbackType>, SettingError> {
    let mut given = members(Some(FORM), query.as_bytes())?;
    if !body.is_empty() {
        given.extend(members(content_type, body)?);
    }
    match given.remove("type") {
        None if given.is_empty() => Ok(None),
        Some(Value::String(kind)) => Ok(Some(kind.parse().map_err(|_| SettingError::Type)?)),
        Some(_) | None => Err(SettingError::Type),
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

fn members(content_type: Option<&str>, body: &[u8]) -> Result<BTreeMap<String, Value>, SettingError> {
    let is_form = content_type.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case(FORM)
    });
    if is_form {
        let members = form_urlencoded::parse(body);
        return Ok(members.map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect());
    }
    serde_json::from_slice(body).map_err(|_| SettingError::Malformed)
}

fn parse(content_type: Option<&str>, body: &[u8]) -> Result<(CallbackType, String), SettingError> {
    let mut members = members(content_type, body)?;
    let mut text = |name: &str| match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(SettingError::Malformed),
    };
    let (kind, url) = (text("type")?, text("url")?);
    Ok((kind.parse().map_err(|_| SettingError::Type)?, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_that_are_reset_are_those_of_a_type_or_all() {
        let kind = Some(CallbackType::NameValidatorRequest);
        for (query, content_type, body, expected) in [
            ("", None, "", Ok(None)),
            ("", None, "{}", Ok(None)),
            ("type=NAME_VALIDATOR_REQUEST", None, "", Ok(kind)),
            ("", None, r#"{"type":"NAME_VALIDATOR_REQUEST"}"#, Ok(kind)),
            ("", Some(FORM), "type=NAME_VALIDATOR_REQUEST", Ok(kind)),
            ("", None, r#"{"type":"NAME_VALIDATOR_REQUEST","url":"https://a.internal"}"#, Ok(kind)),
            ("type=x", None, "", Err(SettingError::Type)),
            ("kind=NAME_VALIDATOR_REQUEST", None, "", Err(SettingError::Type)),
            ("", None, r#"{"type":1}"#, Err(SettingError::Type)),
            ("", None, "type=NAME_VALIDATOR_REQUEST", Err(SettingError::Malformed)),
        ] {
            assert_eq!(named_kind(query, content_type, body.as_bytes()), expected, "{query} {body}");
        }
    }

    #[test]
    fn a_setting_is_json_or_a_form() {
        let url = "https://a.internal/x?y=1&z".to_owned();
        let expected = Ok((CallbackType::NameValidatorRequest, url));
        let json = br#"{"type":"NAME_VALIDATOR_REQUEST","url":"https://a.internal/x?y=1&z","more":1}"#;
        assert_eq!(parse(Some("application/json; charset=utf-8"), json), expected);
        assert_eq!(parse(None, json), expected);
        let form = b"type=NAME_VALIDATOR_REQUEST&url=https%3A%2F%2Fa.internal%2Fx%3Fy%3D1%26z";
        assert_eq!(parse(Some("Application/X-WWW-Form-Urlencoded;charset=utf-8"), form), expected);
        for (body, error) in [
            (&b""[..], SettingError::Malformed),
            (b"[]", SettingError::Malformed),
            (br#"{"type":"NAME_VALIDATOR_REQUEST"}"#, SettingError::Malformed),
            (br#"{"type":"NAME_VALIDATOR_REQUEST","url":1}"#, SettingError::Malformed),
            (br#"{"type":"x","url":"https://a.internal"}"#, SettingError::Type),
        ] {
            assert_eq!(parse(None, body), Err(error));
        }
    }
}
