#![allow(unreachable_pub, reason = "a test binary has no outside")]
//! Tests of the simulator from outside, over real sockets: every route, callbacks, paging, faults.

#![allow(clippy::unwrap_used, reason = "a test states what it expects: a panic there is the report")]

#[path = "support/multipart.rs"]
mod multipart_form;

use multipart_form::{Part, multipart};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use iluma_simulator::{Alias, Options, Simulator};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

const DEVELOPMENT: &str = "iluma_development_tests";
const LIVE: &str = "iluma_live_tests";
const BANK_V1: &str = "/v1/identity/bank_account_data_requests";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";

/// The longest wait. Nothing in these tests takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    #[track_caller]
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{:?}", self.body);
        self.json()
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    #[track_caller]
    fn is_error(&self, status: u16, code: &str) -> Value {
        let error = self.json();
        assert_eq!((self.status.as_u16(), error["error_code"].as_str()), (status, Some(code)), "{error}");
        assert!(error["message"].is_string());
        error
    }
}

/// A simulator and a client for it.
struct Iluma {
    simulator: Simulator,
    client: Client<HttpConnector, Full<Bytes>>,
    key: &'static str,
}

impl Iluma {
    async fn start(options: Options) -> Self {
        let simulator = Simulator::start(([127, 0, 0, 1], 0).into(), options).await.unwrap();
        Self { simulator, client: Client::builder(TokioExecutor::new()).build_http(), key: DEVELOPMENT }
    }

    /// Starts a simulator whose results are ready after 10 ms.
    async fn quick() -> Self {
        Self::start(Options { callback_delay: Duration::from_millis(10), ..Options::default() }).await
    }

    /// Starts a simulator whose pending results are not ready within a test.
    async fn slow() -> Self {
        Self::start(Options { callback_delay: Duration::from_secs(3600), ..Options::default() }).await
    }

    fn with_key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let credential = STANDARD.encode(format!("{}:", self.key));
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.simulator.url()))
            .header("authorization", format!("Basic {credential}"))
    }

    async fn try_send(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let answer = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|error| format!("body: {error:?}"))?.to_bytes();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        tokio::time::timeout(PATIENCE, self.try_send(request)).await.unwrap().unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Full::default()).unwrap()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.json("POST", path, &[], body)).await
    }

    fn json(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Request<Full<Bytes>> {
        let mut request = self.request(method, path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::from(body.to_string())).unwrap()
    }

    async fn post_with(&self, path: &str, header: (&str, &str), body: Value) -> Answer {
        self.send(self.json("POST", path, &[header], body)).await
    }

    async fn upload(&self, path: &str, parts: &[Part<'_>]) -> Answer {
        let request = self
            .request("POST", path)
            .header("content-type", "multipart/form-data; boundary=between")
            .body(Full::from(multipart(parts)))
            .unwrap();
        self.send(request).await
    }

    /// Repeats a GET until the answer is not pending any more.
    async fn finished(&self, path: &str) -> Value {
        let asking = async {
            loop {
                let object = self.get(path).await.ok();
                let status = object["status"].as_str().unwrap();
                if !["PENDING", "WAITING_ON_BANK", "IN_PROGRESS", "RECAPTURE_PENDING"].contains(&status) {
                    return object;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap()
    }
}

fn account(number: &str) -> Value {
    json!({ "bank_account_number": number, "bank_code": "BCA" })
}

/// A team's server for callbacks.
struct Team {
    url: String,
    received: mpsc::Receiver<(HeaderMap, Value)>,
    status: watch::Sender<u16>,
    _server: AbortOnDropHandle<()>,
}

impl Team {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, received) = mpsc::channel(100);
        let (status, answers) = watch::channel(200);
        let tasks = TaskTracker::new();
        let server = tasks.clone().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (sender, answers) = (sender.clone(), answers.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (sender, answers) = (sender.clone(), answers.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let _ = sender.send((parts.headers, serde_json::from_slice(&body).unwrap())).await;
                        let status = *answers.borrow();
                        let answer = Response::builder().status(status).body(Full::<Bytes>::default());
                        Ok::<_, hyper::Error>(answer.unwrap())
                    }
                });
                tasks.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, received, status, _server: AbortOnDropHandle::new(server) }
    }

    async fn next(&mut self) -> (HeaderMap, Value) {
        tokio::time::timeout(PATIENCE, self.received.recv()).await.unwrap().unwrap()
    }

    /// Sets this server as the callback URL for a type, and receives the test payload.
    async fn listen(&mut self, iluma: &Iluma, kind: &str) {
        let set = iluma.post("/v1/callback/urls", json!({ "type": kind, "url": self.url })).await.ok();
        assert_eq!(set, json!({ "type": kind, "url": self.url }));
        let (_, test) = self.next().await;
        assert_eq!(test.get("id"), None);
    }
}

#[tokio::test]
async fn a_v1_account_is_pending_then_success() {
    let iluma = Iluma::quick().await;
    let mut asked = account("1234567890");
    asked["reference_id"] = "foo123".into();
    let first = iluma.post(BANK_V1, asked.clone()).await.ok();
    assert_eq!(first["status"], "PENDING");
    assert_eq!(first["reference_id"], "foo123");
    assert_eq!(first.get("bank_account_holder_name"), None);
    let id = first["id"].as_str().unwrap();
    assert_eq!(id.len(), 24);
    let last = iluma.finished(&format!("{BANK_V1}/{id}")).await;
    assert_eq!(last["status"], "SUCCESS");
    assert_eq!(last["is_normal_account"], true);
    assert_eq!(last["reference_id"], "foo123");
    assert!(last["bank_account_holder_name"].as_str().unwrap().contains(' '));
    assert!(last["updated"].as_str().unwrap().ends_with('Z'));
    // An account that was requested recently is answered at once, with a new id and no reference.
    let again = iluma.post(BANK_V1, account("1234567890")).await.ok();
    assert_eq!(again["status"], "SUCCESS");
    assert_eq!(again["bank_account_holder_name"], last["bank_account_holder_name"]);
    assert_ne!(again["id"], last["id"]);
    assert_eq!(again.get("reference_id"), None);
}

#[tokio::test]
async fn a_later_version_nests_its_result() {
    let iluma = Iluma::quick().await;
    let first = iluma.post(BANK, account("1234567890")).await.ok();
    assert_eq!(first["status"], "PENDING");
    assert!(first["id"].as_str().unwrap().starts_with("bknv_"));
    let last = iluma.finished(&format!("{BANK}/{}", first["id"].as_str().unwrap())).await;
    assert_eq!(last["status"], "COMPLETED");
    assert_eq!(last["result"]["is_found"], true);
    assert_eq!(last["result"]["is_virtual_account"], false);
    assert!(last["created"].is_string());
}

#[tokio::test]
async fn the_last_digits_decide() {
    let at_once = Options { pending_first: false, ..Options::default() };
    let iluma = Iluma::start(at_once).await;
    let result = async |version: &str, number: &str| {
        iluma.post(&format!("/{version}/identity/bank_account_data_requests"), account(number)).await.ok()
    };
    let missing = result("v1", "1234567800").await;
    assert_eq!(
        (&missing["status"], &missing["failure_reason"]),
        (&json!("FAILED"), &json!("BANK_ACCOUNT_NOT_FOUND_ERROR"))
    );
    let missing = result("v1.1", "1234567800").await;
    assert_eq!((&missing["status"], &missing["result"]), (&json!("COMPLETED"), &json!({ "is_found": false })));
    for version in ["v1", "v1.1", "v2"] {
        let failed = result(version, "1234567899").await;
        assert_eq!(
            (&failed["status"], &failed["failure_reason"]),
            (&json!("FAILED"), &json!("TEMPORARY_NETWORK_ERROR"))
        );
    }
    assert_eq!(result("v1", "1234567888").await["is_normal_account"], false);
    assert_eq!(result("v1.1", "1234567888").await["result"]["is_virtual_account"], true);
    assert_eq!(result("v1.1", "1234567877").await["result"]["need_review"], true);
    assert_eq!(result("v1", "1234567833").await["is_normal_account"], "true");
    assert_eq!(result("v1.1", "1234567822").await["status"], "completed");
    assert_eq!(result("v1.1", "1234567866").await["status"], "PENDING");
}

#[tokio::test]
async fn from_v2_on_names_are_compared() {
    let iluma = Iluma::start(Options { pending_first: false, ..Options::default() }).await;
    let path = "/v2.2/identity/bank_account_data_requests";
    let ask = |given: &str, surname: &str| json!({ "bank_account_number": "1234567890", "bank_code": "ID_BCA", "given_name": given, "surname": surname });
    let first = iluma.post(path, ask("NOBODY", "ATALL")).await.ok();
    assert_eq!(first["result"]["name_matching_result"], "NOT_MATCH");
    assert_eq!(first["bank_code"], "ID_BCA");
    let holder = first["result"]["account_holder_name"].as_str().unwrap();
    let (given, surname) = holder.split_once(' ').unwrap();
    let again = iluma.post(path, ask(&given.to_lowercase(), surname)).await.ok();
    assert_eq!(again["result"]["name_matching_result"], "MATCH");
    let half = iluma.post(path, ask(given, "OTHER")).await.ok();
    assert_eq!(half["result"]["name_matching_result"], "UNCLEAR");
    // The same bank and number are the same person in every version.
    let old = iluma.post(BANK_V1, account("1234567890")).await.ok();
    assert_eq!(old["bank_account_holder_name"], holder);
    iluma.post(path, account("1234567890")).await.is_error(400, "UNSUPPORTED_BANK_CODE_ERROR");
}

#[tokio::test]
async fn a_second_request_waits_on_the_bank() {
    let iluma = Iluma::slow().await;
    assert_eq!(iluma.post(BANK, account("1234567890")).await.ok()["status"], "PENDING");
    assert_eq!(iluma.post(BANK, account("1234567890")).await.ok()["status"], "WAITING_ON_BANK");
    assert_eq!(iluma.post(BANK_V1, account("1234567890")).await.ok()["status"], "WAITING_ON_BANK");
    assert_eq!(iluma.post(BANK, account("1234567855")).await.ok()["status"], "COMPLETED");
    // The environments share no data.
    let iluma = iluma.with_key(LIVE);
    assert_eq!(iluma.post(BANK, account("1234567890")).await.ok()["status"], "PENDING");
}

#[tokio::test]
async fn bank_requests_are_validated() {
    let iluma = Iluma::slow().await;
    let error = iluma.post(BANK, json!({ "reference_id": 7 })).await.is_error(400, "API_VALIDATION_ERROR");
    let fields: Vec<_> = error["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["bank_account_number", "bank_code", "reference_id"]);
    let unknown = json!({ "bank_account_number": "1234567890", "bank_code": "NONE" });
    iluma.post(BANK, unknown).await.is_error(400, "UNSUPPORTED_BANK_CODE_ERROR");
    for number in ["12", "12345678x0", "123456789012345678901"] {
        iluma.post(BANK, account(number)).await.is_error(400, "BANK_ACCOUNT_NUMBER_VALIDATION_ERROR");
    }
    for body in ["{", "[]", "\"x\"", "{\"bank_code\":}"] {
        let request = iluma.request("POST", BANK).header("content-type", "application/json");
        iluma.send(request.body(Full::from(body)).unwrap()).await.is_error(400, "API_VALIDATION_ERROR");
    }
    let large = json!({ "bank_code": "x".repeat(2 << 20) });
    iluma.post(BANK, large).await.is_error(413, "FILE_TOO_LARGE");
    let encoded = iluma.json("POST", BANK, &[("content-encoding", "gzip")], account("1234567890"));
    iluma.send(encoded).await.is_error(415, "UNSUPPORTED_CONTENT_TYPE");
    // Careless clients send numbers, null references and forms.
    let careless = json!({ "bank_account_number": 1_234_567_890, "bank_code": "BCA", "reference_id": null });
    let answer = iluma.post(BANK, careless).await.ok();
    assert_eq!(answer["bank_account_number"], "1234567890");
    assert_eq!(answer.get("reference_id"), None);
    let form = iluma.request("POST", BANK).header("content-type", "application/x-www-form-urlencoded");
    let form = form.body(Full::from("bank_account_number=1234567890&bank_code=BCA&reference_id=a+b%3Ac")).unwrap();
    assert_eq!(iluma.send(form).await.ok()["reference_id"], "a b:c");
    assert_eq!(iluma.simulator.stats().charged, 0, "development keys are free");
}

#[tokio::test]
async fn magic_replies_are_as_listed() {
    let mut iluma = Iluma::quick().await;
    let mut team = Team::start().await;
    team.listen(&iluma, "NAME_VALIDATOR_REQUEST").await;
    let rows = [
        (BANK_V1, "PENDING", "PENDING", false),
        (BANK_V1, "SUCCESS", "SUCCESS", true),
        (BANK_V1, "WAITING_ON_BANK", "WAITING_ON_BANK", false),
        (BANK_V1, "FAILED", "FAILED", true),
        (BANK, "PENDING", "PENDING", false),
        (BANK, "COMPLETED_FOUND", "COMPLETED", true),
        (BANK, "WAITING_ON_BANK", "WAITING_ON_BANK", false),
        (BANK, "COMPLETED_NOT_FOUND", "COMPLETED", true),
        (BANK, "TEMPORARY_NETWORK_ERROR", "FAILED", true),
    ];
    for (path, magic, status, callback) in rows {
        let answer = iluma.post_with(path, ("x-magic-reply", magic), account("1234567890")).await.ok();
        assert_eq!(answer["status"], status, "{magic}");
        assert_eq!(iluma.get(&format!("{path}/{}", answer["id"].as_str().unwrap())).await.ok(), answer);
        if callback {
            // A wrong callback of an earlier reply would arrive here instead.
            assert_eq!(team.next().await.1, answer, "{magic}");
        }
    }
    for (path, magic) in [(BANK_V1, "COMPLETED_FOUND"), (BANK, "SUCCESS"), (BANK, "x"), (BANK, "")] {
        let answer = iluma.post_with(path, ("x-magic-reply", magic), account("1234567890")).await;
        answer.is_error(400, "API_VALIDATION_ERROR");
    }
    iluma = iluma.with_key(LIVE);
    let answer = iluma.post_with(BANK, ("x-magic-reply", "COMPLETED_FOUND"), account("1234567811")).await.ok();
    assert_eq!(answer["status"], "PENDING", "live keys have no magic");
}

#[tokio::test]
async fn callbacks_are_the_stored_object_with_the_token() {
    let iluma = Iluma::quick().await;
    let mut team = Team::start().await;
    let token = iluma.get("/v1/callback/authentication_tokens").await.ok();
    let token = token["callback_authentication_token"].as_str().unwrap();
    team.listen(&iluma, "NAME_VALIDATOR_REQUEST").await;
    team.listen(&iluma, "BANK_NAME_VALIDATOR_DETAILS").await;
    for path in [BANK_V1, BANK, "/v1.2/identity/bank_account_validation_details"] {
        let mut asked = account("1234567890");
        asked["reference_id"] = "r:1".into();
        let first = iluma.post(path, asked).await.ok();
        let (headers, callback) = team.next().await;
        assert_eq!(headers["x-callback-token"], token);
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(callback["id"], first["id"]);
        assert_eq!(callback["reference_id"], "r:1");
        assert_eq!(callback, iluma.get(&format!("{path}/{}", first["id"].as_str().unwrap())).await.ok());
    }
    assert_eq!(iluma.simulator.stats().callbacks.delivered, 3);
}

#[tokio::test]
async fn a_callback_is_repeated_until_it_is_taken() {
    let options = Options {
        callback_delay: Duration::from_millis(10),
        callback_retry: Duration::from_millis(10),
        callback_token: Some("agreed".into()),
        ..Options::default()
    };
    let iluma = Iluma::start(options).await;
    let mut team = Team::start().await;
    team.listen(&iluma, "NAME_VALIDATOR_REQUEST").await;
    team.status.send(503).unwrap();
    iluma.post(BANK, account("1234567890")).await.ok();
    let first = team.next().await;
    let second = team.next().await;
    team.status.send(200).unwrap();
    let third = team.next().await;
    assert_eq!((&first.1, &second.1), (&second.1, &third.1));
    assert_eq!(third.0["x-callback-token"], "agreed");
}

#[tokio::test]
async fn callback_urls_are_tested_before_they_are_taken() {
    let iluma = Iluma::quick().await;
    let mut team = Team::start().await;
    let path = "/v1/callback/urls";
    assert_eq!(iluma.get(path).await.ok(), json!([]));
    let wanted = json!({ "type": "NAME_VALIDATOR_REQUEST", "url": team.url });
    let patch = iluma.json("PATCH", path, &[], wanted.clone());
    iluma.send(patch.clone()).await.is_error(404, "DATA_NOT_FOUND");
    team.status.send(500).unwrap();
    iluma.post(path, wanted.clone()).await.is_error(400, "API_VALIDATION_ERROR");
    team.next().await;
    assert_eq!(iluma.get(path).await.ok(), json!([]));
    team.status.send(204).unwrap();
    team.listen(&iluma, "NAME_VALIDATOR_REQUEST").await;
    assert_eq!(iluma.get(path).await.ok(), json!([wanted]));
    iluma.send(patch).await.ok();
    team.next().await;
    for bad in
        [json!({}), json!({ "type": "X", "url": team.url }), json!({ "type": "NAME_VALIDATOR_REQUEST", "url": "x" })]
    {
        iluma.post(path, bad).await.is_error(400, "API_VALIDATION_ERROR");
    }
    let closed = json!({ "type": "NAME_VALIDATOR_REQUEST", "url": "http://127.0.0.1:1/" });
    iluma.post(path, closed).await.is_error(400, "API_VALIDATION_ERROR");
    let other = iluma.with_key(LIVE);
    assert_eq!(other.get(path).await.ok(), json!([]), "each account has its own");
}

#[tokio::test]
async fn keys_are_needed_and_records_are_their_owners() {
    let mut iluma = Iluma::slow().await;
    let id = iluma.post(BANK, account("1234567890")).await.ok()["id"].as_str().unwrap().to_owned();
    iluma.get(&format!("{BANK}/{id}x")).await.is_error(404, "DATA_NOT_FOUND");
    iluma.get(&format!("/v1/identity/id_card_images/{id}")).await.is_error(404, "DATA_NOT_FOUND");
    iluma = iluma.with_key(LIVE);
    iluma.get(&format!("{BANK}/{id}")).await.is_error(404, "DATA_NOT_FOUND");
    iluma = iluma.with_key("something_else");
    for path in [BANK, "/bank/available_bank_codes", "/v1/callback/urls", "/nowhere"] {
        iluma.get(path).await.is_error(401, "INVALID_API_KEY");
    }
    let none = Request::get(format!("{}{BANK}", iluma.simulator.url())).body(Full::default()).unwrap();
    iluma.send(none).await.is_error(401, "INVALID_API_KEY");
    assert_eq!(iluma.get("/health").await.status, 200);
    iluma = iluma.with_key(DEVELOPMENT);
    iluma.get("/nowhere").await.is_error(404, "NOT_FOUND_ERROR");
    iluma.get("/v1/identity/cft/individual_watchlist").await.is_error(404, "NOT_FOUND_ERROR");
}

#[tokio::test]
async fn the_synchronous_checks_answer() {
    let iluma = Iluma::quick().await.with_key(LIVE);
    let codes = iluma.get("/bank/available_bank_codes").await.ok();
    assert!(codes.as_array().unwrap().contains(&json!({ "code": "BCA", "name": "Bank Central Asia" })));

    let cft = "/v1/identity/cft/individual_watchlist";
    let clear = iluma.post(cft, json!({ "given_name": "Abdul", "surname": "Aziz" })).await.ok();
    assert_eq!((&clear["request_name"], &clear["results"]), (&json!("Abdul Aziz"), &json!([])));
    let hit = iluma.post(cft, json!({ "given_name": "Arunika", "surname": "Hantumalam" })).await.ok();
    assert_eq!(hit["results"].as_array().unwrap().len(), 1);
    assert!(hit["results"][0]["pid"].as_str().unwrap().starts_with("dttot_"));
    assert_eq!(
        iluma.post(cft, json!({ "given_name": "HANTULAUT" })).await.ok()["results"].as_array().unwrap().len(),
        2
    );
    iluma.post(cft, json!({ "surname": "Aziz" })).await.is_error(400, "API_VALIDATION_ERROR");

    let ktp = "/v1/identity/ktp_name/validations";
    let ask = |nik: &str| json!({ "nik": nik, "name": "ARUNIKA WANAJATI" });
    let found = iluma.post(ktp, ask("1234567890123456")).await.ok();
    assert_eq!(found, json!({ "nik": "1234567890123456", "status": "FOUND", "name_match": "true" }));
    assert_eq!(iluma.post(ktp, ask("1234567890123400")).await.ok()["status"], "NOT_FOUND");
    assert_eq!(iluma.post(ktp, ask("1234567890123411")).await.ok()["name_match"], "false");
    iluma.post(ktp, ask("123")).await.is_error(400, "API_VALIDATION_ERROR");
    let data = iluma.post("/v2/identity/ktp_data_requests", ask("1234567890123456")).await.ok();
    assert_eq!(data["result"]["is_found"], true);

    let npwp = "/v0/identity/npwp_data_requests";
    let found = iluma.post(npwp, json!({ "account_number": "12.345.678.9-123.001", "reference_id": "r" })).await.ok();
    assert_eq!((&found["result"]["is_found"], &found["reference_id"]), (&json!(true), &json!("r")));
    iluma.post(npwp, json!({ "account_number": "12" })).await.is_error(400, "API_VALIDATION_ERROR");

    let age = iluma.get("/v1/fraud/phone_numbers/%2B6281234567890/age").await.ok();
    assert_eq!(age["phone_number"], "+6281234567890");
    iluma.get("/v1/fraud/phone_numbers/12/age").await.is_error(400, "API_VALIDATION_ERROR");
    let phone = iluma.post("/v2/identity/phone_numbers/validate", json!({ "phone_number": "081234567890" })).await.ok();
    assert_eq!(phone["result"]["is_active"], true);
    let credit = iluma.post("/v1/credit/drawdowns", json!({ "amount": 1_000_000 })).await.ok();
    assert_eq!(credit["status"], "COMPLETED");
    iluma.post("/v1/credit/drawdowns", json!({ "amount": -1 })).await.is_error(400, "API_VALIDATION_ERROR");

    let stats = iluma.simulator.stats();
    assert_eq!(stats.routes["cft"].charged, 3);
    assert_eq!(stats.routes["ktp"].charged, 4);
    assert_eq!(stats.routes["bank_codes"].charged, 0);
    assert_eq!(stats.rupiah, 3 * 1000 + 4 * 1500 + 1500 + 2 * 700 + 900);
    let iluma = iluma.with_key(DEVELOPMENT);
    iluma.post(ktp, ask("1234567890123456")).await.is_error(401, "INVALID_API_KEY");
}

#[tokio::test]
async fn api_keys_are_handed_out_once() {
    let iluma = Iluma::quick().await;
    let path = "/businesses/5abc/api_keys?token=123";
    let keys = iluma.get(path).await.ok();
    let key = keys["api_keys"][1]["api_key"].as_str().unwrap();
    assert!(key.starts_with("iluma_live_"));
    iluma.get(path).await.is_error(401, "INVALID_TOKEN_ERROR");
    iluma.get("/businesses/5abc/api_keys").await.is_error(400, "API_VALIDATION_ERROR");
}

#[tokio::test]
async fn faces_are_compared() {
    let iluma = Iluma::quick().await;
    let path = "/v2/identity/face_comparisons";
    let face = |field, name| Part::File(field, name, "image/jpeg", b"face".to_vec());
    let same = iluma.upload(path, &[face("image_one", "a.jpg"), face("image_two", "b.jpg")]).await.ok();
    assert!(same["match_percentage"].as_f64().unwrap() >= 90.0);
    let other = iluma.upload(path, &[face("image_one", "a.jpg"), face("image_two", "mismatch.jpg")]).await.ok();
    assert!(other["match_percentage"].as_f64().unwrap() < 50.0);
    let none = iluma.upload(path, &[face("image_one", "noface.jpg"), face("image_two", "b.jpg")]).await.ok();
    assert_eq!((&none["status"], &none["failure_reason"]), (&json!("FAILED"), &json!("No face detected in image")));
    let large = Part::File("image_two", "b.png", "image/png", vec![0; (2 << 20) + 1]);
    for bad in [
        vec![face("image_one", "a.jpg")],
        vec![face("image_one", "a.jpg"), Part::File("image_two", "b.gif", "image/gif", vec![1])],
        vec![face("image_one", "a.jpg"), large],
    ] {
        iluma.upload(path, &bad).await.is_error(400, "API_VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn id_cards_are_verified() {
    let iluma = Iluma::quick().await.with_key(LIVE);
    let path = "/v1/identity/id_card_verifications";
    let parts = |nik, size, kind| {
        vec![
            Part::Text("name", "penito kristian"),
            Part::Text("id_card_number", nik),
            Part::Text("birthdate", "12-10-1991"),
            Part::Text("phone", "081234567890"),
            Part::Text("email", "test@test.example"),
            Part::File("selfie", "selfie.png", kind, vec![7; size]),
            Part::File("ktp_image", "ktp.png", "image/png", vec![7; 200 * 1024]),
        ]
    };
    let good = 150 * 1024;
    let verified = iluma.upload(path, &parts("3275031210930027", good, "image/png")).await.ok();
    assert_eq!((&verified["status"], &verified["is_verified"]), (&json!("COMPLETED"), &json!(true)));
    assert_eq!(verified["email"], "test@test.example");
    let unlike = iluma.upload(path, &parts("3275031210930004", good, "image/png")).await.ok();
    assert_eq!((&unlike["is_verified"], &unlike["failure_reason"]), (&json!(false), &json!("DOB Not Match")));
    let failed = iluma.upload(path, &parts("3275031210930099", good, "image/png")).await.ok();
    assert_eq!((&failed["status"], &failed["failure_reason"]), (&json!("FAILED"), &json!("TEMPORARY_NETWORK_ERROR")));
    assert_eq!(iluma.simulator.stats().routes["id_card"].charged, 2);
    iluma.upload(path, &parts("3275031210930027", 10, "image/png")).await.is_error(413, "FILE_TOO_SMALL");
    iluma.upload(path, &parts("3275031210930027", 3 << 20, "image/png")).await.is_error(413, "FILE_TOO_LARGE");
    iluma.upload(path, &parts("3275031210930027", good, "image/bmp")).await.is_error(415, "UNSUPPORTED_CONTENT_TYPE");
    iluma.upload(path, &parts("1", good, "image/png")[..4]).await.is_error(400, "API_VALIDATION_ERROR");
    let iluma = iluma.with_key(DEVELOPMENT);
    let answer = iluma.upload(path, &parts("3275031210930027", good, "image/png")).await;
    answer.is_error(403, "API_KEY_IS_NOT_LIVE_ERROR");
}

#[tokio::test]
async fn id_cards_are_read() {
    let iluma = Iluma::quick().await;
    let mut team = Team::start().await;
    team.listen(&iluma, "ID_IMAGE_OCR_REQUEST").await;
    let path = "/v1/identity/id_card_images";
    let card = |kind, name, size| {
        vec![
            Part::Text("type", kind),
            Part::Text("reference_id", "team:foo"),
            Part::File("image", name, "image/png", vec![1; size]),
        ]
    };
    let first = iluma.upload(path, &card("indonesia_ktp", "a.png", 10)).await.ok();
    assert_eq!((&first["status"], &first["data"]), (&json!("PENDING"), &json!({})));
    let (_, callback) = team.next().await;
    assert_eq!(callback["id"], first["id"]);
    assert_eq!(callback["reference_id"], "team:foo");
    assert_eq!(callback["data"]["idNumber"].as_str().unwrap().len(), 16);
    assert_eq!(iluma.get(&format!("{path}/{}", first["id"].as_str().unwrap())).await.ok(), callback);
    let mut read = async |kind, name| {
        iluma.upload(path, &card(kind, name, 10)).await.ok();
        team.next().await.1
    };
    assert!(read("npwp_card", "b.png").await["data"]["npwpId"].is_string());
    assert!(read("passport", "c.png").await["data"]["passport_number"].is_string());
    assert_eq!(read("passport", "unreadable.png").await["data"], json!({}));
    let failed = read("passport", "Unrecognized.png").await;
    assert_eq!((&failed["status"], &failed["failure_reason"]), (&json!("FAILED"), &json!("IMAGE_RECOGNIZE_ERROR")));
    assert_eq!(failed.get("data"), None);
    iluma.upload(path, &card("sim", "a.png", 10)).await.is_error(400, "API_VALIDATION_ERROR");
    iluma.upload(path, &card("passport", "a.png", (2 << 20) + 1)).await.is_error(413, "FILE_TOO_LARGE");
    let wide = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x20\0\0\0\x01\0".to_vec();
    let wide = [Part::Text("type", "passport"), Part::File("image", "w.png", "image/png", wide)];
    iluma.upload(path, &wide).await.is_error(413, "FILE_TOO_LARGE");
    let gif = [Part::Text("type", "passport"), Part::File("image", "g.gif", "image/gif", vec![1])];
    iluma.upload(path, &gif).await.is_error(415, "UNSUPPORTED_CONTENT_TYPE");
    iluma.post(path, json!({ "type": "passport" })).await.is_error(400, "API_VALIDATION_ERROR");
}

#[tokio::test]
async fn lists_have_pages_and_links() {
    let iluma = Iluma::slow().await;
    let path = "/v1/identity/id_card_images";
    for name in ["1.png", "2.png", "3.png"] {
        let image = Part::File("image", name, "image/png", vec![1]);
        let parts = [Part::Text("type", "passport"), Part::Text("reference_id", "a:b c"), image];
        iluma.upload(path, &parts).await.ok();
    }
    let all = iluma.get(&format!("{path}?reference_id=a:b%20c")).await.ok();
    assert_eq!((all["data"].as_array().unwrap().len(), &all["has_more"]), (3, &json!(false)));
    let first = format!("{path}?reference_id=a%3Ab+c");
    let link = |href: &str, rel: &str| json!({ "href": href, "rel": rel, "method": "GET" });
    assert_eq!(all["links"], json!([link(&first, "first"), link(&first, "self")]));
    let page = iluma.get(&format!("{first}&limit=2")).await.ok();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["has_more"]), (2, &json!(true)));
    let last = page["data"][1]["id"].as_str().unwrap();
    let next = format!("{first}&limit=2&after_id={last}");
    let links = json!([link(&first, "first"), link(&format!("{first}&limit=2"), "self"), link(&next, "next")]);
    assert_eq!(page["links"], links);
    let rest = iluma.get(&next).await.ok();
    assert_eq!(rest["data"], json!([all["data"][2]]));
    assert_eq!(rest["links"], json!([link(&first, "first"), link(&next, "self")]));
    let empty = iluma.get(&format!("{path}?reference_id=foo456")).await.ok();
    assert_eq!((&empty["data"], &empty["has_more"]), (&json!([]), &json!(false)));
    for bad in
        ["", "?reference_id=", "?reference_id=x&limit=0", "?reference_id=x&limit=x", "?reference_id=x&after_id=y"]
    {
        iluma.get(&format!("{path}{bad}")).await.is_error(400, "API_VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn documents_are_read() {
    let iluma = Iluma::quick().await;
    let path = "/v1/identity/document_ocr_requests";
    let parts = |name, kind| {
        vec![
            Part::File("image", name, kind, b"%PDF".to_vec()),
            Part::Text("reference_id", "foo123"),
            Part::Text("type", "BUSINESS_REGISTRATION"),
            Part::Text("country", "ID"),
            Part::Text("document_name", "SK_MENKEH"),
        ]
    };
    let first = iluma.upload(path, &parts("sk.pdf", "application/pdf")).await.ok();
    assert_eq!((&first["status"], &first["result"]), (&json!("PENDING"), &json!({})));
    let by_id = |answer: &Value| format!("{path}/{}", answer["id"].as_str().unwrap());
    let done = iluma.finished(&by_id(&first)).await;
    assert_eq!(done["result"]["data"][0]["name"], "director_names");
    let unreadable = iluma.upload(path, &parts("unreadable.pdf", "image/pdf")).await.ok();
    let unreadable = iluma.finished(&by_id(&unreadable)).await;
    assert_eq!(unreadable["result"]["data"][0]["values"], json!([]));
    let failed = iluma.upload(path, &parts("neterror.pdf", "image/png")).await.ok();
    let failed = iluma.finished(&by_id(&failed)).await;
    assert_eq!((&failed["failure_reason"], failed.get("result")), (&json!("TEMPORARY_NETWORK_ERROR"), None));
    let list = iluma.get(&format!("{path}?reference_id=foo123&limit=20")).await.ok();
    assert_eq!(list["data"], json!([done, unreadable, failed]));
    iluma.upload(path, &parts("a.bmp", "image/bmp")).await.is_error(415, "UNSUPPORTED_CONTENT_TYPE");
    let error = iluma.upload(path, &parts("a.pdf", "image/png")[..1]).await.is_error(400, "API_VALIDATION_ERROR");
    assert_eq!(error["errors"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_large_document_passes_through() {
    let iluma = Iluma::quick().await;
    let mut head = multipart(&[
        Part::Text("reference_id", "r"),
        Part::Text("type", "BUSINESS_REGISTRATION"),
        Part::Text("country", "ID"),
        Part::Text("document_name", "SK_MENKEH"),
    ]);
    head.truncate(head.len() - "--between--\r\n".len());
    head.extend_from_slice(
        b"--between\r\ncontent-disposition: form-data; name=\"image\"; filename=\"a.pdf\"\r\n\r\n".as_slice(),
    );
    let piece = Bytes::from(vec![b'x'; 1 << 20]);
    let pieces = std::iter::once(Bytes::from(head))
        .chain(std::iter::repeat_n(piece, 40))
        .chain([Bytes::from_static(b"\r\n--between--\r\n")])
        .map(|bytes| Ok::<_, std::io::Error>(Frame::data(bytes)));
    let body = StreamBody::new(futures_util::stream::iter(pieces));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = iluma
        .request("POST", "/v1/identity/document_ocr_requests")
        .header("content-type", "multipart/form-data; boundary=between");
    let answer = client.request(request.body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let seen = iluma.get("/_sim/requests").await.ok();
    assert!(seen["requests"][0]["body_size"].as_u64().unwrap() > 40 << 20);
    assert_eq!(seen["requests"][0].get("body"), None, "large bodies are not kept");
}

#[tokio::test]
async fn captures_run_and_are_taken_again() {
    let iluma = Iluma::quick().await;
    let mut team = Team::start().await;
    team.listen(&iluma, "DOCUMENT_OCR_CAPTURE_REQUEST").await;
    let types = ["IDENTITY_CARD", "SELFIE", "BUSINESS_REGISTRATION"];
    let first = iluma.post(CAPTURES, json!({ "types": types, "country": "PH", "reference_id": "r" })).await.ok();
    assert_eq!((&first["status"], &first["types"]), (&json!("PENDING"), &json!(types)));
    assert!(first["capture_link"].is_string());
    let id = first["id"].as_str().unwrap();
    let (_, done) = team.next().await;
    assert_eq!(done["status"], "COMPLETED");
    assert!(done["result"]["face_match_percentage"]["match_score"].is_number());
    for (part, kind) in [("id_card_ocr", "image/jpeg"), ("business_registration_ocr", "application/pdf")] {
        let link = done["result"][part]["link"].as_str().unwrap();
        let file = iluma.get(&format!("/v1/identity/captures/{id}/results/{link}/download")).await;
        assert_eq!((file.status.as_u16(), &file.headers["content-type"]), (200, &kind.parse().unwrap()));
        assert!(!file.body.is_empty());
    }
    let missing = format!("/v1/identity/captures/{id}/results/none.pdf/download");
    iluma.get(&missing).await.is_error(404, "DATA_NOT_FOUND");

    let again = format!("{CAPTURES}/{id}/recapture");
    let second = iluma.post(&again, json!({ "types": ["IDENTITY_CARD"] })).await.ok();
    assert_eq!((&second["status"], &second["types"]), (&json!("RECAPTURE_PENDING"), &json!(["IDENTITY_CARD"])));
    assert_eq!((&second["id"], &second["created"]), (&first["id"], &first["created"]));
    let (_, done) = team.next().await;
    assert_eq!((&done["status"], &done["types"]), (&json!("COMPLETED"), &json!(["IDENTITY_CARD"])));
    assert_eq!(iluma.get(&again).await.ok()["status"], "RECAPTURE_PENDING");
    assert_eq!(team.next().await.1["id"], first["id"]);
    iluma.post(&again, json!({})).await.is_error(400, "API_VALIDATION_ERROR");
    let nowhere = format!("{CAPTURES}/ocr-none/recapture");
    iluma.post(&nowhere, json!({ "types": ["SELFIE"] })).await.is_error(404, "DATA_NOT_FOUND");
    for bad in
        [json!({}), json!({ "types": [] }), json!({ "types": ["X"] }), json!({ "types": types, "country": "ID" })]
    {
        iluma.post(CAPTURES, bad).await.is_error(400, "API_VALIDATION_ERROR");
    }
}

#[tokio::test]
async fn a_captures_reference_decides_and_lists_at_both_paths() {
    let iluma = Iluma::quick().await;
    let start = async |reference: &str| {
        let asked = json!({ "types": ["SELFIE"], "reference_id": reference });
        format!("{CAPTURES}/{}", iluma.post(CAPTURES, asked).await.ok()["id"].as_str().unwrap())
    };
    let review = iluma.finished(&start("t:sim-review").await).await;
    assert_eq!(review["status"], "COMPLETED_REVIEW_REQUIRED");
    let failed = iluma.finished(&start("sim-fail").await).await;
    assert_eq!((&failed["status"], failed.get("result")), (&json!("FAILED"), None));
    assert_eq!(iluma.get(&start("sim-abandon").await).await.ok()["status"], "PENDING");
    let plural = iluma.get(&format!("{CAPTURES}?reference_id=sim-fail")).await.ok();
    let singular = iluma.get("/v1/identity/document_ocr_capture?reference_id=sim-fail&limit=20").await.ok();
    assert_eq!(plural["data"], json!([failed]));
    assert_eq!(singular["data"], plural["data"]);
    let first = plural["links"][0]["href"].as_str().unwrap();
    assert_eq!(first, "/v1/document_ocr_captures?reference_id=sim-fail");
    assert_eq!(iluma.get(first).await.ok()["data"], plural["data"], "the documented link works");
}

#[tokio::test]
async fn what_is_charged_is_counted_by_route_and_key() {
    let mut iluma = Iluma::quick().await.with_key(LIVE);
    iluma.post(BANK, account("1234567890")).await.ok();
    iluma.post(BANK, account("1234567890")).await.ok();
    iluma.post(BANK, account("1234567899")).await.ok();
    iluma.post(BANK, account("1")).await;
    let stats = iluma.get("/_sim/stats").await.ok();
    // Callbacks are counted a moment later.
    let mut now = serde_json::to_value(iluma.simulator.stats()).unwrap();
    now["callbacks"] = stats["callbacks"].clone();
    assert_eq!(stats, now);
    assert_eq!((&stats["requests"], &stats["charged"], &stats["rupiah"]), (&json!(4), &json!(2), &json!(1000)));
    assert_eq!(stats["routes"]["bank"]["statuses"], json!({ "200": 3, "400": 1 }));
    assert_eq!((&stats["in_flight"], &stats["max_in_flight"]), (&json!(0), &json!(1)));
    let keys = stats["keys"].as_object().unwrap();
    assert!(keys.len() == 1 && keys.keys().all(|key| key.starts_with("live-")), "{keys:?}");
    assert!(!stats.to_string().contains(LIVE));
    iluma.post("/_sim/reset", json!({})).await.ok();
    assert_eq!(iluma.simulator.stats().requests, 0);
    assert_eq!(iluma.post(BANK, account("1234567890")).await.ok()["status"], "PENDING", "nothing is remembered");

    iluma = Iluma::start(Options { charge_development: true, ..Options::default() }).await;
    iluma.post(BANK, account("1234567890")).await.ok();
    assert_eq!(iluma.simulator.stats().charged, 1);
}

#[tokio::test]
async fn requests_are_kept_as_received_without_the_key() {
    let iluma = Iluma::quick().await;
    iluma.post_with(&format!("{BANK}?x=1"), ("x-odd", "yes"), account("1234567890")).await.ok();
    iluma.get("/health").await;
    let seen = iluma.get("/_sim/requests").await.ok();
    assert_eq!(seen["requests"].as_array().unwrap().len(), 2);
    let first = &seen["requests"][0];
    assert_eq!((&first["method"], &first["path"]), (&json!("POST"), &json!(format!("{BANK}?x=1"))));
    let headers = first["headers"].as_array().unwrap();
    assert!(headers.contains(&json!(["x-odd", "yes"])));
    let key = headers.iter().find(|header| header[0] == "authorization").unwrap()[1].as_str().unwrap();
    assert!(key.starts_with("Basic development-"), "{key}");
    let text = account("1234567890").to_string();
    assert_eq!((&first["body"], &first["body_size"]), (&json!(text), &json!(text.len())));
    assert_eq!((&first["body_complete"], &first["status"]), (&json!(true), &json!(200)));
    assert_eq!(first["body_sha256"].as_str().unwrap().len(), 64);
    let found = iluma.get("/_sim/requests?path=/health&limit=1").await.ok();
    assert_eq!(found["requests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn too_many_requests_are_refused() {
    let options = Options { requests_per_second: Some(1), retry_after: Duration::from_secs(3), ..Options::default() };
    let iluma = Iluma::start(options).await.with_key(LIVE);
    let mut answers = Vec::new();
    // One request a second is allowed. Any machine that sends three requests within a second gets a refusal here.
    for _ in 0..20 {
        answers.push(iluma.post("/v1/identity/cft/individual_watchlist", json!({ "given_name": "A" })).await);
    }
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    refused.is_error(429, "RATE_LIMIT_EXCEEDED");
    assert_eq!(refused.headers["retry-after"], "3");
    let ktp = json!({ "nik": "1234567890123456", "name": "A" });
    let fault = ("x-sim-fault", "rate_limit=9");
    let refused = iluma.post_with("/v1/identity/ktp_name/validations", fault, ktp).await;
    refused.is_error(400, "RATE_LIMIT_EXCEEDED");
    assert_eq!(refused.headers["retry-after"], "9");
}

#[tokio::test]
async fn faults_come_by_header() {
    let iluma = Iluma::quick().await.with_key(LIVE);
    let ask = |fault: &'static str| iluma.json("POST", BANK, &[("x-sim-fault", fault)], account("1234567890"));
    let charged = || iluma.simulator.stats().charged;
    for (status, code) in [(429, "RATE_LIMIT_EXCEEDED"), (500, "SERVER_ERROR"), (503, "SERVICE_UNAVAILABLE")] {
        let fault = format!("status={status}/7");
        let answer = iluma.post_with(BANK, ("x-sim-fault", &fault), account("1234567890")).await;
        answer.is_error(status, code);
        assert_eq!(answer.headers["retry-after"], "7");
    }
    assert_eq!(charged(), 0);
    iluma.send(ask("nonsense")).await.is_error(400, "API_VALIDATION_ERROR");
    assert!(iluma.try_send(ask("refuse")).await.is_err());
    assert_eq!(charged(), 0);
    for (count, fault) in (1..).zip(["reset", "garbage", "truncate"]) {
        let error = iluma.try_send(ask(fault)).await.err().unwrap();
        assert_eq!(error.starts_with("body"), fault == "truncate", "{fault}: {error}");
        assert_eq!(charged(), count, "{fault} comes after the call was processed");
    }
    let broken = iluma.send(ask("garbage_json")).await;
    assert_eq!(broken.status, 200);
    assert!(serde_json::from_slice::<Value>(&broken.body).is_err());
    assert!(iluma.send(ask("empty")).await.body.is_empty());
    let zipped = iluma.send(ask("gzip")).await;
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut text).unwrap();
    assert!(text.contains("bknv_"));
    iluma.send(ask("latency=1ms")).await.ok();
}

#[tokio::test]
async fn faults_come_by_rule() {
    let iluma = Iluma::quick().await;
    let rule = json!({ "method": "POST", "path": "/v1.1/identity", "kind": "status", "value": 503, "times": 2 });
    let added = iluma.post("/_sim/faults", rule.clone()).await;
    assert_eq!(added.status, 201);
    assert_eq!(added.json()["faults"][0]["fault"], "status=503");
    assert_eq!(iluma.get(&format!("{BANK}/x")).await.status, 404);
    iluma.post(BANK, account("1234567890")).await.is_error(503, "SERVICE_UNAVAILABLE");
    iluma.post(BANK, account("1234567890")).await.is_error(503, "SERVICE_UNAVAILABLE");
    iluma.post(BANK, account("1234567890")).await.ok();
    iluma.post("/_sim/faults", json!([rule, { "kind": "reset" }])).await;
    let clear = iluma.request("DELETE", "/_sim/faults").body(Full::default()).unwrap();
    assert_eq!(iluma.send(clear).await.ok()["faults"], json!([]));
    iluma.post(BANK, account("1234567890")).await.ok();
    for bad in [json!({}), json!({ "kind": "x" }), json!(7), json!({ "kind": "reset", "unknown": 1 })] {
        iluma.post("/_sim/faults", bad).await.is_error(400, "API_VALIDATION_ERROR");
    }
    assert!(iluma.get("/_sim").await.body.starts_with(b"GET"));
    iluma.get("/_sim/nothing").await.is_error(404, "NOT_FOUND_ERROR");
}

#[tokio::test]
async fn a_hanging_answer_is_in_flight_and_ends_with_the_simulator() {
    let iluma = Iluma::quick().await;
    let mut stream = TcpStream::connect(iluma.simulator.addr()).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx-sim-fault: hang\r\n\r\n").await.unwrap();
    let seen = async {
        while iluma.simulator.stats().in_flight == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
    tokio::time::timeout(PATIENCE, iluma.simulator.stop()).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 10]).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn a_stalled_answer_stops_halfway() {
    let iluma = Iluma::quick().await;
    let mut stream = TcpStream::connect(iluma.simulator.addr()).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nx-sim-fault: stall\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with("\r\n\r\n{\"statu") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
    let text = String::from_utf8(seen).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 15"), "{head}");
    assert_eq!(body, "{\"statu");
}

#[tokio::test]
async fn callbacks_can_come_first_twice_or_never() {
    let iluma = Iluma::slow().await;
    let mut team = Team::start().await;
    team.listen(&iluma, "NAME_VALIDATOR_REQUEST").await;
    let ask = |fault: &'static str| iluma.json("POST", BANK, &[("x-sim-fault", fault)], account("1234567855"));
    let answer = iluma.send(ask("callback_first")).await.ok();
    assert_eq!(team.received.try_recv().unwrap().1["id"], answer["id"], "it was there before the answer");

    let iluma = Iluma::quick().await;
    team.listen(&iluma, "NAME_VALIDATOR_REQUEST").await;
    let ask = |fault: &'static str| iluma.json("POST", BANK, &[("x-sim-fault", fault)], account("1234567855"));
    iluma.send(ask("no_callback")).await.ok();
    let answer = iluma.send(ask("callback_twice")).await.ok();
    assert_eq!(team.next().await.1["id"], answer["id"]);
    assert_eq!(team.next().await.1["id"], answer["id"]);
}

#[tokio::test]
async fn h2_is_spoken_in_clear_and_faults_end_its_connection() {
    let iluma = Iluma::quick().await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let health = || Request::get(format!("{}/health", iluma.simulator.url()));
    let answer = client.request(health().body(Full::default()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    for fault in ["reset", "garbage", "refuse"] {
        let request = health().header("x-sim-fault", fault).body(Full::default()).unwrap();
        assert!(client.request(request).await.is_err(), "{fault}");
    }
    let request = health().header("x-sim-fault", "truncate").body(Full::default()).unwrap();
    assert!(client.request(request).await.unwrap().into_body().collect().await.is_err());
}

#[tokio::test]
async fn tls_is_served() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let options = Options { tls: Some(Arc::new(server)), ..Options::default() };
    let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), options).await.unwrap();
    assert!(simulator.url().starts_with("https://"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(client).https_only().enable_all_versions();
    let client = Client::builder(TokioExecutor::new()).build::<_, Full<Bytes>>(connector.build());
    let url = format!("https://localhost:{}/health", simulator.addr().port());
    let answer = client.request(Request::get(url).body(Full::default()).unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
}

#[tokio::test]
async fn an_alias_is_a_route_that_iluma_added() {
    let alias = Alias { new: "/v3/identity/bank_checks".into(), old: BANK.into() };
    let iluma = Iluma::start(Options { aliases: vec![alias], ..Options::default() }).await;
    let answer = iluma.post("/v3/identity/bank_checks", account("1234567855")).await.ok();
    let path = format!("/v3/identity/bank_checks/{}", answer["id"].as_str().unwrap());
    assert_eq!(iluma.get(&path).await.ok(), answer);
    iluma.post("/v3/identity/bank_checksum", account("1234567855")).await.is_error(404, "NOT_FOUND_ERROR");
}

#[tokio::test]
async fn hostile_input_is_answered_or_cut_off() {
    let iluma = Iluma::quick().await;
    for (path, kind, body) in [
        ("/v1/identity/id_card_images", "multipart/form-data", "x"),
        ("/v1/identity/id_card_images", "multipart/form-data; boundary=", "x"),
        ("/v1/identity/id_card_images", "multipart/form-data; boundary=b", "--b\r\n\r\n"),
        (
            "/v1/identity/id_card_images",
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"image\"\r\n\r\nno end",
        ),
        (BANK, "application/json", "[[[[[[[[[[[[[[[["),
        (BANK, "text/plain", "bank_code=BCA"),
        (BANK, "application/x-www-form-urlencoded", "%%%=&&&=%00"),
    ] {
        let request = iluma.request("POST", path).header("content-type", kind).body(Full::from(body)).unwrap();
        iluma.send(request).await.is_error(400, "API_VALIDATION_ERROR");
    }
    let deep = "[".repeat(500_000);
    let request =
        iluma.request("POST", BANK).header("content-type", "application/json").body(Full::from(deep)).unwrap();
    iluma.send(request).await.is_error(400, "API_VALIDATION_ERROR");
    let endless = format!("--b\r\nx: {}", "y".repeat(3 << 20));
    let request =
        iluma.request("POST", "/v1/identity/id_card_images").header("content-type", "multipart/form-data; boundary=b");
    iluma.send(request.body(Full::from(endless)).unwrap()).await.is_error(400, "API_VALIDATION_ERROR");
    for path in [
        "/v1/identity/id_card_images/%ff%00",
        "/%2e%2e/",
        "//",
        "/v1//identity",
        "/v1/identity/captures/%2f/results/%2f/download",
    ] {
        assert_eq!(iluma.get(path).await.status, 404, "{path}");
    }
    let mut stream = TcpStream::connect(iluma.simulator.addr()).await.unwrap();
    stream.write_all(b"\x16\x03\x01 nonsense\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(iluma.get("/health").await.status, 200);
}
