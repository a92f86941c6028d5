//! Runs every console block of every page in one shell, and compares the output with the lines that the page shows.
//!
//! The commands of `README.md` run first: they start a simulator and a gateway, which serve the commands of all pages.
//! The blocks that begin with `$ kill` run last. The output must have each shown line, in the order of the page; it may
//! have more lines. In a shown line `…` matches any text. Blocks of the language `text` are excerpts, and do not run.

use super::pages::{Fence, Page, pages};
use crate::support::{PATIENCE, folder};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

const LANGUAGES: [&str; 6] = ["console", "text", "toml", "json", "python", "rust"];

/// A page with blocks that `tests/deploy/run manual` runs on a system of its own, and the languages of these blocks.
const RUN_BY_DEPLOY: (&str, [&str; 2]) = ("docs/operate.md", ["sh", "promql"]);

/// Addresses on the pages. The test puts free ports of its own in their place.
const ADDRESSES: [&str; 5] = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:9090", "127.0.0.1:8090", "127.0.0.1:9000"];

/// The beginning of the line that the shell prints after each command. The command's number and exit code follow.
const MARK: &str = "=====8<=====";

/// A command with the lines that the page shows of its output.
struct Step {
    at: String,
    command: String,
    shown: Vec<String>,
}

#[test]
fn every_block_says_what_it_is() {
    let mut faults = Vec::new();
    for page in pages() {
        for Fence { line, language, lines } in page.fences() {
            let (run_by_deploy, more) = RUN_BY_DEPLOY;
            let is_known = LANGUAGES.contains(&language.as_str())
                || page.name == run_by_deploy && more.contains(&language.as_str());
            if !is_known {
                faults.push(format!("{}:{line}: the language {language:?} is not among {LANGUAGES:?}", page.name));
            }
            if language == "console" && !lines.first().is_some_and(|line| line.starts_with("$ ")) {
                faults.push(format!("{}:{line}: a console block begins with a command: $ …", page.name));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_commands_of_the_pages_do_what_the_pages_show() {
    let steps = steps();
    assert!(steps.len() > 20, "the pages have only {} commands", steps.len());
    let ports: Vec<String> = free_addresses();
    let folder = folder();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_iluma-gateway"), folder.path().join("iluma-gateway"))
        .expect("a link");
    let mut script = format!("PATH={}:$PATH\ncd {0} && mkdir try && cd try\n", folder.path().display());
    for (number, Step { command, .. }) in steps.iter().enumerate() {
        writeln!(script, "{command}\nprintf '\\n{MARK} {number} %d\\n' $?").expect("text");
    }
    for (shown, used) in ADDRESSES.iter().zip(&ports) {
        script = script.replace(shown, used);
    }
    std::fs::write(folder.path().join("script"), script).expect("a script");
    let mut said = run(&folder.path().join("script"));
    for (shown, used) in ADDRESSES.iter().zip(&ports) {
        said = said.replace(used, shown);
    }
    let mut faults = Vec::new();
    let mut rest = said.as_str();
    for (number, step) in steps.iter().enumerate() {
        let mark = format!("\n{MARK} {number} ");
        let Some((output, after)) = rest.split_once(&mark) else {
            faults.push(format!("{}: the shell did not come to the end of: {}\n{rest}", step.at, step.command));
            break;
        };
        rest = after.split_once('\n').map_or("", |(_, rest)| rest);
        if let Some(missing) = missing(&step.shown, output) {
            let Step { at, command, .. } = step;
            faults.push(format!("{at}: $ {command}\nshows a line that is not there (behind the ones before it):\n  {missing}\nin:\n{output}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// Returns the commands of all pages in the order in which they run.
fn steps() -> Vec<Step> {
    let mut pages = pages();
    // The commands of `README.md` come first: they start the servers.
    pages.sort_by_key(|page| (page.name != "README.md", page.name.clone()));
    let (mut steps, mut last) = (Vec::new(), Vec::new());
    for page in &pages {
        for fence in page.fences().into_iter().filter(|fence| fence.language == "console") {
            let ends = fence.lines.first().is_some_and(|line| line.starts_with("$ kill "));
            if ends { &mut last } else { &mut steps }.extend(commands(page, &fence));
        }
    }
    steps.append(&mut last);
    steps
}

/// Returns the commands of a block. A command continues after a `\` at the end of a line, and up to the line `EOF`
/// after a `<<EOF`.
fn commands(page: &Page, fence: &Fence) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut goes_on, mut is_document) = (false, false);
    for (number, line) in fence.lines.iter().enumerate() {
        if goes_on || is_document {
            let step = steps.last_mut().expect("a command");
            step.command.push('\n');
            step.command.push_str(line);
            is_document &= line != "EOF";
        } else if let Some(command) = line.strip_prefix("$ ") {
            let at = format!("{}:{}", page.name, fence.line + number + 1);
            steps.push(Step { at, command: command.to_owned(), shown: Vec::new() });
            is_document = command.contains("<<EOF") || command.contains("<<'EOF'");
        } else {
            steps.last_mut().expect("a command").shown.push(line.trim().to_owned());
        }
        goes_on = line.ends_with('\\') && !is_document;
    }
    steps
}

fn free_addresses() -> Vec<String> {
    let listeners: Vec<TcpListener> =
        ADDRESSES.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").to_string()).collect()
}

/// Runs a script and returns its output. At the end of the script its background processes are ended.
fn run(script: &std::path::Path) -> String {
    let whole = format!("exec 2>&1; trap 'kill $(jobs -p) 2>/dev/null' EXIT; . {}", script.display());
    let child = Command::new("timeout")
        .args(["--kill-after=5", &(PATIENCE * 3).as_secs().to_string(), "bash", "-c", &whole])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("a shell");
    let said = child.wait_with_output().expect("an end");
    String::from_utf8_lossy(&said.stdout).replace('\r', "")
}

/// Returns the first shown line that the output does not have after the earlier shown lines; `None` if it has all.
fn missing<'a>(shown: &'a [String], output: &str) -> Option<&'a String> {
    let mut lines = output.lines().map(str::trim);
    shown.iter().find(|shown| !lines.any(|line| is_like(shown, line)))
}

/// Returns true if a line of the output matches a shown line, in which `…` matches any text.
fn is_like(shown: &str, line: &str) -> bool {
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return shown == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[test]
fn a_shown_line_is_found_with_its_gaps() {
    for (shown, line, expected) in [
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK", true),
        ("HTTP/1.1 200 OK", "HTTP/1.1 201 Created", false),
        (r#"{"id":"…","a":1}"#, r#"{"id":"x","a":1}"#, true),
        (r#"{"id":"…","a":1}"#, r#"{"id":"x","a":2}"#, false),
        ("a…b…c", "a 1 b 2 c", true),
        ("a…b…c", "a 1 c 2 b", false),
        ("…", "", true),
    ] {
        assert_eq!(is_like(shown, line), expected, "{shown} and {line}");
    }
}
