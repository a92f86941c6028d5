//! Parts of OpenAPI 3.1 documents, as JSON.

use serde_json::{Value, json};

/// Returns the beginning of a document. It is merged from `parts`, JSON texts with `info` and components. `version`
/// becomes the version in `info`.
#[must_use]
pub fn begin(parts: &[&str], version: &str) -> Value {
    let mut document = json!({ "openapi": "3.1.0" });
    for part in parts {
        merge(&mut document, serde_json::from_str(part).unwrap_or_default());
    }
    document["info"]["version"] = version.into();
    document
}

/// Merges the JSON object `from` into `into`, member by member, at any depth. Unless both values are objects, the value
/// of `from` replaces the value of `into`.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Returns a reference to a component: `component("schemas", "Error")` refers to `#/components/schemas/Error`.
#[must_use]
pub fn component(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// Returns the description of a body. `schema` names the component with the body's schema. If `schema` is `None`, the
/// body is a string; the string is binary if `content_type` is `application/octet-stream`.
#[must_use]
pub fn content(content_type: &str, schema: Option<&str>) -> Value {
    let is_binary = content_type == "application/octet-stream";
    let text = || if is_binary { json!({ "type": "string", "format": "binary" }) } else { json!({ "type": "string" }) };
    json!({ "schema": schema.map_or_else(text, |name| component("schemas", name)) })
}

/// Returns the descriptions of a path's parameters, such as that of `id` in `/v1/callbacks/{id}`.
pub fn path_parameters(path: &str) -> impl Iterator<Item = Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
}

/// Returns the id of an operation, such as `get_v1_nodes`. Code generators use the id as the name of a function.
#[must_use]
pub fn operation_id(method: &str, path: &str) -> String {
    let word = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "_").trim_matches('_').to_owned();
    let words = path.split('/').map(word).filter(|word| !word.is_empty());
    std::iter::once(method.to_ascii_lowercase()).chain(words).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_at_any_depth() {
        let parts = [r#"{"components":{"schemas":{"A":{}}}}"#, r#"{"components":{"schemas":{"B":{}}}}"#];
        let schemas = &begin(&parts, "1")["components"]["schemas"];
        assert_eq!(schemas, &json!({ "A": {}, "B": {} }));
    }

    #[test]
    fn an_operation_is_named_by_its_method_and_path() {
        assert_eq!(operation_id("GET", "/v1/tenants/{tenant}/keys"), "get_v1_tenants_tenant_keys");
        assert_eq!(operation_id("POST", "/v1.1/x"), "post_v1_1_x");
        assert_eq!(path_parameters("/a/{b}/c/{d}").count(), 2);
    }
}
