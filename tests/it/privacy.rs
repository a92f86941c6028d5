//! Tests that personal data and keys do not leak. Logs, metrics and the gateway's own errors contain neither. The
//! account's key never reaches a team, and a team's key never reaches Iluma.

use crate::support::{Answer, Ask, Part, Rig, Upstream, ask, folder, raw, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http_body_util::Full;
use iluma_gateway::cli::keygen;
use secrecy::ExposeSecret as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const KTP: &str = "/v1/identity/ktp_name/validations";
const IMAGES: &str = "/v1/identity/id_card_images";
const CODES: &str = "/bank/available_bank_codes";

/// The planted texts. Requests and answers of upstream have them in typical positions. A text that is found in a log,
/// in the metrics, or in an error of the gateway has leaked.
const CANARIES: [&str; 19] = [
    "7355608000155",    // an account number
    "3175098765432101", // a NIK
    "081277665544",     // a phone number
    "Zkanarigiven",     // names
    "Zkanarisurname",
    "zkanari.mail@example", // an e-mail address
    "zkanari-reference",    // a reference
    "zkanari-file",         // a file name
    "zkanari-magic",        // a magic reply
    "zkanari-header",       // a header's value, and a header's name
    "zkanari-segment",      // a path segment
    "zkanari-query",        // a query
    "zkanari-request-id",   // a request id that is no UUID
    "zkanari-agent",        // a user agent
    "zkanari-host",         // a host
    "zkanari_wrong_key",    // a key that nobody has
    "zkanari-echo",         // what upstream says in an error
    "ZKANARIMETHOD",        // a method
    "zkanari-member",       // a member's name
];

/// The addresses of a gateway, in this process or another one, and the key of a team.
struct Target {
    server: SocketAddr,
    admin: SocketAddr,
    key: String,
}

impl Target {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server)
    }

    fn ask(&self, method: &str, path: &str) -> Ask {
        ask(method, self.url(path))
            .key(&self.key)
            .header("x-request-id", "zkanari-request-id")
            .header("user-agent", "zkanari-agent")
            .header("x-zkanari-header", "zkanari-header")
    }

    /// Sends every kind of request with personal data in every possible position; returns the answers.
    async fn tell_everything(&self) -> Vec<Answer> {
        let mut answers = Vec::new();
        let bank = r#"{"bank_account_number":"7355608000155","bank_code":"BCA","given_name":"Zkanarigiven",
            "surname":"Zkanarisurname","zkanari-member":"x","reference_id":"zkanari-reference"}"#;
        let cft = r#"{"given_name":"Zkanarigiven","surname":"Zkanarisurname"}"#;
        let person = r#"{"nik":"3175098765432101","name":"Zkanarigiven","phone_number":"081277665544",
            "email":"zkanari.mail@example"}"#;
        let card = [
            Part::Text("type", "indonesia_ktp"),
            Part::Text("reference_id", "zkanari-reference"),
            Part::Text("zkanari-member", "Zkanarigiven"),
            Part::File("image", "zkanari-file.png", "image/png", b"Zkanarigiven".to_vec()),
        ];
        for fault in ["", "status=400", "status=500", "garbage_json", "empty", "truncate", "reset", "gzip", "garbage"] {
            let requests = [
                self.ask("POST", BANK).json(bank),
                self.ask("POST", BANK)
                    .form("bank_account_number=7355608000155&bank_code=BCA&reference_id=zkanari-reference"),
                self.ask("POST", BANK).header("x-magic-reply", "zkanari-magic").json(bank),
                self.ask("POST", &format!("{BANK}?zkanari-query=081277665544")).json(bank),
                self.ask("GET", &format!("{BANK}/zkanari-segment")),
                self.ask("POST", CFT).json(cft),
                self.ask("POST", KTP).json(person),
                self.ask("POST", "/v2/identity/phone_numbers/validate").json(person),
                self.ask("GET", "/v1/fraud/phone_numbers/081277665544/age?zkanari-query"),
                self.ask("POST", IMAGES).multipart(&card),
                self.ask("GET", &format!("{IMAGES}?reference_id=zkanari-reference")),
                self.ask("POST", "/v9/zkanari-segment/081277665544?zkanari-query=x").json(person),
                self.ask("GET", &format!("{CODES}?zkanari-query={}", fault.len())),
                self.ask("GET", "/health?zkanari-query"),
            ];
            for request in requests {
                let request = if fault.is_empty() { request } else { request.header("x-sim-fault", fault) };
                answers.extend(request.try_send().await);
            }
        }
        let large = format!(r#"{{"given_name":"Zkanarigiven{}"}}"#, "a".repeat(1 << 20));
        let requests = [
            // The gateway refuses these requests.
            self.ask("GET", "/v9/zkanari-segment?zkanari-query"),
            self.ask("ZKANARIMETHOD", BANK),
            self.ask("DELETE", &format!("{BANK}/zkanari-segment")),
            self.ask("GET", "/businesses/zkanari-segment/api_keys?token=zkanari-query"),
            self.ask("GET", "/v1/callback/urls?zkanari-query"),
            self.ask("POST", "/v1/callback/urls").json(r#"{"type":"zkanari-member","url":"http://zkanari-host/"}"#),
            self.ask("POST", "/v1/zkanari-segment/../x").json(person),
            self.ask("POST", "/v1/zkanari-segment//x").json(person),
            self.ask("POST", "/v1/zkanari-segment%2Fx%zz").json(person),
            self.ask("POST", "/v1/zkanari-segment%00").json(person),
            self.ask("POST", BANK).json("{\"zkanari-member\":\"Zkanarigiven"),
            self.ask("POST", BANK).json("Zkanarigiven"),
            self.ask("POST", BANK).json(r#"{"a":"Zkanarigiven"#.to_owned() + "\u{1}\"}"),
            self.ask("POST", CFT).json(large),
            self.ask("POST", BANK).header("content-encoding", "zkanari-header").json(bank),
            self.ask("POST", BANK).header("content-type", "zkanari-header/x").body(bank),
            self.ask("POST", BANK).header("cache-control", "only-if-cached, zkanari-header").json(person),
            self.ask("POST", BANK).header("expect", "zkanari-header").json(bank),
            // These keys belong to no team.
            ask("POST", self.url(BANK)).key("zkanari_wrong_key").json(bank),
            ask("POST", self.url(BANK)).header("authorization", "Bearer zkanari_wrong_key").json(bank),
            ask("POST", self.url(BANK)).header("authorization", "zkanari_wrong_key").json(bank),
            ask("POST", self.url(BANK)).header("authorization", "Basic zkanari_wrong_key").json(bank),
            ask("POST", self.url("/v9/zkanari-segment")).json(bank),
            // These requests go to the admin listener.
            ask("GET", format!("http://{}/v1/zkanari-segment?zkanari-query", self.admin))
                .header("authorization", "Bearer zkanari_wrong_key"),
            ask("POST", format!("http://{}/metrics?zkanari-query", self.admin)).body("Zkanarigiven"),
        ];
        for request in requests {
            answers.extend(request.try_send().await);
        }
        let key = STANDARD.encode(format!("{}:", self.key));
        for bytes in [
            format!(
                "POST {BANK} HTTP/1.1\r\nhost: zkanari-host\r\nauthorization: Basic {key}\r\ncontent-length: 9\r\n\r\nZkanari"
            ),
            "GET /zkanari-segment?zkanari-query HTTP/9.9\r\nhost: zkanari-host\r\n\r\n".into(),
            "GET /zkanari-segment zkanari-query HTTP/1.1\r\nhost: zkanari-host\r\n\r\n".into(),
            "POST /zkanari-segment HTTP/1.1\r\nhost: x\r\nzkanari-header\r\n\r\n".into(),
            "POST /zkanari-segment HTTP/1.1\r\nhost: x\r\ncontent-length: zkanari-header\r\n\r\n".into(),
            "GET http://zkanari-host/zkanari-segment HTTP/1.1\r\nhost: zkanari-host\r\nconnection: close\r\n\r\n"
                .into(),
            "CONNECT zkanari-host:443 HTTP/1.1\r\nhost: zkanari-host\r\nconnection: close\r\n\r\n".into(),
            format!(
                "GET /zkanari-segment HTTP/1.1\r\nhost: x\r\nx-long: zkanari-header{}\r\n\r\n",
                "a".repeat(64 << 10)
            ),
        ] {
            for to in [self.server, self.admin] {
                // An incomplete body is answered when the sending side ends.
                let answer = finished(to, bytes.as_bytes()).await;
                let text = String::from_utf8_lossy(&answer);
                is_clean("what a malformed request gets", &text);
            }
        }
        answers
    }
}

/// Sends bytes, closes the sending side, and reads to the end.
async fn finished(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = tokio::net::TcpStream::connect(to).await.expect("a connection");
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut got = Vec::new();
    let _ = tokio::time::timeout(crate::support::PATIENCE, stream.read_to_end(&mut got)).await;
    got
}

/// Checks that a text contains no planted text, in any letter case or as a Basic credential in base64.
#[track_caller]
fn is_clean(what: &str, text: &str) {
    let lower = text.to_ascii_lowercase();
    for canary in CANARIES {
        let position = lower.find(&canary.to_ascii_lowercase());
        assert!(position.is_none(), "{what} holds {canary}: {}", around(text, position.unwrap_or_default()));
        let position = text.find(&STANDARD.encode(format!("{canary}:")));
        assert!(position.is_none(), "{what} holds {canary} in base64: {}", around(text, position.unwrap_or_default()));
    }
    assert!(!lower.contains("zkanari"), "{what}: {}", around(text, lower.find("zkanari").unwrap_or_default()));
}

fn around(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |at| at + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    &text[start..end]
}

/// Checks the gateway's own answers, and the headers of all answers.
fn answers_are_clean(answers: &[Answer], account_key: &str) {
    assert!(answers.iter().any(|answer| answer.status == 200) && answers.iter().any(|answer| answer.status >= 500));
    for answer in answers {
        let text = answer.text();
        assert!(!text.contains(account_key) && !format!("{:?}", answer.headers).contains(account_key));
        assert_ne!(answer.header("x-request-id"), "zkanari-request-id");
        if !answer.header("x-gateway-error").is_empty() {
            is_clean("an error of the gateway", &format!("{text} {:?}", answer.headers));
            let members = if answer.status == 400 { 3 } else { 2 };
            assert_eq!(answer.json().as_object().expect("an object").len(), members, "{text}");
        }
    }
}

#[tokio::test]
async fn nothing_personal_in_access_log_metrics_and_errors() {
    let rig = Rig::builder().section("log", "level = \"trace\"").start().await;
    let target =
        Target { server: rig.app.server_address(), admin: rig.app.admin_address(), key: rig.key("lending").to_owned() };
    let answers = target.tell_everything().await;
    answers_are_clean(&answers, &rig.account_key);
    let metrics = ask("GET", rig.admin_url("/metrics")).send().await.text();
    is_clean("/metrics", &metrics);
    assert!(!metrics.contains(&target.key) && !metrics.contains(&rig.account_key));
    let (log, account_key) = (rig.log.clone(), rig.account_key.clone());
    rig.stop().await;
    let lines = log.lines();
    assert!(lines.len() > 100, "each request has a line: {}", lines.len());
    let text = lines.join("\n");
    is_clean("the access log", &text);
    assert!(!text.contains(&target.key) && !text.contains(&account_key));
    assert!(!text.contains("/identity/") && !text.contains("?"), "a raw path is in the access log");
    for line in lines {
        serde_json::from_str::<serde_json::Value>(&line).expect("a JSON line");
    }
}

#[tokio::test]
async fn nothing_personal_when_upstream_is_away_or_late_or_tells_it() {
    let late = Upstream::on_connection(|mut stream| async move {
        let mut got = Vec::new();
        while stream.read_buf(&mut got).await.unwrap_or(0) > 0 {}
    })
    .await;
    let away = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", gone.local_addr().expect("an address"))
    };
    let telling = Upstream::answering(|_| {
        let body = r#"{"error_code":"zkanari-echo","message":"7355608000155 Zkanarigiven"}"#;
        let answer = Response::builder().status(400).header("x-zkanari-echo", "zkanari-echo");
        answer.body(Full::from(body)).expect("an answer")
    })
    .await;
    for url in [late.url(), away, telling.url()] {
        let upstream = "timeout = \"100ms\"\nconnect_timeout = \"100ms\"";
        let rig = Rig::builder()
            .upstream(url)
            .section("upstream", upstream)
            .section("log", "level = \"trace\"")
            .start()
            .await;
        let target = Target {
            server: rig.app.server_address(),
            admin: rig.app.admin_address(),
            key: rig.key("lending").to_owned(),
        };
        let bank = r#"{"bank_account_number":"7355608000155","bank_code":"BCA","reference_id":"zkanari-reference"}"#;
        for request in [
            target.ask("POST", BANK).json(bank),
            target.ask("POST", CFT).json(r#"{"given_name":"Zkanarigiven"}"#),
            target.ask("POST", "/v9/zkanari-segment?zkanari-query").json(bank),
            target.ask("GET", "/v1/fraud/phone_numbers/081277665544/age"),
        ] {
            let answer = request.send().await;
            assert!(answer.status >= 400);
            if !answer.header("x-gateway-error").is_empty() {
                is_clean("an error of the gateway", &format!("{} {:?}", answer.text(), answer.headers));
            }
        }
        is_clean("/metrics", &ask("GET", rig.admin_url("/metrics")).send().await.text());
        let log = rig.log.clone();
        rig.stop().await;
        assert_eq!(log.lines().len(), 4);
        is_clean("the access log", &log.lines().join("\n"));
    }
}

/// The built binary in a process of its own, which ends with the test.
struct Process {
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    /// Starts `run` with these environment variables and all log levels on.
    fn start(config: &str, environment: &[(&str, &str)]) -> Self {
        let folder = folder();
        fs::write(folder.path().join("gateway.toml"), config).expect("a file");
        let file = |name: &str| File::create(folder.path().join(name)).expect("a file");
        let child = Command::new(env!("CARGO_BIN_EXE_iluma-gateway"))
            .args(["run", "--config"])
            .arg(folder.path().join("gateway.toml"))
            .envs(environment.iter().copied())
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full")
            .current_dir(folder.path())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("the gateway");
        Self { child, folder }
    }

    fn wrote(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).expect("what it wrote")
    }

    /// Returns the addresses that the process logs for its listeners.
    async fn listening(&self) -> (SocketAddr, SocketAddr) {
        let line = || self.wrote("stderr").lines().find(|line| line.contains("\"listening\"")).map(str::to_owned);
        until("the gateway to listen", || line().is_some()).await;
        let line: serde_json::Value = serde_json::from_str(&line().expect("a line")).expect("JSON");
        let address = |name: &str| line["fields"][name].as_str().expect("an address").parse().expect("an address");
        (address("server"), address("admin"))
    }

    /// Sends SIGTERM, and returns the exit status.
    async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill").success());
        let mut ended = None;
        until("the gateway to end", || {
            ended = self.child.try_wait().expect("a child");
            ended.is_some()
        })
        .await;
        ended.expect("a status")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn nothing_personal_in_what_the_process_writes() {
    let options = iluma_simulator::Options { pending_first: false, ..Default::default() };
    let simulator = iluma_simulator::Simulator::start(([127, 0, 0, 1], 0).into(), options).await.expect("a simulator");
    let team = keygen::team_key(&"lending".parse().expect("a name"));
    let hash: String = team.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[callbacks]\nlisten = \"127.0.0.1:0\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\ntoken = {{ env = \"ADMIN\" }}\n[log]\nlevel = \"trace\"\n\
         [upstream]\nbase_url = \"{}\"\n[state]\nroot_key = {{ env = \"ROOT\" }}\n\
         encryption_keys = [{{ id = \"one\", key = {{ env = \"ENCRYPTION\" }} }}]\n\
         [accounts.live]\napi_key = {{ env = \"ACCOUNT\" }}\n\
         [tenants.lending]\naccount = \"live\"\nkey_sha256 = [\"{hash}\"]\n",
        simulator.url()
    );
    let (root, encryption, admin) = (keygen::secret(), keygen::secret(), keygen::secret());
    let account_key = format!("iluma_live_{}", &keygen::secret().expose_secret()[..32]);
    let mut process = Process::start(
        &config,
        &[
            ("ROOT", root.expose_secret()),
            ("ENCRYPTION", encryption.expose_secret()),
            ("ADMIN", admin.expose_secret()),
            ("ACCOUNT", &account_key),
        ],
    );
    let (server, admin_address) = process.listening().await;
    let key = team.key.expose_secret().to_owned();
    let target = Target { server, admin: admin_address, key: key.clone() };
    let answers = target.tell_everything().await;
    answers_are_clean(&answers, &account_key);
    // A reload reads and reports every setting.
    let id = process.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().expect("kill").success());
    let status = process.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", process.wrote("stderr"));
    for name in ["stdout", "stderr"] {
        let text = process.wrote(name);
        is_clean(name, &text);
        for secret in [&key, &account_key, root.expose_secret(), encryption.expose_secret(), admin.expose_secret()] {
            assert!(!text.contains(secret), "{name} holds a secret");
            assert!(!text.contains(&STANDARD.encode(format!("{secret}:"))), "{name} holds a secret in base64");
        }
        assert!(!text.contains("panic"), "{name} tells of a panic");
    }
    assert!(process.wrote("stdout").lines().count() > 100, "the access log is on stdout");
    simulator.stop().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("room");
    encoder.finish().expect("gzip")
}

/// Returns the body of an answer as text, after decoding if it is in gzip.
fn decoded(answer: &Answer) -> String {
    if answer.header("content-encoding") != "gzip" {
        return answer.text();
    }
    let mut plain = String::new();
    flate2::read::GzDecoder::new(answer.body.as_ref()).read_to_string(&mut plain).expect("gzip");
    plain
}

fn has_no_key(answer: &Answer, key: &str, what: &str) {
    let headers = format!("{:?}", answer.headers);
    let bodies = [answer.text(), decoded(answer)];
    for spelling in [key.to_owned(), STANDARD.encode(format!("{key}:")), STANDARD.encode(key)] {
        let spelling = spelling.trim_end_matches('=');
        assert!(!headers.contains(spelling), "{what}: {headers}");
        assert!(bodies.iter().all(|body| !body.contains(spelling)), "{what}: {bodies:?}");
    }
}

const ROUTES: [(&str, &str); 9] = [
    ("POST", BANK),
    ("POST", CFT),
    ("GET", CODES),
    ("POST", KTP),
    ("GET", "/v1/identity/id_card_images/a"),
    // The file is streamed, once its owner is known.
    ("GET", "/v1/identity/captures/a/results/b/download"),
    ("GET", "/v1/fraud/phone_numbers/0811/age"),
    ("POST", "/v9/unknown"),
    ("GET", "/health"),
];

/// The record of the paths with ids in [`ROUTES`], as upstream answers it.
const RECORD: &str = r#"{"id":"a"}"#;

/// The paths whose answers teams share. For these calls the gateway makes the headers, and forwards none of a caller.
const SHARED: [&str; 3] = [BANK, CFT, CODES];

/// Starts a gateway whose team `lending` owns every record of its upstream.
async fn owning(upstream: &Upstream) -> Rig {
    Rig::builder().upstream(upstream.url()).tenant("lending", "owns_unprefixed = true").start().await
}

#[tokio::test]
async fn the_accounts_key_is_in_no_answer_that_echoes_it() {
    for status in [200, 400, 401, 404, 500, 503] {
        let upstream = Upstream::answering(move |heard| {
            let sent = heard.headers.get("authorization").map_or("", |value| value.to_str().expect("text"));
            let basic = sent.trim_start_matches("Basic ");
            let plain = String::from_utf8(STANDARD.decode(basic).expect("base64")).expect("text");
            let plain = plain.trim_end_matches(':');
            let mut answer = Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .header("x-echo", format!("key {plain}"))
                .header("x-echo-basic", sent)
                .header("www-authenticate", format!("Basic realm=\"{basic}\""));
            let body =
                format!(r#"{{"error_code":"SERVER_ERROR","message":"{plain}","header":"{sent}","again":"{plain}"}}"#);
            let body = if heard.headers.contains_key("x-gzip") {
                answer = answer.header("content-encoding", "gzip");
                gzip(body.as_bytes())
            } else {
                body.into_bytes()
            };
            answer.body(Full::new(Bytes::from(body))).expect("an answer")
        })
        .await;
        let rig = owning(&upstream).await;
        for (method, path) in ROUTES {
            for packed in [false, true] {
                // A compressed success passes unchanged on streamed rows: it is not searched for keys.
                if packed && status == 200 && ![BANK, CFT, CODES].contains(&path) {
                    continue;
                }
                let mut ask = rig.ask("lending", method, path).header("accept-encoding", "gzip").json("{}");
                if packed {
                    ask = ask.header("x-gzip", "1");
                }
                let answer = ask.try_send().await;
                if let Ok(answer) = answer {
                    has_no_key(&answer, &rig.account_key, &format!("{status} {method} {path} gzip: {packed}"));
                }
            }
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_accounts_key_is_in_no_answer_that_was_kept() {
    let upstream = Upstream::answering(|heard| {
        let sent = heard.headers["authorization"].to_str().expect("text").trim_start_matches("Basic ");
        let plain = String::from_utf8(STANDARD.decode(sent).expect("base64")).expect("text");
        let plain = plain.trim_end_matches(':');
        let body = format!(
            r#"{{"status":"COMPLETED","id":"{plain}","result":{{"is_found":true,"account_holder_name":"{sent}"}},"reference_id":"r"}}"#
        );
        let answer = Response::builder().header("content-type", format!("application/json; key={plain}"));
        answer.body(Full::from(body)).expect("an answer")
    })
    .await;
    let rig = owning(&upstream).await;
    for reference in ["r", "s", "a longer one"] {
        let body = format!(r#"{{"bank_account_number":"1","bank_code":"BCA","reference_id":"{reference}"}}"#);
        let answer = rig.post("lending", BANK, body).send().await;
        has_no_key(&answer, &rig.account_key, reference);
    }
    rig.stop().await;
}

#[tokio::test]
async fn the_accounts_key_is_in_no_answer_split_over_chunks() {
    for (status, basic) in [(400, false), (500, true), (503, false)] {
        let upstream = Upstream::on_connection(move |mut stream| async move {
            let mut got = Vec::new();
            while !got.windows(4).any(|four| four == b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                    return;
                }
            }
            let text = String::from_utf8_lossy(&got).into_owned();
            let sent = text.lines().find_map(|line| line.strip_prefix("authorization: Basic ")).unwrap_or("").trim();
            let plain = String::from_utf8(STANDARD.decode(sent).expect("base64")).expect("text");
            let secret = if basic { sent } else { plain.trim_end_matches(':') };
            let body = format!(r#"{{"error_code":"SERVER_ERROR","message":"{secret}"}}"#);
            let mut answer = format!("HTTP/1.1 {status} X\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n");
            for byte in body.chars() {
                answer.push_str(&format!("1\r\n{byte}\r\n"));
            }
            answer.push_str("0\r\n\r\n");
            // The pieces are small, so that the key does not arrive at once.
            for piece in answer.as_bytes().chunks(100) {
                if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        let rig = owning(&upstream).await;
        for (method, path) in ROUTES {
            let answer = rig.ask("lending", method, path).json("{}").send().await;
            has_no_key(&answer, &rig.account_key, &format!("{status} {method} {path}"));
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_teams_key_never_reaches_iluma() {
    let upstream = Upstream::answering(|_| Response::new(Full::from(RECORD))).await;
    let rig = owning(&upstream).await;
    let key = rig.key("lending").to_owned();
    let basic = STANDARD.encode(format!("{key}:"));
    for (method, path) in ROUTES {
        for authorization in [format!("Basic {basic}"), format!("Bearer {key}"), format!("basic {basic}")] {
            let ask = ask(method, rig.url(path)).header("authorization", &authorization);
            let ask = ask.header("proxy-authorization", &authorization);
            let answer = ask.header("cache-control", "no-cache").json("{}").send().await;
            assert_eq!(answer.status, 200, "{method} {path} {authorization}: {}", answer.text());
        }
    }
    let account = format!("Basic {}", STANDARD.encode(format!("{}:", rig.account_key)));
    let heard = upstream.heard();
    assert!(heard.len() >= ROUTES.len());
    for heard in heard {
        let everything = format!("{} {} {:?} {:?}", heard.method, heard.target, heard.headers, heard.body);
        assert!(!everything.contains(&key) && !everything.contains(&basic), "{everything}");
        let sent: Vec<_> = heard.headers.get_all("authorization").iter().collect();
        if heard.target != "/health" {
            assert_eq!(sent, [account.as_str()], "{everything}");
        }
    }
    rig.stop().await;
}

/// The headers that are never forwarded to Iluma: cookies, trace context, hop-by-hop headers, headers that `connection`
/// names, and headers that override the method or the path.
const STRIPPED: [(&str, &str); 25] = [
    ("cookie", "session=zkanari"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("tracestate", "zkanari=1"),
    ("baggage", "user=zkanari"),
    ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
    ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
    ("x-b3-spanid", "e457b5a2e4d86bd1"),
    ("x-b3-parentspanid", "e457b5a2e4d86bd1"),
    ("x-b3-sampled", "1"),
    ("x-b3-flags", "1"),
    ("uber-trace-id", "1:2:3:4"),
    ("x-amzn-trace-id", "Root=1-67891233-abcdef012345678912345678"),
    ("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/1;o=1"),
    ("keep-alive", "timeout=5"),
    ("upgrade", "websocket"),
    ("proxy-authorization", "Basic emthbmFyaTo="),
    ("proxy-connection", "keep-alive"),
    ("x-named-by-connection", "zkanari"),
    ("x-http-method-override", "DELETE"),
    ("x-http-method", "DELETE"),
    ("x-method-override", "DELETE"),
    ("x-original-url", "/businesses/1/api_keys"),
    ("x-rewrite-url", "/businesses/1/api_keys"),
    ("x-original-uri", "/businesses/1/api_keys"),
    ("x-original-method", "DELETE"),
];

#[tokio::test]
async fn what_is_not_ilumas_is_stripped_on_the_way_there() {
    let upstream = Upstream::answering(|_| Response::new(Full::from(RECORD))).await;
    let rig = owning(&upstream).await;
    let key = STANDARD.encode(format!("{}:", rig.key("lending")));
    for (method, path) in ROUTES {
        if path == "/health" {
            continue;
        }
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: gateway.internal\r\nauthorization: Basic {key}\r\n\
             connection: close, X-Named-By-Connection\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
             accept: application/json\r\nx-custom: kept\r\naccept-language: id\r\n"
        );
        for (name, value) in STRIPPED {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n{}");
        let answer = String::from_utf8_lossy(&raw(rig.app.server_address(), request.as_bytes()).await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        let heard = upstream.heard().pop().expect("a call");
        assert_eq!((heard.method.as_str(), heard.target.as_str()), (method, path));
        let left: Vec<_> = STRIPPED.iter().filter(|(name, _)| heard.headers.contains_key(*name)).collect();
        assert!(left.is_empty(), "{method} {path}: {left:?}");
        for (name, value) in [("x-custom", "kept"), ("accept-language", "id")] {
            let kept = heard.headers.get(name).map(|value| value.to_str().expect("text"));
            assert_eq!(kept, (!SHARED.contains(&path)).then_some(value), "{method} {path}");
        }
        assert_eq!(heard.headers["accept"], "application/json", "{method} {path}");
        let host = heard.headers["host"].to_str().expect("text");
        assert_eq!(host, upstream.addr().to_string(), "the host is Iluma's");
    }
    rig.stop().await;
}

#[tokio::test]
async fn what_is_not_the_teams_is_stripped_on_the_way_back() {
    let upstream = Upstream::on_connection(|mut stream| async move {
        let mut got = Vec::new();
        while !got.ends_with(b"}") && !got.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                return;
            }
        }
        let answer = "HTTP/1.1 200 OK\r\nconnection: close, X-Named-By-Connection\r\nx-named-by-connection: 1\r\n\
             keep-alive: timeout=5\r\nset-cookie: session=zkanari\r\nset-cookie2: session=zkanari\r\n\
             proxy-authenticate: Basic\r\nproxy-connection: close\r\ntrailer: x-checksum\r\nupgrade: websocket\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n\
             x-custom: kept\r\nx-gateway-error: forged\r\nx-request-id: zkanari\r\ncontent-length: 10\r\n\r\n{\"id\":\"a\"}";
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let rig = owning(&upstream).await;
    for (method, path) in ROUTES {
        let answer = rig.ask("lending", method, path).json("{}").send().await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        let left: Vec<_> = [
            "x-named-by-connection",
            "set-cookie",
            "proxy-authenticate",
            "proxy-connection",
            "upgrade",
            "x-gateway-error",
        ]
        .into_iter()
        .filter(|name| answer.headers.contains_key(*name))
        .collect();
        assert!(left.is_empty(), "{method} {path}: {left:?}");
        // The field is the gateway's own, about its own connection.
        assert_eq!(answer.header("keep-alive"), "timeout=75", "{method} {path}");
        let ids: Vec<_> = answer.headers.get_all("x-request-id").iter().collect();
        assert!(ids.len() == 1 && ids[0].len() == 36, "{method} {path}: {ids:?}");
        assert_eq!(answer.header("x-custom"), "kept", "{method} {path}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_request_id_is_the_callers_if_it_is_a_uuid() {
    let rig = Rig::start().await;
    let uuid = "0f126904-9c35-45b8-9165-415eedadde54";
    for (sent, kept) in [
        (uuid, true),
        ("0F126904-9C35-45B8-9165-415EEDADDE54", true),
        ("0f1269049c3545b89165415eedadde5", false),
        ("zkanari", false),
        ("", false),
        ("0f126904-9c35-45b8-9165-415eedadde5g", false),
        ("0f126904-9c35-45b8-9165-415eedadde54, 1", false),
    ] {
        for path in [BANK, "/businesses/x"] {
            let answer = rig.post("lending", path, "{}").header("x-request-id", sent).send().await;
            let id = answer.header("x-request-id");
            assert_eq!(id.len(), 36, "{sent}");
            assert_eq!(id.eq_ignore_ascii_case(sent), kept, "{sent}");
        }
    }
    let lines = rig.logged(14).await;
    let text = format!("{lines:?}");
    assert!(text.to_ascii_lowercase().contains(uuid) && !text.contains("zkanari"), "{text}");
    tokio::time::timeout(Duration::from_secs(5), rig.stop()).await.expect("an end");
}

/// Checks that `x-override-url` is stripped too. Some frameworks take the path from it.
#[tokio::test]
async fn the_last_override_header_is_stripped_on_the_way_there() {
    let upstream = Upstream::answering(|_| Response::new(Full::from(RECORD))).await;
    let rig = owning(&upstream).await;
    let mut left = Vec::new();
    for (method, path) in ROUTES {
        let ask = rig.ask("lending", method, path).header("cache-control", "no-cache");
        let ask = ask.header("x-override-url", "/businesses/1/api_keys");
        assert_eq!(ask.json("{}").send().await.status, 200, "{method} {path}");
        if upstream.heard().last().expect("a call").headers.contains_key("x-override-url") {
            left.push(format!("{method} {path}"));
        }
    }
    assert!(left.is_empty(), "{left:#?}");
    rig.stop().await;
}

#[tokio::test]
async fn trace_context_is_stripped_on_the_way_back() {
    let upstream = Upstream::answering(|_| {
        let answer = Response::builder()
            .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .header("tracestate", "a=b");
        answer.body(Full::from("{}")).expect("an answer")
    })
    .await;
    let rig = owning(&upstream).await;
    let mut left = Vec::new();
    for (method, path) in ROUTES {
        let answer = rig.ask("lending", method, path).json("{}").send().await;
        for name in ["traceparent", "tracestate"] {
            if answer.headers.contains_key(name) {
                left.push(format!("{name} on {method} {path}"));
            }
        }
    }
    assert!(left.is_empty(), "{left:#?}");
    rig.stop().await;
}
