//! Collapsing: identical requests in flight share one call.
//!
//! Invariants: there is at most one leader per key; a leader that is dropped without an answer wakes its followers, and
//! one of them becomes the leader; the map is empty once there is no leader.

use super::key::Key;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use tokio::sync::watch;

/// The calls in flight, by key.
#[derive(Debug)]
pub struct SingleFlight<T>(Arc<Mutex<HashMap<Key, watch::Receiver<Option<T>>>>>);

/// The role of a request that joins a call.
#[derive(Debug)]
pub enum FlightRole<T> {
    /// The request makes the call.
    Leader(Leader<T>),
    /// The request waits for the leader's answer.
    Follower(Follower<T>),
}

/// The request that makes the call and gives the answer to all followers. If it is dropped without [`Leader::land`],
/// the next request that joins becomes the leader.
#[derive(Debug)]
pub struct Leader<T> {
    flights: SingleFlight<T>,
    key: Key,
    answer: watch::Sender<Option<T>>,
}

/// A request that waits for the leader's answer.
#[derive(Debug)]
pub struct Follower<T>(watch::Receiver<Option<T>>);

impl<T: Clone> SingleFlight<T> {
    /// Makes a map without calls.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Joins the call for `key`. The request becomes the leader if no such call is in flight, otherwise a follower.
    #[must_use]
    pub fn join(&self, key: &Key) -> FlightRole<T> {
        match self.0.lock().entry(key.clone()) {
            Entry::Occupied(flight) => FlightRole::Follower(Follower(flight.get().clone())),
            Entry::Vacant(place) => {
                let (answer, waiting) = watch::channel(None);
                place.insert(waiting);
                FlightRole::Leader(Leader { flights: Self(Arc::clone(&self.0)), key: key.clone(), answer })
            }
        }
    }
}

impl<T: Clone> Default for SingleFlight<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone> Leader<T> {
    /// Gives the answer to all followers, and ends the flight.
    pub fn land(self, answer: T) {
        self.answer.send_replace(Some(answer));
    }
}

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        self.flights.0.lock().remove(&self.key);
    }
}

impl<T: Clone> Follower<T> {
    /// Returns the leader's answer; `None` if the leader was dropped without one.
    pub async fn landed(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::epoch::Table;
    use super::super::key::{KeyInput, Keys, Scope};
    use super::*;
    use crate::iluma::subject::Subject;

    fn a_key(parameters: &[u8]) -> Key {
        let epochs = Table { era: [0; 16], subjects: [[0; 16]; Subject::ALL.len()], tenants: Default::default() };
        Keys::new(&[3; 32], &http::Uri::from_static("http://a")).key(
            &epochs,
            &Scope::shared(&"live".parse().unwrap()),
            &KeyInput { subject: Subject::Bank, target: "/", parameters },
        )
    }

    fn leader(flights: &SingleFlight<u32>, key: &Key) -> Leader<u32> {
        match flights.join(key) {
            FlightRole::Leader(leader) => leader,
            FlightRole::Follower(_) => panic!("the call has a leader already"),
        }
    }

    fn waiter(flights: &SingleFlight<u32>, key: &Key) -> Follower<u32> {
        match flights.join(key) {
            FlightRole::Leader(_) => panic!("the call has no leader"),
            FlightRole::Follower(waiter) => waiter,
        }
    }

    #[tokio::test]
    async fn all_who_join_get_the_leaders_answer_and_the_next_starts_anew() {
        let (flights, key) = (SingleFlight::new(), a_key(b"a"));
        let first = leader(&flights, &key);
        let _other = leader(&flights, &a_key(b"b"));
        let (second, third) = (waiter(&flights, &key), waiter(&flights, &key));
        first.land(7);
        assert_eq!((second.landed().await, third.landed().await), (Some(7), Some(7)));
        let _again = leader(&flights, &key);
    }

    #[tokio::test]
    async fn a_leader_that_gives_up_leaves_the_lead_to_the_next() {
        let (flights, key) = (SingleFlight::new(), a_key(b"a"));
        let first = leader(&flights, &key);
        let second = waiter(&flights, &key);
        drop(first);
        assert_eq!(second.landed().await, None);
        leader(&flights, &key).land(1);
        assert!(flights.0.lock().is_empty());
    }
}
