//! What Iluma posts: checked, stored, answered.
//!
//! Invariants: 200 is said only once the callback is on disk, 503 whenever it is not; nothing is read for who has no token;
//! answers say nothing of what is configured but whether a path exists.

use super::body::{Body, Malformed};
use super::{Arrived, Callbacks, Note};
use crate::base::bounded_body::{self, NotWhole};
use crate::base::name::AccountName;
use crate::base::request_id;
use crate::iluma::callback_type::CallbackType;
use crate::state::{Callback, Receipt, StateError};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use subtle::{Choice, ConstantTimeEq as _};

/// The largest callback that is taken in: results are some kilobytes, and pictures come as links.
pub const MOST_BYTES: usize = 1 << 20;

/// Bodies that are read at once: 64 MiB at the worst.
pub(super) const MOST_READING: usize = 64;

/// What a peer may take to send a body, of whatever size.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// What storing may take, and waiting for a place: Iluma gives up after some 10 s itself.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a callback at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Admission {
    /// It is stored.
    #[error("stored")]
    Stored,
    /// It came before.
    #[error("repeat")]
    Repeat,
    /// Iluma's test of the URL.
    #[error("test")]
    Test,
    /// There is no such path, account or type.
    #[error("there is nothing at this path")]
    Unknown,
    /// Another method than POST.
    #[error("only POST is known here")]
    Method,
    /// No token, or a wrong one.
    #[error("the callback token is missing or wrong")]
    Unauthorized,
    /// Over [`MOST_BYTES`].
    #[error("the body is larger than 1 MiB")]
    TooLarge,
    /// The peer did not send it in time.
    #[error("the body did not arrive in time")]
    TooSlow,
    /// The peer broke off.
    #[error("the body was cut off")]
    CutOff,
    /// It is no callback. A 400, not a 200: nobody can be given it, so somebody has to see it; Iluma's repeats end by
    /// themselves, and each costs no more than reading it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It could not be stored: to be sent again.
    #[error("the callback can't be stored now, send it again")]
    NotStored,
    /// Too many at once: to be sent again.
    #[error("too many callbacks at once, send it again")]
    Overloaded,
}

impl Admission {
    /// As metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.shape().2
    }

    /// Status, Iluma's error code, and the reason.
    const fn shape(self) -> (StatusCode, &'static str, &'static str) {
        const UNAVAILABLE: &str = "SERVICE_UNAVAILABLE";
        match self {
            Self::Stored => (StatusCode::OK, "", "stored"),
            Self::Repeat => (StatusCode::OK, "", "repeat"),
            Self::Test => (StatusCode::OK, "", "test"),
            Self::Unknown => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND", "unknown_path"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method_not_allowed"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "INVALID_API_KEY", "unauthorized"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "FILE_TOO_LARGE", "body_too_large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "body_too_slow"),
            Self::CutOff => (StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", "body_cut_off"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "API_VALIDATION_ERROR", "malformed_body"),
            Self::NotStored => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "not_stored"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE, "overloaded"),
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let (status, code, reason) = self.shape();
        let body = if status.is_success() {
            Bytes::from_static(br#"{"status":"OK"}"#)
        } else {
            let body = serde_json::json!({ "error_code": code, "message": self.to_string() });
            serde_json::to_vec(&body).unwrap_or_default().into()
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !status.is_success() {
            headers.insert("x-gateway-error", HeaderValue::from_static(reason));
        }
        if self == Self::Method {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl Callbacks {
    /// Answers one request of the `callbacks` listener.
    ///
    /// # Errors
    /// None.
    pub async fn receive<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible>
    where
        B: http_body::Body<Data = Bytes>,
    {
        let (head, body) = request.into_parts();
        let place = self.place(head.uri.path());
        let admission = match &place {
            None => Admission::Unknown,
            Some(_) if head.method != Method::POST => Admission::Method,
            Some((account, kind)) => {
                self.admit(account, *kind, &head.headers, body).await.unwrap_or_else(|refused| refused)
            }
        };
        let (account, kind) = place.as_ref().map_or((None, None), |(account, kind)| (Some(account), *kind));
        (self.hooks.note)(Note::Received(account, kind, admission));
        let mut response = admission.into_response();
        response.headers_mut().insert(request_id::HEADER, request_id::of(&head.headers).1);
        Ok(response)
    }

    /// `/callbacks/<account>` and `/callbacks/<account>/<TYPE>`.
    fn place(&self, path: &str) -> Option<(AccountName, Option<CallbackType>)> {
        let rest = path.strip_prefix("/callbacks/")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (account, kind) = match rest.split_once('/') {
            Some((account, kind)) => (account, Some(kind.parse().ok()?)),
            None => (rest, None),
        };
        let account = account.parse().ok()?;
        self.live.load().accounts.contains_key(&account).then_some((account, kind))
    }

    async fn admit<B>(
        &self,
        account: &AccountName,
        kind: Option<CallbackType>,
        headers: &HeaderMap,
        body: B,
    ) -> Result<Admission, Admission>
    where
        B: http_body::Body<Data = Bytes>,
    {
        let live = self.live.load_full();
        let tokens = live.accounts.get(account).map_or(&[][..], |account| &account.tokens);
        if !carries(headers, tokens) {
            return Err(Admission::Unauthorized);
        }
        let place = tokio::time::timeout(STORE_TIMEOUT, self.reading.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(Admission::Overloaded)?;
        let bytes = read(body).await?;
        let Body { id: Some(id), .. } = Body::parse(&bytes)? else { return Ok(Admission::Test) };
        let tags = self.hooks.persons.in_json(&bytes).into_iter().collect();
        let callback = Callback { account: account.clone(), kind, id: id.clone(), body: bytes.clone(), tags };
        // Whoever is not told in time sends it again, and it is known for a repeat.
        let stored = tokio::time::timeout(STORE_TIMEOUT, self.state.receive(callback)).await;
        match stored.unwrap_or(Err(StateError::Unavailable)) {
            Ok(Receipt::Repeat) => Ok(Admission::Repeat),
            Ok(Receipt::New) => {
                // If nobody keeps up the cache learns it later; it is delivered all the same.
                let _ = self.arrived.try_send(Arrived { account: account.clone(), kind, id, body: bytes });
                Ok(Admission::Stored)
            }
            Err(_) => Err(Admission::NotStored),
        }
    }
}

/// Whether the request carries one of the tokens, exactly once. Hashes are compared, with all of them and in constant time,
/// so that not even a length shows.
fn carries(headers: &HeaderMap, tokens: &[SecretString]) -> bool {
    let mut values = headers.get_all("x-callback-token").iter();
    let (Some(given), None) = (values.next(), values.next()) else { return false };
    let hash = |text: &[u8]| -> [u8; 32] { Sha256::digest(text).into() };
    let given = hash(given.as_bytes());
    let known = tokens.iter().map(|token| hash(token.expose_secret().as_bytes()).ct_eq(&given));
    known.fold(Choice::from(0), |found, same| found | same).into()
}

async fn read<B>(body: B) -> Result<Bytes, Admission>
where
    B: http_body::Body<Data = Bytes>,
{
    let all = bounded_body::read(body, MOST_BYTES, None, |_| true);
    tokio::time::timeout(READ_TIMEOUT, all).await.unwrap_or(Err(NotWhole::TooSlow)).map_err(|error| match error {
        NotWhole::TooLarge | NotWhole::NoRoom => Admission::TooLarge,
        NotWhole::TooSlow => Admission::TooSlow,
        NotWhole::Broken(_) => Admission::CutOff,
    })
}
