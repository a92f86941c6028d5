//! Examples of requests in curl, Node and Python, made from the route table.

use crate::iluma::route_name::RouteName;
use crate::iluma::routes::{Kind, ROUTES, SampleBody};
use http::Method;
use std::fmt::Write as _;

/// The paths of the portal itself. They are for browsers, so they have no example.
const PAGES: [&str; 4] = ["_gateway", "_gateway/login", "_gateway/logout", "_gateway/assets/:name"];

/// The example of one request, in three languages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Example {
    /// Method and path.
    pub(super) title: String,
    /// The name of the path's row in the route table.
    pub(super) route: &'static str,
    pub(super) curl: String,
    pub(super) node: String,
    pub(super) python: String,
}

/// The request of an example.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    method: &'a Method,
    url: &'a str,
    body: SampleBody,
}

/// Returns an example for each path of the rows that a team may use; `base` is the URL of the gateway.
pub(super) fn examples(may_use: impl Fn(RouteName) -> bool, base: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    let is_served = |kind: Kind| !matches!(kind, Kind::Forbidden | Kind::Unknown);
    for row in ROUTES.iter().filter(|row| is_served(row.kind) && may_use(row.name)) {
        for (method, pattern) in row.patterns().filter(|(_, pattern)| !PAGES.contains(pattern)) {
            let sample = row.sample(pattern);
            let path = path(pattern, sample.map_or("v1", |sample| sample.version));
            let has_body = method != Method::GET;
            let body = sample.map_or(SampleBody::None, |sample| sample.body);
            let body = if has_body { body } else { SampleBody::None };
            let url = format!("{base}{path}");
            let call = Call { method: &method, url: &url, body };
            examples.push(Example {
                title: format!("{method} {path}"),
                route: row.text,
                curl: curl(call),
                node: node(call),
                python: python(call),
            });
        }
    }
    examples
}

/// Returns the path of a pattern, with `version` in place of `v*`, and a word in capitals in place of each `:word`.
fn path(pattern: &str, version: &str) -> String {
    let mut path = String::new();
    for segment in pattern.split('/') {
        path.push('/');
        match segment.strip_prefix(':') {
            Some(name) => path.push_str(&name.to_ascii_uppercase()),
            None => path.push_str(if segment == "v*" { version } else { segment }),
        }
    }
    path
}

fn curl(Call { method, url, body }: Call<'_>) -> String {
    let mut text = format!("curl -u \"$ILUMA_GATEWAY_KEY:\" -X {method} '{url}'");
    match body {
        SampleBody::Json(json) => {
            let _ = write!(text, " \\\n  -H 'content-type: application/json' \\\n  -d '{json}'");
        }
        SampleBody::Form(fields) => {
            for (name, value) in fields {
                let _ = write!(text, " \\\n  -F '{name}={value}'");
            }
        }
        SampleBody::None => {}
    }
    text
}

fn node(Call { method, url, body }: Call<'_>) -> String {
    let mut text = String::new();
    if let SampleBody::Form(fields) = body {
        text.push_str("import { openAsBlob } from 'node:fs';\n\nconst form = new FormData();\n");
        for (name, value) in fields {
            let _ = match value.strip_prefix('@') {
                Some(file) => writeln!(text, "form.set('{name}', await openAsBlob('{file}'), '{file}');"),
                None => writeln!(text, "form.set('{name}', '{value}');"),
            };
        }
    }
    let _ = writeln!(text, "const answer = await fetch('{url}', {{\n  method: '{method}',");
    let key = "authorization: `Bearer ${process.env.ILUMA_GATEWAY_KEY}`";
    let _ = match body {
        SampleBody::Json(json) => writeln!(
            text,
            "  headers: {{ {key}, 'content-type': 'application/json' }},\n  body: JSON.stringify({json}),"
        ),
        SampleBody::Form(_) => writeln!(text, "  headers: {{ {key} }},\n  body: form,"),
        SampleBody::None => writeln!(text, "  headers: {{ {key} }},"),
    };
    text.push_str("});\nconsole.log(answer.status, await answer.text());");
    text
}

fn python(Call { method, url, body }: Call<'_>) -> String {
    let mut text = format!(
        "import os, requests\n\nanswer = requests.request(\n    \"{method}\", \"{url}\",\n    auth=(os.environ[\"ILUMA_GATEWAY_KEY\"], \"\"),\n"
    );
    match body {
        SampleBody::Json(json) => {
            let _ = writeln!(text, "    json={json},");
        }
        SampleBody::Form(fields) => {
            let of = |is_file: bool| fields.iter().filter(move |(_, value)| value.starts_with('@') == is_file);
            let files = of(true).map(|(name, value)| format!("\"{name}\": open(\"{}\", \"rb\")", &value[1..]));
            let data = of(false).map(|(name, value)| format!("\"{name}\": \"{value}\""));
            let (files, data) = (files.collect::<Vec<_>>().join(", "), data.collect::<Vec<_>>().join(", "));
            let _ = writeln!(text, "    files={{{files}}},\n    data={{{data}}},");
        }
        SampleBody::None => {}
    }
    text.push_str(")\nprint(answer.status_code, answer.text)");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_a_team_may_use_has_an_example_and_no_other() {
        let all = examples(|_| true, "https://gateway.test");
        let served = ROUTES.iter().flat_map(|row| row.patterns()).count();
        assert_eq!(all.len(), served - PAGES.len());
        for page in PAGES {
            assert!(ROUTES.iter().flat_map(|row| row.patterns()).any(|(_, path)| path == page), "{page} has no row");
        }
        let titles: Vec<_> = all.iter().map(|example| example.title.as_str()).collect();
        for title in [
            "POST /v1.1/identity/bank_account_data_requests",
            "GET /v1/fraud/phone_numbers/NUMBER/age",
            "POST /v2/identity/face_comparisons",
            "GET /v1/identity/document_ocr_captures/ID/recapture",
            "POST /_gateway/callbacks/test",
        ] {
            assert!(titles.contains(&title), "{title} of {titles:#?}");
        }
        let own = examples(|route| route == RouteName::Bank, "https://gateway.test");
        assert!(own.iter().all(|example| example.route == "bank") && own.len() == 2);
    }

    #[test]
    fn an_example_is_a_whole_request_in_each_language() {
        let all = examples(|route| matches!(route, RouteName::Bank | RouteName::Face), "https://gateway.test");
        let of = |title: &str| all.iter().find(|example| example.title.starts_with(title)).expect("an example");
        let bank = of("POST /v1.1/identity/bank");
        assert_eq!(
            bank.curl,
            "curl -u \"$ILUMA_GATEWAY_KEY:\" -X POST 'https://gateway.test/v1.1/identity/bank_account_data_requests' \\\n  \
             -H 'content-type: application/json' \\\n  \
             -d '{\"bank_code\": \"BCA\", \"bank_account_number\": \"1234567890\", \"reference_id\": \"example-1\"}'"
        );
        assert!(bank.node.contains("body: JSON.stringify({\"bank_code\""), "{}", bank.node);
        assert!(bank.python.contains("    json={\"bank_code\""), "{}", bank.python);
        let face = of("POST /v2/identity/face");
        assert!(face.curl.ends_with("-F 'image_one=@selfie.png' \\\n  -F 'image_two=@card.png'"), "{}", face.curl);
        assert!(face.node.contains("form.set('image_one', await openAsBlob('selfie.png'), 'selfie.png');"));
        assert!(face.python.contains("files={\"image_one\": open(\"selfie.png\", \"rb\")"), "{}", face.python);
    }
}
