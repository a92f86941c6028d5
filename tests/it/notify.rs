//! Tests of the messages to a process manager at `$NOTIFY_SOCKET`, of stray signals, and of a mounted configuration
//! that changes.

use crate::support::process::{Folder, Program};
use crate::support::{PATIENCE, ask};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::SocketAddr;
use tokio::net::UnixDatagram;

/// The socket at which a process manager gets messages.
struct Manager(UnixDatagram);

impl Manager {
    fn new(folder: &Folder) -> Self {
        Self(UnixDatagram::bind(folder.path("notify")).expect("a socket"))
    }

    /// Waits for a message that begins with `expected`, and returns it. Only messages for the watchdog may come before.
    async fn is_told(&self, expected: &str) -> String {
        let mut bytes = [0; 512];
        loop {
            let received = tokio::time::timeout(PATIENCE, self.0.recv(&mut bytes)).await;
            let length = received.unwrap_or_else(|_| panic!("waited in vain for {expected}")).expect("a message");
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.starts_with(expected) {
                return text;
            }
            assert!(text.starts_with("WATCHDOG=1"), "{text} instead of {expected}");
        }
    }
}

/// Checks that messages reach an abstract socket. It has no file, and in the variable its name begins with `@`.
#[tokio::test]
async fn a_process_manager_may_have_an_abstract_socket() {
    let name = format!("iluma-gateway-{}", uuid::Uuid::new_v4());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).expect("a socket");
    socket.set_nonblocking(true).expect("a socket for tokio");
    let manager = Manager(UnixDatagram::from_std(socket).expect("a socket"));
    let folder = Folder::new("http://127.0.0.1:9").env("NOTIFY_SOCKET", &format!("@{name}"));
    let mut program = folder.run();
    manager.is_told("READY=1").await;
    program.signal("TERM").await;
    manager.is_told("STOPPING=1").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

fn with_socket(folder: Folder) -> (Folder, Manager) {
    let manager = Manager::new(&folder);
    let path = folder.path("notify").display().to_string();
    (folder.env("NOTIFY_SOCKET", &path), manager)
}

#[tokio::test]
async fn a_process_manager_is_told_ready_reloading_and_stopping() {
    let (folder, manager) = with_socket(Folder::new("http://127.0.0.1:9"));
    let mut program = folder.run();
    manager.is_told("READY=1").await;
    let (_, admin) = program.listening().await;
    assert_eq!(ask("GET", format!("http://{admin}/readyz")).send().await.status, 200);
    for faulty in [false, true] {
        if faulty {
            folder.write("config.toml", "nonsense");
        } else {
            program.signal("HUP").await;
        }
        let reloading = manager.is_told("RELOADING=1").await;
        let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("a time");
        assert!(time.parse::<u64>().is_ok_and(|time| time > 0), "{reloading}");
        manager.is_told("READY=1").await;
    }
    program.signal("TERM").await;
    manager.is_told("STOPPING=1").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_watchdog_is_told_as_often_as_it_wants() {
    let (folder, manager) = with_socket(Folder::new("http://127.0.0.1:9"));
    let folder = folder.env("WATCHDOG_USEC", "200000");
    let program = folder.run();
    manager.is_told("READY=1").await;
    for _ in 0..3 {
        manager.is_told("WATCHDOG=1").await;
    }
    drop(program);
}

#[tokio::test]
async fn a_process_manager_that_has_gone_stops_nothing() {
    let (folder, manager) = with_socket(Folder::new("http://127.0.0.1:9"));
    drop(manager);
    let mut program = folder.run();
    let (_, admin) = program.listening().await;
    assert_eq!(ask("GET", format!("http://{admin}/readyz")).send().await.status, 200);
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

#[tokio::test]
async fn signals_that_nobody_sends_on_purpose_are_harmless() {
    let folder = Folder::new("http://127.0.0.1:9");
    let mut program = folder.run();
    let (_, admin) = program.listening().await;
    for name in ["USR1", "USR2", "PIPE"] {
        program.signal_at_once(name);
        assert_eq!(ask("GET", format!("http://{admin}/readyz")).send().await.status, 200, "{name}");
    }
    program.signal("TERM").await;
    assert_eq!(program.ended().await.code(), Some(0));
}

/// Makes a new version of a mounted folder, which is a folder with its own name. Kubernetes does so for a ConfigMap or
/// a Secret.
fn version(folder: &Folder, name: &str, text: &str) {
    let path = folder.path(name);
    std::fs::create_dir(&path).expect("a folder");
    std::fs::write(path.join("gateway.toml"), text).expect("a file");
}

/// Points the link `..data` to another version in one atomic step.
fn swap(folder: &Folder, name: &str) {
    symlink(name, folder.path("..data_tmp")).expect("a link");
    std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).expect("a swap");
}

#[tokio::test]
async fn a_folder_that_is_swapped_by_a_link_is_a_reload() {
    let folder = Folder::new("http://127.0.0.1:9");
    let text = Folder::text("http://127.0.0.1:9").replace("\"state.db\"", &format!("{:?}", folder.path("state.db")));
    version(&folder, "..1", &text);
    swap(&folder, "..1");
    std::fs::remove_file(folder.path("config.toml")).expect("the file is there");
    symlink("..data/gateway.toml", folder.path("config.toml")).expect("a link");
    let program: Program = folder.run();
    let (server, _) = program.listening().await;
    let key = "a-second-key-of-lending";
    let asked = |expected: u16| async move {
        let answer = ask("GET", format!("http://{server}/_gateway/usage")).key(key).send().await;
        assert_eq!(answer.status, expected, "{}", answer.text());
    };
    asked(401).await;
    let hash = |key| Folder::hash(key);
    version(&folder, "..2", &text.replace(&hash(Folder::KEY), &format!("{}\", \"{}", hash(Folder::KEY), hash(key))));
    swap(&folder, "..2");
    program.stderr_line("the configuration was reloaded").await;
    asked(200).await;
}
