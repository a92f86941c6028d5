//! Reads request bodies: counts and hashes the bytes, and keeps the beginning for the journal. Multipart bodies, which
//! may be large, are not held as a whole.
//!
//! Invariants: the memory for a body is bounded: 1 MiB of JSON or form text, 64 KiB of each multipart text field, and
//! the first 64 KiB of each file. A document of 500 MB passes through in pieces.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, header};
use http_body::Body as _;
use hyper::body::Incoming;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::journal::Entry;
use super::problem::Problem;
use super::seed::hex;
use parking_lot::Mutex;

/// The largest JSON or form body in bytes. The documented bodies are far below 1 KiB.
const MAX_TEXT: usize = 1024 * 1024;
/// The largest text field of a multipart body, in bytes.
const MAX_FIELD: usize = 64 * 1024;
/// The number of bytes at the beginning of a file that are kept. They are enough to find a picture's dimensions.
const FILE_HEAD: usize = 64 * 1024;
/// The largest number of parts of a multipart body, and of fields of a form body. The documented bodies have at most 7.
const MAX_PARTS: usize = 64;
/// The number of bytes that the multipart parser may read without progress. The bound refuses a part whose head never
/// ends.
const MAX_STALL: usize = 1024 * 1024;
/// The largest number of bytes that are read and discarded after an early refusal. A socket that is closed with unread
/// bytes resets the connection, and the client could lose the answer.
const MAX_DRAIN: u64 = 64 * 1024 * 1024;

/// A request's body while it is received. At its end the journal gets its size, its hash and its beginning.
pub(super) struct Tap {
    inner: Incoming,
    hash: Sha256,
    size: u64,
    head: Vec<u8>,
    keep: usize,
    complete: bool,
    entry: Arc<Mutex<Entry>>,
}

impl Tap {
    pub(super) fn new(inner: Incoming, keep: usize, entry: Arc<Mutex<Entry>>) -> Self {
        Self { inner, hash: Sha256::new(), size: 0, head: Vec::new(), keep, complete: false, entry }
    }

    /// Reads the whole body, at most 1 MiB.
    async fn whole(&mut self) -> Result<Vec<u8>, Problem> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next().await {
            let piece = piece.map_err(|_| broken())?;
            if whole.len() + piece.len() > MAX_TEXT {
                return Err(Problem::too_large("The request is too large (> 1 MiB)"));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Reads the rest of the body, up to [`MAX_DRAIN`]. Returns true if the end was reached.
    pub(super) async fn drain(&mut self) -> bool {
        let until = self.size.saturating_add(MAX_DRAIN);
        while self.size < until {
            match self.next().await {
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
                None => return true,
            }
        }
        self.complete
    }

    fn note(&mut self) {
        let mut entry = self.entry.lock();
        entry.body_size = self.size;
        entry.body_complete = self.complete;
        entry.body_sha256 = hex(&self.hash.clone().finalize());
        entry.body = std::mem::take(&mut self.head);
    }
}

impl Stream for Tap {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => {
                    self.complete = true;
                    return Poll::Ready(None);
                }
            };
            let Ok(piece) = frame.into_data() else { continue };
            self.hash.update(&piece);
            self.size += piece.len() as u64;
            let room = self.keep.saturating_sub(self.head.len()).min(piece.len());
            self.head.extend_from_slice(&piece[..room]);
            return Poll::Ready(Some(Ok(piece)));
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.complete |= self.inner.is_end_stream();
        self.note();
    }
}

/// The parameters of a call, from any kind of body.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) fields: Map<String, Value>,
    pub(super) files: HashMap<String, File>,
}

/// A file of a multipart body; its bytes are not kept.
#[derive(Debug)]
pub(super) struct File {
    /// The file's name as the caller gave it, in lower case.
    pub(super) name: String,
    /// The declared content type. If it is missing or `application/octet-stream`, a type that the file's name suggests.
    pub(super) content_type: String,
    pub(super) size: u64,
    pub(super) sha256: String,
    /// Width and height, if the beginning of the file shows them.
    pub(super) pixels: Option<(u32, u32)>,
}

/// A file that a route takes, with its largest size in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileRule {
    pub(super) field: &'static str,
    pub(super) max: u64,
}

/// Reads a JSON, `application/x-www-form-urlencoded` or multipart body. A multipart part that `files` names is a file;
/// any other part is a text field. A body without a content type is read as JSON. An empty JSON body, and a body of any
/// other type, have no fields.
pub(super) async fn read(headers: &HeaderMap, body: &mut Tap, files: &[FileRule]) -> Result<Form, Problem> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes().to_ascii_lowercase());
    if encoding.is_some_and(|coding| coding != b"identity") {
        return Err(Problem::unsupported("The request's body is encoded"));
    }
    let declared = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
    let essence = declared.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence == "multipart/form-data" {
        let boundary = multer::parse_boundary(declared)
            .ok()
            .filter(|boundary| (1..=200).contains(&boundary.len()))
            .ok_or_else(|| Problem::field("content-type", "the multipart boundary is missing"))?;
        return multipart(boundary, body, files).await;
    }
    let bytes = body.whole().await?;
    let fields = match essence.as_str() {
        "application/x-www-form-urlencoded" => form_urlencoded::parse(&bytes)
            .take(MAX_PARTS)
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect(),
        _ if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
        // A body of any other type is not parsed, and so has no fields.
        other if !(other.ends_with("/json") || other.ends_with("+json")) => Map::new(),
        _ => match serde_json::from_slice(&bytes) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(Problem::field("body", "a JSON object is expected")),
            Err(_) => return Err(Problem::field("body", "the JSON is malformed")),
        },
    };
    Ok(Form { fields, files: HashMap::new() })
}

fn broken() -> Problem {
    Problem::field("body", "the body ended early")
}

async fn multipart(boundary: String, body: &mut Tap, rules: &[FileRule]) -> Result<Form, Problem> {
    let stalled = Arc::new(AtomicUsize::new(0));
    let paced = Paced { inner: &mut *body, rest: false, stalled: Arc::clone(&stalled) };
    let mut parts = multer::Multipart::new(paced, boundary);
    let malformed = |_| Problem::field("body", "the multipart body is malformed");
    let mut form = Form::default();
    for _ in 0..MAX_PARTS {
        let Some(mut part) = parts.next_field().await.map_err(malformed)? else {
            // The text after the last boundary has no meaning.
            drop(parts);
            body.drain().await;
            return Ok(form);
        };
        stalled.store(0, Ordering::Relaxed);
        let field = part.name().unwrap_or("").to_owned();
        let rule = rules.iter().find(|rule| rule.field == field);
        if let Some(rule) = rule {
            let mut file = FileReader::new(part.file_name(), part.content_type().map(AsRef::as_ref));
            while let Some(piece) = part.chunk().await.map_err(malformed)? {
                stalled.store(0, Ordering::Relaxed);
                file.take(&piece);
                if file.size > rule.max {
                    return Err(Problem::too_large(format!("{field} is too large (> {} bytes)", rule.max)));
                }
            }
            form.files.insert(field, file.finish());
        } else {
            let mut text = Vec::new();
            while let Some(piece) = part.chunk().await.map_err(malformed)? {
                stalled.store(0, Ordering::Relaxed);
                if text.len() + piece.len() > MAX_FIELD {
                    return Err(Problem::field(&field, "the field is too long"));
                }
                text.extend_from_slice(&piece);
            }
            let text = String::from_utf8(text).map_err(|_| Problem::field(&field, "the field is not UTF-8"))?;
            form.fields.insert(field, Value::String(text));
        }
    }
    Err(Problem::field("body", "the body has too many parts"))
}

/// A body that returns `Pending` once after each piece. Otherwise the multipart parser would not stop reading while the
/// network is faster than the parser.
struct Paced<'a> {
    inner: &'a mut Tap,
    rest: bool,
    stalled: Arc<AtomicUsize>,
}

impl Stream for Paced<'_> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rest) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(self.inner.poll_next_unpin(cx));
        self.rest = true;
        if let Some(Ok(bytes)) = &piece
            && self.stalled.fetch_add(bytes.len(), Ordering::Relaxed) > MAX_STALL
        {
            return Poll::Ready(Some(Err(io::Error::other("no end of headers"))));
        }
        Poll::Ready(piece)
    }
}

struct FileReader {
    name: String,
    content_type: String,
    size: u64,
    hash: Sha256,
    head: Vec<u8>,
}

impl FileReader {
    fn new(name: Option<&str>, declared: Option<&str>) -> Self {
        let name: String = name.unwrap_or("").chars().take(255).flat_map(char::to_lowercase).collect();
        let content_type = match declared.map(str::to_ascii_lowercase) {
            Some(declared) if declared != "application/octet-stream" => declared,
            _ => match name.rsplit_once('.').map(|(_, extension)| extension) {
                Some("png") => "image/png",
                Some("jpg" | "jpeg") => "image/jpeg",
                Some("bmp") => "image/bmp",
                Some("pdf") => "application/pdf",
                _ => "application/octet-stream",
            }
            .into(),
        };
        Self { name, content_type, size: 0, hash: Sha256::new(), head: Vec::new() }
    }

    fn take(&mut self, piece: &[u8]) {
        self.size += piece.len() as u64;
        self.hash.update(piece);
        let room = FILE_HEAD.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..room]);
    }

    fn finish(self) -> File {
        File {
            pixels: super::picture::pixels(&self.head),
            name: self.name,
            content_type: self.content_type,
            size: self.size,
            sha256: hex(&self.hash.finalize()),
        }
    }
}
