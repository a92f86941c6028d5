//! The callback settings of an account. A URL is accepted only after it answered a test payload with 2xx.

use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::call::Call;
use super::callback::{Type, destination};
use super::check::Check;
use super::problem::Problem;
use super::reply::Reply;

#[derive(Serialize)]
struct Shown {
    r#type: Type,
    url: String,
}

/// Answers `GET`, `POST` and `PATCH /v1/callback/urls`. POST sets or replaces a URL; PATCH only replaces a URL that is
/// set.
pub(super) async fn urls(call: &mut Call<'_>) -> Result<Reply, Problem> {
    if call.method == Method::GET {
        let urls = call.world.urls.lock().of(&call.key.label);
        let shown: Vec<Shown> = urls.into_iter().map(|(r#type, url)| Shown { r#type, url }).collect();
        return Ok(Reply::json(&shown));
    }
    let form = call.form(&[]).await?;
    let mut check = Check::new(&form);
    let names: Vec<&str> = Type::ALL.iter().map(|(name, _)| *name).collect();
    let (name, url) = (check.choice("type", &names), check.required("url"));
    if !url.is_empty() && destination(&url).is_none() {
        check.wrong("url", "url must be an http or https URL");
    }
    check.finish()?;
    let kind = Type::ALL.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
    let (Some(kind), Some(uri)) = (kind, destination(&url)) else { return Err(Problem::not_found()) };
    {
        let urls = call.world.urls.lock();
        if call.method == Method::PATCH && urls.find(&call.key.label, kind).is_none() {
            return Err(Problem::new(StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "No URL is set for this type"));
        }
    }
    let payload = json!({ "type": kind, "test": true, "message": "This is a test of your callback URL" });
    let status = call.world.webhooks.post(&call.world.options, &call.key, uri, payload.to_string().into()).await;
    if !status.is_some_and(|status| status.is_success()) {
        let found = status.map_or_else(|| "nothing".to_owned(), |status| status.as_u16().to_string());
        return Err(Problem::field("url", format!("the test payload must be answered 2xx, it was answered {found}")));
    }
    if !call.world.urls.lock().set(&call.key.label, kind, url.clone()) {
        return Err(Problem::server("too many callback URLs are set"));
    }
    Ok(Reply::json(&Shown { r#type: kind, url }))
}

/// Answers `GET /v1/callback/authentication_tokens`.
pub(super) fn token(call: &Call<'_>) -> Reply {
    Reply::json(&json!({ "callback_authentication_token": &*call.key.callback_token }))
}
