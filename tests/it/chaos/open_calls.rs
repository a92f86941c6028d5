//! Describes the calls that stay open although Iluma made a record, for the message of a failed chaos test.

use super::{Addresses, NODES};
use crate::support::Redis;
use crate::support::process::Folder;
use iluma_gateway::base::keyring::Pseudonymizer;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The callbacks that were brought to nodes, answered or not.
#[derive(Default)]
pub(super) struct Arrivals(Mutex<Vec<Arrival>>);

struct Arrival {
    at: SystemTime,
    node: usize,
    account: String,
    body: Value,
}

impl Arrivals {
    /// Notes each callback that is complete in `bytes`, the bytes of a connection to `node`, and removes it from them.
    pub(super) fn note(&self, node: Addresses, bytes: &mut Vec<u8>) {
        while let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let mut bodies = serde_json::Deserializer::from_slice(&bytes[head + 4..]).into_iter::<Value>();
            let Some(Ok(body)) = bodies.next() else { return };
            let end = head + 4 + bodies.byte_offset();
            let path = String::from_utf8_lossy(&bytes[..head]).into_owned();
            let account = path.split('/').nth(2).unwrap_or_default().to_owned();
            let arrival = Arrival { at: SystemTime::now(), node: node.number, account, body };
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
            bytes.drain(..end);
        }
    }

    /// Describes each open bank call for which a callback arrived. The callback names the call's record by its id or by
    /// its reference.
    pub(super) fn open_calls(&self, folders: &[Folder], redis: &Redis) -> String {
        let mut text = String::new();
        let words = redis.everything();
        let arrivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let namer = Pseudonymizer::new(&[0x1a; 32], "ledger");
        let named = |arrival: &Arrival| {
            let member = |name: &str| arrival.body[name].as_str().unwrap_or_default().as_bytes().to_vec();
            let account = arrival.account.as_bytes();
            let reference = namer.name([account, b"bank", &member("reference_id")]);
            (namer.name([account, &member("id")]), reference)
        };
        let known: Vec<_> = arrivals.iter().map(|arrival| (named(arrival), arrival)).collect();
        for (node, folder) in folders.iter().enumerate() {
            for call in calls(folder) {
                let about = known.iter().filter(|((name, reference), _)| {
                    call.name.map_or(call.reference == Some(*reference), |known| known == *name)
                });
                for ((name, reference), Arrival { at, node: to, body, .. }) in about {
                    let Call { number, booked, name: known, .. } = &call;
                    let why = if known.is_some() { "pending" } else { "lost" };
                    let (id, said) = (&body["id"], &body["reference_id"]);
                    let _ = writeln!(
                        text,
                        "node {node}, call {number} of {booked}, {why}: record {id} of {said}, {}; callback at node {to} at {}",
                        body["status"],
                        millis(*at),
                    );
                    let in_redis =
                        |key: &[u8; 32]| [key.to_vec(), hex::encode(key).into_bytes()].map(|key| count(&words, &key));
                    let _ = writeln!(
                        text,
                        "  in Redis (raw, as text): the record {:?}, the reference {:?}; words in journals: {:?}",
                        in_redis(name),
                        in_redis(reference),
                        folders.iter().map(|folder| said_in(folder, name)).collect::<Vec<_>>()
                    );
                }
            }
        }
        assert!(folders.len() == NODES, "a folder of each node");
        text
    }
}

struct Call {
    number: i64,
    /// Milliseconds since 1970.
    booked: i64,
    name: Option<[u8; 32]>,
    reference: Option<[u8; 32]>,
}

fn journal(folder: &Folder) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(folder.path("state.db"), flags).expect("a journal")
}

fn calls(folder: &Folder) -> Vec<Call> {
    let journal = journal(folder);
    let mut calls = journal
        .prepare("SELECT id, booked, name, reference FROM ledger_calls WHERE route = 'bank' ORDER BY id")
        .expect("a statement");
    let calls = calls.query_map([], |row| {
        Ok(Call { number: row.get(0)?, booked: row.get(1)?, name: row.get(2)?, reference: row.get(3)? })
    });
    calls.expect("calls").collect::<Result<_, _>>().expect("calls")
}

/// Returns the number of rows of `ledger_references` in a node's journal that are about a record.
fn said_in(folder: &Folder, name: &[u8; 32]) -> i64 {
    let count = "SELECT count(*) FROM ledger_references WHERE name = ?1";
    journal(folder).query_row(count, [name], |row| row.get(0)).expect("a count")
}

fn count(all: &[u8], part: &[u8]) -> usize {
    memchr::memmem::find_iter(all, part).count()
}

fn millis(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()
}
