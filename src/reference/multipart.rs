//! Multipart bodies (RFC 7578), prefixed while they stream.
//!
//! Invariants: every byte passes unchanged, except the value of the one part named `reference_id` (and its length, if
//! the part declares one); at most a delimiter, a part's head ([`LARGEST_HEAD`]) and a reference
//! ([`LARGEST_REFERENCE`]) are held; ambiguous bodies, which parsers interpret differently, do not pass to their end.
//! Forms that parsers are known to read differently are therefore refused: preambles, bare line ends before a boundary,
//! padding after one, folded or repeated fields, escaped quotes, `name*`.

use super::body::BodyError;
use super::boundary::Boundary;
use super::part_head::Head;
use super::parts_hash::{Hashed, PartsHash};
use super::pieces::Pieces;
use super::prefix::{LARGEST_REFERENCE, ReferencePrefix, ReferencePrefixes, reference_json};
use crate::base::json_template::{Absent, join};
use bytes::{Buf as _, Bytes};
use memchr::memmem::{self, Finder};

/// The largest head of a part in bytes. Browsers' heads have a few hundred bytes, and a long file name in UTF-8 fits.
const LARGEST_HEAD: usize = 16 << 10;

/// The largest number of parts of a body: Iluma's forms have up to five.
const MOST_PARTS: usize = 128;

/// The work that a [`Rewriter`] does on a body.
enum Task {
    /// The reference gets the prefix. [`Absent`] decides whether a body without a reference gets the bare prefix.
    Prefix(ReferencePrefix, Absent),
    /// The reference passes unchanged, unless it has another team's prefix; then the body is refused.
    Scan(ReferencePrefix, ReferencePrefixes),
    /// The parts are hashed, and the reference is treated like any other part.
    Hash(Box<PartsHash>),
}

/// The position of the next byte in the body.
enum State {
    /// The next byte precedes the first delimiter.
    Start,
    /// The next byte is in a part's head.
    Head,
    /// The next byte is in a part that passes. `fresh` is true until a byte of the part has passed.
    Part { fresh: bool },
    /// The next byte is in the reference. The reference and its head are held until the reference ends. `fresh` is true
    /// until a byte of the reference has arrived.
    Reference { fresh: bool, head: Head },
    /// The next byte follows the closing delimiter.
    Closed,
    /// The next byte follows the closing delimiter and its line end.
    Epilogue,
}

/// Reads a multipart body piece by piece. It prefixes the reference, scans it for another team's prefix, or hashes the
/// parts.
pub(super) struct Rewriter {
    delimiter: Finder<'static>,
    task: Task,
    state: State,
    /// Bytes that may begin a delimiter. They are a copy, so that the received piece can be freed.
    held: Vec<u8>,
    head: Vec<u8>,
    value: Vec<u8>,
    parts: usize,
    reference: Option<String>,
}

impl Rewriter {
    pub(super) fn prefix(boundary: &Boundary, prefix: ReferencePrefix, absent: Absent) -> Self {
        Self::new(boundary, Task::Prefix(prefix, absent))
    }

    pub(super) fn scan(boundary: &Boundary, own: ReferencePrefix, prefixes: ReferencePrefixes) -> Self {
        Self::new(boundary, Task::Scan(own, prefixes))
    }

    pub(super) fn hash(boundary: &Boundary) -> Self {
        Self::new(boundary, Task::Hash(Box::default()))
    }

    fn new(boundary: &Boundary, task: Task) -> Self {
        let delimiter = Finder::new(&boundary.delimiter).into_owned();
        let (held, head, value) = (Vec::new(), Vec::new(), Vec::new());
        Self { delimiter, task, state: State::Start, held, head, value, parts: 0, reference: None }
    }

    /// Returns the hash of the parts, and the [fields](Hashed). Returns `None` if the body is incomplete, or if the
    /// task is not to hash.
    pub(super) fn hashed(self) -> Option<Hashed> {
        self.finish().ok()?;
        match self.task {
            Task::Hash(parts) => Some(parts.finish()),
            Task::Prefix(..) | Task::Scan(..) => None,
        }
    }

    /// Returns the caller's reference as JSON text; `None` until its part has ended, or if the body has no reference.
    pub(super) fn reference(&self) -> Option<Bytes> {
        self.reference.as_deref().map(reference_json)
    }

    /// Returns true if the forwarded body has another length than the received one.
    pub(super) const fn changes_length(&self) -> bool {
        matches!(self.task, Task::Prefix(..))
    }

    /// Returns the number of received bytes that are held.
    pub(super) fn held(&self) -> usize {
        self.held.len() + self.head.len() + self.value.len()
    }

    /// Takes the next piece, and appends to `out` the bytes that may be forwarded. After an error nothing may be
    /// forwarded, not even the bytes that this call appended.
    pub(super) fn feed(&mut self, chunk: Bytes, out: &mut Pieces) -> Result<(), BodyError> {
        let mut data = if self.held.is_empty() { chunk } else { join(&[&std::mem::take(&mut self.held), &chunk]) };
        while !data.is_empty() {
            match &mut self.state {
                State::Start => {
                    // Some clients begin with a line end, which is no preamble.
                    let lead = if data.starts_with(b"\r") { 2 } else { 0 };
                    let delimiter = self.delimiter.needle();
                    let whole = join(&[&b"\r\n"[..lead], delimiter]);
                    if !data.starts_with(&whole[..whole.len().min(data.len())]) {
                        return Err(BodyError::Malformed);
                    }
                    if data.len() < whole.len() + 2 {
                        self.held = data.to_vec();
                        return Ok(());
                    }
                    out.push(data.split_to(lead));
                    self.delimiter(&mut data, 0, out)?;
                }
                State::Head => self.head(&mut data, out)?,
                State::Part { fresh } | State::Reference { fresh, .. } => {
                    let (found, passes) = match find(&self.delimiter, &data, *fresh)? {
                        Found::Delimiter(at) => (true, at),
                        Found::Nothing { passes } => (false, passes),
                    };
                    *fresh &= passes == 0;
                    let passed = data.split_to(passes);
                    if matches!(self.state, State::Part { .. }) {
                        match &mut self.task {
                            Task::Hash(parts) => parts.data(&passed),
                            Task::Prefix(..) | Task::Scan(..) => out.push(passed),
                        }
                    } else {
                        self.value.extend_from_slice(&passed);
                        if self.value.len() > LARGEST_REFERENCE {
                            return Err(BodyError::Reference);
                        }
                    }
                    // The bytes after a delimiter show whether it closes the body.
                    if !found || data.len() < 2 + self.delimiter.needle().len() + 2 {
                        self.held = data.to_vec();
                        return Ok(());
                    }
                    self.end_part(out)?;
                    self.delimiter(&mut data, 2, out)?;
                }
                State::Closed => {
                    if data == b"\r"[..] {
                        self.held = data.to_vec();
                        return Ok(());
                    }
                    if !data.starts_with(b"\r\n") {
                        return Err(BodyError::Malformed);
                    }
                    out.push(data.split_to(2));
                    self.state = State::Epilogue;
                }
                State::Epilogue => match self.task {
                    // RFC 2046 says that the epilogue is ignored, so it is not forwarded.
                    Task::Prefix(..) | Task::Hash(_) => return Ok(()),
                    // The declared length can't change here, so the epilogue can't be dropped. Some clients end with an
                    // empty line.
                    Task::Scan(..) if data.iter().all(|byte| matches!(byte, b'\r' | b'\n')) => {
                        out.push(std::mem::take(&mut data));
                    }
                    Task::Scan(..) => return Err(BodyError::Malformed),
                },
            }
        }
        Ok(())
    }

    /// Returns an error if the body is incomplete.
    pub(super) fn finish(&self) -> Result<(), BodyError> {
        let whole = matches!(self.state, State::Closed | State::Epilogue) && self.held.is_empty();
        whole.then_some(()).ok_or(BodyError::Malformed)
    }

    /// Forwards the delimiter at the beginning of `data`. `lead` is the length of the line end before the delimiter: 0
    /// or 2.
    fn delimiter(&mut self, data: &mut Bytes, lead: usize, out: &mut Pieces) -> Result<(), BodyError> {
        let end = lead + self.delimiter.needle().len();
        match data.get(end..end + 2) {
            Some(b"\r\n") => {
                self.parts += 1;
                if self.parts > MOST_PARTS {
                    return Err(BodyError::Malformed);
                }
                self.state = State::Head;
            }
            Some(b"--") => {
                if let (Task::Prefix(prefix, Absent::Insert), None) = (&self.task, &self.reference) {
                    self.append(prefix, lead, out);
                }
                self.state = State::Closed;
            }
            // Some parsers read a longer boundary as another boundary, others as a padded one.
            _ => return Err(BodyError::Malformed),
        }
        out.push(data.split_to(end + 2));
        Ok(())
    }

    /// Appends a part with the bare prefix before the closing delimiter. `lead` is the length of the line end before
    /// that delimiter: 0 or 2.
    fn append(&self, prefix: &ReferencePrefix, lead: usize, out: &mut Pieces) {
        const HEAD: &[u8] = b"\r\nContent-Disposition: form-data; name=\"reference_id\"\r\n\r\n";
        let end_of_line = b"\r\n";
        let (before, behind) = end_of_line.split_at(lead);
        out.push(join(&[before, self.delimiter.needle(), HEAD, prefix.name().as_bytes(), b":", behind]));
    }

    /// Collects the bytes of a part's head. Once the head is complete, parses it and begins the part.
    fn head(&mut self, data: &mut Bytes, out: &mut Pieces) -> Result<(), BodyError> {
        const END: &[u8] = b"\r\n\r\n";
        let before = self.head.len();
        let more = data.len().min(LARGEST_HEAD - before);
        self.head.extend_from_slice(&data[..more]);
        // The end of the head may be cut into two pieces.
        let from = before.saturating_sub(END.len() - 1);
        let Some(at) = memmem::find(&self.head[from..], END) else {
            data.advance(more);
            return if self.head.len() == LARGEST_HEAD { Err(BodyError::Malformed) } else { Ok(()) };
        };
        let end = from + at + END.len();
        self.head.truncate(end);
        data.advance(end - before);
        let head = Head::parse(&self.head[..end - END.len()])?;
        if let Task::Hash(parts) = &mut self.task {
            parts.begin(&self.head[..end - END.len()]);
            self.head.clear();
            self.state = State::Part { fresh: true };
            return Ok(());
        }
        self.state = if head.is_reference {
            if self.reference.is_some() {
                return Err(BodyError::Reference);
            }
            State::Reference { fresh: true, head }
        } else {
            out.push(std::mem::take(&mut self.head).into());
            State::Part { fresh: true }
        };
        Ok(())
    }

    /// Ends a part. If the part is the reference, checks it and forwards it; a [`Task::Prefix`] adds the prefix.
    fn end_part(&mut self, out: &mut Pieces) -> Result<(), BodyError> {
        if let Task::Hash(parts) = &mut self.task {
            parts.end();
        }
        let State::Reference { head, .. } = &self.state else { return Ok(()) };
        let value = String::from_utf8(std::mem::take(&mut self.value)).map_err(|_| BodyError::Reference)?;
        if head.must_be_ascii && !value.is_ascii() {
            return Err(BodyError::Reference);
        }
        let text = std::mem::take(&mut self.head);
        let declared = head.length.clone().map(|at| (std::str::from_utf8(&text[at.clone()]), at));
        if declared.as_ref().is_some_and(|(length, _)| length.ok().and_then(|l| l.parse().ok()) != Some(value.len())) {
            return Err(BodyError::Reference);
        }
        match (&self.task, declared) {
            (Task::Scan(own, prefixes), _) => {
                // Some servers read a part as JSON.
                let decoded = serde_json::from_str::<String>(&value);
                if prefixes.is_foreign(own, &value) || decoded.is_ok_and(|text| prefixes.is_foreign(own, &text)) {
                    return Err(BodyError::Foreign);
                }
                out.push(join(&[&text, value.as_bytes()]));
            }
            // A body that is only hashed has no reference part.
            (Task::Hash(_), _) => {}
            (Task::Prefix(prefix, _), declared) => {
                let length = value.len() + prefix.name().len() + 1;
                let (before, length, behind) = match declared {
                    Some((_, at)) => (&text[..at.start], length.to_string(), &text[at.end..]),
                    None => (&text[..], String::new(), &text[..0]),
                };
                out.push(join(&[before, length.as_bytes(), behind, prefix.name().as_bytes(), b":", value.as_bytes()]));
            }
        }
        self.reference = Some(value);
        Ok(())
    }
}

enum Found {
    /// A delimiter with its line end begins at this position. The bytes after the delimiter may still be missing.
    Delimiter(usize),
    /// No delimiter was found. The first `passes` bytes certainly do not belong to a delimiter, so they may pass.
    Nothing { passes: usize },
}

/// Searches for a delimiter in the body of a part. `fresh` is true if no byte of the part has passed yet.
fn find(finder: &Finder<'_>, data: &[u8], fresh: bool) -> Result<Found, BodyError> {
    let delimiter = finder.needle();
    // Some parsers read the line end of the head as the delimiter's.
    if fresh && data.starts_with(delimiter) {
        return Err(BodyError::Malformed);
    }
    let mut from = 0;
    while let Some(at) = finder.find(&data[from..]).map(|at| from + at) {
        match &data[..at] {
            [.., b'\r', b'\n'] => return Ok(Found::Delimiter(at - 2)),
            // Some parsers read a bare CR or LF as a whole line end.
            [.., b'\r' | b'\n'] => return Err(BodyError::Malformed),
            // No other delimiter begins inside this one, because it has no line end.
            _ => from = at + delimiter.len(),
        }
    }
    if fresh && delimiter.starts_with(data) {
        return Ok(Found::Nothing { passes: 0 });
    }
    // The longest suffix that may begin a delimiter is held. The suffix may begin with CRLF, or with a bare CR or LF,
    // after which a delimiter is refused.
    let earliest = data.len().saturating_sub(delimiter.len() + 1);
    let begins = |at: usize| match &data[at..] {
        [b'\r', b'\n', rest @ ..] | [b'\r' | b'\n', rest @ ..] => delimiter.starts_with(rest),
        _ => false,
    };
    Ok(Found::Nothing { passes: (earliest..data.len()).find(|at| begins(*at)).unwrap_or(data.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::name::REFERENCE;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=XyZ";

    fn prefix() -> ReferencePrefix {
        ReferencePrefix::of(&"lending".parse().unwrap())
    }

    fn rewriter(absent: Absent) -> Rewriter {
        Rewriter::prefix(&Boundary::of(TYPE.as_bytes()).unwrap(), prefix(), absent)
    }

    /// Returns the passed bytes, the reference, and the largest number of bytes that were held after a piece.
    fn pass<'a>(
        mut rewriter: Rewriter,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(Vec<u8>, Option<String>, usize), BodyError> {
        let (mut passed, mut most) = (Vec::new(), 0);
        for chunk in chunks {
            let mut out = Pieces::default();
            rewriter.feed(Bytes::copy_from_slice(chunk), &mut out)?;
            while let Some(piece) = out.pop() {
                passed.extend_from_slice(&piece);
            }
            most = most.max(rewriter.held());
        }
        rewriter.finish()?;
        Ok((passed, rewriter.reference, most))
    }

    /// Prefixes the body in one piece. Checks that the result is the same if the body arrives byte by byte.
    fn prefixed(body: &str) -> Result<(String, Option<String>), BodyError> {
        let whole = pass(rewriter(Absent::Insert), [body.as_bytes()]);
        let bytewise = pass(rewriter(Absent::Insert), body.as_bytes().chunks(1));
        let text = |(passed, reference, _)| (String::from_utf8(passed).unwrap(), reference);
        let (whole, bytewise) = (whole.map(text), bytewise.map(text));
        assert_eq!(whole, bytewise, "{body}");
        whole
    }

    fn body(parts: &[(&str, &str)]) -> String {
        let part = |(head, value): &(&str, &str)| format!("--XyZ\r\n{head}\r\n\r\n{value}\r\n");
        format!("{}--XyZ--\r\n", parts.iter().map(part).collect::<String>())
    }

    const TYPE_PART: (&str, &str) = ("Content-Disposition: form-data; name=\"type\"", "indonesia_ktp");
    const FILE: (&str, &str) = (
        "Content-Disposition: form-data; name=\"image\"; filename=\"a b.png\"\r\nContent-Type: image/png",
        "\u{89}PNG\r\n--Xy\r\n\r\n--XyA --XyZ-- \r--\n--X\r\n-",
    );
    const NAMED: &str = "Content-Disposition: form-data; name=\"reference_id\"";

    #[test]
    fn the_reference_is_prefixed_wherever_it_stands() {
        for (before, after) in [(&[][..], &[TYPE_PART, FILE][..]), (&[TYPE_PART], &[FILE]), (&[TYPE_PART, FILE], &[])] {
            for reference in ["foo123", "", "é\r\n--\r\n", "lending:x", "x:y"] {
                let with = |value: &str| body(&[before, &[(NAMED, value)], after].concat());
                let expected = Ok((with(&format!("lending:{reference}")), Some(reference.to_owned())));
                assert_eq!(prefixed(&with(reference)), expected);
            }
        }
    }

    #[test]
    fn without_a_reference_the_bare_prefix_is_appended() {
        for parts in [&[][..], &[TYPE_PART], &[FILE, TYPE_PART]] {
            let appended = [parts, &[("Content-Disposition: form-data; name=\"reference_id\"", "lending:")]].concat();
            assert_eq!(prefixed(&body(parts)), Ok((body(&appended), None)));
            let left = pass(rewriter(Absent::Leave), [body(parts).as_bytes()]).unwrap();
            assert_eq!(left.0, body(parts).as_bytes());
        }
    }

    #[test]
    fn a_part_is_known_by_its_name_however_that_is_written() {
        for head in [
            "Content-Disposition: form-data; name=reference_id",
            "content-disposition:form-data;name=\"reference_id\"",
            "CONTENT-DISPOSITION: \tForm-Data ; NAME=reference_id;",
            "X-Other: 1\r\nContent-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain; charset=\"UTF-8\"",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain;charset=ISO-8859-1",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: application/json; charset=UTF-8",
            "Content-Transfer-Encoding: 8Bit\r\nContent-Disposition: form-data; name=\"reference_id\"",
        ] {
            let expected = Ok((body(&[(head, "lending:foo")]), Some("foo".to_owned())));
            assert_eq!(prefixed(&body(&[(head, "foo")])), expected, "{head}");
        }
        // Each head has another name than the reference, whatever else it contains.
        for head in [
            "Content-Disposition: form-data; name=\"reference_id2\"",
            "Content-Disposition: form-data; name=image; filename*=utf-8''r%C3%A9f.png; filename=\"r\u{e9}f.png\"",
            "Content-Disposition: form-data; name=\"image\"; filename=\"reference_id.png\"",
            "Content-Disposition: form-data; name=\"image\"; filename=\"C:\\scans\\a;b=c.png\"",
            "Content-Disposition: form-data; name=\"image\"; filename=\"100%22.png\"\r\nContent-Length: 3",
            "Content-Disposition: form-data; name=\"image\"\r\nContent-Transfer-Encoding: base64",
        ] {
            let appended = [(head, "foo"), (NAMED, "lending:")];
            assert_eq!(prefixed(&body(&[(head, "foo")])), Ok((body(&appended), None)), "{head}");
        }
    }

    #[test]
    fn a_length_that_the_part_declares_is_the_new_one() {
        let head =
            |length: &str| format!("Content-Length: {length}\r\n{NAMED}\r\nContent-Type: text/plain; charset=utf-8");
        let given = prefixed(&body(&[(&head("6"), "foo123"), TYPE_PART]));
        let expected = body(&[(&head("14"), "lending:foo123"), TYPE_PART]);
        assert_eq!(given, Ok((expected, Some("foo123".to_owned()))));
        for wrong in ["5", "7", "", "+6", "6 6", "0x6", "99999999999999999999999"] {
            assert_eq!(prefixed(&body(&[(&head(wrong), "foo123")])), Err(BodyError::Reference), "{wrong}");
        }
    }

    #[test]
    fn a_reference_that_has_two_readings_is_refused() {
        for head in [
            "Content-Disposition: form-data; name=\"reference_id\"; filename=\"a\"",
            "Content-Disposition: form-data; name=\"reference_id\"; filename*=utf-8''a",
            "Content-Disposition: form-data; name=\"reference_id[]\"",
            "Content-Disposition: form-data; name=\"reference_id[0]\"",
            "Content-Disposition: form-data; name=\"[reference_id]\"",
            "Content-Disposition: form-data; name=\" reference_id\"",
            "Content-Disposition: form-data; name=\"Reference_ID\"",
            "Content-Disposition: form-data; name=\"reference.id\"",
            "Content-Disposition: form-data; name='reference_id'",
            "Content-Disposition: form-data; name=\"reference%5fid\"",
            "Content-Disposition: form-data; name=reference%5Fid",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Transfer-Encoding: base64",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Transfer-Encoding: quoted-printable",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: application/octet-stream",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/html",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain; charset",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain; charset=utf-16",
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain; charset=utf-8; charset=utf-7",
        ] {
            assert_eq!(prefixed(&body(&[(head, "foo")])), Err(BodyError::Reference), "{head}");
        }
        let latin =
            "Content-Disposition: form-data; name=\"reference_id\"\r\nContent-Type: text/plain; charset=iso-8859-1";
        assert_eq!(prefixed(&body(&[(latin, "é")])), Err(BodyError::Reference));
        assert_eq!(prefixed(&body(&[(NAMED, "a"), (NAMED, "a")])), Err(BodyError::Reference));
        assert_eq!(prefixed(&body(&[(NAMED, ""), FILE, (NAMED, "")])), Err(BodyError::Reference));
        let long = "x".repeat(LARGEST_REFERENCE);
        assert!(prefixed(&body(&[(NAMED, &long)])).is_ok());
        assert_eq!(prefixed(&body(&[(NAMED, &(long + "x"))])), Err(BodyError::Reference));
        let text = body(&[(NAMED, "foo")]);
        let (before, behind) = text.split_once("foo").unwrap();
        let not_utf8 = [before.as_bytes(), b"\xff\xfe", behind.as_bytes()].concat();
        assert_eq!(pass(rewriter(Absent::Insert), [&not_utf8[..]]), Err(BodyError::Reference));
    }

    #[test]
    fn a_head_that_has_two_readings_is_refused() {
        for head in [
            "",
            "X: y",
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; filename=\"x\"",
            "Content-Disposition: attachment; name=\"a\"",
            "Content-Disposition: form-data; name=\"a\"; name=\"reference_id\"",
            "Content-Disposition: form-data; name=\"a\"; NAME=reference_id",
            "Content-Disposition: form-data; name=\"a\"; name*=utf-8''reference_id",
            "Content-Disposition: form-data; name*=utf-8''reference_id",
            "Content-Disposition: form-data; name=\"a\"; name*0=reference_id",
            "Content-Disposition: form-data; filename=\"x\"; name=\"a\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"x\"; filename=\"y\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"x\\\"; name=\"reference_id\"",
            "Content-Disposition: form-data; name=\"a\"; filename=\"x; name=reference_id\"",
            "Content-Disposition: form-data; name=\"a\\\"; x=\"reference_id\"",
            "Content-Disposition: form-data; name=\"reference\\_id\"",
            "Content-Disposition: form-data; name=\"=?utf-8?B?cmVmZXJlbmNlX2lk?=\"",
            "Content-Disposition: form-data; name=a b",
            "Content-Disposition: form-data; name=",
            "Content-Disposition: form-data; name = \"a\"",
            "Content-Disposition: form-data; name=\"a\" x",
            "Content-Disposition: form-data; name=\"a\", form-data; name=\"reference_id\"",
            "Content-Disposition: form-data; name=\"a",
            "Content-Disposition: form-data name=\"a\"",
            "Content-Disposition : form-data; name=\"a\"",
            "Content-Disposition: form-data;\r\n name=\"reference_id\"",
            "Content-Disposition: form-data;\r\n\tname=\"a\"",
            "Content-Disposition: form-data; name=\"a\"\nContent-Disposition: form-data; name=\"reference_id\"",
            "Content-Disposition: form-data; name=\"a\"\rX: y",
            "Content-Disposition: form-data; name=\"reference_id\0\"",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"reference_id\"",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: text/plain\r\nContent-Type: image/png",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: Multipart/mixed; boundary=b",
            "Content-Disposition: form-data; name=\"a\"\r\nnonsense",
            "Content-Disposition: form-data; name=\"a\"\r\n: x",
            "Content-Disposition: form-data; name=\"_charset_\"",
        ] {
            assert_eq!(prefixed(&body(&[(head, "x")])), Err(BodyError::Malformed), "{head}");
        }
        let not_utf8 = b"--XyZ\r\nContent-Disposition: form-data; name=\"reference_id\xff\"\r\n\r\n\r\n--XyZ--";
        assert_eq!(pass(rewriter(Absent::Insert), [&not_utf8[..]]), Err(BodyError::Malformed));
        let large = |size: usize| format!("{NAMED}\r\nX: {}", "y".repeat(size - NAMED.len() - 5 - 4));
        assert!(prefixed(&body(&[(&large(LARGEST_HEAD), "")])).is_ok());
        assert!(prefixed(&body(&[(&large(LARGEST_HEAD + 1), "")])).is_err());
        assert!(prefixed(&body(&[TYPE_PART; MOST_PARTS])).is_ok());
        assert_eq!(prefixed(&body(&[TYPE_PART; MOST_PARTS + 1])), Err(BodyError::Malformed));
    }

    #[test]
    fn framing_that_has_two_readings_is_refused() {
        let part = "\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx";
        for good in [
            "--XyZ--".to_owned(),
            "--XyZ--\r\n".to_owned(),
            format!("\r\n--XyZ{part}\r\n--XyZ--"),
            // The bytes after the end are dropped.
            format!("--XyZ{part}\r\n--XyZ--\r\n--XyZ\r\n{NAMED}\r\n\r\nother:x\r\n--XyZ--"),
        ] {
            let (passed, reference) = prefixed(&good).unwrap();
            assert_eq!(reference, None);
            assert!(!passed.contains("other") && passed.contains("lending:\r\n--XyZ--"), "{passed}");
        }
        for bad in [
            String::new(),
            "\r\n".into(),
            "-".into(),
            "--XyZ".into(),
            "--XyZ-".into(),
            "--XyZ\r\n".into(),
            format!("--XyZ{part}"),
            format!("--XyZ{part}\r\n--XyZ"),
            format!("--XyZ{part}\r\n--XyZ-"),
            format!("--XyZ{part}\r\n--XyZ\r\n"),
            format!("preamble\r\n--XyZ{part}\r\n--XyZ--"),
            format!("\r\n\r\n--XyZ{part}\r\n--XyZ--"),
            format!("\n--XyZ{part}\r\n--XyZ--"),
            format!("--XyZ {part}\r\n--XyZ--"),
            format!("--XyZ{part}\r\n--XyZ \r\n--XyZ--"),
            format!("--XyZ{part}\r\n--XyZ{part}\n--XyZ--\r\n--XyZ--"),
            format!("--XyZ{part}\r--XyZ--\r\n--XyZ--"),
            format!("--XyZ{part}\n\n--XyZ\n\n\r\n--XyZ--"),
            format!("--XyZ{part}\r\n--XyZa\r\n\r\n--XyZ--"),
            format!("--XyZ{part}\r\n--XyZ--garbage"),
            format!("--XyZ{part}\r\n--XyZ-- \r\n"),
            format!("--XyZ{part}\r\n--XyZ--\n"),
            format!("--XyZ{part}\r\n--XyZ--\r"),
            "--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--XyZ--".into(),
            "--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n--XyZ\r\n\r\n--XyZ--".into(),
            "--XyZ\nContent-Disposition: form-data; name=\"a\"\n\nx\n--XyZ--\n".into(),
            "--xyz--".into(),
        ] {
            assert_eq!(prefixed(&bad), Err(BodyError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_boundary_has_one_reading() {
        let longest = "b".repeat(70);
        for (kind, boundary) in [
            ("multipart/form-data; boundary=XyZ", "XyZ"),
            ("Multipart/Form-Data;BOUNDARY=\"a'()+_,-./:=?z\"", "a'()+_,-./:=?z"),
            ("multipart/form-data; charset=utf-8; boundary=--x;", "--x"),
            ("multipart/form-data; boundary=----=_Part_1_2.3", "----=_Part_1_2.3"),
            (&format!("multipart/form-data; boundary={longest}"), &longest),
        ] {
            let found = Boundary::of(kind.as_bytes()).map(|b| b.delimiter.to_vec());
            assert_eq!(found, Some(format!("--{boundary}").into_bytes()), "{kind}");
        }
        for bad in [
            "multipart/form-data",
            "multipart/form-data;",
            "multipart/mixed; boundary=x",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"a b\"",
            "multipart/form-data; boundary=a b",
            "multipart/form-data; boundary=\"a\\b\"",
            "multipart/form-data; boundary=\"a",
            "multipart/form-data; boundary=a%b",
            "multipart/form-data; boundary=é",
            "multipart/form-data; boundary=a, text/plain",
            "multipart/form-data; boundary=a; boundary=a",
            "multipart/form-data; boundary=a; Boundary=b",
            "multipart/form-data; boundary*=a",
            "multipart/form-data; boundary=a; boundary*0=b",
            "multipart/form-data; boundary=a; charset=utf-16",
            "multipart/form-data boundary=a",
            &format!("multipart/form-data; boundary={longest}b"),
        ] {
            assert!(Boundary::of(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    #[test]
    fn another_teams_prefix_is_seen_where_nothing_is_prefixed() {
        let prefixes = ReferencePrefixes::of(["lending", "payments"].map(|name| name.parse().unwrap()));
        let watch = |body: &str| {
            let watch = || Rewriter::scan(&Boundary::of(TYPE.as_bytes()).unwrap(), prefix(), prefixes.clone());
            let whole = pass(watch(), [body.as_bytes()]).map(|(passed, ..)| passed);
            assert_eq!(whole, pass(watch(), body.as_bytes().chunks(1)).map(|(passed, ..)| passed));
            whole
        };
        for reference in ["foo", "lending:foo", "unknown:foo", "payments", "a:payments:foo", ""] {
            let body = body(&[TYPE_PART, (NAMED, reference), FILE]);
            assert_eq!(watch(&body), Ok(body.clone().into_bytes()), "{reference}");
        }
        let none = body(&[FILE]);
        assert_eq!(watch(&none), Ok(none.clone().into_bytes()));
        for reference in ["payments:foo", "payments:", " \tpayments:foo"] {
            assert_eq!(watch(&body(&[FILE, (NAMED, reference)])), Err(BodyError::Foreign), "{reference}");
        }
        assert_eq!(watch(&(body(&[TYPE_PART]) + "epilogue")), Err(BodyError::Malformed));
    }

    #[test]
    fn a_large_file_is_not_held() {
        // Every second byte may begin a delimiter.
        let chunk = b"\r\n--Xy\r\r\n--X".repeat(5000);
        let start = "--XyZ\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n\r\n";
        let (mut rewriter, mut out) = (rewriter(Absent::Insert), Pieces::default());
        rewriter.feed(start.into(), &mut out).unwrap();
        let (mut passed, mut sent) = (0, start.len());
        for _ in 0..200 {
            sent += chunk.len();
            rewriter.feed(chunk.clone().into(), &mut out).unwrap();
            assert!(rewriter.held() <= "\r\n--XyZ--".len(), "{}", rewriter.held());
            while let Some(piece) = out.pop() {
                passed += piece.len();
            }
            assert_eq!(passed + rewriter.held(), sent);
        }
    }

    /// A generated body, and the expected result, for tests.
    #[derive(Debug, Clone)]
    struct Form {
        boundary: String,
        given: Vec<u8>,
        expected: Vec<u8>,
        reference: Option<String>,
    }

    fn form() -> impl Strategy<Value = Form> {
        let boundary = prop_oneof!["[a-zA-Z0-9'()+_,./:=?-]{1,70}", "-{0,30}[a-f0-9]{1,16}", "-{1,8}"];
        let data = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            // Data that almost contains a delimiter.
            proptest::collection::vec(prop::sample::select(vec!["\r\n", "--", "B", "-", "\r", "\n", "b"]), 0..40)
                .prop_map(|pieces| pieces.concat().into_bytes()),
        ];
        let parts = proptest::collection::vec(("[a-z]{1,8}", any::<bool>(), data), 0..6);
        let reference = proptest::option::of(any::<String>());
        (boundary, parts, reference, any::<prop::sample::Index>(), any::<[bool; 3]>()).prop_filter_map(
            "data that has the boundary in it",
            |(boundary, parts, reference, at, [lead, quoted, end])| {
                let delimiter = format!("--{boundary}");
                let mut heads: Vec<(String, Vec<u8>, Vec<u8>)> = parts
                    .into_iter()
                    .map(|(name, file, data)| {
                        let file = if file { "; filename=\"f.png\"\r\nContent-Type: image/png" } else { "" };
                        // Each `B` becomes the boundary without its last letter.
                        let almost = &boundary.as_bytes()[..boundary.len() - 1];
                        let letters = data.iter().map(|b| if *b == b'B' { almost } else { std::slice::from_ref(b) });
                        let data = letters.collect::<Vec<_>>().concat();
                        (format!("Content-Disposition: form-data; name=\"{name}\"{file}"), data.clone(), data)
                    })
                    .collect();
                if let Some(reference) = &reference {
                    let name = if quoted { "\"reference_id\"" } else { "reference_id" };
                    let part = (
                        format!("Content-Disposition: form-data; name={name}"),
                        reference.clone().into_bytes(),
                        format!("lending:{reference}").into_bytes(),
                    );
                    heads.insert(at.index(heads.len() + 1), part);
                }
                if heads.iter().any(|(_, data, _)| memmem::find(data, delimiter.as_bytes()).is_some()) {
                    return None;
                }
                let write = |prefixed: bool| {
                    let mut body = if lead { b"\r\n".to_vec() } else { Vec::new() };
                    for (head, given, expected) in &heads {
                        body.extend_from_slice(format!("{delimiter}\r\n{head}\r\n\r\n").as_bytes());
                        body.extend_from_slice(if prefixed { expected } else { given });
                        body.extend_from_slice(b"\r\n");
                    }
                    if prefixed && reference.is_none() {
                        let head = "Content-Disposition: form-data; name=\"reference_id\"";
                        body.extend_from_slice(format!("{delimiter}\r\n{head}\r\n\r\nlending:\r\n").as_bytes());
                    }
                    body.extend_from_slice(format!("{delimiter}--{}", if end { "\r\n" } else { "" }).as_bytes());
                    body
                };
                Some(Form { given: write(false), expected: write(true), boundary, reference })
            },
        )
    }

    fn cut<'a>(body: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        at.extend([0, body.len()]);
        at.sort_unstable();
        at.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
    }

    /// Returns the parts that another parser finds, up to the end or up to its first error.
    fn parts(body: &[u8], boundary: &str) -> Vec<(String, Vec<u8>)> {
        let stream = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::copy_from_slice(body))]);
        let (mut multipart, mut parts) = (multer::Multipart::new(stream, boundary), Vec::new());
        let read = async {
            while let Ok(Some(field)) = multipart.next_field().await {
                let name = field.name().unwrap_or_default().to_owned();
                let Ok(value) = field.bytes().await else { break };
                parts.push((name, value.to_vec()));
            }
        };
        let _ = futures_util::FutureExt::now_or_never(read);
        parts
    }

    proptest! {
        #[test]
        fn bytes_are_equal_but_for_the_reference_and_memory_is_flat(
            form in form(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
            bytewise in proptest::bool::weighted(0.1),
        ) {
            let boundary = Boundary::of(format!("multipart/form-data; boundary=\"{}\"", form.boundary).as_bytes()).unwrap();
            let rewriter = Rewriter::prefix(&boundary, prefix(), Absent::Insert);
            let chunks = if bytewise { form.given.chunks(1).collect() } else { cut(&form.given, &cuts) };
            let (passed, reference, most) = pass(rewriter, chunks).unwrap();
            prop_assert!(passed == form.expected, "{:?}", String::from_utf8_lossy(&passed));
            let value = form.reference.as_ref().map_or(0, String::len);
            let found = parts(&passed, &form.boundary);
            let own: Vec<_> = found.iter().filter(|(name, _)| name == REFERENCE).map(|(_, value)| &value[..]).collect();
            let prefixed = format!("lending:{}", form.reference.as_deref().unwrap_or_default());
            prop_assert_eq!(own, [prefixed.as_bytes()]);
            prop_assert_eq!(reference, form.reference);
            // A delimiter, a head and the reference are held, but never a file.
            prop_assert!(most <= form.boundary.len() + 8 + 120 + value, "{}", most);
        }

        /// Tests that the forwarded bytes contain no reference without the prefix, for any body, even if it is cut off.
        #[test]
        fn a_parser_of_another_make_finds_no_reference_without_prefix(
            pieces in proptest::collection::vec(prop::sample::select(vec![
                "\r\n--XyZ\r\n", "\r\n--XyZ\r\n", "\r\n--XyZ--\r\n", "--XyZ", "\r\n", "\n", "\r\n\r\n", "\r\n\r\n", "\"", "\\", ";",
                "Content-Disposition: form-data; name=", "Content-Disposition: form-data; name=\"a\"; filename=\"",
                "\"reference_id\"", "reference_id", "; name=\"reference_id\"", "Content-Type: text/plain", "foo", " ",
                "Content-Disposition: form-data; name=\"reference_id\"\r\n\r\nfoo\r\n--XyZ\r\n",
            ]), 0..14),
            size in 1..40_usize,
        ) {
            let body = format!("--XyZ\r\n{}", pieces.concat());
            let (mut rewriter, mut passed) = (rewriter(Absent::Insert), Vec::new());
            for chunk in body.as_bytes().chunks(size) {
                let mut out = Pieces::default();
                if rewriter.feed(Bytes::copy_from_slice(chunk), &mut out).is_err() {
                    break;
                }
                while let Some(piece) = out.pop() {
                    passed.extend_from_slice(&piece);
                }
            }
            for (name, value) in parts(&passed, "XyZ") {
                prop_assert!(name.trim() != REFERENCE || value.starts_with(b"lending:"), "{}", body);
            }
        }

        #[test]
        fn any_bytes_pass_or_are_refused_however_they_are_cut(
            pieces in proptest::collection::vec(prop_oneof![
                Just("--XyZ"), Just("\r\n"), Just("--"), Just("\r"), Just("\n"), Just("x"), Just(NAMED),
                Just("Content-Disposition: form-data; name=\"a\""), Just("--XyZ\r\n"), Just("\r\n\r\n"), Just("--XyZ--"),
            ], 0..14),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let body = pieces.concat().into_bytes();
            let whole = pass(rewriter(Absent::Insert), [&body[..]]).map(|(passed, reference, _)| (passed, reference));
            let cut = pass(rewriter(Absent::Insert), cut(&body, &cuts)).map(|(passed, reference, _)| (passed, reference));
            prop_assert_eq!(whole.is_ok(), cut.is_ok());
            if let (Ok(whole), Ok(cut)) = (whole, cut) {
                prop_assert_eq!(whole, cut);
            }
        }
    }
}
