//! The shortest complete case: two teams, one account, one call.

use crate::support::{Rig, ask};

const BANK: &str = "/v1.1/identity/bank_account_data_requests";

#[tokio::test]
async fn the_second_team_is_answered_from_the_first_teams_call() {
    let rig = Rig::start().await;
    let question = |reference: &str| {
        format!(r#"{{"bank_account_number":"1234567855","bank_code":"BCA","reference_id":"{reference}"}}"#)
    };
    let first = rig.post("lending", BANK, question("a")).send().await;
    let second = rig.post("payments", BANK, question("b")).send().await;
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.header("cache-status"), "iluma-gateway; fwd=uri-miss; stored");
    assert!(second.header("cache-status").starts_with("iluma-gateway; hit; ttl="), "{:?}", second.headers);
    assert_eq!(first.json()["reference_id"], "a");
    assert_eq!(second.json()["reference_id"], "b");
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!(rig.sim().stats().requests, 1);
    let hits = rig.metric(r#"iluma_gateway_requests_total{cache="hit",route="bank",status="200",tenant="payments"}"#);
    assert!((hits.await - 1.0).abs() < f64::EPSILON);
    let lines = rig.logged(2).await;
    assert_eq!((&lines[0]["tenant"], &lines[1]["cache"]), (&"lending".into(), &"hit".into()));
    rig.stop().await;
}

#[tokio::test]
async fn nobody_gets_through_without_a_key() {
    let rig = Rig::start().await;
    let answer = ask("POST", rig.url(BANK)).json("{}").send().await;
    assert_eq!((answer.status, answer.header("x-gateway-error")), (401, "missing_key"));
    assert_eq!(answer.json()["error_code"], "INVALID_API_KEY");
    assert_eq!(rig.sim().stats().requests, 0);
    rig.stop().await;
}
