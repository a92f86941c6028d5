//! What a team sets and reads: its callback URLs, its token, its signing secret. None of it ever reaches Iluma.
//!
//! Invariant: a URL is taken only after it answered a test payload 2xx.

use super::urls::{self, UrlError};
use super::webhook_client::Failure;
use super::{Callbacks, Team};
use crate::base::name::TenantName;
use crate::iluma::callback_type::CallbackType;
use crate::state::StateError;
use bytes::Bytes;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A URL as it is set and shown: `{"type","url"}`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct UrlSetting {
    /// For which callbacks.
    #[serde(rename = "type", serialize_with = "as_text")]
    pub kind: CallbackType,
    /// Where they go.
    pub url: String,
}

fn as_text<S: serde::Serializer>(kind: &CallbackType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

/// Why a setting is not taken, or not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Neither a JSON object nor a form with `type` and `url`.
    #[error("the body must be a JSON object or a form with type and url")]
    Malformed,
    /// No such type.
    #[error(
        "type must be one of NAME_VALIDATOR_REQUEST, BANK_NAME_VALIDATOR_DETAILS, ID_IMAGE_OCR_REQUEST, \
         BUSINESS_DOCUMENT_OCR_REQUEST, DOCUMENT_OCR_CAPTURE_REQUEST"
    )]
    Type,
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The test payload was not answered 2xx.
    #[error("url must answer a test payload 2xx: {0}")]
    Test(Failure),
    /// State can't be asked or written. A 503.
    #[error("callback settings can't be reached now")]
    Unavailable,
}

impl From<StateError> for SettingError {
    fn from(_: StateError) -> Self {
        Self::Unavailable
    }
}

impl Callbacks {
    /// A team's URLs, by type: those it set itself, and the configuration's for the other types.
    ///
    /// # Errors
    /// State can't be asked.
    pub async fn urls(&self, tenant: &TenantName) -> Result<Vec<UrlSetting>, SettingError> {
        let live = self.live.load_full();
        let mut urls = live.teams.get(tenant).map(|team| team.urls.clone()).unwrap_or_default();
        urls.extend(self.state.urls(tenant).await?);
        Ok(urls.into_iter().map(|(kind, url)| UrlSetting { kind, url }).collect())
    }

    /// Sets a URL, by POST or PATCH alike: `body` is JSON, or a form if `content_type` says so.
    ///
    /// # Errors
    /// Nothing was set.
    pub async fn set_url(
        &self,
        tenant: &TenantName,
        content_type: Option<&str>,
        body: &Bytes,
    ) -> Result<UrlSetting, SettingError> {
        let (kind, url) = parse(content_type, body)?;
        let live = self.live.load_full();
        let team: &Team = live.teams.get(tenant).ok_or(SettingError::Unavailable)?;
        urls::permitted(&url, &team.hosts)?;
        // As Iluma does it; a team tells it by its having no id.
        let test = json!({ "type": kind.as_str(), "test": true, "message": "This is a test of your callback URL" });
        let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
        let courier = self.courier.load_full();
        courier.send(team, &url, &id, test.to_string().into()).await.map_err(SettingError::Test)?;
        self.state.set_url(tenant, kind, &url).await?;
        Ok(UrlSetting { kind, url })
    }

    /// Upstream's answer at `authentication_tokens` as the team gets it: in the same shape, with its own token. Every text in
    /// it that could be a token is replaced; what is not JSON gives way to the shape that is documented nowhere else.
    #[must_use]
    pub fn tokens(&self, tenant: &TenantName, upstream: Option<&[u8]>) -> Bytes {
        let live = self.live.load();
        let token = live.teams.get(tenant).map_or("", |team| team.credentials.token.expose_secret());
        let shape = upstream.and_then(|body| serde_json::from_slice::<Value>(body).ok());
        let shape = shape.filter(|shape| shape.is_object() || shape.is_array());
        let shape = shape.unwrap_or_else(|| json!({ "callback_authentication_token": "" }));
        serde_json::to_vec(&with_token(None, shape, token)).unwrap_or_default().into()
    }

    /// The secrets that a team's callbacks are signed with: the newest, and all of them.
    #[must_use]
    pub fn webhook_secret(&self, tenant: &TenantName) -> Bytes {
        let live = self.live.load();
        let secrets = live.teams.get(tenant).map_or(&[][..], |team| &team.credentials.secrets);
        let secrets: Vec<&str> = secrets.iter().map(|secret| secret.expose_secret()).collect();
        let shown = json!({ "webhook_secret": secrets.first(), "webhook_secrets": secrets });
        serde_json::to_vec(&shown).unwrap_or_default().into()
    }
}

/// Replaces whatever could be the account's token: texts named so, and texts that look like one.
fn with_token(name: Option<&str>, value: Value, token: &str) -> Value {
    /// Shorter ones are words, such as an environment's name.
    const SHORTEST_TOKEN: usize = 16;
    match value {
        Value::String(text) => {
            let named = name.is_some_and(|name| name.to_ascii_lowercase().contains("token"));
            let looks = text.len() >= SHORTEST_TOKEN && !text.contains(' ');
            Value::String(if named || looks { token.to_owned() } else { text })
        }
        Value::Array(items) => items.into_iter().map(|item| with_token(name, item, token)).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name.clone(), with_token(Some(&name), value, token))).collect()
        }
        other => other,
    }
}

fn parse(content_type: Option<&str>, body: &[u8]) -> Result<(CallbackType, String), SettingError> {
    let is_form = content_type.is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    });
    let mut members: BTreeMap<String, Value> = if is_form {
        form_urlencoded::parse(body).map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect()
    } else {
        serde_json::from_slice(body).map_err(|_| SettingError::Malformed)?
    };
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

    #[test]
    fn the_accounts_token_is_replaced_whatever_the_shape() {
        for (upstream, expected) in [
            (json!({ "callback_authentication_token": "secret" }), json!({ "callback_authentication_token": "T" })),
            (json!({ "tokens": ["a", { "value": "0123456789abcdef" }] }), json!({ "tokens": ["T", { "value": "T" }] })),
            (
                json!({ "data": { "Token": "x", "environment": "LIVE", "n": 1 } }),
                json!({ "data": { "Token": "T", "environment": "LIVE", "n": 1 } }),
            ),
        ] {
            assert_eq!(with_token(None, upstream, "T"), expected);
        }
    }
}
