//! Tests of a flood of wrong keys from many addresses: the built gateway limits its memory, and valid keys still pass.

#![allow(clippy::disallowed_methods, reason = "the flood and its minutes are real, and its tasks end with the test")]

use crate::support::process::Folder;
use crate::support::{Wire, ask, until};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// The number of connections of a flood.
const CONNECTIONS: u32 = 8;
/// The number of requests that a connection sends at once: 49 with wrong keys, and one with the team's key.
const TOGETHER: u32 = 50;
/// The number of wrong keys from one address in a minute that get 401. It is the default of `auth.max_failures`.
const FAILURES: u64 = 20;
/// The most memory in KiB that the gateway may take after a flood's first part. A table of 50,000 addresses has 10 MiB,
/// and the allocator keeps some more.
const MOST_GROWTH: u64 = 24 << 10;

/// A number of requests with different wrong keys, from a number of addresses in turn.
struct Flood {
    keys: u32,
    addresses: u32,
}

/// The numbers of answers to a flood: 401, 429, and successes with the valid key.
#[derive(Default)]
struct Answers {
    unauthorized: u64,
    too_many: u64,
    valid: u64,
}

/// A gateway that is killed when it is dropped. Its log is read, and not kept.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts a gateway. Returns it with the addresses of `server` and `admin`.
    async fn start(folder: &Folder) -> (Self, SocketAddr, SocketAddr) {
        let mut command = folder.prepared("run");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let said = BufReader::new(child.stderr.take().expect("its errors"));
        let listening = Arc::new(OnceLock::new());
        let heard = Arc::clone(&listening);
        std::thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                if line.contains(r#""message":"listening""#) {
                    let _ = heard.set(serde_json::from_str::<serde_json::Value>(&line).expect("a JSON line"));
                }
            }
        });
        let process = Self(child);
        until("it listens", || listening.get().is_some()).await;
        let address = |name: &str| {
            let fields = listening.get().map(|line| &line["fields"][name]);
            fields.and_then(|text| text.as_str()?.parse().ok()).expect("an address")
        };
        (process, address("server"), address("admin"))
    }

    /// Returns the process's resident memory in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Flood {
    /// Sends all keys, from each address in turn.
    async fn send(&self, server: SocketAddr) -> Answers {
        let each = self.keys / CONNECTIONS;
        let parts =
            (0..CONNECTIONS).map(|part| tokio::spawn(sent(server, part * each..(part + 1) * each, self.addresses)));
        let mut all = Answers::default();
        for part in parts.collect::<Vec<_>>() {
            let part = part.await.expect("answers");
            all.unauthorized += part.unauthorized;
            all.too_many += part.too_many;
            all.valid += part.valid;
        }
        all
    }
}

/// Sends the wrong keys with these numbers over one connection, with the valid key after each group. Counts the
/// answers.
async fn sent(server: SocketAddr, numbers: std::ops::Range<u32>, addresses: u32) -> Answers {
    let (mut wire, mut answers) = (Wire::connect(server).await, Answers::default());
    let numbers: Vec<u32> = numbers.collect();
    for some in numbers.chunks(TOGETHER as usize - 1) {
        let mut requests = String::new();
        let client = |number: u32| Ipv4Addr::from_bits(0x0a00_0000 + number % addresses);
        for number in some {
            requests += &request(client(*number), &format!("igw_lending_{number:032x}"));
        }
        // The valid key comes from an address that sent a wrong key just before.
        requests += &request(client(some[0]), Folder::KEY);
        wire.send(requests).await;
        for _ in some {
            let answer = wire.answer().await;
            match (answer.status, answer.header("x-gateway-error")) {
                (401, "unknown_key") => answers.unauthorized += 1,
                (429, "too_many_failures") => answers.too_many += 1,
                other => panic!("{other:?}: {}", answer.text()),
            }
        }
        let valid = wire.answer().await;
        assert_eq!(valid.status, 204, "{}", valid.text());
        answers.valid += 1;
    }
    answers
}

fn request(client: Ipv4Addr, key: &str) -> String {
    let basic = STANDARD.encode(format!("{key}:"));
    format!(
        "OPTIONS /v1/identity/ktp_name/validations HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\nauthorization: Basic {basic}\r\n\r\n"
    )
}

/// Sends a first part, after which the table has all addresses. Then sends the rest from the same addresses, and checks
/// that the gateway's memory hardly grows, that no valid key is refused, and that every wrong key is counted.
async fn flood(first: Flood, rest: Flood) {
    let text =
        Folder::text("http://127.0.0.1:9").replace("[server]\n", "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
    let folder = Folder::new("http://127.0.0.1:9");
    folder.write("config.toml", &text);
    let (process, server, admin) = Process::start(&folder).await;
    let started = Instant::now();
    let (keys, addresses) = (u64::from(first.keys + rest.keys), u64::from(rest.addresses));
    let before = first.send(server).await;
    let filled = process.memory();
    let answers = rest.send(server).await;
    let (grown, minutes) = (process.memory().saturating_sub(filled), started.elapsed().as_secs() / 60 + 1);
    println!(
        "{keys} wrong keys from {addresses} addresses in {:?}: {filled} KiB, then {grown} KiB more",
        started.elapsed()
    );
    assert!(grown < MOST_GROWTH, "{grown} KiB more than {filled} KiB");
    assert!(before.valid + answers.valid >= keys / u64::from(TOGETHER), "each of them was let through");
    let unauthorized = before.unauthorized + answers.unauthorized;
    let allowed = addresses * FAILURES * (1 + minutes);
    assert!(unauthorized >= keys.min(addresses * FAILURES) && unauthorized <= allowed, "{unauthorized} of {allowed}");
    assert_eq!(unauthorized + before.too_many + answers.too_many, keys);
    assert!(answers.too_many > 0);
    let metrics = ask("GET", format!("http://{admin}/metrics")).send().await.text();
    let counted = format!("iluma_gateway_auth_failures_total{{listener=\"server\"}} {keys}\n");
    assert!(metrics.contains(&counted), "every one is counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_wrong_keys_take_no_memory_and_no_valid_key_suffers() {
    flood(Flood { keys: 5_000, addresses: 250 }, Flood { keys: 15_000, addresses: 250 }).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: tests/run --long runs it"]
async fn a_million_wrong_keys_from_ten_thousand_addresses_take_no_memory() {
    flood(Flood { keys: 200_000, addresses: 10_000 }, Flood { keys: 800_000, addresses: 10_000 }).await;
}
