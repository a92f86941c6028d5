//! Tests of output to a pipe that nobody reads, to a closed pipe, and to a full disk.

use crate::support::process::Folder;
use crate::support::{PATIENCE, ask, until};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, PipeWriter, Read as _, Write as _, pipe};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const NOWHERE: &str = "http://127.0.0.1:9";

/// A process that is killed when it is dropped, so that it ends with the test at the latest.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fills a pipe whose reading end is open and not read. A thread keeps it full until the test ends.
async fn fill(mut pipe: PipeWriter) {
    let (written, counted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&written);
    std::thread::spawn(move || {
        while pipe.write_all(&[b'x'; 512]).is_ok() {
            count.fetch_add(512, Ordering::Relaxed);
        }
    });
    // The pipe is full once the writer makes no progress between two checks.
    until("the pipe is full", || {
        let now = written.load(Ordering::Relaxed);
        counted.swap(now, Ordering::Relaxed) == now && now > 0
    })
    .await;
}

#[tokio::test]
async fn a_gateway_whose_output_is_not_read_goes_on_serving_and_ends() {
    let folder = Folder::new(NOWHERE);
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = folder.prepared("run");
    command.stdin(Stdio::null());
    command.stdout(writer.try_clone().expect("a pipe")).stderr(writer.try_clone().expect("a pipe"));
    let mut program = Running(command.spawn().expect("a process"));
    drop(command);
    let mut reader = BufReader::new(reader);
    let addresses = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains(r#""message":"listening""#) {
            line.clear();
            reader.read_line(&mut line).expect("a line");
        }
        let line: serde_json::Value = serde_json::from_str(&line).expect("a JSON line");
        let address = |name: &str| line["fields"][name].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        (reader, ["server", "admin"].map(|name| address(name).expect("an address")))
    });
    let (unread, [server, admin]) = addresses.await.expect("the addresses");
    fill(writer).await;

    // Each request writes a line of the access log, and with Iluma down also a warning.
    for _ in 0..50 {
        let answer = ask("GET", format!("http://{server}/health")).send().await;
        assert!(answer.status >= 500, "{}", answer.status);
    }
    assert_eq!(ask("GET", format!("http://{admin}/healthz")).send().await.status, 200);
    let metrics = ask("GET", format!("http://{admin}/metrics")).send().await.text();
    assert!(metrics.contains("iluma_gateway_log_lines_dropped_total"), "what is lost is counted");

    let id = program.0.id().to_string();
    assert!(Command::new("sh").args(["-c", "kill -TERM $0", &id]).status().expect("a shell").success());
    let mut code = None;
    until("the process ends", || {
        code = program.0.try_wait().expect("a status");
        code.is_some()
    })
    .await;
    assert_eq!(code.and_then(|code| code.code()), Some(0));
    drop(unread);
}

/// Runs a command with this standard output; returns its exit code and its standard error.
async fn ended(mut command: Command, output: Stdio) -> (Option<i32>, String) {
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped());
    let mut program = Running(command.spawn().expect("a process"));
    drop(command);
    let mut errors = program.0.stderr.take().expect("its errors");
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        errors.read_to_string(&mut said).expect("text");
        (program.0.wait().expect("a status").code(), said)
    });
    tokio::time::timeout(PATIENCE, said).await.expect("it ends").expect("its end")
}

fn commands(folder: &Folder) -> Vec<(&'static str, Command)> {
    let plain = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iluma-gateway"));
        command.args(args).env_clear();
        command
    };
    vec![
        ("check", folder.prepared("check")),
        ("keygen", plain(&["keygen", "--secret"])),
        ("demo", plain(&["demo", "--exit"])),
        ("help", plain(&["--help"])),
        ("version", plain(&["--version"])),
    ]
}

#[tokio::test]
async fn a_reader_that_has_gone_ends_a_command_quietly() {
    let folder = Folder::new(NOWHERE);
    for (name, command) in commands(&folder) {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let (code, said) = ended(command, writer.into()).await;
        assert_eq!(code, Some(0), "{name}: {said}");
        // The demo's gateway writes diagnostics.
        assert!(said.is_empty() || name == "demo", "{name}: {said}");
        assert!(!said.contains("panic"), "{name}: {said}");
    }
}

#[tokio::test]
async fn a_full_disk_ends_a_command_with_a_message() {
    let folder = Folder::new(NOWHERE);
    for (name, command) in commands(&folder).into_iter().filter(|(name, _)| !["help", "version"].contains(name)) {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let (code, said) = ended(command, full.into()).await;
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.contains("the standard output can't be written: "), "{name}: {said}");
        assert!(!said.contains("panic"), "{name}: {said}");
    }
}

#[tokio::test]
async fn an_error_that_nobody_can_read_is_no_panic() {
    let folder = Folder::new("ftp://127.0.0.1");
    for command in ["check", "run"] {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        let mut prepared = folder.prepared(command);
        prepared.stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        let status = tokio::task::spawn_blocking(move || prepared.status().expect("a status")).await.expect("its end");
        assert_eq!(status.code(), Some(1), "{command}");
    }
}

#[tokio::test]
async fn a_log_that_goes_to_a_full_disk_stops_nothing() {
    let folder = Folder::new(NOWHERE);
    let mut command = folder.prepared("run");
    let full = OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let errors = File::create(folder.path("errors")).expect("a file");
    command.stdin(Stdio::null()).stdout(full).stderr(errors);
    let program = Running(command.spawn().expect("a process"));
    let mut addresses = None;
    until("it listens", || {
        let said = std::fs::read_to_string(folder.path("errors")).expect("a file");
        let line = said.lines().find(|line| line.contains("\"listening\"")).map(str::to_owned);
        addresses = line.and_then(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        addresses.is_some()
    })
    .await;
    let addresses = addresses.expect("the addresses");
    let address = |name: &str| addresses["fields"][name].as_str().expect("an address").to_owned();
    for _ in 0..3 {
        assert_eq!(ask("GET", format!("http://{}/businesses", address("server"))).send().await.status, 401);
    }
    let dropped = async {
        loop {
            let metrics = ask("GET", format!("http://{}/metrics", address("admin"))).send().await.text();
            let line = metrics.lines().find_map(|line| line.strip_prefix("iluma_gateway_log_lines_dropped_total "));
            if line.is_some_and(|count| count == "3") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dropped).await.expect("lost lines are counted");
    drop(program);
}

#[tokio::test]
async fn signals_of_other_programs_are_harmless() {
    let folder = Folder::new(NOWHERE);
    let mut program = folder.run();
    let (_, admin) = program.listening().await;
    for signal in ["USR1", "USR2"] {
        program.signal(signal).await;
    }
    program.signal_at_once("PIPE");
    // The signals arrived before the answer: signals are delivered in order of arrival.
    assert_eq!(ask("GET", format!("http://{admin}/healthz")).send().await.status, 200);
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}
