//! The paths of the console: pages, log in, log out, assets.

use super::assets::ASSETS;
use super::pages::{self as views, View};
use super::reader::Reader;
use super::session::{COOKIE_NAME, by_session};
use crate::admin::answer::Refusal;
use crate::admin::context::Context;
use crate::admin::tokens::Token;
use crate::base::auth_failures::Authenticating;
use crate::base::peer::Client;
use crate::base::web::{GATEWAY_ERROR, whole_body};
use crate::config::Role;
use crate::iluma::callback_type::CallbackType;
use crate::iluma::routes::ROUTES;
use crate::pages::{self, Served, Session};
use crate::state::StateError;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use maud::Markup;
use std::sync::Arc;

/// The message for a token that is not in the configuration.
const UNKNOWN_TOKEN: &str = "This token is not known. Tokens are those of [admin.tokens] in the configuration.";

/// Returns the console's paths.
pub(in super::super) fn router() -> Router<Arc<Context>> {
    let views = View::ALL.into_iter().fold(Router::new(), |router, view| {
        let (path, ..) = view.names();
        router.route(
            path,
            get(async move |State(context): State<Arc<Context>>, headers: HeaderMap| {
                show(&context, &headers, view).await
            }),
        )
    });
    views
        .route("/console/login", post(log_in))
        .route("/console/logout", post(log_out))
        .route("/console/assets/{name}", get(asset))
}

/// Returns the session of a request for a page; `None` if the request has no valid session.
async fn session(context: &Context, headers: &HeaderMap) -> Result<Option<Session<Role>>, StateError> {
    let config = context.config();
    let role_of = |name: &str, hash: &[u8; 32]| config.tokens.role_of(name, hash);
    by_session(&context.sessions, (&Method::GET, headers), role_of).await
}

async fn show(context: &Context, headers: &HeaderMap, view: View) -> Response {
    let session = match session(context, headers).await {
        Ok(Some(session)) => session,
        Ok(None) => return page(StatusCode::OK, views::login(None)),
        Err(error) => return refused(Refusal::sessions(error)),
    };
    let config = context.config();
    let teams: Vec<&str> = config.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    let (types, routes) = (CallbackType::ALL.map(CallbackType::as_str), ROUTES.each_ref().map(|row| row.text));
    let reader = Reader {
        session: &session,
        node: &context.node,
        time_zone: &context.ledger.time_zone(),
        teams: &teams,
        types: &types,
        routes: &routes,
    };
    page(StatusCode::OK, views::page(view, &reader))
}

/// Opens a session for the token in the form. A wrong token counts as a failed authentication at this listener.
async fn log_in(State(context): State<Arc<Context>>, request: Request) -> Response {
    let client = request.extensions().get::<Client>().copied();
    let Ok(body) = whole_body(request).await else { return StatusCode::BAD_REQUEST.into_response() };
    let given = field(&body, "token");
    let config = context.config();
    if let Some(Token { name, hash, .. }) = given.as_deref().and_then(|given| config.tokens.with_secret(given)) {
        let id = match context.sessions.open(name, *hash).await {
            Ok(id) => id,
            Err(error) => return refused(Refusal::sessions(error)),
        };
        let secure = client.is_some_and(|client| client.secure);
        return to_the_overview(&pages::session_cookie(COOKIE_NAME, &id, "/", secure));
    }
    match client.map(|client| context.orders.failures.note(Authenticating::Admin, client.address)) {
        Some(Err(wait)) => Refusal::TooManyFailures(wait).into_response(),
        Some(Ok(())) | None => {
            let mut refused = page(StatusCode::UNAUTHORIZED, views::login(Some(UNKNOWN_TOKEN)));
            refused.headers_mut().insert(GATEWAY_ERROR, HeaderValue::from_static("unauthorized"));
            refused
        }
    }
}

/// Ends the session if the form has the session's secret value, which only the pages of the session contain.
async fn log_out(State(context): State<Arc<Context>>, request: Request) -> Response {
    let id = pages::cookie(request.headers(), COOKIE_NAME).map(str::to_owned);
    let session = match session(&context, request.headers()).await {
        Ok(session) => session,
        Err(error) => return refused(Refusal::sessions(error)),
    };
    let Ok(body) = whole_body(request).await else { return StatusCode::BAD_REQUEST.into_response() };
    if let (Some(id), Some(session), Some(csrf)) = (id, session, field(&body, "csrf"))
        && session.has_value(csrf.as_bytes())
        && let Err(error) = context.sessions.close(&id).await
    {
        return refused(Refusal::sessions(error));
    }
    to_the_overview(&pages::ended_cookie(COOKIE_NAME, "/"))
}

/// Returns the value of the field `name` of a form; `None` if the form has no such field.
fn field(body: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(body).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

fn to_the_overview(cookie: &str) -> Response {
    let mut response = Redirect::to("/").into_response();
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn asset(request: Request) -> Response {
    match ASSETS.at(request.uri().path()) {
        Some(Served { media_type, content, .. }) => {
            (pages::asset_headers(media_type), content.as_str()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Returns the log-in page with the text of a refusal. The response has the same status and the same `x-gateway-error`
/// as the API's answer to that refusal.
fn refused(refusal: Refusal) -> Response {
    let markup = views::login(Some(&refusal.to_string()));
    let mut response = refusal.into_response();
    for (name, value) in pages::page_headers() {
        response.headers_mut().insert(name, value);
    }
    *response.body_mut() = markup.into_string().into();
    response
}

fn page(status: StatusCode, markup: Markup) -> Response {
    (status, pages::page_headers(), markup.into_string()).into_response()
}
