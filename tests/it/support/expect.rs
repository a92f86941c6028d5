//! Expectations on an answer or a gateway that several test files share.

use super::{Answer, PATIENCE, Rig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::time::Duration;

impl Answer {
    /// Checks an error that the gateway made: the status, the error code in Iluma's form, a reason, and a request id.
    #[track_caller]
    pub fn is_rejection(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        let json = self.json();
        let members: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        let (errors, members): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| *member == "errors");
        assert_eq!(members, ["error_code", "message"], "{json}");
        assert!(errors.is_empty() || status == 400, "{json}");
        let challenge = self.headers.get("www-authenticate").map_or("", |value| value.to_str().expect("text"));
        assert!(challenge.is_empty() || (status == 401 && challenge.starts_with("Basic ")), "{challenge}");
        assert_eq!(json["error_code"], code, "{json}");
        assert!(json["message"].as_str().is_some_and(|message| !message.is_empty()), "{json}");
        assert_eq!(self.header("content-type"), "application/json");
        assert!(!self.header("x-gateway-error").is_empty(), "{:?}", self.headers);
        assert!(self.header("x-request-id").parse::<uuid::Uuid>().is_ok(), "{:?}", self.headers);
    }
}

impl Rig {
    /// Returns the value of the `authorization` header for a team's key.
    pub fn basic(&self, team: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:", self.key(team))))
    }

    /// Returns the start of an HTTP/1.1 request of a team. The test adds more headers, an empty line and a body.
    pub fn head(&self, team: &str, method: &str, target: &str) -> String {
        format!("{method} {target} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: {}\r\n", self.basic(team))
    }

    /// Waits until the gateway serves no request any more.
    pub async fn is_idle(&self) {
        self.metric_becomes("iluma_gateway_in_flight", |value| value == 0.0).await;
    }

    /// Waits until `so` returns true for the value of a metric.
    ///
    /// # Panics
    /// Panics if that does not happen in time.
    pub async fn metric_becomes(&self, series: &str, so: impl Fn(f64) -> bool) {
        let look = async {
            while !so(self.metric(series).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, look).await;
        assert!(seen.is_ok(), "waited in vain for {series}");
    }

    /// Waits for a line of the access log for which `so` returns true, and returns it.
    ///
    /// # Panics
    /// Panics if there is none.
    pub async fn logged_line(&self, so: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let lines = self.log.lines();
                let mut lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                if let Some(line) = lines.find(&so) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        found.unwrap_or_else(|_| panic!("no such line in {:#?}", self.log.lines()))
    }
}
