//! The spans to remove from a line. They are aligned with the tokens of JSON.

use memchr::memmem;

/// The text that replaces a removed text. No rule matches its brackets, so it never becomes a part of a new find.
pub(super) const MARK: &[u8] = b"[redacted]";

/// A part of a line that is removed: the bytes from `start` to `end`, without the byte at `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    /// True if the span is outside of JSON strings. The text that replaces it needs quotes then.
    pub(super) bare: bool,
}

/// The position of a find before it is aligned with the tokens of JSON: its first byte, and the byte after its last
/// one.
pub(super) type Find = (usize, usize);

/// Makes spans from the positions that the rules found. A span never cuts an escape or a mark in two. Outside of
/// strings a span is widened to whole literals, because half a number next to a string is not JSON. A find that crosses
/// the quotes of a JSON string is ignored: no rule makes such a find, and quotes in a secret are escaped.
pub(super) fn frame(line: &[u8], mut finds: Vec<Find>) -> Vec<Span> {
    finds.sort_unstable();
    // One walk over the line serves all finds. `unit` is the beginning of the last escape or byte before `at`.
    let (mut unit, mut at) = (0, 0);
    // `text` is true while `at` is inside of a string. `quotes` is the number of quotes before `at`.
    let (mut text, mut quotes) = (false, 0);
    let mut walk = |until: usize| {
        while at < until {
            unit = at;
            match line[at] {
                b'\\' => at += escape(line, at),
                b'"' => {
                    (text, quotes) = (!text, quotes + 1);
                    at += 1;
                }
                _ => at += 1,
            }
        }
        (unit, at, text, quotes)
    };
    let mut spans: Vec<Span> = Vec::with_capacity(finds.len());
    let mut covered = 0;
    for (mut start, mut end) in finds {
        if end <= covered {
            continue;
        }
        let (unit, at, text, quotes) = walk(start);
        if at > start {
            start = start.min(unit);
        }
        let (_, at, _, crossed) = walk(end);
        if crossed != quotes {
            continue;
        }
        end = end.max(at);
        let (near, far) = (start.saturating_sub(MARK.len()), line.len().min(end + MARK.len()));
        for mark in memmem::find_iter(&line[near..far], MARK).map(|mark| near + mark) {
            if mark < end && start < mark + MARK.len() {
                start = start.min(mark);
                end = end.max(mark + MARK.len());
            }
        }
        if !text {
            let literal = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
            start -= line[..start].iter().rev().take_while(literal).count();
            end += line[end..].iter().take_while(literal).count();
        }
        covered = covered.max(end);
        spans.push(Span { start, end, bare: !text });
    }
    merge(&mut spans);
    spans
}

fn merge(spans: &mut Vec<Span>) {
    spans.sort_unstable_by_key(|span| span.start);
    spans.dedup_by(|next, kept| {
        let touches = next.start <= kept.end;
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
}

pub(super) fn cut(line: &mut Vec<u8>, spans: &[Span]) {
    let mut clean = Vec::with_capacity(line.len() + spans.len() * (MARK.len() + 2));
    let mut from = 0;
    for span in spans {
        clean.extend_from_slice(&line[from..span.start]);
        let quote: &[u8] = if span.bare { b"\"" } else { b"" };
        clean.extend_from_slice(quote);
        clean.extend_from_slice(MARK);
        clean.extend_from_slice(quote);
        from = span.end;
    }
    clean.extend_from_slice(&line[from..]);
    *line = clean;
}

/// Returns the length of the escape at `at`. A backslash that begins no escape counts as one byte, so that the text
/// after it is still scrubbed.
fn escape(line: &[u8], at: usize) -> usize {
    match line.get(at + 1) {
        Some(b'u') if line.get(at + 2..at + 6).is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit)) => 6,
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
        _ => 1,
    }
}
