//! Tests of the cache on disk. A stored answer survives a restart and a kill. A purged or erased answer does not come
//! back.

use crate::support::process::Folder;
use crate::support::{Answer, Rig, RigBuilder, Upstream, ask, until};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const CFT: &str = "/v1/identity/cft/individual_watchlist";
const CODES: &str = "/bank/available_bank_codes";
const UP: &str = "iluma_gateway_cache_disk_up";
/// The name of the disk cache's file in a rig's folder.
const FILE: &str = "iluma-gateway.db.cache";

/// The number of questions that are asked at the same time.
const TOGETHER: usize = 8;
/// The time after which a stored answer must be on disk.
const STORED: Duration = Duration::from_secs(1);

fn answered(body: String) -> Response<Full<Bytes>> {
    let answer = Response::builder().header("content-type", "application/json");
    answer.body(Full::new(body.into())).expect("an answer")
}

/// Starts an upstream that finds every bank account, and nobody on a watchlist. The number of the call is in the
/// answer's id.
async fn upstream() -> Upstream {
    let calls = Arc::new(AtomicUsize::new(0));
    Upstream::answering(move |heard| {
        let id = format!("id_{}", calls.fetch_add(1, Ordering::SeqCst));
        let body = match heard.target.as_str() {
            CFT => json!({ "id": id, "results": [] }),
            CODES => json!([{ "code": "BCA" }]),
            _ => {
                let sent: Value = serde_json::from_slice(&heard.body).expect("JSON");
                let result = json!({ "is_found": true, "account_holder_name": "A" });
                json!({ "status": "COMPLETED", "id": id, "reference_id": sent["reference_id"], "result": result })
            }
        };
        answered(body.to_string())
    })
    .await
}

async fn rig(upstream: &Upstream) -> RigBuilder {
    Rig::builder().upstream(upstream.url())
}

fn account(number: usize) -> String {
    json!({ "bank_account_number": format!("{number:010}"), "bank_code": "BCA", "reference_id": "r" }).to_string()
}

async fn bank(rig: &Rig, number: usize) -> Answer {
    rig.post("lending", BANK, account(number)).send().await
}

async fn cft(rig: &Rig, name: &str) -> Answer {
    rig.post("lending", CFT, json!({ "name": name, "nik": "3171234567890001" }).to_string()).send().await
}

fn is_hit(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("cache-status").starts_with("iluma-gateway; hit; ttl=")
}

#[tokio::test]
async fn answers_survive_a_restart_and_their_age_goes_on() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.start().await;
    let first = bank(&rig, 1).await;
    cft(&rig, "BUDI").await;
    rig.ask("lending", "GET", CODES).send().await;
    for file in [FILE.to_owned(), format!("{FILE}-wal"), format!("{FILE}-shm"), format!("{FILE}.lock")] {
        let mode = std::fs::metadata(rig.folder.path().join(&file)).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }

    let rig = rig.restart_at(Duration::from_secs(1800)).await;
    let again = rig.post("payments", BANK, account(1).replace("\"r\"", "\"mine\"")).send().await;
    assert!(is_hit(&again), "{:?}", again.headers);
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert_eq!(again.json()["reference_id"], "mine", "a hit has the caller's own reference");
    let age: u64 = again.header("age").parse().expect("seconds");
    assert!((1800..1900).contains(&age), "{age}");
    assert!(is_hit(&cft(&rig, "BUDI").await) && is_hit(&rig.ask("lending", "GET", CODES).send().await));
    assert_eq!(upstream.heard().len(), 3);
    let counted = rig.metric("iluma_gateway_cache_disk_total{outcome=\"hit\"}").await;
    assert_eq!((counted, rig.metric(UP).await), (3.0, 1.0));

    let rig = rig.restart_at(Duration::from_secs(3601)).await;
    assert!(!is_hit(&cft(&rig, "BUDI").await), "a watchlist answer is over after its hour, restarts included");
    assert!(is_hit(&bank(&rig, 1).await));
    rig.stop().await;
}

#[tokio::test]
async fn a_pending_request_is_not_paid_for_again_after_a_restart() {
    let upstream = Upstream::answering(|heard| {
        let status = if heard.method == "POST" { "PENDING" } else { "COMPLETED" };
        answered(json!({ "status": status, "id": "bknv_1", "result": { "is_found": true } }).to_string())
    })
    .await;
    let rig = rig(&upstream).await.start().await;
    assert_eq!(bank(&rig, 1).await.json()["status"], "PENDING");
    let rig = rig.restart_at(Duration::from_secs(2)).await;
    assert_eq!(bank(&rig, 1).await.json()["status"], "PENDING", "as it was known");
    assert_eq!(bank(&rig, 1).await.json()["status"], "COMPLETED", "its result was asked for by its id");
    let rig = rig.restart_at(Duration::from_secs(4)).await;
    assert!(is_hit(&bank(&rig, 1).await), "the result has taken its place");
    assert_eq!(upstream.heard().iter().filter(|heard| heard.method == "POST").count(), 1);
    rig.stop().await;
}

/// Asks different questions, kills the gateway at once, and asks them again. Checks that only answers of the last
/// second before the kill are lost, and are asked for again.
async fn a_kill_takes_the_last_second_at_most(questions: usize) {
    let upstream = upstream().await;
    let folder = Folder::new(&upstream.url());
    let mut program = folder.run();
    let (server, _) = program.listening().await;
    let asked = |server: SocketAddr, numbers: Range<usize>| {
        let asked = numbers.map(move |number| {
            ask("POST", format!("http://{server}{BANK}")).key(Folder::KEY).json(account(number)).send()
        });
        futures_util::future::join_all(asked)
    };
    let mut answered = Vec::with_capacity(questions);
    for first in (0..questions).step_by(TOGETHER) {
        assert!(!asked(server, first..first + TOGETHER).await.iter().any(is_hit));
        answered.extend([Instant::now(); TOGETHER]);
    }
    let killed = Instant::now();
    program.signal_at_once("KILL");
    program.ended().await;
    let before = upstream.heard().len();
    assert_eq!(before, questions);
    let program = folder.run();
    let (server, _) = program.listening().await;
    let mut lost = 0;
    for first in (0..questions).step_by(TOGETHER) {
        let age = killed.duration_since(answered[first]);
        let misses = asked(server, first..first + TOGETHER).await.iter().filter(|answer| !is_hit(answer)).count();
        assert!(misses == 0 || age < STORED, "{first} of {questions}, answered {age:?} before the kill");
        lost += misses;
    }
    assert_eq!(upstream.heard().len(), before + lost);
    println!("{questions} questions, {lost} of the last second asked again");
    assert!(lost < questions / 2, "most were asked earlier");
}

#[tokio::test]
async fn a_kill_takes_nothing_that_was_stored_a_second_ago() {
    a_kill_takes_the_last_second_at_most(2_000).await;
}

#[tokio::test]
#[ignore = "takes a minute: tests/run --long runs it"]
async fn a_kill_takes_nothing_of_10000_answers_that_was_stored_a_second_ago() {
    a_kill_takes_the_last_second_at_most(10_000).await;
}

#[tokio::test]
async fn nothing_that_was_purged_or_erased_comes_back_not_even_with_a_copy_of_the_file() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.start().await;
    bank(&rig, 1).await;
    bank(&rig, 2).await;
    cft(&rig, "BUDI").await;
    let copies = |from: &Path, to: &str, back: bool| {
        for suffix in ["", "-wal"] {
            let (file, copy) = (from.join(format!("{FILE}{suffix}")), from.join(format!("{to}{suffix}")));
            let (source, target) = if back { (copy, file) } else { (file, copy) };
            if source.exists() {
                std::fs::copy(source, target).expect("a copy");
            }
        }
    };
    let rig = rig.restart_after(async |folder| copies(folder, "copy", false)).await;

    let purged = rig.operator("POST", "/v1/cache/purge").json(r#"{"route":"cft"}"#).send().await;
    assert_eq!((purged.status, &purged.json()["removed"]["disk"]), (200, &json!(1)), "{}", purged.text());
    let person = r#"{"bank_code":"BCA","bank_account_number":"0000000001"}"#;
    let erased = rig.operator("POST", "/v1/erase").json(person).send().await;
    assert_eq!((erased.status, &erased.json()["removed"]["disk"]), (200, &json!(1)), "{}", erased.text());

    let rig = rig.restart().await;
    let is_gone = async |rig: &Rig| {
        assert_eq!(
            rig.ask("lending", "POST", BANK)
                .json(account(1))
                .header("cache-control", "only-if-cached")
                .send()
                .await
                .status,
            504
        );
        let nik = json!({ "name": "BUDI", "nik": "3171234567890001" }).to_string();
        assert_eq!(rig.post("lending", CFT, nik).header("cache-control", "only-if-cached").send().await.status, 504);
        assert!(is_hit(&bank(rig, 2).await), "of this nothing was said");
    };
    is_gone(&rig).await;
    let rig = rig.restart_after(async |folder| copies(folder, "copy", true)).await;
    is_gone(&rig).await;
    assert!(!is_hit(&bank(&rig, 1).await), "who was erased may be asked about again");
    let rig = rig.restart().await;
    assert!(is_hit(&bank(&rig, 1).await), "and that answer is kept as any other");
    rig.stop().await;
}

#[tokio::test]
async fn a_clock_that_is_set_back_lengthens_no_lifetime() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.start().await;
    rig.clock.advance(Duration::from_secs(7200));
    bank(&rig, 1).await;
    cft(&rig, "BUDI").await;
    // The clock of the next start is two hours behind.
    let rig = rig.restart().await;
    assert!(!is_hit(&cft(&rig, "BUDI").await), "its age is unknown");
    assert!(!is_hit(&bank(&rig, 1).await));
    let rig = rig.restart_at(Duration::from_secs(5)).await;
    assert!(is_hit(&bank(&rig, 1).await), "what was stored by the clock as it is now is found");
    rig.stop().await;
}

/// Damages every byte of a file after its first 4 KiB.
fn scratch(path: &Path) {
    let mut bytes = std::fs::read(path).expect("a file");
    bytes.iter_mut().skip(4096).for_each(|byte| *byte ^= 0x5a);
    std::fs::write(path, bytes).expect("a file");
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_fails_no_request() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("no database", |path| std::fs::write(path, "this is no database, and was never one").expect("a file")),
        ("cut off", |path| std::fs::write(path, &std::fs::read(path).expect("a file")[..5000]).expect("a file")),
        ("overwritten", scratch),
        ("a folder", |path| {
            std::fs::remove_file(path).expect("a file");
            std::fs::create_dir(path).expect("a folder");
        }),
    ];
    for (what, damage) in damages {
        let upstream = upstream().await;
        let rig = rig(&upstream).await.start().await;
        for number in 0..20 {
            bank(&rig, number).await;
        }
        let rig = rig.restart_after(async |folder| damage(&folder.join(FILE))).await;
        for number in 0..20 {
            assert_eq!(bank(&rig, number).await.status, 200, "{what}");
        }
        let aside = rig.folder.path().join(format!("{FILE}.damaged"));
        until(&format!("{what}: set aside"), || aside.exists()).await;
        let mut stored = false;
        while !stored {
            bank(&rig, 99).await;
            stored = rig.metric(UP).await == 1.0;
        }
        let rig = rig.restart().await;
        assert!(aside.exists() && rig.metric(UP).await == 1.0, "{what}");
        let person = r#"{"bank_code":"BCA","bank_account_number":"0000000001"}"#;
        if what != "a folder" {
            assert_eq!(rig.operator("POST", "/v1/erase").json(person).send().await.status, 200, "{what}");
            assert!(!aside.exists(), "{what}: nobody can tell whom it names");
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_file_that_can_not_be_had_is_waited_for() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.start().await;
    bank(&rig, 1).await;
    let (file, aside) = (rig.folder.path().join(FILE), rig.folder.path().join(format!("{FILE}.damaged")));
    let rig = rig
        .restart_after(async |_| {
            std::fs::remove_file(&file).expect("a file");
            std::fs::create_dir(&file).expect("a folder");
            // A folder that is not empty can't be replaced.
            std::fs::create_dir(&aside).expect("a folder");
            std::fs::write(aside.join("x"), "").expect("a file");
        })
        .await;
    assert_eq!(rig.metric(UP).await, 0.0);
    assert!(!is_hit(&bank(&rig, 1).await) && is_hit(&bank(&rig, 1).await), "memory serves");
    std::fs::remove_dir(&file).expect("a folder");
    let mut up = 0.0;
    while up == 0.0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        up = rig.metric(UP).await;
    }
    bank(&rig, 2).await;
    let rig = rig.restart().await;
    assert!(is_hit(&bank(&rig, 2).await));
    rig.stop().await;
}

#[tokio::test]
async fn a_file_that_can_not_be_written_is_counted_and_written_later() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.start().await;
    let other = rusqlite::Connection::open(rig.folder.path().join(FILE)).expect("the file");
    other.execute_batch("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").expect("the lock");
    bank(&rig, 1).await;
    let mut up = 1.0;
    while up == 1.0 {
        assert!(is_hit(&bank(&rig, 1).await));
        up = rig.metric(UP).await;
    }
    drop(other);
    while up == 0.0 {
        bank(&rig, 2).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        up = rig.metric(UP).await;
    }
    let rig = rig.restart().await;
    assert!(is_hit(&bank(&rig, 1).await) && is_hit(&bank(&rig, 2).await));
    rig.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_answers() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.section("state", "disk_reserve = \"1048576GiB\"").start().await;
    assert_eq!(rig.metric(UP).await, 1.0);
    let mut up = 1.0;
    while up == 1.0 {
        bank(&rig, 1).await;
        up = rig.metric(UP).await;
    }
    let rig = rig.restart().await;
    assert!(!is_hit(&bank(&rig, 1).await));
    rig.stop().await;
}

#[tokio::test]
async fn without_a_disk_cache_there_is_no_file_and_nothing_of_before_is_found_later() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.section("cache", "disk = \"1GiB\"").start().await;
    bank(&rig, 1).await;
    let file = rig.folder.path().join(FILE);
    let rig = rig.restart_after(async |folder| {
        std::fs::copy(folder.join(FILE), folder.join("copy")).expect("a copy");
    });
    let rig = rig.await.changed(|text| text.replace("disk = \"1GiB\"", "disk = \"0B\"")).restart().await;
    assert!(!file.exists() && rig.metric(UP).await == 1.0);
    bank(&rig, 1).await;
    assert!(is_hit(&bank(&rig, 1).await));
    let rig = rig.changed(|text| text.replace("disk = \"0B\"", "disk = \"1GiB\""));
    let rig = rig.restart_after(async |folder| {
        std::fs::copy(folder.join("copy"), folder.join(FILE)).expect("a copy");
    });
    let rig = rig.await;
    assert!(!is_hit(&bank(&rig, 1).await));
    rig.stop().await;
}

#[tokio::test]
async fn a_team_takes_no_answer_that_is_older_than_its_max_age() {
    let upstream = upstream().await;
    let rig = rig(&upstream).await.tenant("lending", "max_age = { bank = \"1m\", cft = \"30s\" }").start().await;
    let others = || rig.post("payments", BANK, account(1)).send();
    let told =
        async |directive: &str| rig.post("lending", BANK, account(1)).header("cache-control", directive).send().await;
    others().await;
    rig.clock.advance(Duration::from_secs(40));
    assert!(is_hit(&bank(&rig, 1).await), "young enough");
    assert!(!is_hit(&told("max-age=30").await), "a request may shorten it");
    rig.clock.advance(Duration::from_secs(70));
    assert!(is_hit(&others().await), "who has no max_age takes it");
    assert_eq!(told("only-if-cached").await.status, 504);
    let calls = upstream.heard().len();
    assert!(!is_hit(&told("max-age=3600").await), "a request may not lengthen it");
    assert_eq!(upstream.heard().len(), calls + 1);
    assert!(is_hit(&bank(&rig, 1).await) && is_hit(&others().await), "the newer answer serves all");

    cft(&rig, "BUDI").await;
    rig.clock.advance(Duration::from_secs(31));
    let calls = upstream.heard().len();
    let all = futures_util::future::join_all((0..10).map(|_| cft(&rig, "BUDI"))).await;
    assert!(all.iter().all(|answer| answer.status == 200));
    assert_eq!(upstream.heard().len(), calls + 1, "those who find it too old at one time share one call");

    let rig = rig.restart_at(Duration::from_secs(7200)).await;
    assert!(!is_hit(&bank(&rig, 1).await), "it holds for answers from disk as well");
    assert!(is_hit(&rig.post("payments", BANK, account(1)).send().await));
    rig.stop().await;
}

#[tokio::test]
async fn an_answer_that_is_marked_for_review_lives_for_a_day() {
    let upstream = Upstream::answering(|heard| {
        let sent: Value = serde_json::from_slice(&heard.body).expect("JSON");
        let result = match sent["bank_code"].as_str() {
            Some("BNI") => json!({ "is_found": true, "need_review": "false" }),
            Some("BRI") => json!({ "is_found": true, "need_review": true }),
            _ => json!({ "is_found": true }),
        };
        answered(json!({ "status": "COMPLETED", "id": "a", "result": result }).to_string())
    })
    .await;
    for (settings, hours, bank_code, expected) in [
        ("", 23, "BRI", true),
        ("", 25, "BRI", false),
        ("", 25, "BNI", false),
        ("", 25, "BCA", true),
        ("bank = { need_review = \"2h\" }", 3, "BRI", false),
        ("bank = { need_review = \"0s\" }", 0, "BRI", false),
        ("bank = { found = \"1h\" }", 2, "BRI", false),
    ] {
        let rig = rig(&upstream).await.section("cache", settings).start().await;
        let body = json!({ "bank_account_number": "1234567890", "bank_code": bank_code }).to_string();
        rig.post("lending", BANK, body.clone()).send().await;
        rig.clock.advance(Duration::from_secs(3600 * hours));
        let again = rig.post("lending", BANK, body).send().await;
        assert_eq!(is_hit(&again), expected, "{settings} after {hours} h: {bank_code}");
        rig.stop().await;
    }
}
