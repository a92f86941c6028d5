//! Tests of requests that the HTTP parser refuses, and of clients of HTTP/1.0.

use crate::support::{PATIENCE, Rig, Upstream, Wire};
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

const PHONE: &str = "/v1/fraud/phone_numbers/0811/age";

#[tokio::test]
async fn a_head_that_can_not_be_read_ends_the_connection() {
    let rig = Rig::start().await;
    let heads = [
        "GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
        format!("{}x-large: {}\r\n\r\n", rig.head("lending", "GET", PHONE), "x".repeat(64 << 10)),
    ];
    for head in heads {
        let mut wire = Wire::connect(rig.app.server_address()).await;
        wire.send(&head).await;
        // The gateway may answer bytes that are not HTTP with an empty 4xx response, or not at all. Then the connection
        // ends.
        if let Some(answer) = wire.try_answer().await {
            assert!(
                (400..500).contains(&answer.status) && answer.body.is_empty(),
                "{} {}",
                answer.status,
                answer.text()
            );
            assert!(wire.try_answer().await.is_none());
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_truncated_answer_is_no_short_success_for_http_1_0() {
    // A client of HTTP/1.0 recognises the end of a body without a length only by the end of the connection.
    let seen = Arc::new(Notify::new());
    let shared = Arc::clone(&seen);
    let upstream = Upstream::on_connection(move |stream| {
        let seen = Arc::clone(&shared);
        async move {
            let mut wire = Wire::over(stream);
            if wire.request().await.is_some() {
                wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nstart\r\n").await;
                seen.notified().await;
            }
        }
    })
    .await;
    let rig = Rig::builder().upstream(upstream.url()).start().await;
    let mut wire = Wire::connect(rig.app.server_address()).await;
    wire.send(format!("{}\r\n", rig.head("lending", "GET", PHONE).replace("HTTP/1.1", "HTTP/1.0"))).await;
    let head = wire.head().await.expect("a head");
    assert_eq!(head.status(), 200);
    if head.header("content-length").is_empty() && head.header("transfer-encoding").is_empty() {
        assert_eq!(wire.exactly(5).await.as_deref(), Some(&b"start"[..]));
        seen.notify_one();
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, wire.stream.read_to_end(&mut rest)).await.expect("an end");
        assert!(end.is_err(), "upstream broke off, and here it ended as if it were whole");
    }
    rig.stop().await;
}
