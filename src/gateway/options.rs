//! OPTIONS: answers with the methods that the route table has for a path, and sends nothing to Iluma.

use super::runtime::RuntimeConfig;
use crate::iluma::routes::Route;
use crate::reply::ReplyBody;
use http::header::ALLOW;
use http::{HeaderValue, Method, Response, StatusCode};

/// Answers with the methods that the route table has for the path, in the header `allow`.
pub(super) fn serve(config: &RuntimeConfig, route: &Route) -> Response<ReplyBody> {
    let mut methods = config.table.methods(&route.target).unwrap_or_default();
    if methods.contains(&Method::GET) {
        methods.push(Method::HEAD);
    }
    methods.push(Method::OPTIONS);
    let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let mut response = Response::new(ReplyBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}
