//! Tests of the engines of state (SQLite and Redis): one suite of cases runs against each of them.

#![allow(clippy::unwrap_used, reason = "a case states what it expects, in a function of its own for every engine")]

mod claims;
mod endpoints;
mod sessions;
mod shared;

use crate::support::{Redis, folder};
use bytes::Bytes;
use claims::{
    a_claim_ends_as_its_call_does, a_claim_outlives_its_process_as_unknown, a_kept_answer_is_erased_with_its_person,
    a_key_has_one_claim_and_keeps_its_answer_for_a_day, old_keys_are_swept,
};
use endpoints::{
    a_pause_by_order_is_durable_and_stops_attempts_but_not_age,
    an_endpoint_that_failed_for_a_day_is_probed_and_resumed_by_a_success,
    an_endpoint_that_is_gone_is_paused_until_its_url_is_set_again,
    attempts_are_remembered_until_a_dead_letter_is_deleted, lists_and_replays_are_by_type_time_and_team,
};
use iluma_gateway::base::byte_size::ByteSize;
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::database::Database;
use iluma_gateway::base::keyring::EncryptionKey;
use iluma_gateway::base::name::{AccountName, TenantName};
use iluma_gateway::config::{self, OutboxBounds, Retention};
use iluma_gateway::iluma::callback_type::CallbackType;
use iluma_gateway::iluma::person::Tag;
use iluma_gateway::state::{
    Awaiting, Callback, Copy, Delivery, DeliveryOutcome, DeliveryStatus, Erased, FanOutDecision, LATE, MIGRATIONS,
    Made, Outbox, Owning, Page, Queues, ReceiveOutcome, Replay, Sqlite, State, StateError, Waiting,
};
use secrecy::SecretBox;
use sessions::{
    a_session_is_found_until_it_is_idle_old_or_closed, sessions_outlive_a_restart, sessions_that_have_ended_are_swept,
    the_session_that_ends_first_makes_room, without_state_no_session_is_opened_found_or_closed,
};
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const KIND: CallbackType = CallbackType::NameValidatorRequest;
const LEASE: Duration = Duration::from_secs(30);
/// Bounds that no case reaches.
const ROOM: OutboxBounds = OutboxBounds { deliveries: 1000, bytes: ByteSize::mib(64) };
const DAY: Duration = Duration::from_secs(86400);

/// An engine of state, its clock, and what is needed to restart it.
struct Engine {
    state: State,
    clock: Clock,
    restart: Restart,
}

/// The way to restart an engine with its stored data.
enum Restart {
    Sqlite(TempDir),
    /// Restarts with the same Redis; the token stops the clients of all nodes.
    Redis(Box<Redis>, CancellationToken),
    /// Can't restart: another engine owns the data.
    Elsewhere,
}

impl Drop for Restart {
    fn drop(&mut self) {
        if let Self::Redis(_, stop) = self {
            stop.cancel();
        }
    }
}

impl Engine {
    async fn sqlite() -> Self {
        let (folder, clock) = (folder(), Clock::adjustable());
        Self { state: embedded(folder.path(), &clock, &[1]), clock, restart: Restart::Sqlite(folder) }
    }

    async fn redis() -> Self {
        let redis = Redis::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]).await;
        let (clock, stop) = (Clock::adjustable(), CancellationToken::new());
        let state = shared::node_with(&redis, &clock, &stop, &[1]).await;
        Self { state, clock, restart: Restart::Redis(Box::new(redis), stop) }
    }

    /// Restarts the engine: its process ends, and Redis is killed and started again.
    async fn restarted(self) -> Self {
        self.restarted_with(&[1]).await
    }

    /// Restarts the engine with these encryption keys.
    async fn restarted_with(self, keys: &[u8]) -> Self {
        self.state.close().await;
        let Self { clock, mut restart, .. } = self;
        let state = match &mut restart {
            Restart::Sqlite(folder) => embedded(folder.path(), &clock, keys),
            Restart::Redis(redis, stop) => {
                redis.kill();
                redis.run().await;
                shared::node_with(redis, &clock, stop, keys).await
            }
            Restart::Elsewhere => panic!("the other one is started again"),
        };
        Self { state, clock, restart }
    }
}

fn embedded(folder: &Path, clock: &Clock, keys: &[u8]) -> State {
    let database = Database::open(&folder.join("state.db"), &[MIGRATIONS]).unwrap();
    State::Sqlite(Arc::new(Sqlite::new(database, &settings(keys), clock.clone())))
}

fn settings(keys: &[u8]) -> config::State {
    let key = |seed: &u8| EncryptionKey { id: format!("key-{seed}"), key: SecretBox::new(Box::new([*seed; 32])) };
    config::State {
        path: "unused".into(),
        root_key: SecretBox::new(Box::new([1; 32])),
        encryption_keys: keys.iter().map(key).collect(),
        redis: None,
        redis_timeout: Duration::from_millis(50),
        disk_reserve: ByteSize::kib(0),
        retention: Retention {
            owners: 90 * DAY,
            delivered_callbacks: 7 * DAY,
            dead_letters: 30 * DAY,
            ledger: 400 * DAY,
        },
    }
}

/// Runs every case against every engine.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Engine::sqlite().await).await;
            })*
        }

        mod redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case(super::Engine::redis().await).await;
            })*
        }
    };
}

suite!(
    a_team_owns_what_it_was_made_owner_of,
    a_repeat_is_the_same_id_and_the_same_bytes,
    a_callback_waits_for_its_owner_and_is_delivered_once,
    an_owner_who_comes_late_gets_its_own_and_nobody_else_a_second,
    an_owner_who_comes_while_a_callback_is_fanned_out_is_not_missed,
    each_reference_that_waits_gets_its_own,
    who_was_answered_from_the_cache_waits_for_nothing,
    a_delivery_is_in_one_pair_of_hands,
    a_delivery_is_tried_again_when_it_is_due,
    a_claimant_whose_lease_ended_concludes_nothing_but_a_delivery,
    claims_are_by_team,
    unowned_ones_are_kept_apart_until_an_owner_comes,
    dead_letters_are_listed_and_replayed,
    a_teams_deliveries_are_replayed_since_a_time,
    callbacks_of_our_own_are_each_delivered,
    a_person_is_erased_everywhere,
    a_person_is_erased_from_the_entries_of_all_days,
    what_is_erased_while_it_is_asked_is_not_stored_again,
    what_is_old_is_swept,
    urls_are_the_teams_own,
    urls_outlive_the_key_that_they_were_stored_under,
    an_entry_that_cannot_be_opened_waits_for_its_key,
    an_outbox_has_bounds,
    a_hand_out_whose_caller_goes_away_is_given_back,
    attempts_are_remembered_until_a_dead_letter_is_deleted,
    lists_and_replays_are_by_type_time_and_team,
    an_endpoint_that_is_gone_is_paused_until_its_url_is_set_again,
    an_endpoint_that_failed_for_a_day_is_probed_and_resumed_by_a_success,
    a_pause_by_order_is_durable_and_stops_attempts_but_not_age,
    a_key_has_one_claim_and_keeps_its_answer_for_a_day,
    a_claim_ends_as_its_call_does,
    a_claim_outlives_its_process_as_unknown,
    a_kept_answer_is_erased_with_its_person,
    old_keys_are_swept,
    a_session_is_found_until_it_is_idle_old_or_closed,
    sessions_outlive_a_restart,
    the_session_that_ends_first_makes_room,
    sessions_that_have_ended_are_swept,
    without_state_no_session_is_opened_found_or_closed,
    everything_is_there_after_a_restart,
    what_cannot_be_stored_is_told,
);

fn tenant(name: &str) -> TenantName {
    name.parse().unwrap()
}

fn live() -> AccountName {
    "live".parse().unwrap()
}

fn quoted(reference: &str) -> Option<Bytes> {
    (!reference.is_empty()).then(|| Bytes::from(format!("{reference:?}")))
}

fn owning(id: &str, team: &str, reference: &str) -> Owning {
    Owning {
        account: live(),
        id: id.into(),
        tenant: tenant(team),
        reference: quoted(reference),
        kind: Some(KIND),
        awaits: true,
        tags: Vec::new(),
        asked: SystemTime::UNIX_EPOCH,
    }
}

fn callback(id: &str, body: &'static str) -> Callback {
    Callback {
        account: live(),
        kind: Some(KIND),
        id: id.into(),
        body: Bytes::from_static(body.as_bytes()),
        tags: Vec::new(),
    }
}

fn copy(team: &str, reference: &str) -> Copy {
    Copy { tenant: tenant(team), reference: quoted(reference), body: Bytes::from(format!("{team}/{reference}")) }
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.body).unwrap()
}

impl Engine {
    /// Fans out all waiting callbacks, each to every team and reference that waits for it. Returns the number of
    /// callbacks.
    async fn fan_out(&self) -> usize {
        let waiting = self.state.waiting(100, LEASE).await.unwrap();
        for one in &waiting {
            self.state.settle(one, self.decision(one), &ROOM).await.unwrap();
        }
        waiting.len()
    }

    fn decision(&self, waiting: &Waiting) -> FanOutDecision {
        let copy = |owner: &Awaiting| Copy {
            tenant: owner.tenant.clone(),
            reference: owner.reference.clone(),
            body: [owner.reference.as_deref().unwrap_or(b"-"), b" ", &waiting.body].concat().into(),
        };
        if waiting.awaiting.is_empty() {
            return FanOutDecision::Wait(self.clock.wall() + Duration::from_secs(60));
        }
        FanOutDecision::Deliver(waiting.kind.unwrap(), waiting.awaiting.iter().map(copy).collect())
    }

    async fn claim(&self, team: &str) -> Vec<Delivery> {
        self.state.claim(&[(tenant(team), 100)], LEASE).await.unwrap()
    }

    /// Claims the due deliveries of a team, and concludes them as delivered. Returns their bodies in sorted order.
    async fn deliver(&self, team: &str) -> Vec<String> {
        let mut bodies = Vec::new();
        for delivery in self.claim(team).await {
            self.state.conclude(&delivery, DeliveryOutcome::Delivered).await.unwrap();
            bodies.push(text(&delivery).to_owned());
        }
        bodies.sort();
        bodies
    }

    async fn listed(&self, status: DeliveryStatus) -> usize {
        self.state.list(status, &Page { most: 1000, ..Page::default() }).await.unwrap().len()
    }
}

async fn a_team_owns_what_it_was_made_owner_of(engine: Engine) {
    let state = &engine.state;
    assert_eq!(state.owners(&live(), "1").await.unwrap(), []);
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.own(owning("1", "payments", "")).await.unwrap();
    let mut owners = state.owners(&live(), "1").await.unwrap();
    owners.sort_by(|a, b| a.tenant.cmp(&b.tenant));
    let shown: Vec<_> = owners.iter().map(|owner| (owner.tenant.as_str(), owner.reference.clone())).collect();
    assert_eq!(shown, [("lending", quoted("a")), ("payments", None)]);
    engine.clock.advance(Duration::from_secs(5));
    state.own(owning("1", "lending", "b")).await.unwrap();
    let newest = state.owners(&live(), "1").await.unwrap().into_iter().find(|owner| owner.tenant == tenant("lending"));
    let newest = newest.unwrap();
    assert_eq!(newest.reference, quoted("b"));
    assert!(newest.since > owners[0].since);
    assert_eq!(state.owners(&"development".parse().unwrap(), "1").await.unwrap(), []);
}

async fn a_repeat_is_the_same_id_and_the_same_bytes(engine: Engine) {
    let receive = async |id, body| engine.state.receive(callback(id, body)).await.unwrap();
    assert_eq!(receive("1", "x").await, ReceiveOutcome::New);
    assert_eq!(receive("1", "x").await, ReceiveOutcome::Repeat);
    assert_eq!(receive("1", "y").await, ReceiveOutcome::New);
    assert_eq!(receive("2", "x").await, ReceiveOutcome::New);
    let other = Callback { account: "development".parse().unwrap(), ..callback("1", "x") };
    assert_eq!(engine.state.receive(other).await.unwrap(), ReceiveOutcome::New);
    // A repeat is recognised for as long as Iluma may send one, also after the fan-out.
    engine.state.own(owning("1", "lending", "a")).await.unwrap();
    engine.fan_out().await;
    engine.clock.advance(LATE + DAY);
    while engine.state.sweep().await.unwrap() > 0 {}
    assert_eq!(receive("1", "x").await, ReceiveOutcome::Repeat);
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#, r#""a" y"#]);
}

async fn a_callback_waits_for_its_owner_and_is_delivered_once(engine: Engine) {
    let state = &engine.state;
    assert_eq!(state.receive(callback("1", "x")).await, Ok(ReceiveOutcome::New));
    state.arrival().await;
    assert_eq!(engine.fan_out().await, 1);
    assert_eq!(engine.fan_out().await, 0, "it waits");
    assert_eq!(engine.deliver("lending").await.len(), 0);
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.arrival().await;
    assert_eq!(engine.fan_out().await, 1);
    state.work().await;
    state.own(owning("1", "lending", "a")).await.unwrap();
    assert_eq!(engine.fan_out().await, 0, "to own it again changes nothing");
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
    engine.clock.advance(Duration::from_secs(61));
    assert_eq!(engine.fan_out().await, 0, "it waits no more");
    assert_eq!(engine.deliver("lending").await.len(), 0);
}

async fn an_owner_who_comes_late_gets_its_own_and_nobody_else_a_second(engine: Engine) {
    let state = &engine.state;
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.receive(callback("1", "x")).await.unwrap();
    engine.fan_out().await;
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
    state.own(owning("1", "payments", "b")).await.unwrap();
    assert_eq!(engine.fan_out().await, 1);
    assert_eq!(engine.deliver("payments").await, [r#""b" x"#]);
    assert_eq!(engine.deliver("lending").await.len(), 0);
    // An owner that comes this long after the callback gets no delivery any more.
    engine.clock.advance(LATE + Duration::from_secs(1));
    while state.sweep().await.unwrap() > 0 {}
    state.own(owning("1", "risk", "c")).await.unwrap();
    assert_eq!(engine.fan_out().await, 0);
}

async fn an_owner_who_comes_while_a_callback_is_fanned_out_is_not_missed(engine: Engine) {
    let state = &engine.state;
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.receive(callback("1", "x")).await.unwrap();
    let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
    assert_eq!(state.waiting(1, LEASE).await.unwrap().len(), 0, "it is handed out once");
    state.own(owning("1", "payments", "b")).await.unwrap();
    state.settle(&waiting, engine.decision(&waiting), &ROOM).await.unwrap();
    assert_eq!(engine.fan_out().await, 1);
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
    assert_eq!(engine.deliver("payments").await, [r#""b" x"#]);

    state.receive(callback("2", "x")).await.unwrap();
    for decision in [FanOutDecision::Unowned, FanOutDecision::Wait(engine.clock.wall() + DAY)] {
        let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
        let reference = format!("{decision:?}").replace(|c: char| !c.is_alphanumeric(), "");
        state.own(owning("2", "risk", &reference)).await.unwrap();
        state.settle(&waiting, decision, &ROOM).await.unwrap();
    }
    assert_eq!(engine.fan_out().await, 1);
    assert_eq!(engine.deliver("risk").await.len(), 2);
}

async fn each_reference_that_waits_gets_its_own(engine: Engine) {
    for reference in ["a", "b", "", "a"] {
        engine.state.own(owning("1", "lending", reference)).await.unwrap();
    }
    engine.state.receive(callback("1", "x")).await.unwrap();
    engine.fan_out().await;
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#, r#""b" x"#, "- x"]);
    // A later result, after a recapture, goes to all references again.
    engine.state.receive(callback("1", "y")).await.unwrap();
    engine.fan_out().await;
    assert_eq!(engine.deliver("lending").await, [r#""a" y"#, r#""b" y"#, "- y"]);
}

async fn who_was_answered_from_the_cache_waits_for_nothing(engine: Engine) {
    let state = &engine.state;
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.own(Owning { awaits: false, ..owning("1", "payments", "b") }).await.unwrap();
    assert_eq!(state.owners(&live(), "1").await.unwrap().len(), 2);
    state.receive(callback("1", "x")).await.unwrap();
    engine.fan_out().await;
    state.own(Owning { awaits: false, ..owning("1", "risk", "c") }).await.unwrap();
    assert_eq!(engine.fan_out().await, 0);
    assert_eq!(engine.deliver("lending").await.len(), 1);
    assert_eq!(engine.deliver("payments").await.len() + engine.deliver("risk").await.len(), 0);
}

async fn queued(engine: &Engine, count: usize) {
    for number in 0..count {
        engine.state.own(owning(&number.to_string(), "lending", "a")).await.unwrap();
        engine.state.receive(callback(&number.to_string(), "x")).await.unwrap();
    }
    engine.fan_out().await;
}

async fn a_delivery_is_in_one_pair_of_hands(engine: Engine) {
    queued(&engine, 3).await;
    let first = engine.state.claim(&[(tenant("lending"), 2)], LEASE).await.unwrap();
    assert_eq!(first.len(), 2);
    let second = engine.claim("lending").await;
    assert_eq!(second.len(), 1);
    assert!(first.iter().all(|delivery| delivery.id != second[0].id));
    assert_eq!(engine.claim("lending").await.len(), 0);
    engine.state.conclude(&second[0], DeliveryOutcome::Untried).await.unwrap();
    let again = engine.claim("lending").await;
    assert_eq!((again.len(), again[0].id, again[0].attempts), (1, second[0].id, 0));
    // A claimant that does not return in time loses its leases.
    engine.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(engine.claim("lending").await.len(), 3);
}

async fn a_delivery_is_tried_again_when_it_is_due(engine: Engine) {
    queued(&engine, 1).await;
    let delivery = engine.claim("lending").await.remove(0);
    assert_eq!(delivery.kind, KIND);
    assert_eq!(delivery.account, live());
    let later = engine.clock.wall() + Duration::from_secs(300);
    engine.state.conclude(&delivery, DeliveryOutcome::Retry(later)).await.unwrap();
    assert_eq!(engine.claim("lending").await.len(), 0);
    engine.clock.advance(Duration::from_secs(301));
    let again = engine.claim("lending").await.remove(0);
    assert_eq!((again.id, again.attempts, text(&again)), (delivery.id, 1, text(&delivery)));
    engine.state.conclude(&again, DeliveryOutcome::Delivered).await.unwrap();
    engine.clock.advance(DAY);
    assert_eq!(engine.claim("lending").await.len(), 0);
}

async fn a_claimant_whose_lease_ended_concludes_nothing_but_a_delivery(engine: Engine) {
    queued(&engine, 1).await;
    let late = engine.claim("lending").await.remove(0);
    engine.clock.advance(LEASE + Duration::from_secs(1));
    let newer = engine.claim("lending").await.remove(0);
    assert_eq!(newer.id, late.id);
    let tomorrow = engine.clock.wall() + DAY;
    for outcome in [DeliveryOutcome::Retry(tomorrow), DeliveryOutcome::Dead, DeliveryOutcome::Untried] {
        engine.state.conclude(&late, outcome).await.unwrap();
        assert_eq!(engine.claim("lending").await.len(), 0, "the newer claimant still has it: {outcome:?}");
    }
    assert_eq!(engine.listed(DeliveryStatus::Dead).await, 0);
    let soon = engine.clock.wall() + Duration::from_secs(1);
    engine.state.conclude(&newer, DeliveryOutcome::Retry(soon)).await.unwrap();
    engine.clock.advance(Duration::from_secs(2));
    let again = engine.claim("lending").await.remove(0);
    assert_eq!(again.attempts, 1, "the attempt of the newer claimant alone counts");
    engine.state.conclude(&newer, DeliveryOutcome::Delivered).await.unwrap();
    engine.clock.advance(DAY);
    assert_eq!(engine.claim("lending").await.len(), 0, "the team has received it");
}

async fn claims_are_by_team(engine: Engine) {
    let state = &engine.state;
    for team in ["lending", "payments", "risk"] {
        state.own(owning("1", team, "a")).await.unwrap();
    }
    state.receive(callback("1", "x")).await.unwrap();
    engine.fan_out().await;
    let claimed =
        state.claim(&[(tenant("lending"), 5), (tenant("risk"), 0), (tenant("nobody"), 5)], LEASE).await.unwrap();
    assert_eq!(claimed.iter().map(|delivery| delivery.tenant.as_str()).collect::<Vec<_>>(), ["lending"]);
    let queues = state.queues().await.unwrap();
    let counts: Vec<_> =
        queues.tenants.iter().map(|outbox| (outbox.tenant.as_str(), outbox.queued, outbox.dead)).collect();
    assert_eq!(counts, [("lending", 1, 0), ("payments", 1, 0), ("risk", 1, 0)]);
    assert!(queues.oldest.is_some());
}

async fn unowned_ones_are_kept_apart_until_an_owner_comes(engine: Engine) {
    let state = &engine.state;
    state.receive(callback("1", "x")).await.unwrap();
    let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
    assert_eq!(state.queues().await.unwrap(), Queues { waiting: 1, ..Queues::default() });
    state.settle(&waiting, FanOutDecision::Unowned, &ROOM).await.unwrap();
    assert_eq!(state.queues().await.unwrap(), Queues { unowned: 1, ..Queues::default() });
    engine.clock.advance(DAY);
    assert_eq!(engine.fan_out().await, 0);
    let page = Page { most: 10, ..Page::default() };
    let listed = state.list(DeliveryStatus::Unowned, &page).await.unwrap();
    assert_eq!((listed.len(), listed[0].tenant.clone(), listed[0].upstream_id.as_deref()), (1, None, Some("1")));
    let rest = Page { after: Some(listed[0].cursor), ..page.clone() };
    assert_eq!(state.list(DeliveryStatus::Unowned, &rest).await.unwrap(), []);
    // A replay searches for an owner again.
    assert_eq!(state.replay(Replay::One(listed[0].cursor.id)).await, Ok(1));
    assert_eq!(engine.fan_out().await, 1);
    state.own(owning("1", "lending", "a")).await.unwrap();
    engine.fan_out().await;
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
    assert_eq!(engine.listed(DeliveryStatus::Unowned).await, 0);
}

async fn dead_letters_are_listed_and_replayed(engine: Engine) {
    let state = &engine.state;
    queued(&engine, 3).await;
    assert_eq!(engine.listed(DeliveryStatus::Queued).await, 3);
    for delivery in engine.claim("lending").await {
        state.conclude(&delivery, DeliveryOutcome::Dead).await.unwrap();
    }
    engine.clock.advance(DAY);
    assert_eq!(engine.claim("lending").await.len(), 0);
    let mut page = Page { most: 2, ..Page::default() };
    let first = state.list(DeliveryStatus::Dead, &page).await.unwrap();
    page.after = Some(first[1].cursor);
    let second = state.list(DeliveryStatus::Dead, &page).await.unwrap();
    let mut ids: Vec<_> = first.iter().chain(&second).filter_map(|listed| listed.upstream_id.clone()).collect();
    ids.sort();
    assert_eq!(ids, ["0", "1", "2"]);
    assert_eq!((first[0].attempts, first[0].tenant.clone(), first[0].kind), (1, Some(tenant("lending")), Some(KIND)));
    page = Page { tenant: Some(tenant("payments")), ..Page { most: 9, ..Page::default() } };
    assert_eq!(state.list(DeliveryStatus::Dead, &page).await.unwrap(), []);
    assert_eq!(
        state.queues().await.unwrap().tenants,
        [Outbox { tenant: tenant("lending"), queued: 0, queued_bytes: 0, dead: 3 }]
    );

    assert_eq!(state.replay(Replay::One(first[0].cursor.id)).await, Ok(1));
    state.work().await;
    let again = engine.claim("lending").await.remove(0);
    assert_eq!((again.id, again.attempts), (first[0].cursor.id, 0));
    state.conclude(&again, DeliveryOutcome::Delivered).await.unwrap();
    assert_eq!(engine.listed(DeliveryStatus::Delivered).await, 1);
    assert_eq!(state.replay(Replay::AllDead(None)).await, Ok(2));
    assert_eq!(engine.deliver("lending").await.len(), 2);
    assert_eq!(state.replay(Replay::One(again.id)).await, Ok(1), "what was delivered, too");
    assert_eq!(engine.deliver("lending").await.len(), 1);
    assert_eq!(state.replay(Replay::One("msg_000102030405060708090a0b0c0d0e0f".parse().unwrap())).await, Ok(0));
}

async fn a_teams_deliveries_are_replayed_since_a_time(engine: Engine) {
    let state = &engine.state;
    queued(&engine, 1).await;
    assert_eq!(engine.deliver("lending").await.len(), 1);
    engine.clock.advance(Duration::from_secs(60));
    let outage = engine.clock.wall();
    engine.clock.advance(Duration::from_secs(60));
    state.own(owning("late", "lending", "a")).await.unwrap();
    state.own(owning("late", "payments", "b")).await.unwrap();
    state.receive(callback("late", "x")).await.unwrap();
    engine.fan_out().await;
    for team in ["lending", "payments"] {
        assert_eq!(engine.deliver(team).await.len(), 1);
    }
    assert_eq!(state.replay(Replay::Since(tenant("lending"), outage, None)).await, Ok(1));
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
    assert_eq!(engine.deliver("payments").await.len(), 0);
    assert_eq!(state.replay(Replay::Since(tenant("lending"), SystemTime::UNIX_EPOCH, None)).await, Ok(2));
}

async fn callbacks_of_our_own_are_each_delivered(engine: Engine) {
    let made = |reference| Made {
        account: live(),
        id: "1".into(),
        kind: KIND,
        copy: copy("lending", reference),
        tags: vec![],
    };
    engine.state.enqueue(vec![made("a"), made("a"), made("b")], &ROOM).await.unwrap();
    engine.state.work().await;
    assert_eq!(engine.deliver("lending").await, ["lending/a", "lending/a", "lending/b"]);
}

fn person(seed: u8) -> Tag {
    Tag::from_bytes(&[seed; 16]).expect("a tag")
}

async fn a_person_is_erased_everywhere(engine: Engine) {
    let state = &engine.state;
    let about = |id, team, reference| Owning { tags: vec![person(7), person(8)], ..owning(id, team, reference) };
    // The entries are queued, dead, delivered, unowned and waiting ones about the person, and one without a person.
    for id in ["queued", "dead", "delivered"] {
        state.own(about(id, "lending", "a")).await.unwrap();
        state.own(about(id, "lending", "b")).await.unwrap();
        state.receive(callback(id, "x")).await.unwrap();
    }
    engine.fan_out().await;
    let mut claimed = engine.claim("lending").await;
    assert_eq!(claimed.len(), 6);
    state.conclude(&claimed.remove(0), DeliveryOutcome::Dead).await.unwrap();
    state.conclude(&claimed.remove(0), DeliveryOutcome::Delivered).await.unwrap();
    let held = claimed.remove(0);
    let tagged = Callback { tags: vec![person(7)], ..callback("unowned", "x") };
    state.receive(tagged.clone()).await.unwrap();
    state.settle(&state.waiting(1, LEASE).await.unwrap()[0], FanOutDecision::Unowned, &ROOM).await.unwrap();
    state.receive(Callback { id: "waiting".into(), ..tagged.clone() }).await.unwrap();
    state.own(owning("other", "lending", "z")).await.unwrap();
    state.receive(callback("other", "x")).await.unwrap();
    engine.fan_out().await;

    let erased = state.erase(&[person(7)]).await.unwrap();
    assert_eq!(erased, Erased { owners: 3, callbacks: 2, deliveries: 6, answers: 0 });
    assert_eq!(state.erase(&[person(7)]).await.unwrap(), Erased::default());
    for standing in [DeliveryStatus::Dead, DeliveryStatus::Delivered, DeliveryStatus::Unowned] {
        assert_eq!(engine.listed(standing).await, 0, "{standing:?}");
    }
    state.conclude(&held, DeliveryOutcome::Retry(engine.clock.wall())).await.unwrap();
    assert_eq!(state.replay(Replay::One(held.id)).await, Ok(0));
    assert_eq!(engine.deliver("lending").await, [r#""z" x"#]);
    let owners = state.owners(&live(), "queued").await.unwrap();
    assert_eq!((owners.len(), owners[0].reference.clone()), (1, None));

    // A later callback is delivered, and is not kept afterwards.
    assert_eq!(state.receive(callback("queued", "x")).await, Ok(ReceiveOutcome::Repeat));
    state.receive(callback("queued", "later")).await.unwrap();
    let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
    assert_eq!(waiting.awaiting, [Awaiting { tenant: tenant("lending"), reference: None, erased: true }]);
    state.settle(&waiting, engine.decision(&waiting), &ROOM).await.unwrap();
    assert_eq!(engine.deliver("lending").await, ["- later"]);
    assert_eq!(engine.listed(DeliveryStatus::Delivered).await, 1, "another team's");
    state.receive(callback("dead", "later")).await.unwrap();
    engine.fan_out().await;
    state.conclude(&engine.claim("lending").await[0], DeliveryOutcome::Dead).await.unwrap();
    assert_eq!(engine.listed(DeliveryStatus::Dead).await, 0);
    // A callback about the person is not kept either if it has no known owner.
    state.receive(Callback { id: "nobody".into(), ..tagged }).await.unwrap();
    state.settle(&state.waiting(1, LEASE).await.unwrap()[0], FanOutDecision::Unowned, &ROOM).await.unwrap();
    assert_eq!(engine.listed(DeliveryStatus::Unowned).await, 0);
}

async fn a_person_is_erased_from_the_entries_of_all_days(engine: Engine) {
    let state = &engine.state;
    let about = |id| Owning { tags: vec![person(7)], asked: engine.clock.wall(), ..owning(id, "lending", "a") };
    for id in ["1", "2", "3"] {
        state.own(about(id)).await.unwrap();
        // A later request about the same record names the person again.
        engine.clock.advance(DAY);
        state.own(about(id)).await.unwrap();
        engine.clock.advance(5 * DAY);
    }
    state.own(owning("4", "lending", "a")).await.unwrap();
    assert_eq!(state.erase(&[person(7)]).await.unwrap(), Erased { owners: 3, ..Erased::default() });
    for (id, reference) in [("1", None), ("2", None), ("3", None), ("4", quoted("a"))] {
        assert_eq!(state.owners(&live(), id).await.unwrap()[0].reference, reference, "{id}");
    }
    assert_eq!(state.erase(&[person(7)]).await.unwrap(), Erased::default());
}

async fn what_is_erased_while_it_is_asked_is_not_stored_again(engine: Engine) {
    let state = &engine.state;
    let asked = engine.clock.wall();
    engine.clock.advance(Duration::from_secs(1));
    state.erase(&[person(7)]).await.unwrap();
    let about = Owning { tags: vec![person(7)], asked, ..owning("1", "lending", "a") };
    state.own(about.clone()).await.unwrap();
    assert_eq!(state.owners(&live(), "1").await.unwrap()[0].reference, None);
    state.receive(callback("1", "x")).await.unwrap();
    engine.fan_out().await;
    assert_eq!(engine.deliver("lending").await, ["- x"]);
    assert_eq!(engine.listed(DeliveryStatus::Delivered).await, 0);
    // A later request makes the person a new customer.
    engine.clock.advance(Duration::from_secs(1));
    state.own(Owning { id: "2".into(), asked: engine.clock.wall(), ..about }).await.unwrap();
    assert_eq!(state.owners(&live(), "2").await.unwrap()[0].reference, quoted("a"));
    state.receive(Callback { tags: vec![person(7)], ..callback("2", "x") }).await.unwrap();
    engine.fan_out().await;
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
    assert_eq!(engine.listed(DeliveryStatus::Delivered).await, 1);
    // Iluma answers another request with the first id, which gets a new owner. The next erasure removes this owner too.
    let again = Owning { tags: vec![person(7)], ..owning("1", "lending", "b") };
    state.own(Owning { asked: engine.clock.wall(), ..again }).await.unwrap();
    assert_eq!(state.owners(&live(), "1").await.unwrap()[0].reference, quoted("b"));
    assert_eq!(state.erase(&[person(7)]).await, Ok(Erased { owners: 2, callbacks: 1, deliveries: 1, answers: 0 }));
    for id in ["1", "2"] {
        assert_eq!(state.owners(&live(), id).await.unwrap()[0].reference, None);
    }
}

async fn what_is_old_is_swept(engine: Engine) {
    let state = &engine.state;
    queued(&engine, 3).await;
    let mut claimed = engine.claim("lending").await;
    state.conclude(&claimed.remove(0), DeliveryOutcome::Dead).await.unwrap();
    state.conclude(&claimed.remove(0), DeliveryOutcome::Delivered).await.unwrap();
    state.receive(callback("unowned", "x")).await.unwrap();
    state.settle(&state.waiting(1, LEASE).await.unwrap()[0], FanOutDecision::Unowned, &ROOM).await.unwrap();
    let counts = async || {
        while state.sweep().await.unwrap() > 0 {}
        let mut counts = Vec::new();
        for standing in
            [DeliveryStatus::Queued, DeliveryStatus::Dead, DeliveryStatus::Delivered, DeliveryStatus::Unowned]
        {
            counts.push(engine.listed(standing).await);
        }
        (counts, state.owners(&live(), "0").await.unwrap().len())
    };
    assert_eq!(counts().await, (vec![1, 1, 1, 1], 1));
    engine.clock.advance(7 * DAY + Duration::from_secs(1));
    assert_eq!(counts().await, (vec![1, 1, 0, 1], 1));
    engine.clock.advance(23 * DAY);
    assert_eq!(counts().await, (vec![0, 0, 0, 0], 1), "nobody came for what was queued either");
    engine.clock.advance(60 * DAY);
    assert_eq!(counts().await, (vec![0, 0, 0, 0], 0));
    assert_eq!(state.receive(callback("0", "x")).await, Ok(ReceiveOutcome::New), "after so long it is no repeat");
}

async fn urls_are_the_teams_own(engine: Engine) {
    let state = &engine.state;
    let (lending, other) = (tenant("lending"), CallbackType::IdImageOcrRequest);
    assert_eq!(state.urls(&lending).await, Ok(vec![]));
    state.set_url(&lending, other, "https://lending.internal/ocr").await.unwrap();
    state.set_url(&lending, KIND, "https://lending.internal/1").await.unwrap();
    state.set_url(&lending, KIND, "https://lending.internal/2").await.unwrap();
    let urls =
        vec![(KIND, "https://lending.internal/2".to_owned()), (other, "https://lending.internal/ocr".to_owned())];
    assert_eq!(state.urls(&lending).await, Ok(urls));
    assert_eq!(state.urls(&tenant("payments")).await, Ok(vec![]));
}

async fn urls_outlive_the_key_that_they_were_stored_under(engine: Engine) {
    let (lending, url) = (tenant("lending"), "https://lending.internal/1".to_owned());
    engine.state.set_url(&lending, KIND, &url).await.unwrap();
    // The new key stands behind the old one, then before it, then alone.
    let mut engine = engine;
    for keys in [&[1, 2][..], &[2, 1], &[2]] {
        engine = engine.restarted_with(keys).await;
        assert_eq!(engine.state.urls(&lending).await, Ok(vec![(KIND, url.clone())]), "{keys:?}");
    }
    // Without its key an entry is unreadable, not absent. It is readable again with the key.
    let engine = engine.restarted_with(&[3]).await;
    assert_eq!(engine.state.urls(&lending).await, Err(StateError::Unavailable));
    assert_eq!(engine.state.unreadable(), 1);
    let engine = engine.restarted_with(&[3, 2]).await;
    assert_eq!(engine.state.urls(&lending).await, Ok(vec![(KIND, url)]));
}

async fn an_entry_that_cannot_be_opened_waits_for_its_key(engine: Engine) {
    let state = &engine.state;
    queued(&engine, 2).await;
    let delivered = engine.claim("lending").await.remove(0);
    state.conclude(&delivered, DeliveryOutcome::Delivered).await.unwrap();
    state.own(owning("pending", "lending", "a")).await.unwrap();
    state.receive(callback("pending", "late")).await.unwrap();
    let engine = engine.restarted_with(&[2]).await;
    engine.clock.advance(LEASE + Duration::from_secs(1));
    let state = &engine.state;
    assert_eq!(state.owners(&live(), "pending").await, Err(StateError::Unavailable), "a reference is not none");
    assert_eq!(state.waiting(10, LEASE).await.unwrap().len(), 0);
    // A replay turns neither the queued nor the delivered entry into a dead letter.
    assert_eq!(state.replay(Replay::One(delivered.id)).await, Ok(1));
    assert_eq!(engine.claim("lending").await.len(), 0);
    assert_eq!(engine.listed(DeliveryStatus::Dead).await, 0);
    assert_eq!(engine.listed(DeliveryStatus::Unowned).await, 0);
    assert_eq!(engine.listed(DeliveryStatus::Queued).await, 2);
    assert!(state.unreadable() >= 4, "{}", state.unreadable());
    let engine = engine.restarted_with(&[2, 1]).await;
    engine.clock.advance(Duration::from_secs(61));
    assert_eq!(engine.fan_out().await, 1);
    let claimed = engine.claim("lending").await;
    assert_eq!(claimed.len(), 3, "with the key all of them are there");
    assert!(claimed.iter().all(|delivery| delivery.attempts == 0));
}

async fn an_outbox_has_bounds(engine: Engine) {
    let state = &engine.state;
    let made = |team: &str, size: usize| Made {
        account: live(),
        id: "hit".into(),
        kind: KIND,
        copy: Copy { tenant: tenant(team), reference: None, body: vec![b'x'; size].into() },
        tags: Vec::new(),
    };
    let bounds = OutboxBounds { deliveries: 3, bytes: "2000B".parse().unwrap() };
    // Callbacks of cache hits are dropped beyond the number, and beyond the bytes; another team's outbox is
    // independent.
    let four = (0..4).map(|_| made("lending", 10)).chain([made("risk", 10), made("risk", 2000)]).collect();
    assert_eq!(state.enqueue(four, &bounds).await, Ok(vec![tenant("lending"), tenant("risk")]));
    let size = async |team: &str| {
        let queues = engine.state.queues().await.unwrap();
        let outbox = queues.tenants.into_iter().find(|outbox| outbox.tenant == tenant(team)).unwrap();
        (outbox.queued, outbox.queued_bytes, outbox.dead)
    };
    let (queued, full, _) = size("lending").await;
    assert!(queued == 3 && full > 3 * 10 && full < 600, "{queued} {full}");
    // A real callback is a dead letter at once, and is delivered after a replay.
    state.own(owning("1", "lending", "a")).await.unwrap();
    state.own(owning("1", "risk", "a")).await.unwrap();
    state.receive(callback("1", "x")).await.unwrap();
    let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
    let dead = state.settle(&waiting, engine.decision(&waiting), &bounds).await;
    assert_eq!(dead, Ok(vec![tenant("lending")]));
    assert_eq!(size("lending").await, (3, full, 1));
    assert_eq!(size("risk").await.0, 2);
    assert_eq!(engine.deliver("lending").await.len(), 3);
    assert_eq!(size("lending").await, (0, 0, 1));
    assert_eq!(state.replay(Replay::AllDead(None)).await, Ok(1));
    let (queued, bytes, dead) = size("lending").await;
    assert!((queued, dead) == (1, 0) && bytes > 0);
    // Room from a delivery, an erasure or a sweep can be used again.
    state.enqueue(vec![Made { tags: vec![person(7)], ..made("lending", 10) }], &bounds).await.unwrap();
    assert_eq!(size("lending").await.0, 2);
    state.erase(&[person(7)]).await.unwrap();
    assert_eq!(size("lending").await, (1, bytes, 0));
    engine.clock.advance(31 * DAY);
    while state.sweep().await.unwrap() > 0 {}
    assert_eq!(state.queues().await.unwrap().tenants, []);
    assert_eq!(state.enqueue((0..3).map(|_| made("lending", 10)).collect(), &bounds).await, Ok(vec![]));
    let engine = engine.restarted().await;
    assert_eq!(engine.state.enqueue(vec![made("lending", 10)], &bounds).await, Ok(vec![tenant("lending")]));
}

/// Polls a future this number of times while it is pending, and drops it. Returns its output if it ended before; else
/// `None`.
async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = futures_util::poll!(&mut future) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn a_hand_out_whose_caller_goes_away_is_given_back(engine: Engine) {
    let state = &engine.state;
    queued(&engine, 3).await;
    state.own(owning("late", "lending", "a")).await.unwrap();
    state.receive(callback("late", "x")).await.unwrap();
    let wanted = [(tenant("lending"), 100)];
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    for polls in 0.. {
        let claimed = dropped_after(polls, state.claim(&wanted, LEASE)).await;
        let waiting = dropped_after(polls, state.waiting(100, LEASE)).await;
        for delivery in claimed.iter().flatten().flatten() {
            state.conclude(delivery, DeliveryOutcome::Untried).await.unwrap();
        }
        for one in waiting.iter().flatten().flatten() {
            state.settle(one, FanOutDecision::Wait(SystemTime::UNIX_EPOCH), &ROOM).await.unwrap();
        }
        let is_whole = claimed.is_some_and(|claimed| claimed.unwrap().len() == 3);
        if is_whole && waiting.is_some_and(|waiting| waiting.unwrap().len() == 1) {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "what was handed out to nobody is gone");
    }
    // No lease has ended: the clock stood still.
    let claimed = state.claim(&wanted, LEASE);
    let mut claimed = Box::pin(claimed);
    match futures_util::poll!(&mut claimed) {
        // The claim ends, and its caller never polls it again.
        Poll::Pending => drop(state.queues().await.unwrap()),
        // The claim ended at its first poll.
        Poll::Ready(quick) => {
            for delivery in &quick.unwrap() {
                state.conclude(delivery, DeliveryOutcome::Untried).await.unwrap();
            }
        }
    }
    drop(claimed);
    loop {
        let claimed = state.claim(&wanted, LEASE).await.unwrap();
        if claimed.len() == 3 {
            break;
        }
        for delivery in &claimed {
            state.conclude(delivery, DeliveryOutcome::Untried).await.unwrap();
        }
        assert!(tokio::time::Instant::now() < end, "what was handed out to nobody is gone");
    }
}

async fn everything_is_there_after_a_restart(engine: Engine) {
    queued(&engine, 1).await;
    engine.state.receive(callback("0", "later")).await.unwrap();
    engine.state.set_url(&tenant("lending"), KIND, "https://lending.internal/").await.unwrap();
    let held = engine.claim("lending").await;
    let engine = engine.restarted().await;
    assert_eq!(engine.state.owners(&live(), "0").await.unwrap().len(), 1);
    assert_eq!(engine.state.urls(&tenant("lending")).await.unwrap().len(), 1);
    assert_eq!(engine.state.receive(callback("0", "x")).await, Ok(ReceiveOutcome::Repeat));
    assert_eq!(engine.fan_out().await, 1);
    // Claimed entries are free again: at once, or at the end of the lease.
    engine.clock.advance(LEASE + Duration::from_secs(1));
    let again = engine.claim("lending").await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().any(|delivery| delivery.id == held[0].id));
}

async fn what_cannot_be_stored_is_told(engine: Engine) {
    engine.state.close().await;
    assert_eq!(engine.state.receive(callback("1", "x")).await, Err(StateError::Unavailable));
    assert_eq!(engine.state.own(owning("1", "lending", "a")).await, Err(StateError::Unavailable));
    assert_eq!(engine.state.owners(&live(), "1").await, Err(StateError::Unavailable));
}

#[tokio::test]
async fn below_the_disks_reserve_only_what_must_not_be_lost_is_written() {
    let (folder, clock) = (folder(), Clock::adjustable());
    let with = |reserve: ByteSize| {
        let path = folder.path().join("state.db");
        let database = Database::open(&path, &[MIGRATIONS]).unwrap();
        let settings = config::State { path, disk_reserve: reserve, ..settings(&[1]) };
        State::Sqlite(Arc::new(Sqlite::new(database, &settings, clock.clone())))
    };
    let engine = Engine { state: with(ByteSize::mib(1 << 40)), clock: clock.clone(), restart: Restart::Elsewhere };
    let state = &engine.state;
    state.own(owning("1", "lending", "a")).await.unwrap();
    assert_eq!(state.receive(callback("1", "x")).await, Ok(ReceiveOutcome::New), "the inbox");
    let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
    let refused = Err(StateError::Unavailable);
    assert_eq!(state.settle(&waiting, engine.decision(&waiting), &ROOM).await, refused, "deliveries");
    let copy = copy("lending", "a");
    let made = Made { account: live(), id: "1".into(), kind: KIND, copy, tags: Vec::new() };
    assert_eq!(state.enqueue(vec![made], &ROOM).await, refused, "callbacks of hits");
    assert_eq!(state.set_url(&tenant("lending"), KIND, "https://a.internal/").await, Err(StateError::Unavailable));
    state.erase(&[person(1)]).await.expect("an erasure");
    state.close().await;
    // With room again the callback is delivered.
    let engine = Engine { state: with(ByteSize::mib(1)), clock, restart: Restart::Elsewhere };
    assert_eq!(engine.fan_out().await, 1);
    assert_eq!(engine.deliver("lending").await.len(), 1);
}

#[tokio::test]
async fn nothing_stands_in_the_file_that_tells_of_a_person() {
    let engine = Engine::sqlite().await;
    let secret = "needle-7263";
    engine
        .state
        .own(Owning {
            tags: vec![Tag::from_bytes(b"needle-7263need-").expect("a tag")],
            ..owning(secret, "lending", secret)
        })
        .await
        .unwrap();
    engine.state.receive(callback(secret, "{needle-7263}")).await.unwrap();
    engine.state.receive(callback("needle-7263-unowned", "{needle-7263}")).await.unwrap();
    engine.state.set_url(&tenant("lending"), KIND, "https://needle-7263.internal/").await.unwrap();
    engine.fan_out().await;
    let Restart::Sqlite(folder) = &engine.restart else { panic!("it is in a file") };
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}
