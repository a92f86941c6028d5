//! Tests of two teams on one account, with the simulator's own callbacks.
//!
//! Each team has its own records, references and results, even if both teams share a record.

use crate::support::{Heard, PATIENCE, Part, Rig, RigBuilder, Upstream, ask, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const DETAILS: &str = "/v1.2/identity/bank_account_validation_details";
const IMAGES: &str = "/v1/identity/id_card_images";
const DOCUMENTS: &str = "/v1/identity/document_ocr_requests";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";

const TYPES: [&str; 5] = [
    "NAME_VALIDATOR_REQUEST",
    "BANK_NAME_VALIDATOR_DETAILS",
    "ID_IMAGE_OCR_REQUEST",
    "BUSINESS_DOCUMENT_OCR_REQUEST",
    "DOCUMENT_OCR_CAPTURE_REQUEST",
];

/// A gateway that receives the simulator's callbacks, and the endpoint of each team.
struct Stage {
    rig: Rig,
    lending: Upstream,
    payments: Upstream,
}

async fn endpoint() -> Upstream {
    Upstream::answering(|_| Response::new(Full::new(Bytes::new()))).await
}

fn listens(endpoint: &Upstream) -> String {
    let urls: Vec<String> = TYPES.iter().map(|kind| format!("{kind} = \"{}/{kind}\"", endpoint.url())).collect();
    format!("callback_urls = {{ {} }}", urls.join(", "))
}

impl Stage {
    async fn set(delay: Duration, change: impl FnOnce(RigBuilder) -> RigBuilder) -> Self {
        const TOKEN: &str = "the-token-of-the-account";
        let (lending, payments) = (endpoint().await, endpoint().await);
        let builder = Rig::builder()
            .simulator(|options| {
                options.pending_first = true;
                options.callback_delay = delay;
                options.callback_token = Some(TOKEN.into());
            })
            .secret("CALLBACK", TOKEN)
            .tenant("lending", &listens(&lending))
            .tenant("payments", &listens(&payments));
        let rig = change(builder).start().await;
        for kind in TYPES {
            let url = rig.callbacks_url(&format!("/callbacks/live/{kind}"));
            let set = ask("POST", format!("{}/v1/callback/urls", rig.sim().url())).key(&rig.account_key);
            let set = set.json(json!({ "type": kind, "url": url }).to_string()).send().await;
            assert_eq!(set.status, 200, "{}", set.text());
        }
        Self { rig, lending, payments }
    }

    fn endpoint(&self, team: &str) -> &Upstream {
        if team == "lending" { &self.lending } else { &self.payments }
    }

    /// Waits until a team has `count` deliveries of a callback type, and returns the bodies of all.
    async fn hears(&self, team: &str, kind: &str, count: usize) -> Vec<Value> {
        let target = format!("/{kind}");
        let of = |heard: Vec<Heard>| heard.into_iter().filter(|heard| heard.target == target).collect::<Vec<_>>();
        until(&format!("{count} {kind} for {team}"), || of(self.endpoint(team).heard()).len() >= count).await;
        let heard = of(self.endpoint(team).heard());
        heard.iter().map(|heard| serde_json::from_slice(&heard.body).expect("JSON")).collect()
    }

    /// Waits until the simulator has delivered this number of callbacks, and no delivery to a team is queued.
    async fn is_quiet(&self, callbacks: u64) {
        let sim = self.rig.sim();
        until("Iluma's callbacks", || sim.stats().callbacks.delivered >= callbacks).await;
        let settled = async {
            loop {
                let queued = self.rig.operator("GET", "/v1/callbacks?state=queued").send().await.json();
                if queued["callbacks"].as_array().is_some_and(Vec::is_empty) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, settled).await.expect("empty queues");
    }

    /// Returns the simulator's answer to a GET with the account's key, past the gateway.
    async fn straight(&self, path: &str) -> Value {
        ask("GET", format!("{}{path}", self.rig.sim().url())).key(&self.rig.account_key).send().await.json()
    }
}

fn account(number: &str, reference: &str) -> String {
    json!({"bank_code": "BCA", "bank_account_number": number, "reference_id": reference}).to_string()
}

fn image<'a>() -> Vec<Part<'a>> {
    vec![
        Part::Text("type", "indonesia_ktp"),
        Part::Text("reference_id", "foo123"),
        Part::File("image", "a.png", "image/png", vec![1; 64]),
    ]
}

fn document<'a>() -> Vec<Part<'a>> {
    vec![
        Part::File("image", "a.pdf", "application/pdf", vec![1; 64]),
        Part::Text("type", "BUSINESS_REGISTRATION"),
        Part::Text("country", "ID"),
        Part::Text("document_name", "SK_MENKEH"),
        Part::Text("reference_id", "foo123"),
    ]
}

#[tokio::test]
async fn equal_references_never_meet_on_any_asynchronous_row() {
    let stage = Stage::set(Duration::from_millis(50), |rig| rig).await;
    let rig = &stage.rig;
    let capture = json!({ "types": ["IDENTITY_CARD", "SELFIE"], "reference_id": "foo123" }).to_string();
    let submit = |team: &str, path: &str| {
        let number = if team == "lending" { "1234567811" } else { "1234567812" };
        match path {
            IMAGES => rig.ask(team, "POST", path).multipart(&image()),
            DOCUMENTS => rig.ask(team, "POST", path).multipart(&document()),
            CAPTURES => rig.post(team, path, capture.clone()),
            _ => rig.post(team, path, account(number, "foo123")),
        }
    };
    for (path, kind) in [BANK, DETAILS, IMAGES, DOCUMENTS, CAPTURES].into_iter().zip(TYPES) {
        let mut ids = Vec::new();
        for team in ["lending", "payments"] {
            let made = submit(team, path).send().await;
            assert_eq!((made.status, &made.json()["reference_id"]), (200, &json!("foo123")), "{path} {}", made.text());
            let id = made.json()["id"].as_str().expect("an id").to_owned();
            let sealed = stage.straight(&format!("{path}/{id}")).await;
            assert_eq!(sealed["reference_id"], format!("{team}:foo123"), "{path}");
            ids.push((team, id));
        }
        for (team, id) in &ids {
            let told = stage.hears(team, kind, 1).await;
            assert_eq!(
                (told.len(), &told[0]["id"], &told[0]["reference_id"]),
                (1, &json!(id), &json!("foo123")),
                "{path}"
            );
            let own = rig.ask(team, "GET", &format!("{path}/{id}")).send().await;
            assert_eq!((own.status, &own.json()["reference_id"]), (200, &json!("foo123")), "{path}");
            let other = if *team == "lending" { "payments" } else { "lending" };
            rig.ask(other, "GET", &format!("{path}/{id}")).send().await.is_rejection(404, "DATA_NOT_FOUND");
            if [IMAGES, DOCUMENTS, CAPTURES].contains(&path) {
                let list = rig.ask(team, "GET", &format!("{path}?reference_id=foo123")).send().await;
                let listed: Vec<_> = list.json()["data"].as_array().expect("a list").clone();
                assert_eq!(listed.len(), 1, "{path} {}", list.text());
                assert_eq!((&listed[0]["id"], &listed[0]["reference_id"]), (&json!(id), &json!("foo123")), "{path}");
                assert!(
                    !list.text().contains(&format!("{team}:")) && !list.text().contains(&format!("{team}%3A")),
                    "{path}"
                );
            }
        }
    }
    // Only the owner may read a file of a capture, and ask for a recapture.
    let record = stage.hears("lending", TYPES[4], 1).await.remove(0);
    let id = record["id"].as_str().expect("an id");
    let link = record["result"]["selfie"]["link"].as_str().expect("a link");
    let file = format!("/v1/identity/captures/{id}/results/{link}/download");
    assert_eq!(rig.ask("lending", "GET", &file).send().await.status, 200);
    rig.ask("payments", "GET", &file).send().await.is_rejection(404, "DATA_NOT_FOUND");
    let again = format!("{CAPTURES}/{id}/recapture");
    let types = json!({ "types": ["SELFIE"] }).to_string();
    rig.post("payments", &again, types.clone()).send().await.is_rejection(404, "DATA_NOT_FOUND");
    let recapture = rig.post("lending", &again, types).send().await;
    assert_eq!((recapture.status, &recapture.json()["reference_id"]), (200, &json!("foo123")), "{}", recapture.text());
    stage.is_quiet(10).await;
    stage.rig.stop().await;
}

/// Checks that identical requests of two teams cause one call, at the same time or while the result is pending. Each
/// reference gets one callback.
#[tokio::test]
async fn two_who_ask_at_once_pay_once_and_each_is_told_once() {
    let stage = Stage::set(Duration::from_millis(300), |rig| rig).await;
    let rig = &stage.rig;
    let (a, b) = tokio::join!(
        rig.post("lending", BANK, account("1234567811", "loan-1")).send(),
        rig.post("payments", BANK, account("1234567811", "pay-1")).send(),
    );
    let late = rig.post("payments", BANK, account("1234567811", "pay-2")).send().await;
    for (answer, reference) in [(&a, "loan-1"), (&b, "pay-1"), (&late, "pay-2")] {
        let json = answer.json();
        assert_eq!((&json["status"], &json["reference_id"]), (&json!("PENDING"), &json!(reference)), "{json}");
        assert_eq!(json["id"], a.json()["id"]);
    }
    assert_eq!(rig.sim().stats().routes["bank"].requests, 1);
    let told = stage.hears("lending", TYPES[0], 1).await;
    assert_eq!(told[0]["reference_id"], "loan-1");
    let mut told: Vec<_> = stage.hears("payments", TYPES[0], 2).await;
    told.sort_by_key(|told| told["reference_id"].to_string());
    assert_eq!((&told[0]["reference_id"], &told[1]["reference_id"]), (&json!("pay-1"), &json!("pay-2")));
    assert!(told.iter().all(|told| told["status"] == "COMPLETED" && told["id"] == a.json()["id"]));
    stage.is_quiet(1).await;
    assert_eq!((stage.lending.heard().len(), stage.payments.heard().len()), (1, 2), "one each, and no more");
    let id = a.json()["id"].as_str().expect("an id").to_owned();
    for (team, reference) in [("lending", "loan-1"), ("payments", "pay-2")] {
        let own = rig.ask(team, "GET", &format!("{BANK}/{id}")).send().await;
        assert_eq!(own.json()["reference_id"], reference, "the team's newest");
    }
    assert_eq!(rig.sim().stats().charged, 1);
    stage.rig.stop().await;
}

#[tokio::test]
async fn a_hit_sends_a_callback_and_makes_an_owner() {
    let stage = Stage::set(Duration::from_millis(20), |rig| rig).await;
    let rig = &stage.rig;
    rig.post("lending", BANK, account("1234567811", "loan-1")).send().await;
    stage.hears("lending", TYPES[0], 1).await;
    // The callback has put the result into the cache, so a request for it needs no call.
    let hit = async {
        loop {
            let answer = rig.post("payments", BANK, account("1234567811", "pay-1")).send().await;
            if answer.json()["status"] == "COMPLETED" {
                return answer;
            }
        }
    };
    let hit = tokio::time::timeout(PATIENCE, hit).await.expect("the result");
    assert!(hit.header("cache-status").starts_with("iluma-gateway; hit; ttl="), "{:?}", hit.headers);
    assert_eq!(rig.sim().stats().routes["bank"].requests, 1);
    let told = stage.hears("payments", TYPES[0], 1).await;
    let last = told.last().expect("a callback");
    assert_eq!((last, &last["reference_id"]), (&hit.json(), &json!("pay-1")));
    let id = hit.json()["id"].as_str().expect("an id").to_owned();
    for reference in ["pay-2", "pay-3"] {
        rig.post("payments", BANK, account("1234567811", reference)).send().await;
        let own = rig.ask("payments", "GET", &format!("{BANK}/{id}")).send().await;
        assert_eq!((own.status, &own.json()["reference_id"]), (200, &json!(reference)));
    }
    let lending = rig.ask("lending", "GET", &format!("{BANK}/{id}")).send().await;
    assert_eq!(lending.json()["reference_id"], "loan-1");
    stage.rig.stop().await;
}

/// Checks that an empty reference counts as none, and that its request has one callback.
#[tokio::test]
async fn an_empty_reference_brings_one_callback() {
    let stage = Stage::set(Duration::from_millis(20), |rig| rig).await;
    let rig = &stage.rig;
    for (heard, reference, told_as) in [(1, "", Value::Null), (2, "loan-1", json!("loan-1"))] {
        rig.post("lending", BANK, account(&format!("123456781{heard}"), reference)).send().await;
        let told = stage.hears("lending", TYPES[0], heard).await;
        assert_eq!(told[heard - 1]["reference_id"], told_as);
    }
    let queue = |state: &str| format!(r#"iluma_gateway_callback_queue{{state="{state}",tenant="lending"}}"#);
    assert_eq!(rig.metric(&queue("queued")).await, 0.0);
    let delivered = rig.operator("GET", "/v1/callbacks?state=delivered").send().await.json();
    assert_eq!(delivered["callbacks"].as_array().map(Vec::len), Some(2), "{delivered}");
    stage.rig.stop().await;
}

/// Checks that only the fallback owner reads records from before the gateway.
#[tokio::test]
async fn what_was_there_before_is_read_by_its_heir_alone() {
    let stage = Stage::set(Duration::from_millis(20), |rig| rig.tenant("lending", "owns_unprefixed = true")).await;
    let rig = &stage.rig;
    let straight = |path: &str| ask("POST", format!("{}{path}", rig.sim().url())).key(&rig.account_key);
    let bank = straight(BANK).json(account("1234567811", "old")).send().await.json();
    let image = straight(IMAGES).multipart(&image()).send().await.json();
    for (path, record, reference) in [(BANK, &bank, "old"), (IMAGES, &image, "foo123")] {
        let path = format!("{path}/{}", record["id"].as_str().expect("an id"));
        let fallback = rig.ask("lending", "GET", &path).send().await;
        assert_eq!((fallback.status, &fallback.json()["reference_id"]), (200, &json!(reference)), "{path}");
        rig.ask("payments", "GET", &path).send().await.is_rejection(404, "DATA_NOT_FOUND");
    }
    // The final answer is stored, as for records that the team made. Later GETs cause no call.
    let asked = || rig.sim().stats().routes["bank_get"].requests;
    let path = format!("{BANK}/{}", bank["id"].as_str().expect("an id"));
    let settled = async {
        while rig.ask("lending", "GET", &path).send().await.json()["status"] != "COMPLETED" {
            rig.clock.advance(Duration::from_secs(1));
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("a result");
    let before = asked();
    for _ in 0..3 {
        let fallback = rig.ask("lending", "GET", &path).send().await;
        assert_eq!((fallback.status, &fallback.json()["reference_id"]), (200, &json!("old")));
    }
    assert_eq!(asked(), before);
    let list = async |team: &str| {
        let list = rig.ask(team, "GET", &format!("{IMAGES}?reference_id=foo123")).send().await;
        list.json()["data"].as_array().expect("a list").len()
    };
    assert_eq!((list("lending").await, list("payments").await), (1, 0));
    stage.rig.stop().await;
}

/// Checks that a team can't use another team's prefix in a reference.
#[tokio::test]
async fn no_team_prefixes_with_the_name_of_another() {
    let stage = Stage::set(Duration::from_millis(20), |rig| rig).await;
    let rig = &stage.rig;
    let made = rig.post("lending", BANK, account("1234567811", "payments:x")).send().await;
    assert_eq!(made.json()["reference_id"], "payments:x");
    stage.hears("lending", TYPES[0], 1).await;
    let unknown = rig.post("lending", "/v9/new", json!({ "reference_id": "payments:x" }).to_string()).send().await;
    unknown.is_rejection(400, "API_VALIDATION_ERROR");
    assert_eq!(unknown.header("x-gateway-error"), "foreign_reference");
    let own = rig.post("lending", "/v9/new", json!({ "reference_id": "lending:x" }).to_string()).send().await;
    assert_eq!(own.header("x-gateway-error"), "", "{}", own.text());
    stage.is_quiet(1).await;
    assert!(stage.payments.heard().is_empty());
    stage.rig.stop().await;
}

/// Checks a callback that arrives before the answer to its request. With a prefix its owner is known at once; without
/// one the callback waits until the owner is known.
#[tokio::test]
async fn a_callback_that_overtakes_its_answer_finds_its_team() {
    for seals in [true, false] {
        let stage =
            Stage::set(Duration::from_millis(20), |rig| rig.account(&format!("prefix_references = {seals}"))).await;
        let rig = &stage.rig;
        // The fault is set by a rule, because a request with the fault's header would bypass the cache.
        let rule = json!({ "method": "POST", "path": "/v1.1/identity", "kind": "callback_first", "times": 1 });
        let rule = ask("POST", format!("{}/_sim/faults", rig.sim().url())).json(rule.to_string());
        assert!(rule.send().await.status < 300, "a rule");
        let asked = rig.post("lending", BANK, account("1234567811", "loan-1")).send().await.json();
        assert_eq!((&asked["status"], &asked["reference_id"]), (&json!("PENDING"), &json!("loan-1")), "{seals}");
        let told = stage.hears("lending", TYPES[0], 1).await;
        assert_eq!(
            (&told[0]["status"], &told[0]["id"], &told[0]["reference_id"]),
            (&json!("COMPLETED"), &asked["id"], &json!("loan-1")),
            "{seals}"
        );
        // The callback's result is known, so it is not shared as pending.
        let answer = rig.post("payments", BANK, account("1234567811", "pay-1")).send().await;
        assert_eq!(answer.json()["status"], "COMPLETED", "{seals}: {:?}", answer.headers);
        stage.is_quiet(1).await;
        assert_eq!(stage.lending.heard().len(), 1, "{seals}: once, and no more");
        assert_eq!(rig.sim().stats().charged, 1);
        stage.rig.stop().await;
    }
}
