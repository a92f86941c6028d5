//! Tests of the parts of pages that are generated from the code. They compare the parts; with `UPDATE_DOCS=1` they
//! write them.

use super::pages::root;
use crate::support::process::once;
use iluma_gateway::admin::{ALARMS, AlarmSpec, Operation, operations};
use iluma_gateway::app;
use iluma_gateway::config::{Role, Settings};
use iluma_gateway::iluma::routes::{Charge, Kind, ROUTES, References, RouteSpec};
use iluma_gateway::iluma::subject::Subject;
use iluma_gateway::reply::Reason;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use strum::VariantArray as _;

const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// Compares a generated part of a page with `expected`. If `UPDATE_DOCS` is set, writes `expected` to the page instead.
pub fn is_up_to_date(page: &str, part: &str, expected: &str) {
    let path = root().join(page);
    let text = fs::read_to_string(&path).expect("a page");
    let (begin, end) = (format!("<!-- generated: {part} -->\n"), "<!-- end of the generated part -->".to_owned());
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{page} has no line {begin}"));
    let (now, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no line {end}"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).expect("a page written");
        return;
    }
    let differs = now.lines().zip(expected.lines()).find(|(now, expected)| now != expected);
    assert!(
        now == expected,
        "{page} is out of date, run: UPDATE_DOCS=1 cargo nextest run -E 'test(/page_of_/)'\nthe first difference: {differs:#?}"
    );
}

/// Returns a table of Markdown.
pub fn table<const N: usize>(heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), " --- |".repeat(N));
    for row in rows {
        let cells =
            row.map(|cell| cell.replace('|', "\\|").replace("<br>", "\n").replace('<', "&lt;").replace('\n', "<br>"));
        writeln!(text, "| {} |", cells.join(" | ")).expect("text");
    }
    text
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

// --- docs/configuration.md

/// A key of `config/default.toml`.
struct Key {
    name: String,
    default: Option<String>,
    example: Option<String>,
    text: String,
}

/// A part of `config/default.toml`. It begins at a line `# --- TITLE`.
struct Part {
    title: String,
    text: String,
    keys: Vec<Key>,
}

/// Reads the parts of `config/default.toml`. The comments before a key are its text. A key inside a comment has no
/// default, and its value is an example.
fn parts() -> Vec<Part> {
    let mut parts = vec![Part { title: "The file".to_owned(), text: String::new(), keys: Vec::new() }];
    let (mut table, mut text) = (String::new(), String::new());
    for line in DEFAULTS.lines() {
        let part = parts.last_mut().expect("a part");
        if let Some(title) = line.strip_prefix("# --- ") {
            let title = title.trim_end_matches(['-', ' ']).to_owned();
            parts.push(Part { title, text: String::new(), keys: Vec::new() });
            text.clear();
            continue;
        }
        let (line, is_comment) = line.strip_prefix("# ").map_or((line, false), |rest| (rest, true));
        if line.is_empty() || line.starts_with('[') {
            // A text before an empty line or a table is about the part.
            if !text.is_empty() {
                writeln!(part.text, "{}\n", text.trim_end()).expect("text");
                text.clear();
            }
            table = if line.is_empty() { table } else { name_of_table(line) };
        } else if let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| is_key(key)) {
            let (key, value) = (if table == "prices." { "ROUTE" } else { key }, Some(value.to_owned()));
            let (default, example) = if is_comment { (None, value) } else { (value, None) };
            part.keys.push(Key { name: format!("{table}{key}"), default, example, text: std::mem::take(&mut text) });
        } else {
            text.push_str(line);
            text.push(' ');
        }
    }
    parts
}

fn is_key(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b))
}

/// Returns the text before the names of a table's keys: `accounts.NAME.` for `[accounts."*"]`.
fn name_of_table(line: &str) -> String {
    let name = line.trim_matches(['[', ']']);
    match name.split_once('.') {
        Some(("admin", token)) if token.starts_with("tokens.") => "admin.tokens.NAME.".to_owned(),
        Some((table @ ("accounts" | "tenants"), _)) => format!("{table}.NAME."),
        _ if line.starts_with("[[") => format!("{name}[]."),
        _ => format!("{name}."),
    }
}

/// Returns the keys whose changes take effect only at a restart.
fn fixed() -> BTreeSet<&'static str> {
    let text = "[state]\nroot_key = { env = \"ROOT\" }\nencryption_keys = [{ id = \"a\", key = { env = \"DATA\" } }]\n\
                [accounts.live]\napi_key = { env = \"KEY\" }\n";
    let env = |name: &str| Some(if name == "ROOT" { "1a".repeat(32) } else { "2b".repeat(32) });
    let settings = Settings::parse(text, &root(), &env).expect("settings");
    app::fixed(&settings).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn the_page_of_the_admin_api_has_every_alarm() {
    let row = |alarm: &AlarmSpec| [code(alarm.name), alarm.severity.as_str().to_owned(), alarm.action.to_owned()];
    let alarms = table(["alarm", "severity", "what to do"], ALARMS.iter().map(row));
    is_up_to_date("docs/admin-api.md", "alarms", &alarms);
}

#[test]
fn the_page_of_the_configuration_is_config_default_toml() {
    let (mut page, mut left) = (String::new(), fixed());
    let is_fixed = |name: &str, left: &mut BTreeSet<&str>| {
        let all = fixed();
        let key =
            all.iter().find(|key| name == **key || name.strip_prefix(**key).is_some_and(|rest| rest.starts_with('.')));
        key.is_some_and(|key| {
            left.remove(key);
            true
        })
    };
    // The file's first part is about the file. The page has its own introduction.
    for Part { title, text, keys } in parts().into_iter().skip(1) {
        write!(page, "\n## {title}\n\n{text}").expect("text");
        if keys.is_empty() {
            continue;
        }
        let mut rows: Vec<[String; 4]> = Vec::new();
        for Key { name, default, example, text } in keys {
            // Each route has a key for its price; one row of the table is enough.
            if rows.last().is_some_and(|[last, ..]| *last == code(&name)) {
                continue;
            }
            assert!(!text.is_empty(), "config/default.toml says nothing about {name}");
            let example = example.map_or(String::new(), |example| format!("Example: {}", code(&example)));
            let reload = if is_fixed(&name, &mut left) { "restart" } else { "" };
            let default = default.as_deref().map_or(String::new(), code);
            rows.push([code(&name), default, reload.to_owned(), format!("{text}{example}").trim_end().to_owned()]);
        }
        page.push_str(&table(["key", "default", "change", "meaning, and the reason for the default"], rows));
    }
    assert!(left.is_empty(), "keys that take a restart and stand in no row: {left:?}");
    is_up_to_date("docs/configuration.md", "config/default.toml", &format!("{page}\n"));
}

// --- docs/commands.md

#[tokio::test]
async fn the_page_of_the_commands_is_their_help() {
    let help = once(&["--help"]).await.stdout;
    let (_, commands) = help.split_once("\nCommands:\n").expect("commands");
    let (commands, _) = commands.split_once("\n\n").expect("options behind them");
    // A line with a command's name begins with two spaces, and a continuation line with more.
    let named = commands.lines().filter(|line| !line.starts_with("   "));
    let names: Vec<&str> =
        named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    let mut page = String::new();
    for name in names {
        let said = once(&[name, "--help"]).await;
        assert_eq!(said.code, Some(0), "{said:?}");
        let help: Vec<&str> = said.stdout.trim().lines().map(str::trim_end).collect();
        write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n")).expect("text");
    }
    is_up_to_date("docs/commands.md", "the help of each command", &format!("{page}\n"));
}

// --- docs/admin-api.md

#[test]
fn the_page_of_the_admin_api_has_every_operation() {
    let row = |operation: Operation| {
        let request = code(&format!("{} {}", operation.method, operation.path));
        let role = operation.role().map_or("none", Role::as_str);
        [request, role.to_owned(), operation.summary.to_owned()]
    };
    let requests = table(["request", "role", "purpose"], operations().into_iter().map(row));
    is_up_to_date("docs/admin-api.md", "the operations", &format!("\n{requests}\n"));
}

// --- docs/routes.md

/// Returns the text of the column `treatment` for a route.
const fn treatment(row: &RouteSpec) -> &'static str {
    match row.kind {
        Kind::CachedRequest(_) => "read (1 MiB), cached, collapsed",
        Kind::CachedRecord(_) => "owner only; a final answer is cached, a pending id is polled at most once a second",
        Kind::PublicList(_) => "cached for all teams of an account",
        Kind::Health(Subject::Health) => "needs no key; Iluma's answer, kept for 5 s",
        Kind::Health(_) => "needs no key",
        Kind::Submission => {
            "JSON and forms are read (1 MiB), multipart streams; the team becomes an owner; by id owner only"
        }
        Kind::Records => "owner only: by id, and lists with the team's own records",
        Kind::File => "owner only; the file streams",
        Kind::Streamed => "both bodies stream",
        Kind::CallbackSetting => "the team's own setting, never sent to Iluma",
        Kind::OwnApi => "the team's own limits, usage, savings, callbacks and portal",
        Kind::Forbidden => "403, always",
        Kind::Unknown => "what no row knows: see below",
        Kind::Options | Kind::Closed | Kind::Absent => panic!("no row of the table is this"),
    }
}

#[test]
fn the_page_of_the_routes_is_the_route_table() {
    let rows = ROUTES.iter().map(|row| {
        let paths: Vec<String> = row.paths.iter().map(|path| code(&path.replacen(' ', " /", 1))).collect();
        let reference = match row.references {
            References::Prefixed => "prefixed",
            References::Checked => "passes, unless it is another team's",
            References::Untouched => "",
        };
        let charged = match row.charge {
            Charge::Never => "",
            Charge::Answered => "yes",
            Charge::Unknown => "unknown",
        };
        let included = row.includes.iter().map(|name| code(name.as_str())).collect::<Vec<_>>().join(", ");
        let allowed = if row.always_allowed { "always allowed".to_owned() } else { included };
        [
            code(row.text),
            paths.join("<br>"),
            treatment(row).to_owned(),
            reference.to_owned(),
            charged.to_owned(),
            if row.idempotent { "yes" } else { "" }.to_owned(),
            allowed,
        ]
    });
    let heads = ["route", "methods and paths", "treatment", "reference", "charged", "idempotent", "`routes` includes"];
    is_up_to_date("docs/routes.md", "the route table", &format!("\n{}\n", table(heads, rows)));

    let records =
        ROUTES.iter().filter(|row| !row.callbacks.is_empty() && row.paths.iter().any(|path| path.starts_with("POST")));
    let types = records.flat_map(|row| {
        row.callbacks.iter().map(|(text, kind)| {
            let paths = if text.is_empty() { String::new() } else { format!(" at `…{text}`") };
            [code(kind.as_str()), format!("{}{paths}", code(row.text))]
        })
    });
    is_up_to_date("docs/callbacks.md", "types of callbacks", &format!("\n{}\n", table(["type", "results of"], types)));
}

#[test]
fn every_reason_for_an_error_is_documented_and_no_other() {
    let reasons: BTreeSet<&str> = Reason::VARIANTS.iter().map(|reason| (*reason).into()).collect();
    let page = fs::read_to_string(root().join("docs/errors.md")).expect("a page");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let documented: BTreeSet<String> =
        rows.filter_map(|row| row.strip_prefix("| `")?.split_once('`')).map(|(reason, _)| reason.to_owned()).collect();
    let documented: BTreeSet<&str> = documented.iter().map(String::as_str).collect();
    let missing: Vec<_> = reasons.difference(&documented).collect();
    assert!(missing.is_empty(), "docs/errors.md does not have {missing:?}");
    let beyond: Vec<_> = documented.difference(&reasons).collect();
    assert!(beyond.is_empty(), "no error has the reason {beyond:?}");
}
