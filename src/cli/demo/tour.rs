//! The tour: it shows the gateway's functions, and checks them.

use super::endpoint;
use super::error::{DemoError, expect};
use super::log::Lines;
use super::team::Team;
use crate::app::App;
use crate::base::clock::Clock;
use crate::cli::{output, register};
use crate::config::Settings;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use iluma_simulator::Simulator;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::cell::Cell;
use std::time::{Duration, Instant};

pub(super) const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_name/validations";
const CAPTURES: &str = "/v1/identity/document_ocr_captures";
pub(super) const URLS: &str = "/v1/callback/urls";

/// The number of identical concurrent requests: as many as a payout team sends in a busy minute.
const CROWD: u32 = 50;

/// The longest wait for an event in the tour. The log's writer wakes ten times a second, and callbacks take some tenths
/// of a second.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The gateway and the other parts that the tour uses.
pub(super) struct Tour<'a> {
    client: Client<HttpConnector, Full<Bytes>>,
    app: &'a App,
    simulator: &'a Simulator,
    settings: &'a Settings,
    clock: Clock,
    /// The number of requests to the gateway so far. Each request writes a line to the log.
    asked: Cell<usize>,
}

/// An answer, as the tour shows it.
struct Answer {
    status: u16,
    cache_status: String,
    body: String,
    took: Duration,
}

impl<'a> Tour<'a> {
    pub(super) fn new(app: &'a App, simulator: &'a Simulator, settings: &'a Settings) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, app, simulator, settings, clock: Clock::system(), asked: Cell::new(0) }
    }

    /// Runs all steps of the tour, and returns an error if a step has an unexpected result.
    pub(super) async fn go(&self, lending: &Team, payments: &Team, log: &Lines) -> Result<(), DemoError> {
        output::line(format_args!(
            "A simulated Iluma, one account, and two teams behind one gateway: {}\n",
            lending.name_with(payments)
        ))?;

        output::line(format_args!("1. Both teams ask about the same bank account.\n"))?;
        self.same_account(lending, payments).await?;

        output::line(format_args!("2. {CROWD} identical requests at the same time, about a new account.\n"))?;
        let calls = self.simulator.stats().requests;
        let crowd = self.crowd(lending, payments).await?;
        let calls = self.simulator.stats().requests - calls;
        output::line(format_args!("   {crowd} answers, {calls} call to Iluma: the others waited for it.\n"))?;
        expect(calls == 1, "identical requests in flight make one call")?;

        output::line(format_args!("3. A watchlist request, then the same from the other team.\n"))?;
        let person = r#"{"given_name":"Contoh","surname":"Demo"}"#.to_owned();
        self.show(payments, Method::POST, CFT, person.clone()).await?;
        let again = self.show(lending, Method::POST, CFT, person).await?;
        expect(again.cache_status.contains("; hit;"), "a watchlist answer is shared too")?;

        output::line(format_args!("4. What the gateway does not let through.\n"))?;
        let nik = r#"{"nik":"3171234567890123","name":"CONTOH"}"#.to_owned();
        let refused = self.show(payments, Method::POST, KTP, nik).await?;
        expect(refused.status == 403, "a team's routes are kept")?;
        let stranger = Team::new("stranger").await?;
        let unknown = self.show(&stranger, Method::POST, BANK, bank_request("1234567855", "x")).await?;
        expect(unknown.status == 401, "an unknown key is refused")?;
        stranger.endpoint.stop().await;

        output::line(format_args!(
            "5. Callbacks: Iluma sends them to the gateway, the gateway to the team that asked.\n"
        ))?;
        self.callback(lending, payments).await?;

        output::line(format_args!("6. A team's endpoint is out of order when its callback comes.\n"))?;
        self.outage(lending, payments).await?;

        output::line(format_args!("7. Both teams call something foo123.\n"))?;
        self.same_reference(lending, payments).await?;

        output::line(format_args!("8. The holder of the account of step 1 asks to be forgotten.\n"))?;
        let person = json!({ "bank_code": "BCA", "bank_account_number": "1234567855" });
        let erased = self.operate(Method::POST, "/v1/erase", &person).await?;
        output::line(format_args!(
            "   operator  POST /v1/erase (on the admin listener)\n             {person}\n         ->  {erased}\n"
        ))?;
        expect(erased["removed"]["memory"] == 1, "what is remembered of the person is removed")?;
        let after = self.show(payments, Method::POST, BANK, bank_request("1234567855", "payout-10")).await?;
        expect(after.cache_status.contains("fwd=uri-miss"), "an erased answer is requested from Iluma again")?;

        output::line(format_args!(
            "9. What the log says of all this: no account number, no name, no reference, no key.\n"
        ))?;
        self.log_is_clean(log).await?;

        output::line(format_args!("\n10. The bill: GET /v1/usage on the admin listener.\n"))?;
        self.bill().await
    }

    /// Shows some lines of the log, and checks that none contains the data of the requests.
    async fn log_is_clean(&self, log: &Lines) -> Result<(), DemoError> {
        let lines = self.logged(log, self.asked.get()).await?;
        for line in lines.iter().take(2).chain(lines.iter().rev().take(2).rev()) {
            output::line(format_args!("   {line}"))?;
        }
        let telling = [
            "1234567855",
            "1234567890",
            "1234567891",
            "9876543255",
            "Contoh",
            "CONTOH",
            "3171234567890123",
            "loan-",
            "payout-",
            "crowd-",
            "foo123",
        ];
        expect(
            !lines.iter().any(|line| telling.iter().any(|word| line.contains(word))),
            "the log contains no data of the requests",
        )
    }

    async fn same_account(&self, lending: &Team, payments: &Team) -> Result<(), DemoError> {
        let first = self.show(lending, Method::POST, BANK, bank_request("1234567855", "loan-17")).await?;
        let second = self.show(payments, Method::POST, BANK, bank_request("1234567855", "payout-9")).await?;
        expect(first.cache_status.ends_with("stored"), "the first answer is stored")?;
        expect(second.cache_status.contains("; hit;"), "the second team is answered from the cache")?;
        expect(
            second.body.contains("payout-9") && !second.body.contains("loan-17"),
            "each team sees its own reference",
        )?;
        let calls = self.simulator.stats().requests;
        expect(calls == 1, "two requests make one call")?;
        output::line(format_args!(
            "   Two teams, two answers, each with its own reference_id: {calls} upstream call.\n"
        ))?;
        Ok(())
    }

    /// Registers the gateway at Iluma, and each team's URL at the gateway. Then a team sends a request, and its
    /// callback is checked.
    async fn callback(&self, lending: &Team, payments: &Team) -> Result<(), DemoError> {
        let registered = register::register(self.settings).await?;
        output::line(format_args!("   What iluma-gateway register-callbacks says:"))?;
        for line in registered.lines() {
            output::line(format_args!("             {line}"))?;
        }
        output::line("")?;
        for team in [lending, payments] {
            let url = json!({ "type": "NAME_VALIDATOR_REQUEST", "url": team.endpoint.url() });
            let set = self.show(team, Method::POST, URLS, url.to_string()).await?;
            expect(set.status == 200, "a team sets its own URL")?;
        }
        let pending = self.show(lending, Method::POST, BANK, bank_request("1234567890", "loan-18")).await?;
        expect(pending.body.contains("PENDING"), "an account that Iluma does not know is pending first")?;
        let delivery = self.delivered(lending, 1).await?;
        output::line(format_args!("   lending's endpoint receives\n             {}", delivery.body))?;
        output::line(format_args!("             webhook-id: {}", delivery.id))?;
        output::line(format_args!("             webhook-signature: {}\n", delivery.signature))?;
        expect(delivery.body.contains(r#""reference_id":"loan-18""#), "a callback has the team's own reference")?;
        expect(delivery.signature.starts_with("v1,"), "a callback is signed")?;
        let others = payments.endpoint.taken().len();
        expect(others == 0, "no other team gets a team's callback")?;
        output::line(format_args!("   payments, on the same account at Iluma, received {others}.\n"))?;
        Ok(())
    }

    async fn outage(&self, lending: &Team, payments: &Team) -> Result<(), DemoError> {
        lending.endpoint.set_out(true);
        self.show(lending, Method::POST, BANK, bank_request("1234567891", "loan-19")).await?;
        let dead = "/v1/callbacks?state=dead";
        let started = self.clock.now();
        let letter = loop {
            let listed = self.operate(Method::GET, dead, &Value::Null).await?;
            if let Some(letter) = listed["callbacks"].get(0) {
                break letter.clone();
            }
            self.pause_since(started, "what can't be delivered becomes a dead letter").await?;
        };
        output::line(format_args!("   operator  GET {dead}\n         ->  {letter}\n"))?;
        lending.endpoint.set_out(false);
        let all = json!({ "all": true });
        let replayed = self.operate(Method::POST, "/v1/callbacks/replay", &all).await?;
        output::line(format_args!(
            "   The endpoint is back.\n   operator  POST /v1/callbacks/replay\n             {all}\n         ->  {replayed}\n"
        ))?;
        expect(replayed["replayed"] == 1, "one dead letter is replayed")?;
        let delivery = self.delivered(lending, 2).await?;
        output::line(format_args!("   lending's endpoint receives\n             {}\n", delivery.body))?;
        expect(
            delivery.body.contains(r#""reference_id":"loan-19""#),
            "the replayed callback is the one that was lost",
        )?;
        expect(payments.endpoint.taken().is_empty(), "a replay goes to no other team either")
    }

    async fn same_reference(&self, lending: &Team, payments: &Team) -> Result<(), DemoError> {
        let capture = r#"{"types":["IDENTITY_CARD"],"country":"PH","reference_id":"foo123"}"#;
        let first = self.show(lending, Method::POST, CAPTURES, capture.to_owned()).await?;
        let second = self.show(payments, Method::POST, CAPTURES, capture.to_owned()).await?;
        let id = |answer: &Answer| -> String {
            let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            body["id"].as_str().unwrap_or_default().to_owned()
        };
        let (first, second) = (id(&first), id(&second));

        let arrived = self.arrived(CAPTURES).await?;
        output::line(format_args!("   What Iluma has: {}.\n", arrived.join(" and ")))?;
        expect(arrived == ["lending:foo123", "payments:foo123"], "references are prefixed toward Iluma")?;

        let listed =
            self.show(payments, Method::GET, &format!("{CAPTURES}?reference_id=foo123"), String::new()).await?;
        expect(listed.body.contains(&second) && !listed.body.contains(&first), "a list holds a team's own records")?;
        let foreign = self.show(payments, Method::GET, &format!("{CAPTURES}/{first}"), String::new()).await?;
        expect(foreign.status == 404, "another team's record is not there")?;
        let missing = self.ask(payments, Method::GET, &format!("{CAPTURES}/ocr-none"), String::new()).await?;
        expect((missing.status, missing.body) == (404, foreign.body), "it looks like one that does not exist")?;
        output::line(format_args!("   An id that does not exist gets the same answer.\n"))?;
        Ok(())
    }

    /// Returns the references that the simulator received at a path.
    async fn arrived(&self, path: &str) -> Result<Vec<String>, DemoError> {
        let request = Request::get(format!("{}/_sim/requests?path={path}", self.simulator.url()));
        let journal: Value = serde_json::from_slice(&self.fetch(request, String::new()).await?).unwrap_or_default();
        let requests = journal["requests"].as_array().map(Vec::as_slice).unwrap_or_default();
        let bodies =
            requests.iter().filter_map(|request| serde_json::from_str::<Value>(request["body"].as_str()?).ok());
        Ok(bodies.filter_map(|body| Some(body["reference_id"].as_str()?.to_owned())).collect())
    }

    /// Prints the ledger once every call's outcome is known, and compares it with the simulator's count.
    async fn bill(&self) -> Result<(), DemoError> {
        let started = self.clock.now();
        let rows = loop {
            let mut usage = self.operate(Method::GET, "/v1/usage", &Value::Null).await?;
            let rows = match usage["rows"].take() {
                Value::Array(rows) => rows,
                _ => Vec::new(),
            };
            if sum(&rows, "unknown") == 0 {
                break rows;
            }
            self.pause_since(started, "callbacks settle pending calls").await?;
        };
        const SHOWN: [&str; 8] =
            ["requests", "upstream_calls", "billable", "hits", "collapsed", "shared", "cost", "saved"];
        let line = |tenant: &str, route: &str, number: &dyn Fn(&str) -> u64| {
            let numbers: String =
                SHOWN.iter().map(|name| format!("  {:>1$}", number(name), name.len().max(6))).collect();
            output::line(format_args!("   {tenant:<9}{route:<13}{numbers}"))
        };
        let names: String = SHOWN.iter().map(|name| format!("  {name:>6}")).collect();
        output::line(format_args!("   {:<9}{:<13}{names}", "tenant", "route"))?;
        for row in &rows {
            let number = |name: &str| row[name].as_u64().unwrap_or(0);
            line(row["tenant"].as_str().unwrap_or_default(), row["route"].as_str().unwrap_or_default(), &number)?;
        }
        line("all", "", &|name| sum(&rows, name))?;
        let stats = self.simulator.stats();
        output::line(format_args!(
            "\n   Iluma's own count: {} calls charged, Rp {} (invented prices).\n",
            stats.charged, stats.rupiah
        ))?;
        expect(
            (sum(&rows, "billable"), sum(&rows, "cost")) == (stats.charged, stats.rupiah),
            "the books agree with Iluma's count",
        )
    }

    /// Sends a request, and prints it with its answer.
    async fn show(&self, team: &Team, method: Method, path: &str, body: String) -> Result<Answer, DemoError> {
        output::line(format_args!("   {:<9} {method} {path}", team.name))?;
        if !body.is_empty() {
            output::line(format_args!("             {body}"))?;
        }
        let answer = self.ask(team, method, path, body).await?;
        output::line(format_args!("         ->  {} {}", answer.status, answer.body))?;
        let cache = if answer.cache_status.is_empty() { "none" } else { &answer.cache_status };
        output::line(format_args!(
            "             {:.1} ms, cache-status: {cache}\n",
            answer.took.as_secs_f64() * 1000.0
        ))?;
        Ok(answer)
    }

    async fn ask(&self, team: &Team, method: Method, path: &str, body: String) -> Result<Answer, DemoError> {
        self.asked.set(self.asked.get() + 1);
        let basic = STANDARD.encode(format!("{}:", team.key.key.expose_secret()));
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.app.server_address()))
            .header("authorization", format!("Basic {basic}"))
            .header("content-type", "application/json")
            .body(Full::from(body))
            .map_err(|error| DemoError::Request(error.into()))?;
        let started = self.clock.now();
        let response: Response<_> =
            self.client.request(request).await.map_err(|error| DemoError::Request(error.into()))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| DemoError::Request(error.into()))?.to_bytes();
        let took = self.clock.now() - started;
        let cache_status = head.headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer {
            status: head.status.as_u16(),
            cache_status: cache_status.to_owned(),
            body: String::from_utf8_lossy(&body).into_owned(),
            took,
        })
    }

    /// Sends a request to the admin listener, and returns the JSON of the answer.
    async fn operate(&self, method: Method, path: &str, body: &Value) -> Result<Value, DemoError> {
        let token = self.settings.admin.token.as_ref().map_or("", |token| token.expose_secret());
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.app.admin_address()))
            .header("authorization", format!("Bearer {token}"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.fetch(request, body).await?;
        serde_json::from_slice(&answer).map_err(|error| DemoError::Request(error.into()))
    }

    async fn fetch(&self, request: http::request::Builder, body: String) -> Result<Bytes, DemoError> {
        let request = request.body(Full::from(body)).map_err(|error| DemoError::Request(error.into()))?;
        let response = self.client.request(request).await.map_err(|error| DemoError::Request(error.into()))?;
        Ok(response.into_body().collect().await.map_err(|error| DemoError::Request(error.into()))?.to_bytes())
    }

    async fn crowd(&self, lending: &Team, payments: &Team) -> Result<usize, DemoError> {
        let asks = (0..CROWD).map(|n| {
            let team = if n % 2 == 0 { lending } else { payments };
            let reference = format!("crowd-{n}");
            let body =
                format!(r#"{{"bank_account_number":"9876543255","bank_code":"BRI","reference_id":"{reference}"}}"#);
            async move { self.ask(team, Method::POST, BANK, body).await.map(|answer| (answer, reference)) }
        });
        let answers = futures_util::future::join_all(asks).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let own = answers.iter().all(|(answer, reference)| {
            answer.status == 200 && answer.body.contains(&format!("\"reference_id\":\"{reference}\""))
        });
        expect(own, "everyone in the crowd gets an answer with its own reference")?;
        Ok(answers.len())
    }

    /// Returns the log's lines once at least `count` lines are written.
    async fn logged(&self, log: &Lines, count: usize) -> Result<Vec<String>, DemoError> {
        let started = self.clock.now();
        loop {
            let lines = log.lines();
            if lines.len() >= count {
                return Ok(lines);
            }
            self.pause_since(started, "every request leaves a line in the log").await?;
        }
    }

    /// Returns the callback with the number `number`, counted from 1, once the team's endpoint has accepted it.
    async fn delivered(&self, team: &Team, number: usize) -> Result<endpoint::Delivery, DemoError> {
        let started = self.clock.now();
        loop {
            if let Some(delivery) = team.endpoint.taken().into_iter().nth(number - 1) {
                return Ok(delivery);
            }
            self.pause_since(started, "a callback arrives").await?;
        }
    }

    /// Returns an error that names the awaited event `what` if [`TIMEOUT`] has passed since `started`. Otherwise pauses
    /// for 20 ms.
    async fn pause_since(&self, started: Instant, what: &str) -> Result<(), DemoError> {
        expect(self.clock.now() - started < TIMEOUT, what)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

/// Returns a request about a bank account.
pub(super) fn bank_request(account_number: &str, reference: &str) -> String {
    format!(r#"{{"bank_account_number":"{account_number}","bank_code":"BCA","reference_id":"{reference}"}}"#)
}

fn sum(rows: &[Value], name: &str) -> u64 {
    rows.iter().filter_map(|row| row[name].as_u64()).sum()
}
