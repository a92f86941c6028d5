//! Tests that the OpenAPI documents agree with the paths that are served. `tests/openapi/run` checks them with public
//! tools.

use crate::support::{Rig, ask};
use iluma_gateway::admin::operations;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Returns the methods of each path of a document, in upper case.
fn methods(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().expect("paths");
    let of = |path: &Value| path.as_object().expect("methods").keys().map(|name| name.to_ascii_uppercase()).collect();
    paths.iter().map(|(path, operations)| (path.clone(), of(operations))).collect()
}

#[tokio::test]
async fn the_admin_document_has_every_operation_and_each_is_served_with_those_methods() {
    let rig = Rig::start().await;
    let answer = rig.operator("GET", "/v1/openapi.json").send().await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let document = answer.json();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut declared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for operation in operations() {
        declared.entry(operation.path.to_owned()).or_default().insert(operation.method.to_owned());
    }
    assert_eq!(methods(&document), declared);
    for (path, methods) in declared {
        let path = path.replace(['{', '}'], "");
        let refused = rig.operator("PUT", &path).send().await;
        refused.is_rejection(405, "METHOD_NOT_ALLOWED");
        let allowed: BTreeSet<String> =
            refused.header("allow").split(',').filter(|name| *name != "HEAD").map(str::to_owned).collect();
        assert_eq!(allowed, methods, "{path}");
    }
    rig.stop().await;
}

#[test]
fn nothing_is_served_on_admin_except_operations_and_pages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin");
    let mut routing = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        // A Router's paths; `route_layer` is another method.
        let found = |text: String| text.matches(".route(").count();
        if path.is_file() && fs::read_to_string(&path).map(found).expect("a file") > 0 {
            routing.push(path.file_name().expect("a name").to_str().expect("text").to_owned());
        }
    }
    assert_eq!(routing, ["router.rs"], "declare a path in operations.rs, so that it has a description");
}

#[tokio::test]
async fn the_admin_document_needs_a_token_and_names_the_role_of_each_order() {
    let rig = Rig::start().await;
    ask("GET", rig.admin_url("/v1/openapi.json")).send().await.is_rejection(401, "INVALID_API_KEY");
    let document = rig.operator("GET", "/v1/openapi.json").send().await.json();
    let erase = &document["paths"]["/v1/erase"]["post"];
    assert_eq!((&erase["x-role"], &erase["x-order"]), (&"admin".into(), &"erase".into()));
    assert_eq!(document["paths"]["/healthz"]["get"]["security"], serde_json::json!([]));
    let refused = &erase["responses"]["503"];
    let reasons = refused["headers"]["x-gateway-error"]["schema"]["enum"].as_array().expect("reasons");
    for reason in ["incomplete", "state_unavailable", "too_slow"] {
        assert!(reasons.iter().any(|known| known == reason), "{reason}: {reasons:?}");
    }
    assert!(
        refused["content"]["application/json"]["schema"]["$ref"].as_str().is_some_and(|to| to.ends_with("Incomplete"))
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_team_gets_the_document_of_the_routes_that_it_may_use() {
    let rig = Rig::builder().tenant("screening", "routes = [\"cft\"]").start().await;
    ask("GET", rig.url("/_gateway/openapi.json")).send().await.is_rejection(401, "INVALID_API_KEY");
    let all = rig.ask("lending", "GET", "/_gateway/openapi.json").send().await;
    assert_eq!((all.status, all.header("content-type")), (200, "application/json"));
    let document = all.json();
    assert!(methods(&document)["/v1.1/identity/bank_account_data_requests"].contains("POST"));
    assert!(methods(&document)["/_gateway/keys/rotate"].contains("POST"));
    assert!(document["webhooks"].get("NAME_VALIDATOR_REQUEST").is_some());
    let reasons = &document["components"]["headers"]["GatewayError"]["schema"]["x-extensible-enum"];
    assert!(reasons.as_array().is_some_and(|reasons| reasons.iter().any(|reason| reason == "rate_limited")));
    let few = rig.ask("screening", "GET", "/_gateway/openapi.json").send().await.json();
    let few = methods(&few);
    assert!(few.contains_key("/v1/identity/cft/individual_watchlist"));
    assert!(few.contains_key("/bank/available_bank_codes"));
    assert!(!few.keys().any(|path| path.contains("/identity/bank_")), "{few:?}");
    rig.stop().await;
}
