//! Fuzzes the masking of the account's key: upstream answers that quote it pass the upstream client over a socket.
//!
//! Properties for every input: the output does not contain the key, and nothing else is missing or differs; an
//! announced length is kept; an answer that is cut off is an error.
//!
//! The first byte selects the way of sending ([`Answer::read`]). In the rest, 0 ends a piece of the body. 1 is replaced
//! by the beginning of the key, and 2 by the beginning of its Basic credential; the byte after it is the length. Any
//! other byte is a byte of the body.
#![no_main]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Method, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::ext::ReasonPhrase;
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::upstream::{self, AnswerBody, AnswerError, CallError, Credential, Outgoing, OutgoingBody, Upstream};
use libfuzzer_sys::fuzz_target;
use secrecy::SecretString;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use support::{API_KEY, contains};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// The longest wait, far longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(60);

struct World {
    runtime: Runtime,
    listener: TcpListener,
    upstream: Upstream,
    credential: Arc<Credential>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a socket");
    let address = listener.local_addr().expect("its address");
    let settings = support::settings(&format!("http://{address}"));
    let upstream = Upstream::new(&settings.upstream, &Clock::system(), Tasks::new()).expect("a client");
    World { runtime, listener, upstream, credential: Arc::new(Credential::new(&SecretString::from(API_KEY))) }
});

/// The Basic credential without its padding.
static BASIC: LazyLock<String> =
    LazyLock::new(|| STANDARD.encode(format!("{API_KEY}:")).trim_end_matches('=').to_owned());

fuzz_target!(|data: &[u8]| {
    let Some(answer) = Answer::read(data) else { return };
    WORLD.runtime.block_on(async {
        let exchange = async {
            tokio::select! {
                () = take(&answer) => {}
                never = serve(&answer) => match never {},
            }
        };
        assert!(tokio::time::timeout(PATIENCE, exchange).await.is_ok(), "everybody waits");
    });
});

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    /// Chunked, with trailers.
    Trailed,
    UntilClosed,
}

/// The answer of upstream.
#[derive(Debug)]
struct Answer {
    framing: Framing,
    failure: bool,
    /// True if the body is in gzip, which the gateway decodes.
    gzip: bool,
    /// True if the answer's head quotes the key; the trailers then quote it too, if there are any.
    told: bool,
    /// True if the connection ends before the answer does.
    cut_off: bool,
    /// True if the gateway reads the whole answer before it passes it on; false if it streams the answer.
    collected: bool,
    /// The pieces in which the body is sent.
    pieces: Vec<Vec<u8>>,
}

impl Answer {
    fn read(data: &[u8]) -> Option<Self> {
        let (how, script) = data.split_first()?;
        let bit = |n: u8| how >> n & 1 == 1;
        let (mut pieces, mut script) = (vec![Vec::new()], script.iter());
        while let Some(byte) = script.next() {
            let part = |whole: &str, n: Option<&u8>| {
                whole.as_bytes()[..n.map_or(0, |n| usize::from(*n)).min(whole.len())].to_vec()
            };
            let piece = pieces.last_mut()?;
            match byte {
                0 => pieces.push(Vec::new()),
                1 => piece.extend(part(API_KEY, script.next())),
                2 => piece.extend(part(&BASIC, script.next())),
                other => piece.push(*other),
            }
        }
        // An empty chunk would be the last one.
        pieces.retain(|piece| !piece.is_empty());
        let framing = [Framing::Length, Framing::Chunked, Framing::Trailed, Framing::UntilClosed][usize::from(how & 3)];
        let gzip = bit(3);
        Some(Self {
            framing,
            failure: bit(2),
            gzip,
            told: bit(4),
            // A body that ends with the connection does not show that it ended early.
            cut_off: bit(5) && framing != Framing::UntilClosed,
            // Secrets in an encoded body are masked only if it is decoded.
            collected: bit(6) || gzip,
            pieces,
        })
    }

    fn body(&self) -> Vec<u8> {
        self.pieces.concat()
    }

    /// Returns the body that a caller must get: every secret is replaced by asterisks.
    fn expected(&self) -> Vec<u8> {
        let mut body = self.body();
        for secret in [API_KEY.as_bytes(), BASIC.as_bytes()] {
            let mut at = 0;
            while at + secret.len() <= body.len() {
                if body[at..].starts_with(secret) {
                    body[at..at + secret.len()].fill(b'*');
                }
                at += 1;
            }
        }
        body
    }

    /// Returns the answer's bytes on the wire, in the pieces in which they are written.
    fn wire(&self) -> Vec<Vec<u8>> {
        let pieces = if self.gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&self.body()).expect("memory");
            encoder.finish().expect("memory").chunks(40).map(<[u8]>::to_vec).collect()
        } else {
            self.pieces.clone()
        };
        let status = if self.failure { 403 } else { 200 };
        let mut head = format!("HTTP/1.1 {status} {}\r\n", if self.told { API_KEY } else { "Fine" });
        if self.told {
            head += &format!("x-quoted: for {API_KEY}.\r\nx-basic: {}\r\n", *BASIC);
        }
        if self.gzip {
            head += "content-encoding: gzip\r\n";
        }
        match self.framing {
            Framing::Length => {
                let length = pieces.iter().map(Vec::len).sum::<usize>() + usize::from(self.cut_off);
                head += &format!("content-length: {length}\r\n");
            }
            Framing::Chunked | Framing::Trailed => head += "transfer-encoding: chunked\r\n",
            Framing::UntilClosed => head += "connection: close\r\n",
        }
        head += "x-kept: yes\r\n\r\n";
        let chunked = matches!(self.framing, Framing::Chunked | Framing::Trailed);
        let mut wire = vec![head.into_bytes()];
        for piece in pieces {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
            wire.push(if chunked { chunk } else { piece });
        }
        if chunked && !self.cut_off {
            let told = if self.told { API_KEY } else { "fine" };
            let trailers = if self.framing == Framing::Trailed { format!("x-told: {told}\r\n") } else { String::new() };
            wire.push(format!("0\r\n{trailers}\r\n").into_bytes());
        }
        wire
    }
}

/// Serves as upstream, and sends `answer` to every request.
async fn serve(answer: &Answer) -> Infallible {
    thread_local!(static KEPT: std::cell::RefCell<Option<TcpStream>> = const { std::cell::RefCell::new(None) });
    /// A guard that keeps the connection for the next input when this future is dropped.
    struct Connection(Option<TcpStream>);
    impl Drop for Connection {
        fn drop(&mut self) {
            KEPT.set(self.0.take());
        }
    }
    let mut connection = Connection(KEPT.take());
    let mut request = Vec::new();
    loop {
        let Some(stream) = &mut connection.0 else {
            connection.0 = WORLD.listener.accept().await.ok().map(|(stream, _)| stream);
            let _ = connection.0.as_ref().map(|stream| stream.set_nodelay(true));
            continue;
        };
        tokio::select! {
            // The client gave up the old connection for a new one.
            accepted = WORLD.listener.accept() => {
                connection.0 = accepted.ok().map(|(stream, _)| stream);
                request.clear();
                continue;
            }
            read = stream.read_buf(&mut request) => if !read.is_ok_and(|count| count > 0) {
                connection.0 = None;
                request.clear();
                continue;
            }
        }
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        assert!(contains(&request, BASIC.as_bytes()), "a request without the credential");
        request.clear();
        for piece in answer.wire() {
            let _ = stream.write_all(&piece).await;
            // The yield lets the client read each piece separately.
            tokio::task::yield_now().await;
        }
        if answer.cut_off || answer.framing == Framing::UntilClosed {
            let _ = stream.shutdown().await;
            connection.0 = None;
        }
    }
}

/// Calls upstream like the gateway, and checks everything that the gateway would pass on.
async fn take(answer: &Answer) {
    let target = PathAndQuery::from_static("/v1/identity/npwp_data_requests");
    let outgoing = Outgoing {
        method: Method::GET,
        target,
        headers: HeaderMap::new(),
        body: OutgoingBody::Empty,
        repeatable: true,
    };
    let response = WORLD.upstream.send(outgoing, Some(&WORLD.credential)).await.expect("the head of an answer");
    check_fields(response.headers());
    assert_eq!(response.headers()["x-kept"], "yes");
    if let Some(reason) = response.extensions().get::<ReasonPhrase>() {
        check(reason.as_bytes(), "the reason phrase");
    }
    if answer.collected { collect(answer, response).await } else { stream(answer, response.into_body()).await }
}

async fn collect(answer: &Answer, response: Response<AnswerBody>) {
    match upstream::collect(response, Some(&WORLD.credential), PATIENCE).await {
        Ok(collected) => {
            assert!(!answer.cut_off, "a short success");
            check_body(answer, &collected.body);
            check_fields(&collected.headers);
        }
        Err(error) => assert!(answer.cut_off && error == CallError::Truncated, "{error}"),
    }
}

async fn stream(answer: &Answer, mut body: AnswerBody) {
    let (announced, mut got, mut trailed) = (body.size_hint().exact(), Vec::new(), false);
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => {
                assert!(!trailed, "data behind the trailers is lost");
                got.extend_from_slice(&data);
                let left = body.size_hint().exact();
                assert!(announced.is_none_or(|all| left == Some(all - got.len() as u64)), "a wrong size");
            }
            Ok(Err(trailers)) => {
                check_fields(trailers.trailers_ref().expect("data or trailers"));
                trailed = true;
            }
            Err(error) => {
                assert!(answer.cut_off && error == AnswerError::Truncated, "{error}");
                check(&got, "the body");
                assert!(answer.expected().starts_with(&got), "another body");
                return;
            }
        }
    }
    assert!(!answer.cut_off, "a short success");
    check_body(answer, &got);
}

fn check_body(answer: &Answer, got: &[u8]) {
    check(got, "the body");
    let expected = answer.expected();
    assert!(
        got == expected,
        "{:?} instead of {:?}",
        got.escape_ascii().to_string(),
        expected.escape_ascii().to_string()
    );
}

fn check_fields(fields: &HeaderMap) {
    for (name, value) in fields {
        check(value.as_bytes(), name.as_str());
    }
}

fn check(text: &[u8], place: &str) {
    assert!(!contains(text, API_KEY.as_bytes()) && !contains(text, BASIC.as_bytes()), "the key is in {place}");
}
