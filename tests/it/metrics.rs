//! Tests of the metrics, and of the bound on the number of their series for any input.

use crate::documents::generated::{is_up_to_date, table};
use crate::support::process::Folder;
use crate::support::tls::Authority;
use crate::support::{PATIENCE, Rig, RigBuilder, Upstream, ask};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_name/validations";
const FOUND: &str = r#"{"bank_account_number":"1234567855","bank_code":"BCA"}"#;

/// The row of a metric in the table of `docs/metrics.md`.
struct Documented {
    labels: BTreeSet<&'static str>,
    kind: &'static str,
}

static PAGE: LazyLock<String> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    std::fs::read_to_string(path).expect("the page of the metrics")
});

/// Returns the rows of the table in `docs/metrics.md`, by the metric's name.
fn documented() -> BTreeMap<String, Documented> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `iluma_gateway_"));
    let metrics = rows.map(|row| {
        let [_, name, kind, labels, _, _] = row.split('|').collect::<Vec<_>>()[..] else { panic!("not a row: {row}") };
        let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty()).collect();
        (name.trim().trim_matches('`').to_owned(), Documented { labels, kind: kind.trim() })
    });
    metrics.collect()
}

async fn metrics(rig: &Rig) -> String {
    ask("GET", rig.admin_url("/metrics")).send().await.text()
}

/// Returns every series in the text of `/metrics`: its name with labels, such as `name{a="b"}`, and its value.
fn series(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pairs = lines.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

fn labels(series: &str) -> BTreeSet<&str> {
    let inside = series.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    inside.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name).collect()
}

/// Sends one request of every kind: a miss, hits, a bypass, a stream, errors, all refusals.
async fn use_it(rig: &Rig) {
    for team in ["lending", "payments", "lending"] {
        rig.post(team, BANK, FOUND).send().await;
    }
    rig.post("lending", BANK, FOUND).header("x-magic-reply", "").send().await;
    rig.post("lending", BANK, "{").send().await;
    rig.post("lending", CFT, r#"{"given_name":"Abdul"}"#).send().await;
    rig.post("lending", KTP, r#"{"nik":"1234567890123456","name":"A"}"#).send().await;
    rig.post("lending", KTP, "{}").send().await;
    rig.post("lending", "/v9/new", "{}").send().await;
    rig.ask("lending", "GET", "/businesses/1/api_keys").send().await;
    rig.ask("lending", "GET", "/bank/available_bank_codes").send().await;
    rig.ask("slow", "GET", "/bank/available_bank_codes").send().await;
    rig.ask("slow", "GET", "/bank/available_bank_codes").send().await;
    ask("GET", rig.url("/health")).send().await;
    ask("POST", rig.url(BANK)).key("nobody").json(FOUND).send().await;
    rig.post("lending", KTP, "{}").header("x-sim-fault", "status=503").send().await;
    rig.callback("NAME_VALIDATOR_REQUEST", r#"{"id":"1","reference_id":"lending:x"}"#).send().await;
    rig.metric_becomes(NO_URL, |count| count == 1.0).await;
}

/// The counter of callbacks for which the team has no URL.
const NO_URL: &str = r#"iluma_gateway_callback_deliveries_total{outcome="no_url",tenant="lending"}"#;

async fn used() -> Rig {
    used_with(|rig| rig).await
}

async fn used_with(change: impl FnOnce(RigBuilder) -> RigBuilder) -> Rig {
    let rig = change(Rig::builder().tenant("slow", "requests_per_second = 1\nburst = 1")).start().await;
    rig.clock.stop();
    use_it(&rig).await;
    rig
}

/// Starts a gateway and sends requests and callbacks until every metric has a series.
async fn used_up() -> Rig {
    let watched = "upstream_calls_per_day = 1\nquota_mode = \"shadow\"\ncallback_hosts = [\"127.0.0.1\"]\n\
                   callback_urls = { NAME_VALIDATOR_REQUEST = \"http://127.0.0.1:9/\" }";
    let (certificates, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(certificates.path(), None);
    let status = format!("[status]\nlisten = \"127.0.0.1:0\"\n{tls}\n");
    let rig = used_with(|rig| rig.tenant("watched", watched).extra(&status)).await;
    rig.callback("NAME_VALIDATOR_REQUEST", r#"{"id":"2","reference_id":"watched:x"}"#).send().await;
    rig.metric_becomes(r#"iluma_gateway_outbox_bytes{tenant="watched"}"#, |bytes| bytes > 0.0).await;
    for _ in 0..2 {
        rig.post("watched", KTP, "{}").send().await;
    }
    rig.app.reload(&rig.settings(|text| text).expect("settings")).expect("a reload");
    rig
}

#[tokio::test]
async fn the_page_of_the_metrics_is_what_is_served() {
    let rig = used_up().await;
    let text = metrics(&rig).await;
    rig.stop().await;
    let all = series(&text);
    let types: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let helps = text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let rows = helps.map(|(name, help)| {
        let kind = types[name];
        let base = if kind == "histogram" { format!("{name}_count") } else { name.to_owned() };
        let one = all.keys().find(|series| series.split('{').next() == Some(base.as_str()));
        let labels = one.map(|series| labels(series)).unwrap_or_default().into_iter().collect::<Vec<_>>().join(", ");
        [format!("`{name}`"), kind.to_owned(), labels, help.to_owned()]
    });
    let table = table(["series", "type", "labels", "meaning"], rows);
    is_up_to_date("docs/metrics.md", "the families as served", &format!("\n{table}\n"));
}

#[tokio::test]
async fn the_page_has_every_metric_and_its_labels() {
    let rig = used_up().await;
    let answer = ask("GET", rig.admin_url("/metrics")).send().await;
    assert_eq!(answer.status, 200, "open to all");
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"), "{:?}", answer.headers);
    let text = answer.text();
    let all = series(&text);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let types: BTreeMap<_, _> = types.map(|(name, kind)| (name.to_owned(), kind)).collect();
    let documented = documented();
    let undocumented: Vec<_> = types
        .keys()
        .filter(|name| !documented.contains_key(*name))
        .filter(|name| !name.starts_with("process_"))
        .collect();
    assert!(undocumented.is_empty(), "not on the page: {undocumented:?}");
    let missing: Vec<_> = documented.keys().filter(|name| !types.contains_key(*name)).collect();
    assert!(missing.is_empty(), "on the page alone: {missing:?}");
    // A family without a series in this test would be missing above. So the declared names are compared too.
    let source = include_str!("../../src/telemetry/metrics/families.rs");
    let declared = source.split("name: \"").skip(1).filter_map(|rest| rest.split_once('"'));
    for (name, _) in declared {
        assert!(documented.contains_key(&format!("iluma_gateway_{name}")), "{name} is declared and not on the page");
    }
    for (name, Documented { labels: wanted, kind: shown }) in documented {
        let kind = match () {
            () if name.ends_with("_total") => "counter",
            () if name.ends_with("_duration_seconds") => "histogram",
            () => "gauge",
        };
        assert_eq!((types[&name], shown), (kind, kind), "{name}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        let base = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
        let mine: Vec<_> = all.keys().filter(|series| series.split('{').next() == Some(base.as_str())).collect();
        assert!(!mine.is_empty(), "{name} has no series:\n{text}");
        for series in mine {
            assert_eq!(labels(series), wanted, "{series}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_happened_is_what_is_counted() {
    let rig = used().await;
    let text = metrics(&rig).await;
    let all = series(&text);
    for (name, value) in [
        (r#"requests_total{cache="hit",route="bank",status="200",tenant="lending"}"#, 1.0),
        (r#"requests_total{cache="hit",route="bank",status="200",tenant="payments"}"#, 1.0),
        (r#"upstream_requests_total{account="live",route="bank",status="200"}"#, 2.0),
        (r#"upstream_requests_total{account="live",route="cft",status="200"}"#, 1.0),
        (r#"upstream_requests_total{account="live",route="ktp",status="200"}"#, 1.0),
        (r#"upstream_requests_total{account="live",route="ktp",status="400"}"#, 1.0),
        (r#"upstream_requests_total{account="live",route="ktp",status="503"}"#, 1.0),
        (r#"upstream_requests_total{account="live",route="bank_codes",status="200"}"#, 1.0),
        (r#"upstream_requests_total{account="live",route="other",status="404"}"#, 1.0),
        (r#"upstream_calls_saved_total{how="hit",route="bank",tenant="lending"}"#, 1.0),
        (r#"upstream_calls_saved_total{how="hit",route="bank",tenant="payments"}"#, 1.0),
        (r#"upstream_calls_saved_total{how="hit",route="bank_codes",tenant="slow"}"#, 1.0),
        (r#"rate_limited_total{limit="requests",tenant="slow"}"#, 1.0),
        (r#"request_duration_seconds_count{cache="hit",route="bank"}"#, 2.0),
        (r#"upstream_duration_seconds_count{route="cft"}"#, 1.0),
    ] {
        let got = all.get(&format!("iluma_gateway_{name}")).copied().unwrap_or_default();
        assert!((got - value).abs() < f64::EPSILON, "{name} is {got}, not {value}:\n{text}");
    }
    // Every request of `use_it` is counted once, whatever its result.
    let requests: f64 =
        all.iter().filter(|(name, _)| name.starts_with("iluma_gateway_requests_total{")).map(|(_, value)| value).sum();
    assert!((requests - 16.0).abs() < f64::EPSILON, "{requests}:\n{text}");
    rig.stop().await;
}

#[tokio::test]
async fn the_cache_tells_its_size() {
    let rig = Rig::start().await;
    for number in 0..20 {
        rig.post("lending", BANK, FOUND.replace("1234567855", &format!("12345678{number:02}55"))).send().await;
    }
    let grown = async {
        while rig.metric("iluma_gateway_cache_entries").await < 20.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, grown).await.expect("twenty entries");
    let bytes = rig.metric("iluma_gateway_cache_bytes").await;
    assert!((20.0 * 100.0..20.0 * 10_000.0).contains(&bytes), "{bytes}");
    rig.stop().await;
}

#[tokio::test]
async fn a_limit_on_requests_in_flight_is_counted() {
    let (tell, told) = watch::channel(false);
    let upstream = Upstream::on_connection(move |mut stream| {
        let mut told = told.clone();
        async move {
            let _ = stream.read_buf(&mut Vec::new()).await;
            drop(told.wait_for(|told| *told).await);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").await;
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).tenant("narrow", "max_in_flight = 2").start().await;
    // While two requests are in flight, a third one is refused.
    let mut asks = JoinSet::new();
    for _ in 0..3 {
        asks.spawn(rig.post("narrow", KTP, "{}").send());
    }
    let refused = asks.join_next().await.expect("an answer").expect("an answer");
    assert_eq!((refused.status, &refused.json()["error_code"]), (429, &"RATE_LIMIT_EXCEEDED".into()));
    let counted = rig.metric(r#"iluma_gateway_rate_limited_total{limit="in_flight",tenant="narrow"}"#).await;
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
    tell.send_replace(true);
    for answer in asks.join_all().await {
        assert_eq!(answer.status, 200);
    }
    rig.stop().await;
}

/// A generator of pseudo-random numbers, which are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn word(&mut self) -> String {
        format!("{:x}{:x}", self.next(), self.next())
    }
}

/// Returns a request with a random text that a careless gateway would use as a label.
fn hostile(numbers: &mut Numbers, key: &str, at: usize) -> String {
    let good = format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{key}:")));
    let (a, b) = (numbers.word(), numbers.word());
    let (line, key) = match at % 8 {
        0 => (format!("POST /{a}/{b}"), format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{a}:")))),
        1 => (format!("GET /{a}/{b}?{a}={b}"), good),
        2 => (format!("{} /{b}", a.to_ascii_uppercase()), good),
        3 => (format!("POST /v{}.{}/identity/bank_account_data_requests", numbers.next() % 100_000, at), good),
        4 => (format!("GET /v1/{a}/../{b}%2F"), good),
        5 => (format!("GET {BANK}/{a}"), format!("authorization: Bearer {b}\r\n")),
        6 => (format!("DELETE /businesses/{a}/{b}"), good),
        _ => (format!("GET /health/{a}"), format!("x-forwarded-for: {b}\r\nx-tenant: {a}\r\nx-request-id: {b}\r\n")),
    };
    format!("{line} HTTP/1.1\r\nhost: {b}\r\nuser-agent: {a}\r\n{key}content-length: 0\r\n\r\n")
}

/// Sends requests one after the other over one connection and counts the answers.
async fn pipeline(to: std::net::SocketAddr, requests: Vec<String>) -> usize {
    let stream = TcpStream::connect(to).await.expect("a connection");
    let (mut reading, mut writing) = stream.into_split();
    let mut bytes = requests.concat();
    // The last request ends the connection.
    bytes.truncate(bytes.len() - "\r\n".len());
    bytes.push_str("connection: close\r\n\r\n");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        writing.write_all(bytes.as_bytes()).await.expect("room");
        writing
    });
    let mut got = Vec::new();
    tokio::time::timeout(PATIENCE, reading.read_to_end(&mut got)).await.expect("in time").expect("answers");
    tasks.join_all().await;
    String::from_utf8_lossy(&got).matches("HTTP/1.1 ").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_add_no_series() {
    let rig = used().await;
    let mut numbers = Numbers(1);
    let mut known = BTreeSet::new();
    // The first requests cause every outcome; ten thousand more must add no series.
    for (round, count) in [160, 10_000].into_iter().enumerate() {
        let requests: Vec<_> = (0..count).map(|at| hostile(&mut numbers, rig.key("lending"), at)).collect();
        let mut connections = JoinSet::new();
        for part in requests.chunks(count / 10) {
            connections.spawn(pipeline(rig.app.server_address(), part.to_vec()));
        }
        let answers: usize = connections.join_all().await.into_iter().sum();
        assert_eq!(answers, count, "every request was answered");
        let text = metrics(&rig).await;
        let now: BTreeSet<_> = series(&text).into_keys().collect();
        if round > 0 {
            let added: Vec<_> = now.difference(&known).collect();
            assert!(added.is_empty(), "{added:#?}");
        }
        known = now;
    }
    // Labels come only from the configuration.
    let tenants = ["lending", "payments", "slow", "none"];
    for series in &known {
        if let Some(tenant) = series.split_once("tenant=\"").and_then(|(_, rest)| rest.split('"').next()) {
            assert!(tenants.contains(&tenant), "{series}");
        }
        if let Some(account) = series.split_once("account=\"").and_then(|(_, rest)| rest.split('"').next()) {
            assert_eq!(account, "live", "{series}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn statuses_of_upstream_do_not_make_series_without_end() {
    let upstream = Upstream::answering(|heard| {
        let status: u16 = heard.headers["x-status"].to_str().expect("text").parse().expect("a number");
        let answer = http::Response::builder().status(status);
        answer.body(http_body_util::Full::from("{}")).expect("an answer")
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    for status in 200..1000_u16 {
        // These statuses have no body by definition.
        if ![204, 205, 304].contains(&status) {
            let _ = rig.post("lending", KTP, "{}").header("x-status", status.to_string()).try_send().await;
        }
        rig.clock.advance(std::time::Duration::from_secs(60));
    }
    let all = series(&metrics(&rig).await);
    for name in ["iluma_gateway_requests_total{", "iluma_gateway_upstream_requests_total{"] {
        let count = all.keys().filter(|series| series.starts_with(name)).count();
        assert!(count < 100, "{count} series of {name}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let rig = used().await;
    let text = metrics(&rig).await;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool is needed (Debian: apt-get install prometheus): {error}"));
    promtool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("room");
    let output = promtool.wait_with_output().expect("an end");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
    rig.stop().await;
}

#[tokio::test]
async fn the_ledgers_counters_start_at_zero_and_follow_each_call() {
    let rig = Rig::builder().extra("[prices]\nbank = 500\n").start().await;
    let calls = |outcome: &str| {
        format!(r#"iluma_gateway_ledger_calls_total{{outcome="{outcome}",route="bank",tenant="lending"}}"#)
    };
    let text = metrics(&rig).await;
    for outcome in ["billable", "not_billable", "unknown"] {
        assert!(text.contains(&format!("{} 0\n", calls(outcome))), "{outcome}\n{text}");
    }
    let unknown = r#"iluma_gateway_unknown_calls{tenant="lending"}"#;
    assert!(text.contains(&format!("{unknown} 0\n")), "{text}");
    assert_eq!(rig.post("lending", BANK, FOUND).send().await.status, 200);
    assert_eq!(rig.post("payments", BANK, FOUND).send().await.status, 200);
    rig.metric_becomes(&calls("billable"), |count| count == 1.0).await;
    let rupiah = |what: &str, tenant: &str| {
        format!(r#"iluma_gateway_ledger_{what}_rupiah_total{{route="bank",tenant="{tenant}"}}"#)
    };
    rig.metric_becomes(&rupiah("cost", "lending"), |cost| cost == 500.0).await;
    rig.metric_becomes(&rupiah("saved", "payments"), |saved| saved == 500.0).await;
    assert_eq!(rig.metric(&rupiah("cost", "payments")).await, 0.0);
    let lost = r#"{"bank_account_number":"1234567856","bank_code":"BCA"}"#;
    rig.post("lending", BANK, lost).header("x-sim-fault", "reset").send().await;
    rig.metric_becomes(&calls("unknown"), |count| count == 1.0).await;
    assert_eq!(rig.metric(unknown).await, 1.0, "it stays unknown until something settles it");
    let rig = rig.restart().await;
    assert_eq!(
        (rig.metric(unknown).await, rig.metric(&calls("unknown")).await),
        (1.0, 0.0),
        "of the journal; since the start"
    );
    rig.stop().await;
}

#[tokio::test]
async fn the_configuration_and_certificates_in_effect_can_be_watched() {
    let (certificates, authority) = (TempDir::new().expect("a folder"), Authority::new());
    let tls = authority.leaf("127.0.0.1").write(certificates.path(), None);
    let rig = Rig::builder().section("callbacks", &tls).start().await;
    let text = series(&metrics(&rig).await);
    let at = |name: &str| text.get(name).copied().unwrap_or_else(|| panic!("no {name} in {text:?}"));
    assert_eq!(at("iluma_gateway_config_last_reload_successful"), 1.0);
    let now = at("iluma_gateway_config_last_reload_timestamp_seconds");
    assert!(now > 1.6e9, "{now}");
    assert!(at(r#"iluma_gateway_tls_certificate_expiry_timestamp_seconds{listener="callbacks"}"#) > now);
    assert!(at("process_resident_memory_bytes") > 1e6 && at("process_open_fds") > 1.0);
    assert!(text.keys().any(|name| name.starts_with("iluma_gateway_build_info{revision=")), "{text:?}");
    rig.stop().await;
}

#[tokio::test]
async fn openmetrics_and_gzip_are_sent_to_clients_that_ask_for_them() {
    let rig = Rig::start().await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = ask("GET", rig.admin_url("/metrics")).header("accept", accept).send().await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(answer.text().ends_with("# EOF\n"), "{}", answer.text());
    let packed = ask("GET", rig.admin_url("/metrics")).header("accept", accept).header("accept-encoding", "gzip");
    let packed = packed.send().await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*packed.body), &mut text).expect("gzip");
    assert!(text.ends_with("# EOF\n"), "{text}");
    rig.stop().await;
}

#[tokio::test]
async fn each_line_of_the_access_log_has_the_callers_trace_or_one_of_its_own() {
    let rig = Rig::start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let valid = format!("00-{trace}-00f067aa0ba902b7-01");
    for field in [&*valid, "nonsense", ""] {
        rig.post("lending", BANK, FOUND).header("traceparent", field).send().await;
    }
    let traces: Vec<_> =
        rig.logged(3).await.iter().map(|line| line["trace_id"].as_str().expect("text").to_owned()).collect();
    assert_eq!(traces[0], trace);
    assert!(traces.iter().all(|trace| trace.len() == 32), "{traces:?}");
    assert!(traces[1] != trace && traces[1] != traces[2], "{traces:?}");
    rig.stop().await;
}

#[tokio::test]
async fn at_debug_the_decisions_about_a_request_can_be_read() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url()).env("RUST_LOG", "debug");
    folder.write(
        "config.toml",
        &format!("{}max_in_flight = 1\nrequests_per_second = 2\nburst = 2\n", Folder::text(&upstream.url())),
    );
    let program = folder.run();
    let (server, _) = program.listening().await;
    let id = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let question =
        || ask("POST", format!("http://{server}{BANK}")).key(Folder::KEY).json(FOUND).header("x-request-id", id);
    question().header("cache-control", "no-store").send().await;
    for said in [r#""bypass":"no-store""#, "took a connection to Iluma", r#""stored":false"#] {
        let line = program.stderr_line(said).await;
        assert!(line.contains(id) && line.contains("\"trace_id\":\""), "{line}");
    }
    question().send().await;
    question().send().await;
    let line = program.stderr_line(r#""limit":"requests""#).await;
    assert!(line.contains(id) && line.contains(r#""reason":"rate_limited""#), "{line}");
    assert!(program.stderr_lines("1234567855").is_empty(), "no number of an account");
}
