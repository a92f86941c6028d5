//! The way of one request from its head to its answer: authentication, routing, faults, rate limit, charge.

use std::io;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::Tap;
use super::call::Call;
use super::fault::{self, Fault};
use super::journal::Entry;
use super::key::{self, Key};
use super::line::{Cut, Line};
use super::problem::Problem;
use super::reply::Reply;
use super::route::{self, Matched, Route};
use super::world::World;
use super::{
    api_keys, bank, bank_codes, callback, callback_settings, capture, cft, control, delivery, document, drawdown, face,
    id_card, ktp, npwp, ocr, phone, time,
};
use parking_lot::Mutex;

/// Returns the answer to a request. If a fault breaks the connection or leaves the request without an answer, the
/// future never completes.
pub(super) async fn answer(world: Arc<World>, line: Arc<Line>, request: Request<Incoming>) -> Response<Outgoing> {
    let (parts, incoming) = request.into_parts();
    if control::is_ours(parts.uri.path()) {
        return response(control::answer(&world, &parts, incoming).await, End::Whole);
    }
    let path = aliased(&world, parts.uri.path());
    let matched = route::find(&parts.method, &path);
    let route = matched.route;
    let entry = world.journal.lock().open(&parts, route.label().0);
    let key = key::authenticate(&parts.headers, &world.options);
    let label = key.as_ref().ok().map(|key| Arc::clone(&key.label));
    entry.lock().key.clone_from(&label);
    let _in_flight = world.tally.enter(route, label.as_deref());
    let body = Tap::new(incoming, world.options.max_request_body, Arc::clone(&entry));
    let plan = match fault::of_headers(&parts.headers) {
        Ok(mut faults) => {
            faults.extend(world.faults.lock().take(&parts.method, parts.uri.path()));
            entry.lock().faults = faults.iter().map(Fault::text).collect();
            Plan::of(faults)
        }
        Err(message) => Plan { instead: Some(Problem::field("x-sim-fault", message)), ..Plan::default() },
    };
    if plan.ending == Ending::Refuse {
        line.cut(Cut::Reset);
        return never().await;
    }
    let request = Asked { parts: &parts, matched: &matched, plan: &plan, entry: &entry };
    let reply = process(&world, request, key, body).await;
    tokio::time::sleep(world.options.latency + plan.latency).await;
    world.tally.answered(route, reply.status.as_u16());
    let reply = plan.distorted(reply);
    match plan.ending {
        Ending::Hang => never().await,
        Ending::Cut(cut) => {
            line.cut(cut);
            never().await
        }
        Ending::Truncate => response(reply, End::Break),
        Ending::Stall => response(reply, End::Stall),
        Ending::Whole | Ending::Refuse => response(reply, End::Whole),
    }
}

/// A request whose route and faults are known.
struct Asked<'a> {
    parts: &'a Parts,
    matched: &'a Matched,
    plan: &'a Plan,
    /// The request's entry in the journal.
    entry: &'a Mutex<Entry>,
}

/// Makes the answer to a request, counts the call as charged if Iluma would charge for it, and sends its callback.
async fn process(world: &Arc<World>, request: Asked<'_>, key: Result<Key, Problem>, mut body: Tap) -> Reply {
    let Asked { parts, matched, plan, entry } = request;
    let route = matched.route;
    let charge_to = key.as_ref().ok().filter(|key| key.live || world.options.charge_development).cloned();
    let reply = match (&plan.instead, plan.rate_limited) {
        (Some(problem), _) => Err(problem.clone()),
        (None, Some(seconds)) => Err(rate_limited(route, seconds.unwrap_or(retry_after(world)))),
        (None, None) => match route {
            Route::Health => Ok(Reply::json(&serde_json::json!({ "status": "OK" }))),
            Route::ApiKeys => api_keys::get(world, &matched.parameters, parts.uri.query().unwrap_or("")),
            _ => match key {
                Err(problem) => Err(problem),
                Ok(key) if over_limit(world, &key) => Err(rate_limited(route, retry_after(world))),
                Ok(key) => {
                    let mut call = Call {
                        world,
                        key,
                        method: &parts.method,
                        version: matched.version,
                        parameters: &matched.parameters,
                        headers: &parts.headers,
                        query: parts.uri.query().unwrap_or(""),
                        body: &mut body,
                    };
                    Box::pin(dispatch(route, &mut call)).await
                }
            },
        },
    };
    body.drain().await;
    drop(body);
    let mut reply = reply.unwrap_or_else(Reply::from);
    if let Some(key) = charge_to.filter(|_| reply.charged) {
        world.tally.charge(route, &key.label);
        entry.lock().charged = true;
    }
    entry.lock().status = Some(reply.status.as_u16());
    if let Some(callback) = reply.callback.take() {
        match plan.callback {
            Sending::Once => delivery::send(world, callback, 1),
            Sending::Twice => delivery::send(world, callback, 2),
            Sending::First => delivery::deliver(world, &callback).await,
            Sending::Never => {}
        }
    }
    reply
}

async fn dispatch(route: Route, call: &mut Call<'_>) -> Result<Reply, Problem> {
    match route {
        Route::Bank => bank::post(call, callback::Type::NameValidatorRequest).await,
        Route::BankDetails => bank::post(call, callback::Type::BankNameValidatorDetails).await,
        Route::BankGet | Route::BankDetailsGet => bank::get(call),
        Route::BankCodes => Ok(bank_codes::get(call)),
        Route::Cft => cft::post(call).await,
        Route::Ktp => ktp::post(call).await,
        Route::KtpData => ktp::data(call).await,
        Route::Npwp => npwp::post(call).await,
        Route::PhoneAge => phone::age(call),
        Route::PhoneValidate => phone::validate(call).await,
        Route::Drawdown => drawdown::post(call).await,
        Route::Face => face::post(call).await,
        Route::IdCard => id_card::post(call).await,
        Route::Ocr => ocr::post(call).await,
        Route::OcrGet => ocr::get(call),
        Route::OcrList => ocr::list(call),
        Route::Document => document::post(call).await,
        Route::DocumentGet => document::get(call),
        Route::DocumentList => document::list(call),
        Route::Capture => capture::post(call).await,
        Route::CaptureGet => capture::get(call),
        Route::CaptureList => capture::list(call),
        Route::Recapture => capture::again(call).await,
        Route::CaptureFile => capture::file(call),
        Route::CallbackUrls => callback_settings::urls(call).await,
        Route::CallbackToken => Ok(callback_settings::token(call)),
        Route::ApiKeys | Route::Health | Route::Unknown => {
            Err(Problem::new(StatusCode::NOT_FOUND, "NOT_FOUND_ERROR", "Page or endpoint not found"))
        }
    }
}

fn aliased(world: &World, path: &str) -> String {
    for alias in &world.options.aliases {
        if let Some(rest) = path.strip_prefix(&alias.new)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("{}{rest}", alias.old);
        }
    }
    path.to_owned()
}

fn over_limit(world: &World, key: &Key) -> bool {
    let limit = world.options.requests_per_second;
    limit.is_some_and(|limit| !world.limiter.lock().admit(&key.label, limit, time::now()))
}

fn retry_after(world: &World) -> u64 {
    world.options.retry_after.as_secs()
}

fn rate_limited(route: Route, seconds: u64) -> Problem {
    let status = match route {
        Route::Ktp | Route::KtpData => StatusCode::BAD_REQUEST,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let message = "API rate limit exceeded. Wait for a short while and try again";
    Problem { retry_after: Some(seconds), ..Problem::new(status, "RATE_LIMIT_EXCEEDED", message) }
}

/// Never completes. The connection drops this future when the connection ends.
async fn never<T>() -> T {
    std::future::pending().await
}

/// The faults of one call. Each field belongs to one point of the call at which a fault takes effect.
#[derive(Debug, Default)]
struct Plan {
    /// The error that answers the call without processing it; `None` if no fault asks for an error.
    instead: Option<Problem>,
    /// The fault that answers RATE_LIMIT_EXCEEDED: `None` without this fault, else `retry-after` in seconds.
    /// `Some(None)` takes `retry-after` from the options.
    rate_limited: Option<Option<u64>>,
    latency: Duration,
    callback: Sending,
    garbage_json: bool,
    empty: bool,
    gzip: bool,
    ending: Ending,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Sending {
    #[default]
    Once,
    Twice,
    First,
    Never,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Ending {
    #[default]
    Whole,
    Refuse,
    Hang,
    Cut(Cut),
    Truncate,
    Stall,
}

impl Plan {
    fn of(faults: Vec<Fault>) -> Self {
        let mut plan = Self::default();
        for fault in faults {
            match fault {
                Fault::Status { status, retry_after } => plan.instead = Some(status_problem(status, retry_after)),
                Fault::RateLimit(seconds) => plan.rate_limited = Some(seconds),
                Fault::Latency(latency) => plan.latency += latency,
                Fault::Refuse => plan.ending = Ending::Refuse,
                Fault::Reset => plan.ending = Ending::Cut(Cut::Reset),
                Fault::Garbage => plan.ending = Ending::Cut(Cut::Garbage),
                Fault::Hang => plan.ending = Ending::Hang,
                Fault::Stall => plan.ending = Ending::Stall,
                Fault::Truncate => plan.ending = Ending::Truncate,
                Fault::GarbageJson => plan.garbage_json = true,
                Fault::Empty => plan.empty = true,
                Fault::Gzip => plan.gzip = true,
                Fault::NoCallback => plan.callback = Sending::Never,
                Fault::CallbackFirst => plan.callback = Sending::First,
                Fault::CallbackTwice => plan.callback = Sending::Twice,
            }
        }
        plan
    }

    fn distorted(&self, mut reply: Reply) -> Reply {
        if self.garbage_json {
            reply.status = StatusCode::OK;
            reply.body = Bytes::from_static(b"{\"status\": \"COMPLETED\", \"id\": nonsense, <html>");
        }
        if self.empty {
            reply.body = Bytes::new();
        }
        if self.gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            // Writing to memory does not fail; if it did, the answer would be sent without compression.
            if let Ok(encoded) = encoder.write_all(&reply.body).and_then(|()| encoder.finish()) {
                reply.body = encoded.into();
                reply.headers.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            }
        }
        reply
    }
}

fn status_problem(status: StatusCode, retry_after: Option<u64>) -> Problem {
    let (code, message) = match status.as_u16() {
        401 => ("INVALID_API_KEY", "API key format is invalid"),
        403 => ("REQUEST_FORBIDDEN_ERROR", "API key does not have permission for this endpoint"),
        404 => ("DATA_NOT_FOUND", "The request id requested does not exist"),
        429 => ("RATE_LIMIT_EXCEEDED", "API rate limit exceeded. Wait for a short while and try again"),
        503 => ("SERVICE_UNAVAILABLE", "All upstream data suppliers are unavailable"),
        500 => ("SERVER_ERROR", "The service is down or other errors"),
        _ => ("SIMULATED_ERROR", "A fault requested this status"),
    };
    Problem { retry_after, ..Problem::new(status, code, message) }
}

fn response(reply: Reply, end: End) -> Response<Outgoing> {
    let length = reply.body.len();
    let piece = if matches!(end, End::Whole) { reply.body } else { reply.body.slice(..length / 2) };
    let mut response = Response::new(Outgoing { piece: Some(piece).filter(|piece| !piece.is_empty()), end });
    *response.status_mut() = reply.status;
    response.headers_mut().extend(reply.headers);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

/// The way in which an answer's body ends.
#[derive(Debug)]
enum End {
    Whole,
    /// Ends the body with an error, after the connection wrote the bytes before the error.
    Break,
    /// Ends the body with an error at the next poll.
    Broken,
    /// Never ends the body.
    Stall,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Outgoing {
    piece: Option<Bytes>,
    end: End,
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(piece) = self.piece.take() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Break => {
                // One more poll comes first, so that the connection writes the bytes that it has.
                self.end = End::Broken;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::Broken => Poll::Ready(Some(Err(io::Error::other("a fault breaks this answer")))),
            End::Stall => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Whole) && self.piece.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.end {
            End::Whole => SizeHint::with_exact(self.piece.as_ref().map_or(0, Bytes::len) as u64),
            _ => SizeHint::default(),
        }
    }
}
