//! Tests of collapsing: identical requests in flight make one call. The call goes on if any of them is cancelled.

use crate::support::{Answer, Rig, Upstream, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const ACCOUNT: &str = r#"{"bank_account_number":"1234567890","bank_code":"BCA"}"#;
const FOUND: &str = r#"{"status":"COMPLETED","id":"bknv_1","result":{"is_found":true,"account_holder_name":"A"}}"#;
const SERVER_ERROR: &str = r#"{"error_code":"SERVER_ERROR","message":"the first failure"}"#;

/// An upstream that reads requests, counts them, and holds its answers until the test gives one.
struct Held {
    upstream: Upstream,
    arrived: Arc<AtomicUsize>,
    answer: watch::Sender<Option<Say>>,
}

#[derive(Clone, Copy)]
enum Say {
    Answer(u16, &'static str),
    /// The connection ends without an answer.
    Nothing,
}

impl Held {
    async fn start() -> Self {
        let arrived = Arc::new(AtomicUsize::new(0));
        let (answer, told) = watch::channel(None);
        let count = Arc::clone(&arrived);
        let upstream = Upstream::on_connection(move |stream| hold(stream, Arc::clone(&count), told.clone())).await;
        Self { upstream, arrived, answer }
    }

    fn arrived(&self) -> usize {
        self.arrived.load(Ordering::SeqCst)
    }

    async fn has(&self, calls: usize) {
        until(&format!("{calls} upstream calls"), || self.arrived() >= calls).await;
    }

    fn say(&self, what: Say) {
        self.answer.send_replace(Some(what));
    }
}

/// Serves one connection: it reads a whole request, then sends the given answer, again and again.
async fn hold(mut stream: TcpStream, arrived: Arc<AtomicUsize>, mut told: watch::Receiver<Option<Say>>) {
    let mut got = Vec::new();
    loop {
        let asked = loop {
            if let Some(body) = whole(&mut got) {
                break body;
            }
            if !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                return;
            }
        };
        arrived.fetch_add(1, Ordering::SeqCst);
        let Ok(say) = told.wait_for(Option::is_some).await.map(|say| *say) else { return };
        let Some(Say::Answer(status, body)) = say else { return };
        let body = with_reference(body, &asked);
        let head =
            format!("HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        if stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Adds the request's reference to an answer, as Iluma does. An error stays as it is.
fn with_reference(answer: &str, asked: &[u8]) -> String {
    let asked: Value = serde_json::from_slice(asked).unwrap_or_default();
    match asked.get("reference_id") {
        Some(reference) if answer != SERVER_ERROR => {
            answer.replacen('{', &format!("{{\"reference_id\":{reference},"), 1)
        }
        _ => answer.to_owned(),
    }
}

/// Removes a complete request from the front of `got`, and returns its body; `None` if the request is not complete yet.
fn whole(got: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = got.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&got[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(0, |length| length.trim().parse().expect("a length"));
    if got.len() < end + 4 + length {
        return None;
    }
    Some(got.drain(..end + 4 + length).skip(end + 4).collect())
}

/// The limit of a team's requests in flight: when one more is refused, exactly this number is in flight.
const EACH: usize = 100;

/// Many identical requests, each with a reference of its own.
struct Crowd {
    answers: JoinSet<(String, Answer)>,
    refusals: Arc<AtomicUsize>,
}

/// Starts a gateway that may serve stale bank answers. Any answer of Iluma takes precedence over a stale one.
async fn rig(held: &Held) -> Rig {
    let limit = format!("max_in_flight = {EACH}");
    let stale = "bank = { stale_if_error = \"1h\" }";
    Rig::builder()
        .upstream(held.upstream.url())
        .section("cache", stale)
        .tenant("lending", &limit)
        .tenant("payments", &limit)
        .start()
        .await
}

impl Crowd {
    /// Sends requests of both teams until each team has [`EACH`] requests in flight. The team `lending` has `already`
    /// requests in flight before.
    async fn gather(rig: &Rig, path: &str, already: usize) -> Self {
        let mut crowd = Self { answers: JoinSet::new(), refusals: Arc::default() };
        for (team, count) in [("lending", EACH - already), ("payments", EACH)] {
            for at in 0..=count {
                let reference = format!("{team}-{at}");
                let body = ACCOUNT.replace('}', &format!(r#","reference_id":"{reference}"}}"#));
                let (ask, refusals) = (rig.post(team, path, body), Arc::clone(&crowd.refusals));
                crowd.answers.spawn(async move {
                    let answer = ask.send().await;
                    if answer.status == 429 {
                        refusals.fetch_add(1, Ordering::SeqCst);
                    }
                    (reference, answer)
                });
            }
        }
        let refusals = Arc::clone(&crowd.refusals);
        until("as many requests in flight as may be", || refusals.load(Ordering::SeqCst) == 2).await;
        crowd
    }

    /// Returns the answers of the requests in flight.
    async fn answers(self) -> Vec<(String, Answer)> {
        let mut answers = self.answers.join_all().await;
        let all = answers.len();
        answers.retain(|(_, answer)| answer.status != 429);
        assert_eq!(all - answers.len(), 2, "only those above the limit were refused");
        answers
    }
}

#[tokio::test]
async fn two_hundred_identical_requests_make_one_call() {
    let held = Held::start().await;
    let rig = rig(&held).await;
    let crowd = Crowd::gather(&rig, BANK, 0).await;
    held.has(1).await;
    held.say(Say::Answer(200, FOUND));
    let answers = crowd.answers().await;
    assert_eq!((answers.len(), held.arrived()), (2 * EACH, 1));
    let mut stored = 0;
    for (reference, answer) in &answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["id"], "bknv_1");
        assert_eq!(&answer.json()["reference_id"], reference);
        match answer.header("cache-status") {
            "iluma-gateway; fwd=uri-miss; stored" => stored += 1,
            about => assert_eq!(about, "iluma-gateway; fwd=uri-miss; collapsed"),
        }
    }
    assert_eq!(stored, 1);
    let series = |team| {
        format!("iluma_gateway_upstream_calls_saved_total{{how=\"collapsed\",route=\"bank\",tenant=\"{team}\"}}")
    };
    let saved = rig.metric(&series("lending")).await + rig.metric(&series("payments")).await;
    assert!((saved - 199.0).abs() < f64::EPSILON, "{saved}");
    rig.stop().await;
}

/// Checks that the followers share a pending answer, and that it is not stored.
#[tokio::test]
async fn a_pending_answer_is_shared_by_those_in_flight() {
    let held = Held::start().await;
    let rig = rig(&held).await;
    let crowd = Crowd::gather(&rig, BANK, 0).await;
    held.has(1).await;
    held.say(Say::Answer(200, r#"{"status":"PENDING","id":"bknv_1"}"#));
    for (reference, answer) in crowd.answers().await {
        assert_eq!((answer.status, &answer.json()["reference_id"]), (200, &reference.into()));
        assert_eq!(answer.json()["status"], "PENDING");
        assert!(!answer.header("cache-status").contains("stored"), "{:?}", answer.headers);
    }
    assert_eq!(held.arrived(), 1);
    let absent = rig.post("lending", BANK, ACCOUNT).header("cache-control", "only-if-cached").send().await;
    assert_eq!(absent.status, 504);
    rig.stop().await;
}

#[tokio::test]
async fn different_questions_do_not_wait_for_each_other() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.upstream.url()).tenant("private", "share_cache = false").start().await;
    let mut asks = JoinSet::new();
    for (team, path, body) in [
        ("lending", BANK, ACCOUNT.to_owned()),
        ("lending", CFT, ACCOUNT.to_owned()),
        ("payments", BANK, ACCOUNT.replace("BCA", "BNI")),
        ("private", BANK, ACCOUNT.to_owned()),
    ] {
        asks.spawn(rig.post(team, path, body).send());
    }
    // Requests with a magic reply, no-store and no-cache need a call of their own.
    asks.spawn(rig.post("lending", BANK, ACCOUNT).header("x-magic-reply", "").send());
    asks.spawn(rig.post("lending", BANK, ACCOUNT).header("x-magic-reply", "").send());
    held.has(6).await;
    held.say(Say::Answer(200, FOUND));
    for answer in asks.join_all().await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(held.arrived(), 6);
    rig.stop().await;
}

#[tokio::test]
async fn a_failure_is_everybodys_and_no_herd_follows() {
    for (say, statuses) in [(Say::Answer(500, SERVER_ERROR), 500..=500), (Say::Nothing, 500..=504)] {
        let held = Held::start().await;
        let rig = rig(&held).await;
        let crowd = Crowd::gather(&rig, BANK, 0).await;
        held.has(1).await;
        held.say(say);
        let answers = crowd.answers().await;
        assert_eq!((answers.len(), held.arrived()), (2 * EACH, 1));
        let status = answers[0].1.status;
        for (_, answer) in &answers {
            assert!(statuses.contains(&answer.status), "{}", answer.text());
            assert_eq!(answer.status, status, "the same failure for all");
            if let Say::Answer(_, body) = say {
                assert_eq!((answer.text().as_str(), answer.header("x-gateway-error")), (body, ""));
            }
            assert!(!answer.header("cache-status").contains("stored"));
        }
        // The failure is not stored: a later request makes a call.
        held.say(Say::Answer(200, FOUND));
        let next = rig.post("lending", BANK, ACCOUNT).send().await;
        assert_eq!((next.status, held.arrived()), (200, 2));
        rig.stop().await;
    }
}

/// Sends a whole request over a new connection and returns the connection.
async fn sent(rig: &Rig, team: &str, path: &str, body: &str) -> TcpStream {
    let key = STANDARD.encode(format!("{}:", rig.key(team)));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Basic {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
    stream.write_all(request.as_bytes()).await.expect("a request");
    stream
}

/// Resets a connection. A plain close would look like the end of the client's sending side, and the gateway would
/// answer.
fn hang_up(stream: TcpStream) {
    stream.set_zero_linger().expect("a socket");
}

#[tokio::test]
async fn the_first_caller_hanging_up_changes_nothing_for_the_others() {
    let held = Held::start().await;
    let rig = rig(&held).await;
    let first = sent(&rig, "lending", BANK, ACCOUNT).await;
    held.has(1).await;
    let crowd = Crowd::gather(&rig, BANK, 1).await;
    hang_up(first);
    let gone = || rig.log.lines().iter().any(|line| line.contains(r#""status":499"#));
    until("an access log line of status 499", gone).await;
    assert_eq!(held.arrived(), 1);
    held.say(Say::Answer(200, FOUND));
    let answers = crowd.answers().await;
    assert_eq!((answers.len(), held.arrived()), (2 * EACH - 1, 1));
    for (reference, answer) in answers {
        assert_eq!((answer.status, &answer.json()["reference_id"]), (200, &reference.into()));
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_its_call_to_be_cached() {
    for path in [BANK, CFT] {
        let answer = if path == BANK { FOUND } else { r#"{"request_name":"A","results":[],"id":"a"}"# };
        let held = Held::start().await;
        let rig = Rig::builder().upstream(held.upstream.url()).start().await;
        let caller = sent(&rig, "lending", path, ACCOUNT).await;
        held.has(1).await;
        hang_up(caller);
        let line = rig.logged(1).await.remove(0);
        assert_eq!(line["status"], 499, "{line}");
        held.say(Say::Answer(200, answer));
        let cached = async {
            loop {
                let ask = rig.post("payments", path, ACCOUNT).header("cache-control", "only-if-cached");
                let answer = ask.send().await;
                if answer.status == 200 {
                    return answer;
                }
                assert_eq!(answer.status, 504, "{}", answer.text());
            }
        };
        let hit = tokio::time::timeout(crate::support::PATIENCE, cached).await.expect("the answer was cached");
        assert!(hit.header("cache-status").contains("hit"));
        assert_eq!((hit.text().as_str(), held.arrived()), (answer, 1));
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_within_its_body_makes_no_call() {
    let held = Held::start().await;
    let rig = Rig::builder().upstream(held.upstream.url()).start().await;
    for path in [BANK, CFT] {
        let key = STANDARD.encode(format!("{}:", rig.key("lending")));
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Basic {key}\r\n\
             content-type: application/json\r\ncontent-length: 1000\r\n\r\n{ACCOUNT}"
        );
        let mut stream = TcpStream::connect(rig.app.server_address()).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("a part of a request");
    }
    rig.logged(2).await;
    assert_eq!(held.arrived(), 0);
    rig.stop().await;
}

/// Checks that a call with a streamed body goes on without its client once Iluma has the whole body. Iluma charges for
/// it, so its outcome must become known.
#[tokio::test]
async fn a_streamed_call_that_was_wholly_sent_is_not_cut_off() {
    let (closed, mut saw_close) = watch::channel(None);
    let (answer, told) = watch::channel(false);
    let upstream = Upstream::on_connection(move |mut stream| {
        let (closed, mut told) = (closed.clone(), told.clone());
        async move {
            let mut got = Vec::new();
            while whole(&mut got).is_none() {
                if !matches!(stream.read_buf(&mut got).await, Ok(1..)) {
                    return;
                }
            }
            closed.send_replace(Some(false));
            let mut byte = [0];
            tokio::select! {
                _ = stream.read(&mut byte) => { closed.send_replace(Some(true)); }
                () = async { drop(told.wait_for(|told| *told).await) } => {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
                    closed.send_replace(None);
                }
            }
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let caller = sent(&rig, "lending", "/v1/identity/ktp_name/validations", "{}").await;
    saw_close.wait_for(|seen| *seen == Some(false)).await.expect("the call");
    hang_up(caller);
    let line = rig.logged(1).await.remove(0);
    assert_eq!(line["status"], 499, "{line}");
    answer.send_replace(true);
    let end = tokio::time::timeout(crate::support::PATIENCE, saw_close.wait_for(|seen| *seen != Some(false))).await;
    assert_eq!(*end.expect("an end").expect("an end"), None, "the call was cut off");
    rig.stop().await;
}
