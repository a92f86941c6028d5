//! The paths of the portal: page, log in, log out, files. None of them needs a key.

use super::assets::ASSETS;
use super::page::{self, Reader};
use crate::base::bounded_body::{self, BodyTimeouts};
use crate::gateway::authentication::{COOKIE, Credentials, KeySession, session, unauthenticated};
use crate::gateway::core::Gateway;
use crate::gateway::replies::of_parts;
use crate::gateway::request_log::RequestLog;
use crate::gateway::runtime::RuntimeConfig;
use crate::iluma::routes::{Kind, PORTAL, PORTAL_ASSETS, PORTAL_LOG_IN, PORTAL_LOG_OUT, Route};
use crate::pages::{self, Served};
use crate::reply::{Rejection, ReplyBody};
use crate::tenant::{Authenticated, Unauthenticated};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, HOST, LOCATION, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use maud::Markup;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// The longest form in bytes. A key has about 60 characters, and a session's CSRF token has 64.
const LONGEST_FORM: usize = 4096;
/// The time in which the whole form must arrive.
const FORM_TIME: Duration = Duration::from_secs(10);
/// The path of the page and of the session's cookie. It ends with a slash, because a browser sends the cookie only for
/// this path and the paths below it.
const PAGE: &str = "/_gateway/";

/// A part of the portal, by its path: the page, the log-in, the log-out, or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Place {
    Page,
    LogIn,
    LogOut,
    File,
}

impl Place {
    /// Returns the part of the portal at a route's path; `None` for the rest of the team's own API and all other
    /// routes.
    pub(in super::super) fn of(route: &Route) -> Option<Self> {
        if route.kind != Kind::OwnApi {
            return None;
        }
        match route.target.path() {
            PORTAL => Some(Self::Page),
            PORTAL_LOG_IN => Some(Self::LogIn),
            PORTAL_LOG_OUT => Some(Self::LogOut),
            path => path.starts_with(PORTAL_ASSETS).then_some(Self::File),
        }
    }
}

/// Answers a request for a part of the portal.
pub(in super::super) async fn serve(
    gateway: &Arc<Gateway>,
    config: &Arc<RuntimeConfig>,
    (place, request): (Place, Request<Incoming>),
    log: &mut RequestLog,
) -> Result<Response<ReplyBody>, Rejection> {
    match place {
        Place::Page => show(gateway, config, &request, log).await,
        Place::LogIn => log_in(gateway, config, request, log).await,
        Place::LogOut => log_out(gateway, config, request, log).await,
        Place::File => file(request.uri().path()),
    }
}

/// Answers with the team's page, or with the page to log in.
async fn show(
    gateway: &Gateway,
    config: &RuntimeConfig,
    request: &Request<Incoming>,
    log: &mut RequestLog,
) -> Result<Response<ReplyBody>, Rejection> {
    if !request.uri().path().ends_with('/') {
        return Ok(to_the_page(None));
    }
    let found = match session(gateway, config, given(request.headers(), log)).await {
        Ok(found) => found,
        Err(rejection) => return Ok(refused(rejection, config, log)),
    };
    let keys = gateway.registry.table();
    let known = found.and_then(|session| {
        let known = config.tenants.with_key(&session.standing, &keys, log.asked()).ok()?;
        Some((known, session))
    });
    let Some((Authenticated { tenant, key }, session)) = known else {
        return Ok(html(StatusCode::OK, page::login(None, config.contact.as_deref())));
    };
    log.set_tenant(tenant, config);
    if key.is_suspended {
        return Ok(refused(Rejection::TenantSuspended, config, log));
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let scheme = if log.secure { "https" } else { "http" };
    let base = format!("{scheme}://{}", host.unwrap_or("localhost"));
    let (time_zone, contact) = (gateway.ledger.time_zone(), config.contact.as_deref());
    let reader = Reader { csrf: &session.csrf, tenant, base: &base, time_zone: &time_zone, contact };
    Ok(html(StatusCode::OK, page::page(&reader)))
}

/// Opens a session for the key in the form. A wrong key counts as a failed authentication on this listener.
async fn log_in(
    gateway: &Gateway,
    config: &RuntimeConfig,
    request: Request<Incoming>,
    log: &mut RequestLog,
) -> Result<Response<ReplyBody>, Rejection> {
    let form = form(request.into_body()).await?;
    let key = field(&form, "key").filter(|key| !key.is_empty());
    let known = key.ok_or(Unauthenticated::Missing).and_then(|key| {
        let (sha256, keys) = (Sha256::digest(key.trim()).into(), gateway.registry.table());
        let Authenticated { tenant, key } = config.tenants.with_key(&sha256, &keys, log.asked())?;
        log.set_tenant(tenant, config);
        Ok((tenant.name.clone(), sha256, key.is_suspended))
    });
    let rejection = match known {
        Ok((tenant, sha256, false)) => match gateway.sessions.open(tenant.as_str(), sha256).await {
            Ok(id) => return Ok(to_the_page(Some(&pages::session_cookie(COOKIE, &id, PAGE, log.secure)))),
            Err(_) => Rejection::SessionsUnavailable,
        },
        Ok((_, _, true)) => Rejection::TenantSuspended,
        Err(error) => unauthenticated(gateway, log, error),
    };
    Ok(refused(rejection, config, log))
}

/// Ends the session, if the form has the session's CSRF token: only the session's own page has it.
async fn log_out(
    gateway: &Gateway,
    config: &RuntimeConfig,
    request: Request<Incoming>,
    log: &mut RequestLog,
) -> Result<Response<ReplyBody>, Rejection> {
    let (head, body) = request.into_parts();
    let form = form(body).await?;
    let session = match session(gateway, config, given(&head.headers, log)).await {
        Ok(session) => session,
        Err(rejection) => return Ok(refused(rejection, config, log)),
    };
    let has_value = |session: KeySession| field(&form, "csrf").is_some_and(|csrf| session.has_value(csrf.as_bytes()));
    if let Some(id) = pages::cookie(&head.headers, COOKIE).filter(|_| session.is_some_and(has_value))
        && gateway.sessions.close(id).await.is_err()
    {
        return Ok(refused(Rejection::SessionsUnavailable, config, log));
    }
    Ok(to_the_page(Some(&pages::ended_cookie(COOKIE, PAGE))))
}

/// Returns the credentials of a request to the portal. Their method is GET, so that no header with a CSRF token is
/// needed: the page changes nothing, and the log-out checks the token in its form.
fn given<'a>(headers: &'a HeaderMap, log: &RequestLog) -> Credentials<'a> {
    Credentials { method: &Method::GET, headers, path: PAGE, time: log.asked() }
}

async fn form(body: Incoming) -> Result<Bytes, Rejection> {
    let timeouts = BodyTimeouts { idle: FORM_TIME, total: FORM_TIME };
    let whole = bounded_body::read(body, LONGEST_FORM, Some(timeouts), |_| true).await;
    whole.map_err(|reason| Rejection::Body(reason.into()))
}

/// Returns a field of a form.
fn field(form: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(form).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

fn file(path: &str) -> Result<Response<ReplyBody>, Rejection> {
    let Served { media_type, content, .. } = ASSETS.at(path).ok_or(Rejection::UnknownOwnPath)?;
    let headers = HeaderMap::from_iter(pages::asset_headers(media_type));
    Ok(of_parts(StatusCode::OK, headers, ReplyBody::full(content.as_str().into())))
}

/// Answers a refusal with the log-in page. Status and reason are the same as in the API's answer to this refusal.
fn refused(rejection: Rejection, config: &RuntimeConfig, log: &mut RequestLog) -> Response<ReplyBody> {
    log.rejected(&rejection);
    let mut response = rejection.into_response(None);
    // With this header a browser would ask for a name and a password by itself.
    response.headers_mut().remove(WWW_AUTHENTICATE);
    let page = page::login(Some(&rejection.to_string()), config.contact.as_deref());
    for (name, value) in pages::page_headers() {
        response.headers_mut().insert(name, value);
    }
    *response.body_mut() = ReplyBody::full(page.into_string().into());
    response
}

fn to_the_page(cookie: Option<&str>) -> Response<ReplyBody> {
    let mut headers = HeaderMap::from_iter([
        (LOCATION, HeaderValue::from_static(PAGE)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]);
    if let Some(cookie) = cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok()) {
        headers.insert(SET_COOKIE, cookie);
    }
    of_parts(StatusCode::SEE_OTHER, headers, ReplyBody::empty())
}

fn html(status: StatusCode, page: Markup) -> Response<ReplyBody> {
    of_parts(status, HeaderMap::from_iter(pages::page_headers()), ReplyBody::full(page.into_string().into()))
}
