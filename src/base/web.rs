//! The layers that every axum router of the gateway has, most of them from tower-http.
//!
//! They add request ids, shape errors, check the host, catch panics, and limit times and bodies.
//!
//! Invariants: every answer carries a request id; every error has the shape that the router's owner chose, even if axum
//! or a layer made the error; every body and every answer is within its [`Bounds`].

use crate::base::host::{self, HostError};
use crate::base::peer::Peer;
use crate::base::request_id;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, map_response};
use axum::response::Response;
use bytes::Bytes;
use http::header::HeaderName;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::propagate_header::PropagateHeaderLayer;
use tower_http::set_header::SetRequestHeaderLayer;
use tower_http::timeout::{RequestBodyDeadlineLayer, TimeoutLayer};

/// The header with the reason of an error that the gateway made.
pub const GATEWAY_ERROR: HeaderName = HeaderName::from_static("x-gateway-error");

/// The bounds that one router sets for each request.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The longest body of a request, in bytes.
    pub body: usize,
    /// The time in which the whole body must arrive.
    pub body_deadline: Duration,
    /// The time after which a request is answered 503.
    pub answer_deadline: Duration,
}

/// The reason why a request's body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// The body is longer than its bound.
    TooLarge,
    /// The body did not arrive within its deadline.
    TooSlow,
    /// The peer cut the body off.
    CutOff,
}

/// Puts the layers around `router`. `refuse` makes the answer to a request that axum or a layer has refused, with one
/// of the statuses 404, 405, 413, 500 and 503. `bad_host` makes the answer to a request without exactly one valid host.
pub fn layered(
    router: Router,
    bounds: Bounds,
    refuse: fn(StatusCode) -> Response,
    bad_host: fn(HostError) -> Response,
) -> Router {
    let with_host = move |request: Request, next: Next| async move {
        match host::check(&request) {
            Ok(()) => next.run(request).await,
            Err(fault) => bad_host(fault),
        }
    };
    let header = request_id::HEADER;
    let id = |request: &Request| Some(request_id::of(request.headers()).1);
    // The last layer is the outermost.
    router
        .layer(RequestBodyDeadlineLayer::new(bounds.body_deadline))
        .layer(RequestBodyLimitLayer::new(bounds.body))
        .layer(from_fn(with_host))
        .layer(CatchPanicLayer::custom(move |_| refuse(StatusCode::INTERNAL_SERVER_ERROR)))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, bounds.answer_deadline))
        .layer(map_response(move |response: Response| async move { shaped(response, refuse) }))
        .layer(PropagateHeaderLayer::new(header.clone()))
        .layer(SetRequestHeaderLayer::overriding(header, id))
}

/// Returns a function that makes a service for each connection. The service passes requests to `router`. Handlers find
/// the [`Client`](crate::base::peer::Client) in a request's extensions.
pub fn services(router: Router) -> impl Fn(Peer) -> Named + Send + Sync + 'static {
    let service = TowerToHyperService::new(router);
    move |peer| Named { service: service.clone(), peer }
}

/// A service that adds the [`Client`](crate::base::peer::Client) to each request's extensions.
#[derive(Debug, Clone)]
pub struct Named {
    service: TowerToHyperService<Router>,
    peer: Peer,
}

impl Service<hyper::Request<Incoming>> for Named {
    type Response = Response;
    type Error = Infallible;
    type Future = <TowerToHyperService<Router> as Service<hyper::Request<Incoming>>>::Future;

    fn call(&self, mut request: hyper::Request<Incoming>) -> Self::Future {
        let client = self.peer.client(request.headers());
        request.extensions_mut().insert(client);
        self.service.call(request)
    }
}

/// Returns `response`, unless it is an error that axum or a layer has made. For such an error, returns the answer of
/// `refuse`.
fn shaped(response: Response, refuse: fn(StatusCode) -> Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().contains_key(GATEWAY_ERROR) {
        return response;
    }
    // The header `allow` of a 405 is not lost: axum adds it outside of all layers.
    refuse(status)
}

/// Returns a method's name for logs and traces. It is `OTHER` for an unknown method, which could be any text.
#[must_use]
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

/// Reads the whole body of a request.
///
/// # Errors
/// Returns an error if the body breaks one of the [`Bounds`], or is cut off.
pub async fn whole_body(request: Request) -> Result<Bytes, BodyFault> {
    let body = request.into_body().collect().await;
    body.map(|body| body.to_bytes()).map_err(|error| fault(&error))
}

/// Returns the fault of a body. It searches `error` and its sources for the error of a layer.
fn fault(error: &(dyn Error + 'static)) -> BodyFault {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return BodyFault::TooLarge;
        }
        if error.is::<tower_http::timeout::TimeoutError>() {
            return BodyFault::TooSlow;
        }
        cause = error.source();
    }
    BodyFault::CutOff
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::response::IntoResponse as _;
    use axum::routing::{get, post};
    use http::Method;
    use tower::Service as _;

    const BOUNDS: Bounds =
        Bounds { body: 10, body_deadline: Duration::from_secs(1), answer_deadline: Duration::from_secs(5) };

    fn refuse(status: StatusCode) -> Response {
        (status, [(GATEWAY_ERROR, "ours")], "ours").into_response()
    }

    async fn read(request: Request) -> Response {
        match whole_body(request).await {
            Ok(body) => body.into_response(),
            Err(fault) => (StatusCode::IM_A_TEAPOT, [(GATEWAY_ERROR, "read")], format!("{fault:?}")).into_response(),
        }
    }

    async fn asked(method: Method, path: &str, body: Body) -> (u16, String, Response) {
        async fn panics() -> &'static str {
            panic!("a fault of ours")
        }
        let slow = || async { std::future::pending::<()>().await };
        let router = Router::new().route("/read", post(read)).route("/panics", get(panics)).route("/slow", get(slow));
        let request = Request::builder().method(method).uri(path).header("host", "gateway.test").body(body).unwrap();
        let response =
            layered(router, BOUNDS, refuse, |_| refuse(StatusCode::BAD_REQUEST)).call(request).await.unwrap();
        let (head, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(text.to_vec()).unwrap(), Response::from_parts(head, Body::empty()))
    }

    #[tokio::test(start_paused = true)]
    async fn every_error_has_the_shape_of_ours() {
        let unending = || {
            Body::new(http_body_util::StreamBody::new(futures_util::stream::pending::<
                Result<http_body::Frame<Bytes>, std::io::Error>,
            >()))
        };
        for (method, path, body, status, text) in [
            (Method::GET, "/nowhere", Body::empty(), 404, "ours"),
            (Method::GET, "/read", Body::empty(), 405, "ours"),
            (Method::POST, "/read", Body::from("0123456789"), 200, "0123456789"),
            (Method::POST, "/read", Body::from("0123456789a"), 418, "TooLarge"),
            (Method::POST, "/read", unending(), 418, "TooSlow"),
            (Method::GET, "/panics", Body::empty(), 500, "ours"),
            (Method::GET, "/slow", Body::empty(), 503, "ours"),
        ] {
            let (found, said, response) = asked(method, path, body).await;
            assert_eq!((found, said.as_str()), (status, text), "{path}");
            assert!(response.headers().contains_key(request_id::HEADER), "{path}");
        }
        let (_, _, refused) = asked(Method::POST, "/slow", Body::empty()).await;
        assert_eq!(refused.headers()[http::header::ALLOW], "GET,HEAD");
    }
}
