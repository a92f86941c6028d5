//! Fuzzes the reading of a bank request's body: random bytes are read as JSON and as a form.
//!
//! Properties for every input: nothing panics; equal bytes mean equal requests; a form and the JSON object of its pairs
//! mean the same; the order of pairs and members has no meaning; and the encoding contains the whole request, so that
//! two different requests never share a cache entry.
#![no_main]

mod support;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use iluma_gateway::reference::{BodyError, Question};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use std::sync::LazyLock;
use support::Pairs;

static JSON: LazyLock<HeaderMap> = LazyLock::new(|| of_type("application/json"));
static FORM: LazyLock<HeaderMap> = LazyLock::new(|| of_type("application/x-www-form-urlencoded"));

fuzz_target!(|data: &[u8]| {
    as_form(data);
    as_json(data);
});

fn of_type(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

fn parse(headers: &HeaderMap, body: impl AsRef<[u8]>) -> Result<Question, BodyError> {
    let body = Bytes::copy_from_slice(body.as_ref());
    let question = Question::parse(headers, &body);
    assert_eq!(question, Question::parse(headers, &body));
    question
}

fn as_form(data: &[u8]) {
    // The gateway refuses a declared form that begins like JSON: inputs with a brace are skipped.
    if data.contains(&b'{') {
        return;
    }
    let question = parse(&FORM, data);

    let mut pieces: Vec<&[u8]> = data.split(|b| *b == b'&').collect();
    pieces.reverse();
    assert_eq!(question.as_ref().ok(), parse(&FORM, pieces.join(&b'&')).as_ref().ok(), "backwards");
    let by = data.len() % pieces.len();
    pieces.rotate_left(by);
    assert_eq!(question.as_ref().ok(), parse(&FORM, pieces.join(&b'&')).as_ref().ok(), "rotated");

    // The gateway reads strictly: an accepted body has no other reading.
    if let Ok(question) = question {
        let text = |text: &str| serde_json::to_string(text).expect("JSON of a string");
        let member = |(name, value): (_, _)| {
            format!("{}:{}", text(&std::borrow::Cow::<str>::from(name)), text(&std::borrow::Cow::<str>::from(value)))
        };
        let members: Vec<String> = form_urlencoded::parse(data).map(member).collect();
        assert_eq!(Ok(question), parse(&JSON, format!("{{{}}}", members.join(","))), "a form and its JSON");
    }
}

fn as_json(data: &[u8]) {
    let question = parse(&JSON, data);
    let Some(mut pairs) = Pairs::read(data) else {
        // `Pairs` accepts neither a byte order mark nor half a surrogate pair.
        let more = data.starts_with("\u{feff}".as_bytes()) || support::contains(data, br"\u");
        assert!(more || question == Err(BodyError::Malformed));
        return;
    };
    if support::contains(&data.to_ascii_lowercase(), br"\ud") {
        return;
    }

    // The body as a form, in which all values are strings.
    let strings: Option<Vec<(String, String)>> =
        pairs.iter().map(|(name, value)| Some((name.clone(), serde_json::from_str(value.get()).ok()?))).collect();
    if let Some(strings) = strings
        // A name that some servers read as the reference is refused in a form, and has no meaning in JSON.
        && !strings.iter().any(|(name, _)| is_like_reference(name))
    {
        let form = Serializer::new(String::new()).extend_pairs(&strings).finish();
        // The form does not begin like JSON: a brace is encoded.
        assert_eq!(question, parse(&FORM, form), "JSON and its form");
    }

    if let Ok(question) = &question
        && question.ambiguity.is_none()
    {
        let asked: Vec<_> = pairs.iter().filter(|(name, _)| name != "reference_id").cloned().collect();
        assert_eq!(members_in(&question.parameters), members_of(asked), "the encoding tells something else");
    }

    pairs.reverse();
    let member = |(name, value): &(String, Box<RawValue>)| format!(" {}\n:\t{}", serde_json::json!(name), value.get());
    let backwards = parse(&JSON, format!("{{{}}}", pairs.iter().map(member).collect::<Vec<_>>().join(" ,")));
    match (question, backwards) {
        (Ok(one), Ok(other)) => {
            // The order only decides which of two ambiguities is reported.
            assert_eq!(one.ambiguity.is_some(), other.ambiguity.is_some());
            assert_eq!((one.parameters, one.reference), (other.parameters, other.reference), "backwards");
        }
        (one, other) => assert_eq!(one.is_ok(), other.is_ok(), "backwards"),
    }
}

fn is_like_reference(name: &str) -> bool {
    let letters: String = name.chars().flat_map(char::to_lowercase).filter(|c| c.is_alphanumeric()).collect();
    name != "reference_id" && letters.contains("reference")
}

/// A value, reduced to the parts that decide the request's meaning.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Node {
    Text(String),
    Number(String),
    Literal(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

/// Returns the members of a JSON object, sorted.
fn members_of(pairs: Vec<(String, Box<RawValue>)>) -> Vec<(String, Node)> {
    let mut members: Vec<_> = pairs.into_iter().map(|(name, value)| (name, node_of(value.get()))).collect();
    members.sort();
    members
}

fn node_of(text: &str) -> Node {
    match text.as_bytes()[0] {
        b'"' => Node::Text(serde_json::from_str(text).expect("a string")),
        b'{' => Node::Object(members_of(Pairs::read(text.as_bytes()).expect("an object"))),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).expect("an array");
            Node::Array(items.into_iter().map(|item| node_of(item.get())).collect())
        }
        b't' | b'f' | b'n' => Node::Literal(text.to_owned()),
        _ => Node::Number(text.to_owned()),
    }
}

/// Decodes the members of an object from the canonical encoding, in which the gateway keeps a request's parameters.
fn members_in(mut encoded: &[u8]) -> Vec<(String, Node)> {
    let mut members = Vec::new();
    while !encoded.is_empty() {
        let name = text(sized(&mut encoded));
        members.push((name, node_in(&mut encoded)));
    }
    members
}

fn node_in(encoded: &mut &[u8]) -> Node {
    let tag = take(encoded, 1)[0];
    let mut inner = sized(encoded);
    match tag {
        b's' => Node::Text(text(inner)),
        b'n' => Node::Number(text(inner)),
        b'l' => Node::Literal(text(inner)),
        b'o' => Node::Object(members_in(inner)),
        b'a' => {
            let mut items = Vec::new();
            while !inner.is_empty() {
                items.push(node_in(&mut inner));
            }
            Node::Array(items)
        }
        tag => panic!("no such tag: {tag}"),
    }
}

fn sized<'a>(encoded: &mut &'a [u8]) -> &'a [u8] {
    let length = take(encoded, 4).try_into().map(u32::from_be_bytes).expect("four bytes");
    take(encoded, length as usize)
}

fn take<'a>(encoded: &mut &'a [u8], count: usize) -> &'a [u8] {
    encoded.split_off(..count).expect("so many bytes")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
