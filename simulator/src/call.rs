//! One authenticated call, with everything that the routes need to answer it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};

use super::body::{self, FileRule, Form, Tap};
use super::key::Key;
use super::problem::Problem;
use super::record::{Kind, Record, Step};
use super::reply::Reply;
use super::route::Version;
use super::time;
use super::world::World;

/// A call whose key was accepted.
pub(super) struct Call<'a> {
    pub(super) world: &'a Arc<World>,
    pub(super) key: Key,
    pub(super) method: &'a Method,
    pub(super) version: Version,
    pub(super) parameters: &'a [String],
    pub(super) headers: &'a HeaderMap,
    pub(super) query: &'a str,
    pub(super) body: &'a mut Tap,
}

/// The time of a request and the time at which its result is ready, as instants and as texts.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) now: Instant,
    pub(super) created: String,
    pub(super) done_at: Instant,
    pub(super) done: String,
}

impl Call<'_> {
    /// Returns the request's parameters. The parts of a multipart body that `files` names are files.
    pub(super) async fn form(&mut self, files: &[FileRule]) -> Result<Form, Problem> {
        body::read(self.headers, self.body, files).await
    }

    /// Returns the value of `x-magic-reply`; `None` without the header, or for a live key.
    pub(super) fn magic(&self) -> Option<String> {
        let value = self.headers.get("x-magic-reply").filter(|_| !self.key.live)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    }

    /// Returns the parameter at index `at` of the path; an empty text if there is none.
    pub(super) fn parameter(&self, at: usize) -> &str {
        self.parameters.get(at).map_or("", String::as_str)
    }

    pub(super) fn query_value(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    pub(super) fn times(&self, delay: Duration) -> Times {
        let (now, wall) = (time::now(), time::wall());
        Times {
            now,
            created: time::iso8601(wall),
            // A delay that the clock can't represent counts as no delay.
            done_at: now.checked_add(delay).unwrap_or(now),
            done: time::iso8601(wall.checked_add(delay).unwrap_or(wall)),
        }
    }

    /// Stores a result, which `GET :id` and the lists show from now on. Returns an answer with the result's first
    /// state.
    pub(super) fn store(&self, kind: Kind, id: &str, reference: Option<&str>, steps: Vec<Step>) -> Reply {
        let owner = Arc::clone(&self.key.label);
        let record = Record { id: id.into(), owner, kind, reference: reference.map(Into::into), steps };
        let reply = Reply::stored(record.at(time::now()));
        self.world.records.lock().insert(record);
        reply
    }

    /// Answers a `GET` of one record by its id, the first parameter of the path.
    pub(super) fn stored(&self, kind: Kind) -> Result<Reply, Problem> {
        let records = self.world.records.lock();
        let record = records.find(&self.key.label, kind, self.parameter(0)).ok_or_else(Problem::not_found)?;
        Ok(Reply::stored(record.at(time::now())))
    }
}
