//! Tests of spans, in the form in which an OpenTelemetry collector gets them.

use crate::support::{Heard, Rig, RigBuilder, Upstream, until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use std::time::Duration;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const QUESTION: &str =
    r#"{"bank_account_number":"7355608000111","bank_code":"BCA","reference_id":"zkanari-reference"}"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traced(rig: RigBuilder, collector: &Upstream, sample: &str) -> RigBuilder {
    rig.extra(&format!("[telemetry.otlp]\nendpoint = \"{}\"\nsample = {sample}\n", collector.url()))
}

fn spans(heard: &[Heard]) -> Vec<Span> {
    heard
        .iter()
        .flat_map(|request| {
            assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/v1/traces"));
            assert_eq!(request.headers["content-type"], "application/x-protobuf");
            ExportTraceServiceRequest::decode(request.body.clone()).expect("a request for export").resource_spans
        })
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans)
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// Waits until the collector has `count` spans with this name, and returns them.
async fn named(collector: &Upstream, name: &str, count: usize) -> Vec<Span> {
    let found = || spans(&collector.heard()).into_iter().filter(|span| span.name == name).collect::<Vec<_>>();
    until(&format!("{count} spans {name}"), || found().len() >= count).await;
    found()
}

#[tokio::test]
async fn a_miss_a_hit_a_callback_and_an_erasure_are_seen_by_the_collector() {
    let (collector, endpoint) = (Upstream::agreeing().await, Upstream::agreeing().await);
    let urls =
        format!("callback_urls = {{ NAME_VALIDATOR_REQUEST = \"{}/zkanari-path?zkanari-query=1\" }}", endpoint.url());
    let rig = traced(Rig::builder().tenant("lending", &urls), &collector, "1").start().await;
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    for _ in 0..2 {
        let asked = rig.post("lending", BANK, QUESTION).header("traceparent", &traceparent).send().await;
        assert_eq!(asked.status, 200);
    }

    let pattern = "POST /v*/identity/bank_account_data_requests";
    let found = named(&collector, pattern, 3).await;
    let of_kind = |kind: i32| found.iter().filter(move |span| span.kind == kind).collect::<Vec<_>>();
    let (requests, calls) = (of_kind(2), of_kind(3));
    assert_eq!((requests.len(), calls.len()), (2, 1), "a hit makes no call");
    for span in &found {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(attribute(span, "http.request.method"), "POST");
        assert_eq!(attribute(span, "http.route"), "/v*/identity/bank_account_data_requests");
        assert_eq!(attribute(span, "http.response.status_code"), "200");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    }
    assert!(requests.iter().all(|span| hex(&span.parent_span_id) == PARENT));
    let mut outcomes: Vec<_> = requests.iter().map(|span| attribute(span, "iluma_gateway.cache")).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes[0], "hit");
    let caller = requests.iter().find(|span| span.span_id == calls[0].parent_span_id).expect("the call's request");
    assert_ne!(attribute(caller, "iluma_gateway.cache"), "hit");
    assert_eq!(attribute(caller, "iluma_gateway.tenant"), "lending");
    // The access log has the trace's id.
    rig.logged_line(|line| line["trace_id"] == TRACE).await;

    let callback = r#"{"id":"zkanari-id","status":"COMPLETED","reference_id":"lending:zkanari-reference"}"#;
    assert_eq!(rig.callback("NAME_VALIDATOR_REQUEST", callback).send().await.status, 200);
    let inbox = &named(&collector, "POST /callbacks/{account}/{type}", 1).await[0];
    assert_eq!((inbox.kind, attribute(inbox, "http.response.status_code")), (2, "200".to_owned()));
    let delivery = &named(&collector, "POST delivery", 1).await[0];
    assert_eq!((delivery.kind, attribute(delivery, "iluma_gateway.tenant")), (3, "lending".to_owned()));

    let person = r#"{"bank_account_number":"7355608000111","bank_code":"BCA"}"#;
    assert_eq!(rig.operator("POST", "/v1/erase").json(person).send().await.status, 200);
    let erasure = &named(&collector, "POST /v1/erase", 1).await[0];
    assert_eq!((erasure.kind, attribute(erasure, "http.route")), (2, "/v1/erase".to_owned()));

    rig.metric_becomes(r#"iluma_gateway_spans_total{outcome="exported"}"#, |count| count >= 6.0).await;
    assert_eq!(rig.metric(r#"iluma_gateway_spans_total{outcome="dropped"}"#).await, 0.0);
    rig.stop().await;
    for request in collector.heard() {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        for canary in ["zkanari", "7355608000111", "igw_lending", "iluma_development"] {
            assert!(!text.contains(canary), "{canary} in {text}");
        }
    }
}

#[tokio::test]
async fn the_caller_chooses_and_a_malformed_choice_is_none() {
    let collector = Upstream::agreeing().await;
    let rig = traced(Rig::builder(), &collector, "0").start().await;
    for traceparent in [
        format!("00-{TRACE}-{PARENT}-00"),
        format!("00-{TRACE}-{PARENT}-0x"),
        format!("00-{TRACE}-{PARENT}-01-more"),
        format!("00-{}-{PARENT}-01", "0".repeat(32)),
    ] {
        rig.post("lending", BANK, QUESTION).header("traceparent", &traceparent).send().await;
    }
    assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 200);
    let chosen = format!("00-{TRACE}-{PARENT}-01");
    rig.ask("lending", "GET", "/_gateway/nothing").header("traceparent", &chosen).send().await;
    let found = named(&collector, "GET", 1).await;
    assert_eq!(attribute(&found[0], "error.type"), "unknown_path");
    rig.ask("lending", "BREW", "/_gateway/nothing").header("traceparent", &chosen).send().await;
    let brewed = named(&collector, "_OTHER", 1).await;
    assert_eq!(attribute(&brewed[0], "http.request.method"), "_OTHER", "the client's own word is in no span");
    rig.stop().await;
    assert_eq!(spans(&collector.heard()).len(), 2, "only the sampled ones, and also after the end");
}

#[tokio::test]
async fn a_collector_that_is_down_costs_spans_and_nothing_else() {
    let collector = Upstream::on_connection(|stream| async move { drop(stream) }).await;
    let rig = traced(Rig::builder(), &collector, "1").start().await;
    for _ in 0..20 {
        assert_eq!(rig.post("lending", BANK, QUESTION).send().await.status, 200);
    }
    rig.metric_becomes(r#"iluma_gateway_spans_total{outcome="dropped"}"#, |count| count >= 20.0).await;
    assert_eq!(rig.metric(r#"iluma_gateway_spans_total{outcome="exported"}"#).await, 0.0);
    let end = tokio::time::timeout(Duration::from_secs(5), rig.stop()).await;
    assert!(end.is_ok(), "the end does not wait for it");
}
