//! Tests of the commands `backup` and `restore`. A copy is made while the gateway serves. A restore erases again every
//! person that was erased since the copy.

use crate::support::process::{Folder, Program};
use crate::support::{Redis, Upstream, ask};
use std::os::unix::fs::PermissionsExt as _;

const BANK: &str = "/v1.1/identity/bank_account_data_requests";
const PERSON: &str = r#"{"bank_code":"BCA","bank_account_number":"0000000001"}"#;

async fn cache_status(program: &Program) -> String {
    let (server, _) = program.listening().await;
    let url = format!("http://{server}{BANK}");
    ask("POST", url).key(Folder::KEY).json(PERSON).send().await.header("cache-status").to_owned()
}

async fn end(mut program: Program) {
    program.signal("TERM").await;
    assert!(program.ended().await.success());
}

#[tokio::test]
async fn a_copy_is_made_while_it_serves_and_restored_with_what_was_erased_since() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let first = cache_status(&program).await;
    assert!(first.contains("stored"), "{first}");
    let made = folder.order("backup", &["--to", "copy"], "").await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert_eq!(std::fs::metadata(folder.path("copy")).expect("a copy").permissions().mode() & 0o777, 0o600);
    let again = folder.order("backup", &["--to", "copy"], "").await;
    assert_eq!(again.code, Some(1), "nothing is written over: {}", again.stdout);

    let (_, admin) = program.listening().await;
    let admin = format!("http://{admin}");
    assert_eq!(folder.order("erase", &["--admin", &admin], PERSON).await.code, Some(0));
    assert!(cache_status(&program).await.contains("stored"));
    let running = folder.order("restore", &["copy"], "").await;
    assert_eq!(running.code, Some(1));
    assert!(running.stderr.contains("a running gateway uses"), "{}", running.stderr);
    end(program).await;

    let restored = folder.order("restore", &["copy"], "").await;
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    assert!(!restored.stdout.contains("erased again: 0 "), "{}", restored.stdout);
    assert!(folder.path("state.db.before-restore").exists() && !folder.path("state.db.cache").exists());
    let program = folder.run();
    let fresh = cache_status(&program).await;
    assert!(!fresh.contains("hit"), "an answer that was stored earlier is not found: {fresh}");
    assert!(cache_status(&program).await.contains("hit"));
    end(program).await;

    for (what, bytes) in [("nothing", &b""[..]), ("no database", b"something else")] {
        std::fs::write(folder.path("other"), bytes).expect("a file");
        let refused = folder.order("restore", &["other"], "").await;
        assert_eq!(refused.code, Some(1), "{what}");
        assert!(refused.stderr.contains("is no backup of iluma-gateway"), "{what}: {}", refused.stderr);
    }
    let program = folder.run();
    assert!(cache_status(&program).await.contains("hit"), "what was refused has changed nothing");
    end(program).await;
}

/// Restores a lost state from the copy and the exported receipts of erasures.
#[tokio::test]
async fn a_copy_is_restored_with_the_receipts_of_what_was_erased_since() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let admin = format!("http://{admin}");
    assert_eq!(folder.order("backup", &["--to", "copy"], "").await.code, Some(0));
    assert_eq!(folder.order("erase", &["--admin", &admin], PERSON).await.code, Some(0));
    let exported = folder.order("erasures", &["--admin", &admin], "").await;
    assert_eq!((exported.code, exported.stdout.lines().count()), (Some(0), 1), "{}", exported.stderr);
    assert!(!exported.stdout.contains("0000000001"), "{}", exported.stdout);
    end(program).await;

    std::fs::write(folder.path("erasures"), &exported.stdout).expect("a file");
    std::fs::write(folder.path("damaged"), format!("{}\n{{}}\n", exported.stdout)).expect("a file");
    std::fs::remove_file(folder.path("state.db")).expect("a file");
    let refused = folder.order("restore", &["copy", "--erasures", "damaged"], "").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("line 2 is no receipt of an erasure"), "{}", refused.stderr);
    assert!(!folder.path("state.db").exists());
    let restored = folder.order("restore", &["copy", "--erasures", "erasures"], "").await;
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    assert!(restored.stdout.contains("erased again: 1 means of identification"), "{}", restored.stdout);

    let program = folder.run();
    let (_, admin) = program.listening().await;
    let again = folder.order("erasures", &["--admin", &format!("http://{admin}")], "").await;
    assert_eq!(again.stdout, exported.stdout, "the receipt is kept");
    end(program).await;
}

/// A file without the receipts of the other nodes would let their erased persons return at a restore.
#[tokio::test]
async fn receipts_are_exported_from_all_nodes_or_not_at_all() {
    let upstream = Upstream::agreeing().await;
    let mut redis = Redis::start().await;
    let folder = Folder::new(&upstream.url()).env("REDIS", &redis.url());
    let state = "[state]\nredis = { url = { env = \"REDIS\" } }\n";
    folder.write("config.toml", &Folder::text(&upstream.url()).replace("[state]\n", state));
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let admin = format!("http://{admin}");
    let exported = async || folder.order("erasures", &["--admin", &admin], "").await;
    let complete = exported().await;
    assert_eq!(complete.code, Some(0), "{}", complete.stderr);
    redis.kill();
    let partial = exported().await;
    assert_eq!((partial.code, partial.stdout.as_str()), (Some(1), ""), "{}", partial.stderr);
    assert!(partial.stderr.contains("the answer is not complete"), "{}", partial.stderr);
    end(program).await;
}

/// Checks that a restore drops all browser sessions. A session in the copy may have been ended since.
#[tokio::test]
async fn a_restored_copy_has_no_sessions() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    let program = folder.run();
    let (_, admin) = program.listening().await;
    let form = "token=a-token-of-operators";
    let answer = ask("POST", format!("http://{admin}/console/login")).form(form).send().await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    let status = async |program: &Program| {
        let (_, admin) = program.listening().await;
        ask("GET", format!("http://{admin}/v1/tenants")).header("cookie", &cookie).send().await.status
    };
    assert_eq!(status(&program).await, 200);
    assert_eq!(folder.order("backup", &["--to", "copy"], "").await.code, Some(0));
    end(program).await;
    let program = folder.run();
    assert_eq!(status(&program).await, 200, "a restart ends no session");
    end(program).await;
    let restored = folder.order("restore", &["copy"], "").await;
    assert_eq!(restored.code, Some(0), "{}", restored.stderr);
    let program = folder.run();
    assert_eq!(status(&program).await, 401);
    end(program).await;
}

#[tokio::test]
async fn a_copy_of_another_key_is_refused() {
    let upstream = Upstream::agreeing().await;
    let folder = Folder::new(&upstream.url());
    end({
        let program = folder.run();
        program.listening().await;
        program
    })
    .await;
    assert_eq!(folder.order("backup", &["--to", "copy"], "").await.code, Some(0));
    std::fs::remove_file(folder.path("state.db")).expect("a file");
    let folder = folder.env("ROOT", &"3c".repeat(32));
    let refused = folder.order("restore", &["copy"], "").await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("state.root_key"), "{}", refused.stderr);
    assert!(!folder.path("state.db").exists() && !folder.path("state.db.restoring").exists());
}
