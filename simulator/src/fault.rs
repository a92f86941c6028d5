//! Faults on demand: a call requests faults with its header `x-sim-fault`; a rule gives a fault to the next matching
//! calls.
//!
//! Invariants: at most [`MAX_RULES`] rules; a rule is removed once it is used up.

use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

/// The largest number of rules at a time.
const MAX_RULES: usize = 100;
/// The longest latency that can be requested.
const MAX_LATENCY: Duration = Duration::from_secs(3600);

/// The kinds of faults, as `GET /_sim/faults` lists them.
pub(super) const KINDS: [(&str, &str); 15] = [
    ("status=CODE[/SECONDS]", "answer 400 to 599 without processing; SECONDS for retry-after"),
    (
        "rate_limit=SECONDS",
        "answer RATE_LIMIT_EXCEEDED without processing, as the route does it (KTP with 400); =SECONDS may be left out",
    ),
    ("latency=TIME", "process, then wait before the answer, e.g. latency=200ms"),
    ("refuse", "reset the connection before the body is read; nothing is processed"),
    ("reset", "process and charge, then reset the connection instead of answering"),
    ("hang", "process and charge, then never answer"),
    ("stall", "process, answer the head and half of the body, then nothing more"),
    ("truncate", "process, answer the head and half of the body, then close"),
    ("garbage", "process, then send bytes that are not HTTP and close"),
    ("garbage_json", "process, then answer 200 with text that is not JSON"),
    ("gzip", "process, answer gzip-encoded, whatever the request accepts"),
    ("no_callback", "process, but never send the callback"),
    ("callback_first", "process, send the callback and wait for it, then answer"),
    ("callback_twice", "process, send the callback twice"),
    ("empty", "process, then answer with the right status and no body"),
];

/// A fault that the simulator adds to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Status {
        status: StatusCode,
        retry_after: Option<u64>,
    },
    /// Answers RATE_LIMIT_EXCEEDED. The value is `retry-after` in seconds; `None` takes the value of the options.
    RateLimit(Option<u64>),
    Latency(Duration),
    Refuse,
    Reset,
    Hang,
    Stall,
    Truncate,
    Garbage,
    GarbageJson,
    Gzip,
    NoCallback,
    CallbackFirst,
    CallbackTwice,
    Empty,
}

impl Fault {
    /// Reads a fault from its kind and the value that the kind may need.
    fn parse(kind: &str, value: Option<&str>) -> Result<Self, String> {
        let fault = match (kind, value) {
            ("status", Some(value)) => {
                let (status, seconds) = value.split_once('/').map_or((value, None), |(s, r)| (s, Some(r)));
                let status = status.parse().ok().filter(|status| (400..600).contains(status));
                let status = status.and_then(|status| StatusCode::from_u16(status).ok());
                let retry_after = seconds.map(|s| s.parse().map_err(|_| "status: seconds are expected after the /"));
                Self::Status {
                    status: status.ok_or("status: a number from 400 to 599 is expected")?,
                    retry_after: retry_after.transpose()?,
                }
            }
            ("rate_limit", None) => Self::RateLimit(None),
            ("rate_limit", Some(value)) => {
                Self::RateLimit(Some(value.parse().map_err(|_| "rate_limit: seconds are expected")?))
            }
            ("latency", Some(value)) => {
                let latency = humantime::parse_duration(value).ok().filter(|latency| *latency <= MAX_LATENCY);
                Self::Latency(latency.ok_or("latency: a time of at most 1h is expected, e.g. 200ms")?)
            }
            ("status" | "latency", None) => return Err(format!("{kind}: a value is needed")),
            ("refuse", None) => Self::Refuse,
            ("reset", None) => Self::Reset,
            ("hang", None) => Self::Hang,
            ("stall", None) => Self::Stall,
            ("truncate", None) => Self::Truncate,
            ("garbage", None) => Self::Garbage,
            ("garbage_json", None) => Self::GarbageJson,
            ("gzip", None) => Self::Gzip,
            ("no_callback", None) => Self::NoCallback,
            ("callback_first", None) => Self::CallbackFirst,
            ("callback_twice", None) => Self::CallbackTwice,
            ("empty", None) => Self::Empty,
            _ => return Err(format!("{kind}: no such fault, or it takes no value (see GET /_sim/faults)")),
        };
        Ok(fault)
    }

    /// Returns the fault in the form in which it was requested.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Status { status, retry_after: None } => format!("status={}", status.as_u16()),
            Self::Status { status, retry_after: Some(seconds) } => format!("status={}/{seconds}", status.as_u16()),
            Self::RateLimit(None) => "rate_limit".into(),
            Self::RateLimit(Some(seconds)) => format!("rate_limit={seconds}"),
            Self::Latency(latency) => format!("latency={}", humantime::format_duration(*latency)),
            Self::Refuse => "refuse".into(),
            Self::Reset => "reset".into(),
            Self::Hang => "hang".into(),
            Self::Stall => "stall".into(),
            Self::Truncate => "truncate".into(),
            Self::Garbage => "garbage".into(),
            Self::GarbageJson => "garbage_json".into(),
            Self::Gzip => "gzip".into(),
            Self::NoCallback => "no_callback".into(),
            Self::CallbackFirst => "callback_first".into(),
            Self::CallbackTwice => "callback_twice".into(),
            Self::Empty => "empty".into(),
        }
    }
}

/// Returns the faults that one call requests with `x-sim-fault: kind[=value][, kind[=value]]…`.
pub(super) fn of_headers(headers: &HeaderMap) -> Result<Vec<Fault>, String> {
    let mut faults = Vec::new();
    for value in headers.get_all("x-sim-fault") {
        let text = value.to_str().map_err(|_| "x-sim-fault: ASCII is expected")?;
        for fault in text.split(',').map(str::trim).filter(|fault| !fault.is_empty()) {
            let (kind, value) = fault.split_once('=').map_or((fault, None), |(k, v)| (k, Some(v)));
            faults.push(Fault::parse(kind.trim(), value.map(str::trim))?);
        }
    }
    Ok(faults)
}

/// A rule in the body of `POST /_sim/faults`, as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: Option<String>,
    path: Option<String>,
    kind: String,
    value: Option<Value>,
    times: Option<u64>,
}

#[derive(Debug)]
struct Rule {
    id: u64,
    method: Option<String>,
    path: String,
    fault: Fault,
    left: u64,
}

impl Rule {
    fn shown(&self) -> Value {
        json!({ "id": self.id, "method": self.method, "path": self.path, "fault": self.fault.text(), "times": self.left })
    }
}

/// The active rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    next: u64,
    rules: Vec<Rule>,
}

impl Rules {
    /// Adds one rule, or an array of rules. If one rule is invalid, none is added.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let items = if let Value::Array(items) = value { items } else { vec![value] };
        if self.rules.len() + items.len() > MAX_RULES {
            return Err(format!("at most {MAX_RULES} faults"));
        }
        let mut rules = Vec::new();
        for item in items {
            let request: Request = serde_json::from_value(item).map_err(|error| error.to_string())?;
            let value = request.value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            let (kind, value) = match request.kind.split_once('=') {
                Some((kind, value)) => (kind, Some(value)),
                None => (request.kind.as_str(), value.as_deref()),
            };
            let fault = Fault::parse(kind, value)?;
            let left = request.times.unwrap_or(1);
            let method = request.method.map(|method| method.to_ascii_uppercase());
            self.next += 1;
            rules.push(Rule { id: self.next, method, path: request.path.unwrap_or_default(), fault, left });
        }
        self.rules.extend(rules.into_iter().filter(|rule| rule.left > 0));
        Ok(())
    }

    /// Returns the faults of the rules that match a call, and counts one use of each of these rules.
    pub(super) fn take(&mut self, method: &Method, path: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for rule in &mut self.rules {
            if rule.method.as_deref().is_none_or(|m| m == method.as_str()) && path.starts_with(&rule.path) {
                rule.left -= 1;
                faults.push(rule.fault.clone());
            }
        }
        self.rules.retain(|rule| rule.left > 0);
        faults
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn shown(&self) -> Value {
        let kinds: serde_json::Map<String, Value> = KINDS.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        json!({ "faults": self.rules.iter().map(Rule::shown).collect::<Vec<_>>(), "kinds": kinds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_kind_is_understood_and_shown_as_asked() {
        for (kind, _) in KINDS {
            let text = kind.replace("CODE[/SECONDS]", "503/7").replace("TIME", "200ms").replace("SECONDS", "7");
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sim-fault"), text.parse().unwrap())]);
            let faults = of_headers(&headers).unwrap();
            assert_eq!(faults.iter().map(Fault::text).collect::<Vec<_>>(), [text]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (kind, value) in
            [("status", Some("200")), ("status", None), ("latency", Some("x")), ("reset", Some("1")), ("", None)]
        {
            assert!(Fault::parse(kind, value).is_err(), "{kind}");
        }
        let mut rules = Rules::default();
        for body in ["", "[1]", "{}", r#"{"kind":"reset","x":1}"#, r#"[{"kind":"reset"},{"kind":"no"}]"#] {
            assert!(rules.add(body.as_bytes()).is_err(), "{body}");
        }
        assert!(rules.take(&Method::GET, "/").is_empty());
    }

    #[test]
    fn a_rule_is_used_up() {
        let mut rules = Rules::default();
        rules.add(br#"{"method":"post","path":"/v1","kind":"status","value":503,"times":2}"#).unwrap();
        assert!(rules.take(&Method::GET, "/v1/x").is_empty());
        assert!(rules.take(&Method::POST, "/v2/x").is_empty());
        assert_eq!(rules.take(&Method::POST, "/v1/x").len(), 1);
        assert_eq!(rules.take(&Method::POST, "/v1/x").len(), 1);
        assert!(rules.take(&Method::POST, "/v1/x").is_empty());
    }

    #[test]
    fn rules_have_a_bound() {
        let mut rules = Rules::default();
        let many = vec![json!({"kind": "reset"}); MAX_RULES + 1];
        assert!(rules.add(&serde_json::to_vec(&many).unwrap()).is_err());
        assert!(rules.add(&serde_json::to_vec(&many[1..]).unwrap()).is_ok());
        assert!(rules.add(br#"{"kind":"reset"}"#).is_err());
    }
}
