//! One HTTP/1.1 connection on which the test decides every byte, as client or as server.

use super::{Answer, Heard, PATIENCE};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection, and the bytes that were read ahead.
#[derive(Debug)]
pub struct Wire<S = TcpStream> {
    pub stream: S,
    buffer: BytesMut,
}

/// The first line and the headers of a message.
#[derive(Debug, Clone)]
pub struct Head {
    pub line: String,
    pub headers: HeaderMap,
}

impl Head {
    /// Returns a header as text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap_or("(not text)"))
    }

    /// Returns the status of an answer.
    ///
    /// # Panics
    /// Panics if the message is not an answer.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }
}

impl Wire {
    /// # Panics
    /// Panics if nothing listens there.
    pub async fn connect(to: SocketAddr) -> Self {
        Self::over(TcpStream::connect(to).await.expect("a connection"))
    }

    /// Closes the connection with a reset instead of an orderly end.
    #[allow(deprecated, reason = "a linger of zero is the portable way to a reset, and does not block")]
    pub fn reset(self) {
        let _ = self.stream.set_linger(Some(Duration::ZERO));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Sends bytes. Ignores that a peer has closed meanwhile: the test notices it when it reads the answer.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = tokio::time::timeout(PATIENCE, self.stream.write_all(bytes.as_ref())).await;
        assert!(sent.is_ok(), "the peer takes nothing");
        let _ = self.stream.flush().await;
    }

    /// Reads more bytes into the buffer. Returns false at the end of the connection or at a reset.
    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("the peer sends nothing"), Ok(count) if count > 0)
    }

    /// Reads the next head; `None` if the peer closed before it was complete.
    ///
    /// # Panics
    /// Panics if the bytes do not arrive in time.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                let text = String::from_utf8_lossy(&head[..end]).into_owned();
                let mut lines = text.split("\r\n");
                let line = lines.next().unwrap_or_default().to_owned();
                return Some(Head { line, headers: fields(lines) });
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads the body that belongs to `head`, with its trailers; `None` if the peer closed too early.
    pub async fn body(&mut self, head: &Head) -> Option<(Bytes, HeaderMap)> {
        let mut body = BytesMut::new();
        if head.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            loop {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default().trim().to_owned();
                let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
                if size == 0 {
                    break;
                }
                body.extend_from_slice(&self.exactly(size).await?);
                self.exactly(2).await?;
            }
            let mut trailers = Vec::new();
            loop {
                let line = self.line().await?;
                if line.is_empty() {
                    return Some((body.freeze(), fields(trailers.iter().map(String::as_str))));
                }
                trailers.push(line);
            }
        }
        if let Ok(length) = head.header("content-length").parse() {
            return Some((self.exactly(length).await?.freeze(), HeaderMap::new()));
        }
        let whole = head.line.starts_with("HTTP/") && !matches!(head.status(), 100..=199 | 204 | 304);
        if whole {
            while self.more().await {}
            body = self.buffer.split();
        }
        Some((body.freeze(), HeaderMap::new()))
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = self.buffer.split_to(end + 2);
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads exactly `count` bytes; `None` if there are fewer.
    pub async fn exactly(&mut self, count: usize) -> Option<BytesMut> {
        while self.buffer.len() < count {
            if !self.more().await {
                return None;
            }
        }
        Some(self.buffer.split_to(count))
    }

    /// Reads the next final answer; `None` if the connection ended before it was complete.
    pub async fn try_answer(&mut self) -> Option<Answer> {
        let head = loop {
            let head = self.head().await?;
            if head.status() >= 200 {
                break head;
            }
        };
        let (body, _) = self.body(&head).await?;
        Some(Answer { status: head.status(), headers: head.headers, body })
    }

    /// Reads the next final answer.
    ///
    /// # Panics
    /// Panics if there is none.
    pub async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("a whole answer")
    }

    /// Reads the next request with its body; `None` if the peer closed before it was complete.
    pub async fn request(&mut self) -> Option<Heard> {
        let head = self.head().await?;
        let (body, _) = self.body(&head).await?;
        let mut line = head.line.split(' ').map(str::to_owned);
        let (method, target) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        Some(Heard { method, target, headers: head.headers, body })
    }

    /// Reads until the peer closes.
    ///
    /// # Panics
    /// Panics if the peer does not close in time.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        self.buffer.split().to_vec()
    }
}

/// Returns the text of a JSON answer with `content-length`.
pub fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> HeaderMap {
    let parsed = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    let mut headers = HeaderMap::new();
    for (name, value) in parsed {
        headers.append(name, value);
    }
    headers
}
