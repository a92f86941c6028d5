//! Tests that the work on hostile requests and answers is linear, even if they repeat a text many times.

use super::foreign_prefix::ForeignPrefixScanner;
use super::multipart::Rewriter;
use super::pieces::Pieces;
use super::{Answer, Boundary, PrefixStripper, ReferencePrefix, ReferencePrefixes, RequestContent, scan_query};
use crate::base::json_template::{Absent, JsonTemplate};
use crate::base::linear::{assert_linear, repeated};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http::uri::PathAndQuery;

fn prefix() -> ReferencePrefix {
    ReferencePrefix::of(&"alpha".parse().unwrap())
}

fn prefixes() -> ReferencePrefixes {
    ReferencePrefixes::of(["alpha", "beta"].map(|name| name.parse().unwrap()))
}

fn headers(kind: &str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, kind.parse().unwrap())])
}

/// Bodies that repeat a text for which a parser searches: start, repeated piece, end.
const JSON: &[(&str, &str, &str)] = &[
    (r#"{"reference_id":""#, "alpha:", r#""}"#),
    (r#"{"reference_id":""#, r"\u0061", r#""}"#),
    (r#"{"reference_id":""#, r"\\", r#""}"#),
    (r#"{"a":""#, r"\ud800", r#""}"#),
    (r#"{"x":1"#, r#","a":1"#, "}"),
    (r#"{"x":1"#, r#","reference_id":"alpha:""#, "}"),
    (r#"{"x":1"#, r#","reference id":1"#, "}"),
    (r#"{"x":"#, "[", ""),
    (r#"{"x":["#, r#"{"a":["#, ""),
    ("{\"", "reference_", "\":1}"),
    ("{\"", "\u{feff}", "\":1}"),
    ("{", "\"", ""),
    ("{}", "\n{}", ""),
    ("{", " ", "}"),
];

const FORMS: &[(&str, &str, &str)] = &[
    ("reference_id=", "alpha:", ""),
    ("reference_id=", "%61", ""),
    ("", "reference_id=beta&", ""),
    ("", "&", ""),
    ("", ";", ""),
    ("", "a=1;", ""),
    ("", "a;reference", ""),
    ("a=", "%", ""),
    ("", "[", ""),
    ("", "reference_", "=1"),
    ("a=", "+", ""),
];

#[test]
fn bodies_are_parsed_and_prefixed_in_linear_time() {
    for (kind, shapes) in [("application/json", JSON), ("application/x-www-form-urlencoded", FORMS)] {
        let headers = headers(kind);
        for (before, piece, behind) in shapes {
            assert_linear(
                &format!("{kind} {before}{piece}"),
                |size| Bytes::from(repeated(before, piece, behind, size)),
                |body| {
                    if let Ok(content) = RequestContent::parse(&headers, body) {
                        let _ = content.prefixed(&prefix(), Absent::Insert);
                    }
                },
            );
        }
    }
}

#[test]
fn queries_are_prefixed_and_looked_through_in_linear_time() {
    // A target has at most 64 KiB, so the two sizes consist of many targets.
    for (before, piece, behind) in FORMS {
        assert_linear(
            &format!("query {before}{piece}"),
            |size| {
                let query = repeated(before, piece, behind, size.min(60_000));
                (PathAndQuery::try_from(format!("/v1/x?{query}")), size / 60_000)
            },
            |(target, count)| {
                let Ok(target) = target else { return };
                for _ in 0..*count {
                    let _ = prefix().target(target, Absent::Leave);
                    let _ = scan_query(target, &prefix(), &prefixes());
                }
            },
        );
    }
}

#[test]
fn bodies_are_looked_through_in_linear_time() {
    type Scanner = fn(&ReferencePrefix, &ReferencePrefixes) -> ForeignPrefixScanner;
    for (scanner, shapes) in [(ForeignPrefixScanner::json as Scanner, JSON), (ForeignPrefixScanner::form, FORMS)] {
        for (before, piece, behind) in shapes {
            for chunk in [97, 1 << 14] {
                assert_linear(
                    &format!("scan {before}{piece}"),
                    |size| repeated(before, piece, behind, size),
                    |body| {
                        let mut scanner = scanner(&prefix(), &prefixes());
                        let _ = body.as_bytes().chunks(chunk).try_for_each(|piece| scanner.feed(piece));
                    },
                );
            }
        }
    }
}

#[test]
fn multipart_bodies_are_rewritten_in_linear_time() {
    let boundary = Boundary::of(b"multipart/form-data; boundary=bb").unwrap();
    let head = "--bb\r\nContent-Disposition: form-data; name=\"reference_id\"\r\n\r\n";
    let file = "--bb\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n";
    let mut shapes = vec![
        (head.to_owned(), "alpha:", "\r\n--bb--\r\n"),
        (file.to_owned(), "\r\n--b", "\r\n--bb--\r\n"),
        (file.to_owned(), "--bb", "\r\n--bb--\r\n"),
        (file.to_owned(), "\r", "\r\n--bb--\r\n"),
        (file.to_owned(), "\r\n-", "\r\n--bb--\r\n"),
        (file.to_owned(), "x", "\r\n--bb--\r\n"),
        ("--bb\r\nContent-Disposition: form-data; name=\"a\"".to_owned(), ";a=b", "\r\n\r\n\r\n--bb--\r\n"),
        ("--bb\r\n".to_owned(), "a:b\r\n", "\r\n\r\n--bb--\r\n"),
        (file.to_owned() + "\r\n--bb--", "\r\n", ""),
    ];
    // The body has many parts, each with the largest head.
    let part = format!("{}\r\n\r\n\r\n", repeated(file.trim_end(), ";a=b", "", 15_000));
    shapes.push((String::new(), &part, "--bb--\r\n"));
    for (before, piece, behind) in &shapes {
        for chunk in [7, 1 << 14] {
            assert_linear(
                &format!("multipart {before:?} {:?} in {chunk}", &piece[..piece.len().min(20)]),
                |size| Bytes::from(repeated(before, piece, behind, size)),
                |body| {
                    let rewriters = [
                        Rewriter::prefix(&boundary, prefix(), Absent::Insert),
                        Rewriter::scan(&boundary, prefix(), prefixes()),
                    ];
                    for mut rewriter in rewriters {
                        let mut out = Pieces::default();
                        for at in (0..body.len()).step_by(chunk) {
                            let piece = body.slice(at..body.len().min(at + chunk));
                            if rewriter.feed(piece, &mut out).is_err() {
                                break;
                            }
                            out.clear();
                        }
                    }
                },
            );
        }
    }
}

#[test]
fn prefixes_are_stripped_in_linear_time() {
    let shapes: &[(&str, &str, &str)] = &[
        (r#"{"message":""#, "alpha:", r#""}"#),
        (r#"{"message":""#, r"alpha\u003a", r#""}"#),
        (r#"{"message":""#, "alpha%3A", r#""}"#),
        (r#"{"message":""#, "xalpha:", r#""}"#),
        (r#"{"message":""#, r"\\", r#""}"#),
        (r#"{"message":""#, "\\\\alpha:", r#""}"#),
        ("", "\\", "alpha:"),
        ("", "%", "alpha:"),
        ("", "%61%6c%70%68%61:", "alpha:"),
        ("", "alpha:+", ""),
        ("", "reference_id=alpha:", ""),
        (r#"{"data":[{}"#, r#",{"id":"1","reference_id":"alpha:"}"#, "]}"),
        (r#"{"data":[{}"#, r#",{"a":[{"reference_id":"alpha:"}]}"#, "]}"),
        ("[", "[", ""),
        (r#"{"x":1"#, r#","reference_id":"alpha:""#, "}"),
        (r#"{"x":1"#, r#","id":"alpha:""#, "}"),
    ];
    // One reference is as long as allowed and repeats the answers' text; another is as long as the answer.
    for (reference, longest) in [("alpha:", usize::MAX), ("alpha:", 4096), ("xalpha:", 4096), ("\\+ ", 4096)] {
        for (before, piece, behind) in &shapes[..10] {
            assert_linear(
                &format!("strip {reference}, {longest}, {before}{piece}"),
                |size| {
                    let own = repeated("", reference, "", size.min(longest));
                    (own, Bytes::from(repeated(before, piece, behind, size)))
                },
                |(own, body)| {
                    let _ = PrefixStripper::new(prefix(), Some(own)).error(body);
                },
            );
        }
    }
    for (before, piece, behind) in shapes {
        assert_linear(
            &format!("answer {before}{piece}"),
            |size| Bytes::from(repeated(before, piece, behind, size)),
            |body| {
                let _ = JsonTemplate::split(body, Absent::Insert);
                match Answer::read(body, &prefixes()) {
                    Answer::List(list) => _ = list.kept(&PrefixStripper::new(prefix(), Some("x")), |_| true),
                    Answer::Record(record) => _ = record.seen_by(&prefix()),
                    Answer::Other => {}
                }
            },
        );
    }
}
