//! A team changes a base URL and a key, and nothing else: the same calls directly to Iluma and through the gateway have
//! the same status, headers and body.
//!
//! Two simulators get the same requests in the same order, one of them through the gateway. Values that differ between
//! any two calls (ids, times) are normalised; everything else is equal, byte for byte.

use crate::support::{Answer, Part, Rig, RigBuilder, ask};
use iluma_simulator::{Options, Simulator};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const BANK_V1: &str = "/v1/identity/bank_account_data_requests";
const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const BANK_V2: &str = "/v2/identity/bank_account_data_requests";
const BANK_V22: &str = "/v2.2/identity/bank_account_data_requests";
const DETAILS: &str = "/v1.2/identity/bank_account_validation_details";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_name/validations";
const NPWP: &str = "/v0/identity/npwp_data_requests";
const FACES: &str = "/v2/identity/face_comparisons";
const VERIFICATIONS: &str = "/v1/identity/id_card_verifications";
const IMAGES: &str = "/v1/identity/id_card_images";
const DOCUMENTS: &str = "/v1/identity/document_ocr_requests";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";

/// The headers that may differ, each with its reason.
const OWN_HEADERS: [&str; 8] = [
    "x-request-id", // the gateway's, on every answer
    "cache-status", // where a cache was asked
    "ratelimit",    // what is left of the team's limits
    "ratelimit-policy",
    "age",        // of a hit
    "date",       // the second of the answer
    "connection", // each hop's own
    "keep-alive", // each hop's own
];

/// Two simulators, one of them behind a gateway.
struct Pair {
    straight: Simulator,
    rig: Rig,
}

impl Pair {
    async fn start() -> Self {
        Self::of(Rig::builder()).await
    }

    /// Starts a pair whose account has a development key.
    async fn development() -> Self {
        Self::of(Rig::builder().account_key("iluma_development_contract")).await
    }

    async fn of(builder: RigBuilder) -> Self {
        // No pending result may become ready between the two requests.
        Self::with(builder, |options| {
            options.pending_first = false;
            options.callback_delay = Duration::from_secs(3600);
        })
        .await
    }

    async fn with(builder: RigBuilder, change: impl Fn(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        let straight = Simulator::start(([127, 0, 0, 1], 0).into(), options).await.expect("a simulator");
        Self { straight, rig: builder.simulator(change).start().await }
    }

    async fn stop(self) {
        self.straight.stop().await;
        self.rig.stop().await;
    }

    /// Sends a request directly and through the gateway, and checks that the answers are equal. `{name}` in the path is
    /// replaced by a value of [`Request::with`].
    async fn send(&self, request: &Request<'_>) -> Both {
        let paths = request.paths();
        let straight = request.send(&format!("{}{}", self.straight.url(), paths[0]), &self.rig.account_key).await;
        let through = request.send(&self.rig.url(&paths[1]), self.rig.key("lending")).await;
        let what = format!("{} {}", request.method, request.path);
        assert_eq!(straight.status, through.status, "{what}: {} {}", straight.text(), through.text());
        assert_eq!(normal_body(&straight), normal_body(&through), "{what}");
        assert_eq!(normal_headers(&straight), normal_headers(&through), "{what}");
        assert_eq!(through.header("x-gateway-error"), "", "{what}");
        assert_eq!(through.header("x-request-id").len(), 36, "{what}: every answer has a request id");
        Both { straight, through }
    }

    /// Sends a request about a missing record. The gateway answers it itself, so that a missing record looks like
    /// another team's record. Its answer has Iluma's status and error code, and a message of its own.
    async fn missing(&self, request: &Request<'_>) {
        let paths = request.paths();
        let straight = request.send(&format!("{}{}", self.straight.url(), paths[0]), &self.rig.account_key).await;
        let through = request.send(&self.rig.url(&paths[1]), self.rig.key("lending")).await;
        let what = format!("{} {}", request.method, request.path);
        assert_eq!((straight.status, &straight.json()["error_code"]), (404, &json!("DATA_NOT_FOUND")), "{what}");
        through.is_rejection(404, "DATA_NOT_FOUND");
        assert_eq!(through.header("x-gateway-error"), "not_found", "{what}");
    }

    async fn get(&self, path: &str) -> Both {
        self.send(&request("GET", path)).await
    }

    async fn post(&self, path: &str, body: Value) -> Both {
        self.send(&request("POST", path).json(body)).await
    }

    async fn form(&self, path: &str, body: &str) -> Both {
        self.send(&request("POST", path).form(body)).await
    }

    async fn upload(&self, path: &str, parts: &[Part<'_>]) -> Both {
        self.send(&request("POST", path).parts(parts)).await
    }
}

/// The answers to one request: directly from Iluma, and through the gateway.
struct Both {
    straight: Answer,
    through: Answer,
}

impl Both {
    /// Checks the status of both answers. [`Pair::send`] has checked that they are equal.
    #[track_caller]
    fn is(self, status: u16) -> Self {
        assert_eq!(self.through.status, status, "{}", self.through.text());
        self
    }

    #[track_caller]
    fn error(self, status: u16, code: &str) {
        assert_eq!(self.is(status).through.json()["error_code"], code);
    }

    fn json(&self) -> Value {
        self.through.json()
    }

    /// Returns the text at a JSON pointer in each of the two answers, for [`Request::with`].
    #[track_caller]
    fn keep(&self, pointer: &str) -> [String; 2] {
        [&self.straight, &self.through].map(|answer| {
            let body = answer.json();
            let value = body.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_else(|| panic!("no {pointer}: {body}")).to_owned()
        })
    }

    fn id(&self) -> [String; 2] {
        self.keep("/id")
    }
}

#[derive(Clone)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: Body<'a>,
    kept: Vec<(&'a str, [String; 2])>,
}

#[derive(Clone)]
enum Body<'a> {
    None,
    Json(String),
    Form(&'a str),
    Parts(&'a [Part<'a>]),
}

fn request<'a>(method: &'a str, path: &'a str) -> Request<'a> {
    Request { method, path, headers: Vec::new(), body: Body::None, kept: Vec::new() }
}

impl<'a> Request<'a> {
    fn header(mut self, name: &'a str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn json(mut self, body: Value) -> Self {
        self.body = Body::Json(body.to_string());
        self
    }

    fn form(mut self, body: &'a str) -> Self {
        self.body = Body::Form(body);
        self
    }

    fn parts(mut self, parts: &'a [Part<'a>]) -> Self {
        self.body = Body::Parts(parts);
        self
    }

    /// Replaces `name` in the path: by the first value in the direct request, by the second through the gateway.
    fn with(mut self, name: &'a str, value: [String; 2]) -> Self {
        self.kept.push((name, value));
        self
    }

    fn paths(&self) -> [String; 2] {
        [0, 1].map(|side| {
            let put = |path: String, (name, value): &(&str, [String; 2])| path.replace(name, &value[side]);
            self.kept.iter().fold(self.path.to_owned(), put)
        })
    }

    async fn send(&self, url: &str, key: &str) -> Answer {
        let mut ask = ask(self.method, url).key(key);
        for (name, value) in &self.headers {
            ask = ask.header(name, value);
        }
        match &self.body {
            Body::None => ask,
            Body::Json(body) => ask.json(body.clone()),
            Body::Form(body) => ask.form(*body),
            Body::Parts(parts) => ask.multipart(parts),
        }
        .send()
        .await
    }
}

/// Returns the body with each id, link and time replaced by its kind.
fn normal_body(answer: &Answer) -> String {
    let mut text = answer.text();
    if let Ok(body) = serde_json::from_slice(&answer.body) {
        let mut found = Vec::new();
        volatile(&body, &mut found);
        for (name, value) in found {
            text = text.replace(&value, &format!("<{name}>"));
        }
    }
    // Links name the last record of the previous page.
    let mut parts = text.split("after_id=");
    let mut normal = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find(['"', '&']).map_or("", |end| &part[end..]);
        normal.push_str(&format!("after_id=<id>{rest}"));
    }
    normal
}

fn volatile(value: &Value, found: &mut Vec<(&'static str, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let kind = match name.as_str() {
                    "id" => "id",
                    "created" | "updated" => "time",
                    "link" | "capture_link" => "link",
                    _ => "",
                };
                match value {
                    Value::String(text) if !kind.is_empty() && !text.is_empty() => found.push((kind, text.clone())),
                    _ => volatile(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| volatile(item, found)),
        _ => {}
    }
}

fn normal_headers(answer: &Answer) -> BTreeMap<String, Vec<String>> {
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &answer.headers {
        if !OWN_HEADERS.contains(&name.as_str()) {
            headers.entry(name.to_string()).or_default().push(value.to_str().expect("text").to_owned());
        }
    }
    headers
}

fn account(number: &str, code: &str) -> Value {
    json!({ "bank_account_number": number, "bank_code": code })
}

fn with(mut body: Value, name: &str, value: impl Into<Value>) -> Value {
    body[name] = value.into();
    body
}

#[tokio::test]
async fn bank_accounts_in_every_version() {
    let pair = Pair::start().await;
    for (path, code) in [(BANK_V1, "BCA"), (BANK, "BCA"), (BANK_V2, "BCA"), (BANK_V22, "ID_BCA"), (DETAILS, "BCA")] {
        for ending in ["12", "00", "99", "88", "77", "66", "55", "33", "22"] {
            let body = account(&format!("12345678{ending}"), code);
            pair.post(path, body.clone()).await.is(200);
            // The given name makes this a cache miss, so that upstream's own answer shows the reference.
            let named = with(with(body, "reference_id", "foo 123/ä\"\\"), "given_name", "Arunika");
            let answer = pair.post(path, named).await.is(200);
            assert_eq!(answer.json()["reference_id"], "foo 123/ä\"\\");
            pair.send(&request("GET", &format!("{path}/{{id}}")).with("{id}", answer.id())).await.is(200);
        }
    }
    pair.stop().await;
}

#[tokio::test]
async fn the_same_question_again_is_the_same_answer_with_its_own_reference() {
    let pair = Pair::start().await;
    for (path, body) in [(BANK_V1, account("1234567812", "BCA")), (BANK, account("1234567800", "BNI"))] {
        for reference in [json!("first"), json!("second \u{1f600} \\ \" /"), json!("3")] {
            let body = with(body.clone(), "reference_id", reference.clone());
            assert_eq!(pair.post(path, body).await.is(200).json()["reference_id"], reference);
        }
        pair.post(path, body).await.is(200);
    }
    let form = "bank_account_number=1234567813&bank_code=BCA&reference_id=a+b%26c";
    assert_eq!(pair.form(BANK, form).await.is(200).json()["reference_id"], "a b&c");
    assert_eq!(pair.form(BANK, form).await.is(200).json()["reference_id"], "a b&c");
    pair.form(BANK, "bank_account_number=1234567813&bank_code=BCA").await.is(200);
    pair.stop().await;
}

#[tokio::test]
async fn bank_accounts_that_are_pending_first() {
    let slow = |options: &mut Options| {
        options.pending_first = true;
        options.callback_delay = Duration::from_secs(3600);
    };
    let pair = Pair::with(Rig::builder(), slow).await;
    for (path, code) in [(BANK_V1, "BCA"), (BANK_V22, "ID_BNI")] {
        let body = with(account("1234567812", code), "reference_id", "foo123");
        let answer = pair.post(path, body).await.is(200);
        assert_eq!(answer.json()["status"], "PENDING");
        pair.send(&request("GET", &format!("{path}/{{id}}")).with("{id}", answer.id())).await.is(200);
    }
    pair.stop().await;
}

#[tokio::test]
async fn bank_refusals() {
    let pair = Pair::start().await;
    pair.post(BANK, account("1234567812", "NOBANK")).await.error(400, "UNSUPPORTED_BANK_CODE_ERROR");
    pair.post(BANK, account("12", "BCA")).await.error(400, "BANK_ACCOUNT_NUMBER_VALIDATION_ERROR");
    pair.post(BANK_V22, account("1234567812", "BCA")).await.error(400, "UNSUPPORTED_BANK_CODE_ERROR");
    pair.post(BANK, json!({})).await.error(400, "API_VALIDATION_ERROR");
    pair.post(BANK, json!({ "bank_code": "BCA" })).await.error(400, "API_VALIDATION_ERROR");
    pair.form(BANK, "bank_code=BCA").await.error(400, "API_VALIDATION_ERROR");
    pair.form(BANK, "").await.error(400, "API_VALIDATION_ERROR");
    pair.missing(&request("GET", &format!("{BANK}/bknv_0123456789abcdef01234567"))).await;
    // Numbers replace documented strings: Iluma's answer is passed on, whatever it is.
    pair.post(BANK, json!({ "bank_account_number": 1_234_567_812, "bank_code": "BCA" })).await;
    pair.stop().await;
}

#[tokio::test]
async fn magic_replies_of_a_development_key() {
    let pair = Pair::development().await;
    let rows = [
        (BANK_V1, "PENDING"),
        (BANK_V1, "SUCCESS"),
        (BANK_V1, "WAITING_ON_BANK"),
        (BANK_V1, "FAILED"),
        (BANK, "PENDING"),
        (BANK, "COMPLETED_FOUND"),
        (BANK, "WAITING_ON_BANK"),
        (BANK, "COMPLETED_NOT_FOUND"),
        (BANK, "TEMPORARY_NETWORK_ERROR"),
    ];
    for (path, magic) in rows {
        // The request is sent twice: no magic reply is stored.
        for reference in ["one", "two"] {
            let body = with(account("1234567812", "BCA"), "reference_id", reference);
            let answer = pair.send(&request("POST", path).header("x-magic-reply", magic).json(body)).await.is(200);
            pair.send(&request("GET", &format!("{path}/{{id}}")).with("{id}", answer.id())).await.is(200);
        }
    }
    for (path, magic) in [(BANK_V1, "COMPLETED_FOUND"), (BANK, "SUCCESS"), (BANK, "x"), (BANK, "")] {
        let body = account("1234567812", "BCA");
        let answer = pair.send(&request("POST", path).header("x-magic-reply", magic).json(body)).await;
        answer.error(400, "API_VALIDATION_ERROR");
    }
    pair.post(BANK, account("1234567812", "BCA")).await.is(200);
    let ktp = json!({ "nik": "1234567890123456", "name": "FIRA DIYANKA" });
    pair.post(KTP, ktp).await.error(401, "INVALID_API_KEY");
    pair.stop().await;
}

#[tokio::test]
async fn watchlists() {
    let pair = Pair::start().await;
    for (given, surname) in [("Abdul", "Aziz"), ("Arunika", "Hantumalam"), ("HANTULAUT", "")] {
        let body = json!({ "given_name": given, "surname": surname });
        pair.post(CFT, body.clone()).await.is(200);
        pair.post(CFT, body).await.is(200);
        pair.post(CFT, json!({ "given_name": given })).await.is(200);
    }
    pair.form(CFT, "given_name=Abdul&surname=Hantumalam").await.is(200);
    pair.post(CFT, json!({ "surname": "Aziz" })).await.error(400, "API_VALIDATION_ERROR");
    pair.stop().await;
}

#[tokio::test]
async fn bank_codes_and_health() {
    let pair = Pair::start().await;
    for _ in 0..2 {
        pair.get("/bank/available_bank_codes").await.is(200);
        pair.get("/health").await.is(200);
    }
    pair.stop().await;
}

#[tokio::test]
async fn the_synchronous_checks() {
    let pair = Pair::start().await;
    for nik in ["1234567890123456", "1234567890123400", "1234567890123411", "1234567890123499"] {
        let body = json!({ "nik": nik, "name": "ARUNIKA WANAJATI" });
        pair.post(KTP, body.clone()).await;
        pair.post("/v2/identity/ktp_data_requests", body).await;
        pair.form(KTP, &format!("nik={nik}&name=ARUNIKA")).await;
    }
    pair.post(KTP, json!({ "nik": "123", "name": "A" })).await.error(400, "API_VALIDATION_ERROR");
    let body = json!({ "account_number": "12.345.678.9-123.001", "reference_id": "r" });
    assert_eq!(pair.post(NPWP, body).await.is(200).json()["reference_id"], "r");
    pair.post(NPWP, json!({ "account_number": "12" })).await.error(400, "API_VALIDATION_ERROR");
    for number in ["%2B6281234567890", "081234567800", "081234567899"] {
        pair.get(&format!("/v1/fraud/phone_numbers/{number}/age")).await.is(200);
    }
    pair.get("/v1/fraud/phone_numbers/12/age").await.error(400, "API_VALIDATION_ERROR");
    pair.post("/v2/identity/phone_numbers/validate", json!({ "phone_number": "081234567890" })).await.is(200);
    pair.form("/v2/identity/phone_numbers/validate", "phone_number=081234567890").await.is(200);
    pair.post("/v1/credit/drawdowns", json!({ "amount": 1_000_000 })).await.is(200);
    pair.post("/v1/credit/drawdowns", json!({ "amount": -1 })).await.error(400, "API_VALIDATION_ERROR");
    pair.stop().await;
}

#[tokio::test]
async fn streamed_rows_leave_malformed_bodies_to_iluma() {
    let pair = Pair::start().await;
    for path in [KTP, "/v2/identity/ktp_data_requests", NPWP, "/v1/credit/drawdowns"] {
        for (kind, body) in [("application/json", "{\"nik\":"), ("text/plain", "nik=1"), ("application/json", "")] {
            // `form` sets its own type; here the type is part of the request.
            let (straight, through) = (format!("{}{path}", pair.straight.url()), pair.rig.url(path));
            let straight = ask("POST", straight).key(&pair.rig.account_key).header("content-type", kind).body(body);
            let through = ask("POST", through).key(pair.rig.key("lending")).header("content-type", kind).body(body);
            let (straight, through) = (straight.send().await, through.send().await);
            assert_eq!((straight.status, straight.text()), (through.status, through.text()), "{path} {kind} {body}");
            assert_eq!(normal_headers(&straight), normal_headers(&through), "{path} {kind} {body}");
        }
    }
    pair.stop().await;
}

/// Checks the documented exception. On a route whose reference the gateway reads, it refuses malformed JSON itself, and
/// sends nothing to Iluma.
#[tokio::test]
async fn read_rows_refuse_malformed_json_themselves() {
    let rig = Rig::start().await;
    for path in [BANK_V1, BANK, DETAILS] {
        for body in ["{\"bank_code\":", "[]", "", "\"text\"", "{} {}", "{\"a\":1,}"] {
            let answer = rig.post("lending", path, body).send().await;
            assert_eq!(answer.status, 400, "{path} {body}");
            assert_eq!(answer.json()["error_code"], "API_VALIDATION_ERROR");
            assert!(answer.json()["message"].is_string());
            assert_eq!(answer.json().as_object().expect("an object").len(), 3, "error_code, message, errors");
            assert_ne!(answer.header("x-gateway-error"), "", "{path} {body}");
        }
    }
    assert_eq!(rig.sim().stats().requests, 0);
    rig.stop().await;
}

fn face<'a>(field: &'a str, name: &'a str) -> Part<'a> {
    Part::File(field, name, "image/jpeg", b"\xff\xd8\xff\0\r\n--\r\n".to_vec())
}

#[tokio::test]
async fn faces_and_id_cards() {
    let pair = Pair::start().await;
    for second in ["b.jpg", "mismatch.jpg", "noface.jpg", "neterror.jpg"] {
        pair.upload(FACES, &[face("image_one", "a.jpg"), face("image_two", second)]).await.is(200);
    }
    pair.upload(FACES, &[face("image_one", "a.jpg")]).await.error(400, "API_VALIDATION_ERROR");
    let large = Part::File("image_two", "b.png", "image/png", vec![0; (2 << 20) + 1]);
    pair.upload(FACES, &[face("image_one", "a.jpg"), large]).await.error(400, "API_VALIDATION_ERROR");

    let card = |nik, size, kind| {
        vec![
            Part::Text("name", "penito kristian"),
            Part::Text("id_card_number", nik),
            Part::Text("birthdate", "12-10-1991"),
            Part::File("selfie", "selfie.png", kind, vec![7; size]),
            Part::File("ktp_image", "ktp.png", "image/png", vec![7; 200 * 1024]),
        ]
    };
    let good = 150 * 1024;
    for nik in ["3275031210930027", "3275031210930004", "3275031210930000", "3275031210930099"] {
        pair.upload(VERIFICATIONS, &card(nik, good, "image/png")).await.is(200);
    }
    let nik = "3275031210930027";
    pair.upload(VERIFICATIONS, &card(nik, 10, "image/png")).await.error(413, "FILE_TOO_SMALL");
    pair.upload(VERIFICATIONS, &card(nik, 3 << 20, "image/png")).await.error(413, "FILE_TOO_LARGE");
    pair.upload(VERIFICATIONS, &card(nik, good, "image/bmp")).await.error(415, "UNSUPPORTED_CONTENT_TYPE");
    pair.upload(VERIFICATIONS, &card(nik, good, "image/png")[..2]).await.error(400, "API_VALIDATION_ERROR");
    pair.stop().await;
}

#[tokio::test]
async fn a_development_key_is_refused_where_iluma_refuses_it() {
    let pair = Pair::development().await;
    let parts = [
        Part::Text("name", "penito kristian"),
        Part::Text("id_card_number", "3275031210930027"),
        Part::Text("birthdate", "12-10-1991"),
        Part::File("selfie", "selfie.png", "image/png", vec![7; 150 * 1024]),
        Part::File("ktp_image", "ktp.png", "image/png", vec![7; 150 * 1024]),
    ];
    pair.upload(VERIFICATIONS, &parts).await.error(403, "API_KEY_IS_NOT_LIVE_ERROR");
    pair.stop().await;
}

#[tokio::test]
async fn id_cards_are_read_and_listed() {
    let pair = Pair::start().await;
    let card = |kind, name, reference| {
        vec![
            Part::Text("type", kind),
            Part::File("image", name, "image/png", vec![1; 64]),
            Part::Text("reference_id", reference),
        ]
    };
    let mut first = None;
    for (kind, name) in [("indonesia_ktp", "a.png"), ("npwp_card", "b.png"), ("passport", "unreadable.png")] {
        let answer = pair.upload(IMAGES, &card(kind, name, "foo 1")).await.is(200);
        assert_eq!(answer.json()["reference_id"], "foo 1");
        pair.send(&request("GET", &format!("{IMAGES}/{{id}}")).with("{id}", answer.id())).await.is(200);
        first.get_or_insert(answer.id());
    }
    let without = [Part::Text("type", "passport"), Part::File("image", "c.png", "image/png", vec![1; 64])];
    let answer = pair.upload(IMAGES, &without).await.is(200);
    assert_eq!(answer.json().get("reference_id"), None);

    assert_eq!(list(&pair, IMAGES, "foo%201").await, 3);
    pair.get(&format!("{IMAGES}?reference_id=nobody")).await.is(200);
    let after = request("GET", "/v1/identity/id_card_images?reference_id=foo+1&after_id={id}");
    pair.send(&after.with("{id}", first.expect("an id"))).await.is(200);
    for bad in ["", "?reference_id=x&limit=0", "?reference_id=x&limit=x", "?reference_id=x&after_id=y"] {
        pair.get(&format!("{IMAGES}{bad}")).await.error(400, "API_VALIDATION_ERROR");
    }
    pair.missing(&request("GET", &format!("{IMAGES}/f95ae802-4d96-4066-ada7-fe9487d4ca5e"))).await;
    pair.upload(IMAGES, &card("sim", "a.png", "x")).await.error(400, "API_VALIDATION_ERROR");
    let gif = [Part::Text("type", "passport"), Part::File("image", "g.gif", "image/gif", vec![1])];
    pair.upload(IMAGES, &gif).await.error(415, "UNSUPPORTED_CONTENT_TYPE");
    let large = [Part::Text("type", "passport"), Part::File("image", "g.png", "image/png", vec![1; (2 << 20) + 1])];
    pair.upload(IMAGES, &large).await.error(413, "FILE_TOO_LARGE");
    pair.stop().await;
}

/// Checks a difference. Iluma refuses a list request with an empty reference. The gateway lists the records that were
/// made without a reference, which have only the team's prefix at Iluma.
#[tokio::test]
async fn an_empty_reference_lists_what_was_made_without_one() {
    let pair = Pair::start().await;
    let image = |reference: Option<&'static str>| {
        let parts = [Part::Text("type", "passport"), Part::File("image", "c.png", "image/png", vec![1; 64])];
        parts.into_iter().chain(reference.map(|reference| Part::Text("reference_id", reference))).collect::<Vec<_>>()
    };
    let without = pair.upload(IMAGES, &image(None)).await.is(200);
    pair.upload(IMAGES, &image(Some("foo"))).await.is(200);
    let path = format!("{IMAGES}?reference_id=");
    let straight = ask("GET", format!("{}{path}", pair.straight.url())).key(&pair.rig.account_key).send().await;
    assert_eq!((straight.status, &straight.json()["error_code"]), (400, &json!("API_VALIDATION_ERROR")));
    let through = pair.rig.ask("lending", "GET", &path).send().await;
    assert_eq!((through.status, through.header("x-gateway-error")), (200, ""), "{}", through.text());
    let page = through.json();
    let records = page["data"].as_array().expect("records");
    assert_eq!(records.len(), 1, "{page}");
    assert_eq!((&records[0]["id"], records[0].get("reference_id")), (&json!(without.id()[1]), None), "{page}");
    assert!(!through.text().contains("lending"), "{page}");
    pair.stop().await;
}

/// Reads a list in pages of two records, by the links in the pages. Returns the number of records.
async fn list(pair: &Pair, path: &str, reference: &str) -> usize {
    pair.get(&format!("{path}?reference_id={reference}")).await.is(200);
    let mut page = pair.get(&format!("{path}?reference_id={reference}&limit=2")).await.is(200);
    let mut records = page.json()["data"].as_array().expect("records").len();
    while page.json()["has_more"] == true {
        page = pair.send(&request("GET", "{next}").with("{next}", page.keep("/links/2/href"))).await.is(200);
        records += page.json()["data"].as_array().expect("records").len();
    }
    records
}

#[tokio::test]
async fn documents_are_read_and_listed() {
    let pair = Pair::start().await;
    let document = |name, kind, size| {
        vec![
            Part::File("image", name, kind, vec![b'%'; size]),
            Part::Text("reference_id", "foo123"),
            Part::Text("type", "BUSINESS_REGISTRATION"),
            Part::Text("country", "ID"),
            Part::Text("document_name", "SK_MENKEH"),
        ]
    };
    for name in ["sk.pdf", "unreadable.pdf", "neterror.pdf", "large.pdf"] {
        let size = if name == "large.pdf" { 5 << 20 } else { 100 };
        let answer = pair.upload(DOCUMENTS, &document(name, "application/pdf", size)).await.is(200);
        pair.send(&request("GET", &format!("{DOCUMENTS}/{{id}}")).with("{id}", answer.id())).await.is(200);
    }
    assert_eq!(list(&pair, DOCUMENTS, "foo123").await, 4);
    pair.upload(DOCUMENTS, &document("a.bmp", "image/bmp", 10)).await.error(415, "UNSUPPORTED_CONTENT_TYPE");
    pair.upload(DOCUMENTS, &document("a.pdf", "image/png", 10)[..2]).await.error(400, "API_VALIDATION_ERROR");
    pair.missing(&request("GET", &format!("{DOCUMENTS}/ocr-none"))).await;
    pair.stop().await;
}

/// Checks a difference. Iluma requires a reference on this route. The gateway sends only the prefix if the caller gave
/// no reference.
#[tokio::test]
async fn the_bare_seal_is_the_reference_that_documents_require() {
    let pair = Pair::start().await;
    let document = [
        Part::File("image", "a.pdf", "application/pdf", vec![b'%'; 100]),
        Part::Text("type", "BUSINESS_REGISTRATION"),
        Part::Text("country", "ID"),
        Part::Text("document_name", "SK_MENKEH"),
    ];
    let both = async |parts: &[Part<'_>]| {
        let straight = ask("POST", format!("{}{DOCUMENTS}", pair.straight.url())).key(&pair.rig.account_key);
        let through = pair.rig.ask("lending", "POST", DOCUMENTS);
        (straight.multipart(parts).send().await, through.multipart(parts).send().await)
    };
    // Through the gateway, Iluma reports the same missing fields except the reference.
    let (straight, through) = both(&document[..1]).await;
    let mut expected = straight.json();
    let errors = expected["errors"].as_array_mut().expect("errors");
    let count = errors.len();
    errors.retain(|error| error["field"] != "reference_id");
    assert_eq!(errors.len(), count - 1, "{}", straight.text());
    assert_eq!((straight.status, through.status, through.json()), (400, 400, expected));
    assert_eq!(through.header("x-gateway-error"), "");

    let (straight, through) = both(&document).await;
    assert_eq!((straight.status, &straight.json()["error_code"]), (400, &json!("API_VALIDATION_ERROR")));
    assert_eq!(through.status, 200, "{}", through.text());
    assert!(through.json().get("reference_id").is_none() && !through.text().contains("lending"), "{}", through.text());
    pair.stop().await;
}

#[tokio::test]
async fn captures_and_recaptures() {
    let pair = Pair::start().await;
    let types = json!(["IDENTITY_CARD", "SELFIE", "BUSINESS_REGISTRATION"]);
    let body = json!({ "types": types, "country": "PH", "reference_id": "1234" });
    let id = pair.post(CAPTURES, body.clone()).await.is(200).id();
    pair.send(&request("GET", &format!("{CAPTURES}/{{id}}")).with("{id}", id.clone())).await.is(200);
    let again = format!("{CAPTURES}/{{id}}/recapture");
    let again = |method| request(method, &again).with("{id}", id.clone());
    pair.send(&again("POST").json(json!({}))).await.error(400, "API_VALIDATION_ERROR");
    let second = pair.send(&again("POST").json(json!({ "types": ["IDENTITY_CARD"] }))).await.is(200);
    assert_eq!(second.json()["status"], "RECAPTURE_PENDING");
    pair.send(&again("GET")).await.is(200);
    for _ in 0..2 {
        pair.post(CAPTURES, body.clone()).await.is(200);
    }
    let without = pair.post(CAPTURES, json!({ "types": ["SELFIE"] })).await.is(200);
    assert_eq!(without.json().get("reference_id"), None);
    pair.get("/v1/identity/document_ocr_capture?reference_id=1234&limit=2").await.is(200);
    pair.get(&format!("{CAPTURES}?reference_id=1234")).await.is(200);
    let missing = request("GET", "/v1/identity/captures/{id}/results/none.pdf/download");
    pair.missing(&missing.with("{id}", id.clone())).await;
    let nowhere = format!("{CAPTURES}/ocr-none/recapture");
    pair.missing(&request("POST", &nowhere).json(json!({ "types": ["SELFIE"] }))).await;
    for bad in [json!({}), json!({ "types": [] }), json!({ "types": ["X"] })] {
        pair.post(CAPTURES, bad).await.error(400, "API_VALIDATION_ERROR");
    }
    pair.stop().await;
}

/// Repeats a GET through the gateway until the record is not pending any more, and returns the record.
async fn done(rig: &Rig, path: &str) -> Value {
    let finished = async {
        loop {
            let record = rig.ask("lending", "GET", path).send().await.json();
            if !["PENDING", "IN_PROGRESS"].contains(&record["status"].as_str().expect("a status")) {
                return record;
            }
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, finished).await.expect("a result in time")
}

/// Compares results and files of records that were made through the gateway. One simulator answers both ways, because
/// it invents a result from the record's id. Only a direct GET shows the reference with the team's prefix.
#[tokio::test]
async fn results_and_their_files() {
    let quick = |options: &mut Options| options.callback_delay = Duration::from_millis(5);
    let rig = Rig::builder().simulator(quick).start().await;
    let mut paths = Vec::new();
    let image = [
        Part::Text("type", "indonesia_ktp"),
        Part::Text("reference_id", "a b"),
        Part::File("image", "a.png", "image/png", vec![1; 64]),
    ];
    let document = [
        Part::File("image", "a.pdf", "application/pdf", vec![1; 64]),
        Part::Text("reference_id", "a b"),
        Part::Text("type", "BUSINESS_REGISTRATION"),
        Part::Text("country", "ID"),
        Part::Text("document_name", "SK_MENKEH"),
    ];
    let capture = json!({ "types": ["IDENTITY_CARD", "SELFIE", "BUSINESS_REGISTRATION"], "reference_id": "a b" });
    for (path, ask) in [
        (IMAGES, rig.ask("lending", "POST", IMAGES).multipart(&image)),
        (DOCUMENTS, rig.ask("lending", "POST", DOCUMENTS).multipart(&document)),
        (CAPTURES, rig.post("lending", CAPTURES, capture.to_string())),
    ] {
        let started = ask.send().await.json();
        let id = started["id"].as_str().expect("an id");
        let record = format!("{path}/{id}");
        let result = done(&rig, &record).await;
        assert_eq!(result["status"], "COMPLETED", "{path}");
        paths.extend([record, format!("{path}?reference_id=a%20b")]);
        for part in ["id_card_ocr", "selfie", "business_registration_ocr"] {
            if let Some(link) = result["result"][part]["link"].as_str() {
                paths.push(format!("/v1/identity/captures/{id}/results/{link}/download"));
            }
        }
    }
    assert_eq!(paths.len(), 9, "{paths:?}");
    for path in paths {
        let sealed = path.replace("reference_id=", "reference_id=lending%3A");
        let mut straight = ask("GET", format!("{}{sealed}", rig.sim().url())).key(&rig.account_key).send().await;
        let mut through = rig.ask("lending", "GET", &path).send().await;
        assert_eq!((straight.status, through.status), (200, 200), "{path}");
        if !path.ends_with("/download") {
            let text = straight.text();
            assert!(text.contains(r#""reference_id":"lending:a b""#), "{path}: {text}");
            // The prefix is in records and in a list's links; nothing else differs.
            straight.body = text.replace("lending:", "").replace("lending%3A", "").into();
            let unsealed = straight.body.len();
            for (answer, length) in [(&mut straight, text.len()), (&mut through, unsealed)] {
                let told = answer.headers.remove("content-length");
                assert_eq!(told.expect("a length"), length.to_string(), "{path}");
            }
        }
        assert_eq!(straight.body, through.body, "{path}:\n{}\n{}", straight.text(), through.text());
        assert_eq!(normal_headers(&straight), normal_headers(&through), "{path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn unknown_posts_pass_and_with_forward_everything_does() {
    let pair = Pair::start().await;
    pair.post("/v3/identity/bank_checks", json!({ "a": 1 })).await.error(404, "NOT_FOUND_ERROR");
    pair.stop().await;
    let pair = Pair::of(Rig::builder().section("upstream", "unknown_routes = \"forward\"")).await;
    for method in ["GET", "PUT", "PATCH", "DELETE"] {
        pair.send(&request(method, "/v3/identity/bank_checks?a=b&c=%20d")).await.error(404, "NOT_FOUND_ERROR");
    }
    pair.send(&request("HEAD", "/v3/identity/bank_checks")).await.is(404);
    pair.stop().await;
}

#[tokio::test]
async fn a_row_that_the_configuration_adds() {
    let alias = |options: &mut Options| {
        options.pending_first = false;
        let alias = "/v3/identity/bank_checks=/v1.1/identity/bank_account_data_requests";
        options.aliases = vec![alias.parse().expect("an alias")];
    };
    let row = "[[routes]]\nmethod = \"POST\"\npath = \"/v3/identity/bank_checks\"\nlike = \"bank\"\n";
    let pair = Pair::with(Rig::builder().extra(row), alias).await;
    for reference in ["a", "b"] {
        let body = with(account("1234567812", "BCA"), "reference_id", reference);
        let answer = pair.post("/v3/identity/bank_checks", body).await.is(200);
        assert_eq!(answer.json()["reference_id"], reference);
    }
    assert_eq!(pair.rig.sim().stats().requests, 1, "the second is a hit");
    pair.stop().await;
}

#[tokio::test]
async fn errors_of_iluma_pass_as_they_came() {
    let bank = || request("POST", BANK).json(account("1234567812", "BCA"));
    let ktp = || request("POST", KTP).json(json!({ "nik": "1234567890123456", "name": "A" }));
    let get = || request("GET", "/v1/fraud/phone_numbers/081234567890/age");
    for question in [bank, ktp, get] {
        for fault in
            ["status=400", "status=403", "status=404", "status=418", "status=429/7", "status=500", "rate_limit=3"]
        {
            // Each case has a pair of its own: a 429 slows the account down.
            let pair = Pair::start().await;
            let both = pair.send(&question().header("x-sim-fault", fault)).await;
            assert!(both.through.status >= 400, "{fault}");
            pair.stop().await;
        }
    }
    let pair = Pair::start().await;
    let answer = pair.send(&ktp().header("x-sim-fault", "rate_limit=3")).await;
    answer.error(400, "RATE_LIMIT_EXCEEDED");
    pair.stop().await;
}

#[tokio::test]
async fn odd_answers_of_iluma_pass_as_they_came() {
    for fault in ["garbage_json", "empty"] {
        for (path, body) in [
            (BANK, account("1234567812", "BCA")),
            (CFT, json!({ "given_name": "Abdul" })),
            (KTP, json!({ "nik": "1234567890123456", "name": "A" })),
        ] {
            let pair = Pair::start().await;
            pair.send(&request("POST", path).header("x-sim-fault", fault).json(body)).await.is(200);
            pair.stop().await;
        }
    }
}

#[tokio::test]
async fn without_a_good_key_the_error_is_ilumas() {
    let pair = Pair::start().await;
    let keys = ["Basic aWx1bWE6", "Bearer iluma", "Basic !!!", "Digest x", ""];
    for path in [BANK, "/bank/available_bank_codes", "/v1/identity/id_card_images/x", "/nowhere"] {
        for key in keys {
            let straight = ask("POST", format!("{}{path}", pair.straight.url())).header("authorization", key);
            let through = ask("POST", pair.rig.url(path)).header("authorization", key);
            let (straight, through) = (straight.json("{}").send().await, through.json("{}").send().await);
            assert_eq!((straight.status, through.status), (401, 401), "{path} {key}");
            assert_eq!(straight.json()["error_code"], through.json()["error_code"], "{path} {key}");
            assert!(through.header("content-type").starts_with("application/json"), "{:?}", through.headers);
        }
    }
    assert_eq!(pair.rig.sim().stats().requests, 0);
    pair.stop().await;
}

/// Sends a request directly and through the gateway, twice, so that a cached answer is compared too. Returns a
/// difference as an error.
async fn odd(pair: &Pair, path: &str, headers: &[(&str, &str)], body: &str) -> Result<(), String> {
    for _ in 0..2 {
        let mut straight = ask("POST", format!("{}{path}", pair.straight.url())).key(&pair.rig.account_key);
        let mut through = ask("POST", pair.rig.url(path)).key(pair.rig.key("lending"));
        for (name, value) in headers {
            (straight, through) = (straight.header(name, value), through.header(name, value));
        }
        let (straight, through) =
            (straight.body(body.to_owned()).send().await, through.body(body.to_owned()).send().await);
        let all = [&straight, &through].map(|answer| (answer.status, normal_body(answer), normal_headers(answer)));
        if all[0] != all[1] {
            let body: String = body.chars().take(100).collect();
            let (straight, through) = (straight.text(), through.text());
            return Err(format!("{path} {headers:?} {body}:\n straight {straight}\n through  {through}"));
        }
    }
    Ok(())
}

const JSON: (&str, &str) = ("content-type", "application/json");
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const QUESTION: &str = r#"{"bank_account_number":"1234567812","bank_code":"BCA","given_name":"Abdul"}"#;

#[tokio::test]
async fn odd_bodies_are_iluma_s_to_judge() {
    let pair = Pair::start().await;
    let form = "bank_account_number=1234567812&bank_code=BCA&given_name=Abdul";
    for path in [BANK_V1, BANK, CFT] {
        for (headers, body) in [
            (&[("content-type", "application/json;charset=UTF-8")][..], QUESTION.to_owned()),
            (&[("content-type", "APPLICATION/JSON")], QUESTION.to_owned()),
            (&[JSON, ("content-encoding", "identity")], QUESTION.to_owned()),
            (&[JSON], QUESTION.replace('{', r#"{"bank_code":"BNI","#)),
            (&[JSON], QUESTION.replace('{', r#"{"reference_id":null,"#)),
            (&[JSON], QUESTION.replace("\"Abdul\"", "1e999")),
            (&[JSON], QUESTION.replace("\"Abdul\"", "12345678901234567890123")),
            (&[JSON], QUESTION.replace("\"Abdul\"", &format!("{}{}", "[".repeat(500), "]".repeat(500)))),
            (&[JSON], QUESTION.replace("\"Abdul\"", "{\"a\":[null,true,{}]}")),
            (&[FORM], format!("{form};a")),
            (&[FORM], format!("{form}&&=&a&b=")),
            (&[FORM], format!("{form}&given_name=B")),
        ] {
            odd(&pair, path, headers, &body).await.unwrap_or_else(|difference| panic!("{difference}"));
        }
    }
    pair.stop().await;
}

/// Follows a list of captures by its links. In the API document their path has no `/identity`.
#[tokio::test]
async fn a_list_of_captures_by_its_own_links() {
    let pair = Pair::start().await;
    for _ in 0..3 {
        pair.post(CAPTURES, json!({ "types": ["SELFIE"], "reference_id": "1234" })).await.is(200);
    }
    assert_eq!(list(&pair, CAPTURES, "1234").await, 3);
    pair.stop().await;
}

/// Checks that a hit on this route shows no reference, because Iluma accepts none here and echoes none.
#[tokio::test]
async fn a_hit_on_a_watchlist_has_no_reference_that_iluma_would_not_tell() {
    let pair = Pair::start().await;
    let body = json!({ "given_name": "Abdul", "surname": "Aziz" });
    pair.post(CFT, body.clone()).await.is(200);
    pair.post(CFT, with(body, "reference_id", "foo123")).await.is(200);
    pair.stop().await;
}

/// Checks that odd bodies of watchlist requests reach Iluma. The gateway prefixes no reference on this route, so it
/// only refuses malformed JSON.
#[tokio::test]
async fn a_watchlist_question_that_the_gateway_cannot_read_is_iluma_s_to_judge() {
    let pair = Pair::start().await;
    let mut differences = Vec::new();
    for (headers, body) in [
        (&[][..], QUESTION.to_owned()),
        (&[("content-type", "")], QUESTION.to_owned()),
        (&[("content-type", "text/plain")], QUESTION.to_owned()),
        (&[("content-type", "application/vnd.api+json")], QUESTION.to_owned()),
        (&[("content-type", "application/json; charset=latin1")], QUESTION.to_owned()),
        (&[JSON, ("content-encoding", "gzip")], QUESTION.to_owned()),
        (&[("content-type", "multipart/form-data; boundary=b")], "--b--\r\n".to_owned()),
        (&[FORM], "given_name=Abdul&x=%zz%ff".to_owned()),
        (&[JSON], QUESTION.replace('{', r#"{"reference_id":12,"#)),
        (&[JSON], QUESTION.replace('{', r#"{"reference_id":"a","reference_id":"b","#)),
    ] {
        differences.extend(odd(&pair, CFT, headers, &body).await.err());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    pair.stop().await;
}
