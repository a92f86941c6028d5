//! Tests of state that several nodes share in one Redis: their effects on each other, and faults of Redis.

use super::{
    DAY, Engine, KIND, LEASE, ROOM, Restart, callback, copy, live, owning, person, queued, quoted, settings, tenant,
    text,
};
use crate::support::{PATIENCE, Redis, until};
use bytes::Bytes;
use iluma_gateway::base::clock::Clock;
use iluma_gateway::base::tasks::Tasks;
use iluma_gateway::config::RedisTarget;
use iluma_gateway::redis::{KeySpace, RedisClient};
use iluma_gateway::state::{
    Callback, Copy, DeliveryOutcome, DeliveryStatus, Erased, FanOutDecision, LATE, Made, Owning, ReceiveOutcome,
    Replay, State, StateError,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest time of one operation while Redis is out, with a margin for a busy machine.
const BOUND: Duration = Duration::from_secs(5);

/// Returns the state of another node on a Redis. Its client ends when `stop` is cancelled.
pub(super) async fn node(redis: &Redis, clock: &Clock, stop: &CancellationToken) -> State {
    node_with(redis, clock, stop, &[1]).await
}

pub(super) async fn node_with(redis: &Redis, clock: &Clock, stop: &CancellationToken, keys: &[u8]) -> State {
    let target = RedisTarget::of_url("state.redis.url", redis.url().into(), None);
    let link = RedisClient::new(&target, KeySpace::new(&[7; 32]), &[]).unwrap();
    link.keep(&Tasks::new(), stop.clone());
    let mut up = link.watch();
    tokio::time::timeout(PATIENCE, up.wait_for(|up| *up)).await.unwrap().unwrap();
    State::Redis(Arc::new(iluma_gateway::state::Redis::new(link, &settings(keys), clock.clone())))
}

impl Engine {
    fn server(&self) -> &Redis {
        let Restart::Redis(redis, _) = &self.restart else { panic!("it is in a Redis") };
        redis
    }

    /// Returns the state of another node on the same Redis.
    async fn another(&self) -> State {
        let Restart::Redis(redis, stop) = &self.restart else { panic!("it is in a Redis") };
        node(redis, &self.clock, stop).await
    }

    /// Waits until the state answers again after a fault of Redis.
    async fn recovers(&self) {
        let back = async {
            while self.state.queues().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, back).await.expect("it comes back by itself");
    }
}

#[tokio::test]
async fn nothing_is_in_the_hands_of_two_nodes() {
    let engine = Engine::redis().await;
    let other = engine.another().await;
    queued(&engine, 60).await;
    let mut times = BTreeMap::<_, u32>::new();
    loop {
        let wanted = [(tenant("lending"), 7)];
        let (one, two) = tokio::join!(engine.state.claim(&wanted, LEASE), other.claim(&wanted, LEASE));
        let claimed: Vec<_> = one.unwrap().into_iter().chain(two.unwrap()).collect();
        if claimed.is_empty() {
            break;
        }
        for delivery in claimed {
            *times.entry(delivery.id).or_default() += 1;
        }
    }
    assert_eq!(times.len(), 60);
    assert!(times.values().all(|times| *times == 1), "{times:?}");

    for number in 0..40 {
        engine.state.receive(callback(&format!("early {number}"), "x")).await.unwrap();
    }
    let mut ids = Vec::new();
    loop {
        let (one, two) = tokio::join!(engine.state.waiting(3, LEASE), other.waiting(3, LEASE));
        let waiting: Vec<_> = one.unwrap().into_iter().chain(two.unwrap()).collect();
        if waiting.is_empty() {
            break;
        }
        ids.extend(waiting.into_iter().map(|waiting| waiting.id));
    }
    assert_eq!(ids.len(), 40);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn what_a_dead_node_held_comes_back_and_it_changes_nothing_if_it_was_only_slow() {
    let engine = Engine::redis().await;
    let other = engine.another().await;
    queued(&engine, 1).await;
    let wanted = [(tenant("lending"), 1)];
    let slow = engine.state.claim(&wanted, LEASE).await.unwrap().remove(0);
    assert_eq!(other.claim(&wanted, LEASE).await.unwrap().len(), 0);
    engine.clock.advance(LEASE + Duration::from_secs(1));
    let held = other.claim(&wanted, LEASE).await.unwrap().remove(0);
    assert_eq!((held.id, text(&held)), (slow.id, text(&slow)));
    for fate in [DeliveryOutcome::Untried, DeliveryOutcome::Retry(engine.clock.wall()), DeliveryOutcome::Dead] {
        engine.state.conclude(&slow, fate).await.unwrap();
        assert_eq!(engine.state.claim(&wanted, LEASE).await.unwrap().len(), 0, "{fate:?}");
    }
    other.conclude(&held, DeliveryOutcome::Retry(engine.clock.wall())).await.unwrap();
    let again = engine.state.claim(&wanted, LEASE).await.unwrap().remove(0);
    assert_eq!(again.attempts, 1);
    // A delivery that the team has received is delivered, whichever node sent it.
    other.conclude(&held, DeliveryOutcome::Delivered).await.unwrap();
    engine.state.conclude(&again, DeliveryOutcome::Retry(engine.clock.wall())).await.unwrap();
    assert_eq!(engine.listed(DeliveryStatus::Delivered).await, 1);
    assert_eq!(engine.listed(DeliveryStatus::Queued).await, 0);

    // A callback of a dead node is handed out again too.
    engine.state.own(owning("1", "lending", "a")).await.unwrap();
    engine.state.receive(callback("1", "y")).await.unwrap();
    let slow = engine.state.waiting(1, LEASE).await.unwrap().remove(0);
    assert_eq!(other.waiting(1, LEASE).await.unwrap().len(), 0);
    engine.clock.advance(LEASE + Duration::from_secs(1));
    let held = other.waiting(1, LEASE).await.unwrap().remove(0);
    engine.state.settle(&slow, FanOutDecision::Unowned, &ROOM).await.unwrap();
    other.settle(&held, engine.decision(&held), &ROOM).await.unwrap();
    assert_eq!(engine.deliver("lending").await, [r#""a" y"#]);
    assert_eq!(engine.listed(DeliveryStatus::Unowned).await, 0);
}

#[tokio::test]
async fn owners_and_callbacks_that_meet_at_two_nodes_come_to_one_delivery_each() {
    let engine = Engine::redis().await;
    let other = Engine { state: engine.another().await, clock: engine.clock.clone(), restart: Restart::Elsewhere };
    for round in 0..60 {
        let id = &format!("{round}");
        let (owning, receiving) = (async { other.state.own(owning(id, "lending", "a")).await.unwrap() }, async {
            engine.state.receive(callback(id, "x")).await.unwrap()
        });
        // Both nodes fan out meanwhile.
        tokio::join!(owning, receiving, engine.fan_out(), other.fan_out());
        tokio::join!(other.state.own(super::owning(id, "payments", "b")), engine.fan_out(), other.fan_out()).0.unwrap();
        tokio::join!(engine.fan_out(), other.fan_out());
    }
    while engine.fan_out().await > 0 {}
    for team in ["lending", "payments"] {
        assert_eq!(engine.deliver(team).await.len(), 60, "{team}");
        assert_eq!(engine.deliver(team).await.len(), 0, "{team}");
    }
    assert_eq!(engine.listed(DeliveryStatus::Delivered).await, 120);
}

#[tokio::test]
async fn nothing_in_redis_tells_of_a_person() {
    let engine = Engine::redis().await;
    let state = &engine.state;
    let secret = "needle-7263";
    let tags = vec![iluma_gateway::iluma::person::Tag::from_bytes(b"needle-7263need-").expect("a tag")];
    for id in ["needle-7263", "needle-7263-dead", "needle-7263-retried"] {
        state.own(Owning { tags: tags.clone(), ..owning(id, "lending", secret) }).await.unwrap();
        state.receive(Callback { tags: tags.clone(), ..callback(id, "{needle-7263}") }).await.unwrap();
    }
    engine.fan_out().await;
    let mut claimed = engine.claim("lending").await;
    state.conclude(&claimed.remove(0), DeliveryOutcome::Dead).await.unwrap();
    state.conclude(&claimed.remove(0), DeliveryOutcome::Retry(engine.clock.wall())).await.unwrap();
    state.receive(callback("needle-7263-unowned", "{needle-7263}")).await.unwrap();
    state.settle(&state.waiting(1, LEASE).await.unwrap()[0], FanOutDecision::Unowned, &ROOM).await.unwrap();
    state.receive(callback("needle-7263-waiting", "{needle-7263}")).await.unwrap();
    state.set_url(&tenant("lending"), KIND, "https://needle-7263.internal/").await.unwrap();
    let made = Made {
        account: live(),
        id: secret.into(),
        kind: KIND,
        copy: Copy { tenant: tenant("lending"), reference: quoted(secret), body: Bytes::from_static(b"needle-7263") },
        tags: tags.clone(),
    };
    state.enqueue(vec![made], &ROOM).await.unwrap();
    state.erase(&[person(1)]).await.unwrap();
    let all = engine.server().everything();
    assert!(all.windows(7).any(|window| window == b"lending"), "it is all there");
    assert!(!all.windows(secret.len()).any(|window| window == secret.as_bytes()));
}

#[tokio::test]
async fn a_redis_that_hangs_or_is_gone_is_told_in_time_and_found_again() {
    let engine = Engine::redis().await;
    queued(&engine, 1).await;
    let redis = engine.server();
    redis.pause();
    let ask = tokio::time::timeout(BOUND, engine.state.receive(callback("1", "x")));
    assert_eq!(ask.await.expect("an answer in time"), Err(StateError::Unavailable));
    assert_eq!(engine.state.owners(&live(), "0").await, Err(StateError::Unavailable));
    redis.resume();
    engine.recovers().await;
    // It is unknown if the callback was stored. It is not stored twice.
    engine.state.receive(callback("1", "x")).await.unwrap();
    assert_eq!(engine.state.receive(callback("1", "x")).await, Ok(ReceiveOutcome::Repeat));
    let mut engine = engine;
    if let Restart::Redis(redis, _) = &mut engine.restart {
        redis.kill();
        let ask = tokio::time::timeout(BOUND, engine.state.own(owning("1", "lending", "a")));
        assert_eq!(ask.await.expect("an answer in time"), Err(StateError::Unavailable));
        redis.run().await;
    }
    engine.recovers().await;
    assert_eq!(engine.deliver("lending").await, [r#""a" x"#]);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_redis_was_killed() {
    let engine = Engine::redis().await;
    let other = engine.another().await;
    let counted = AtomicUsize::new(0);
    let stream = async {
        for number in 0.. {
            let id = number.to_string();
            let owned = other.own(owning(&id, "lending", "a")).await;
            if owned.is_err() || other.receive(callback(&id, "x")).await.is_err() {
                return;
            }
            counted.fetch_add(1, Ordering::Relaxed);
        }
    };
    let kill = async {
        until("callbacks stream in", || counted.load(Ordering::Relaxed) >= 50).await;
        // Redis is killed and restarted while callbacks stream in.
        engine.restarted().await
    };
    let (engine, ()) = tokio::join!(kill, stream);
    let count = counted.into_inner();
    while engine.fan_out().await > 0 {}
    let mut delivered = 0;
    loop {
        match engine.deliver("lending").await.len() {
            0 => break,
            more => delivered += more,
        }
    }
    // One more delivery may have been in progress.
    assert!((count..=count + 1).contains(&delivered), "{delivered} of {count}");
}

#[tokio::test]
async fn nothing_is_left_of_what_is_swept() {
    let engine = Engine::redis().await;
    let state = &engine.state;
    let tags = vec![person(1)];
    for id in ["dead", "delivered", "queued", "erased"] {
        let tags = if id == "erased" { vec![person(2)] } else { tags.clone() };
        state.own(Owning { tags, ..owning(id, "lending", "a") }).await.unwrap();
        state.receive(callback(id, "x")).await.unwrap();
    }
    engine.fan_out().await;
    let mut claimed = engine.claim("lending").await;
    state.conclude(&claimed.remove(0), DeliveryOutcome::Dead).await.unwrap();
    state.conclude(&claimed.remove(0), DeliveryOutcome::Delivered).await.unwrap();
    state.receive(Callback { tags: tags.clone(), ..callback("unowned", "x") }).await.unwrap();
    state.settle(&state.waiting(1, LEASE).await.unwrap()[0], FanOutDecision::Unowned, &ROOM).await.unwrap();
    state.erase(&[person(2)]).await.unwrap();
    state.own(Owning { awaits: false, ..owning("alone", "risk", "") }).await.unwrap();
    for age in [LATE, 8 * DAY, 31 * DAY, 100 * DAY] {
        engine.clock.advance(age);
        while state.sweep().await.unwrap() > 0 {}
        state.queues().await.unwrap();
    }
    let left: Vec<String> = engine.server().ask(redis::cmd("KEYS").arg("*state:*"));
    assert!(left.len() == 1 && left[0].ends_with(":state:events"), "{left:?}");
}

#[tokio::test]
async fn what_takes_many_steps_is_done_to_the_end() {
    let engine = Engine::redis().await;
    let state = &engine.state;
    // The record has more entries than one script run handles.
    for number in 0..250 {
        let body = Bytes::from(format!("{number}"));
        state.receive(Callback { body, ..callback("1", "") }).await.unwrap();
    }
    assert_eq!(state.waiting(1000, LEASE).await.unwrap().len(), 250);
    engine.clock.advance(LEASE + Duration::from_secs(1));
    let mut unowned = 0;
    loop {
        let waiting = state.waiting(1000, LEASE).await.unwrap();
        if waiting.is_empty() {
            break;
        }
        for one in &waiting {
            state.settle(one, FanOutDecision::Unowned, &ROOM).await.unwrap();
            unowned += 1;
        }
    }
    assert_eq!(unowned, 250);
    state.own(Owning { tags: vec![person(7)], ..owning("1", "lending", "a") }).await.unwrap();
    assert_eq!(state.queues().await.unwrap().waiting, 250);
    while engine.fan_out().await > 0 {}
    for delivery in state.claim(&[(tenant("lending"), 230)], LEASE).await.unwrap() {
        state.conclude(&delivery, DeliveryOutcome::Dead).await.unwrap();
    }
    assert_eq!(state.replay(Replay::AllDead(None)).await, Ok(230));
    assert_eq!(state.erase(&[person(7)]).await, Ok(Erased { owners: 1, callbacks: 0, deliveries: 250, answers: 0 }));
    assert_eq!(state.queues().await.unwrap().tenants, []);

    // The deliveries have more bytes than one answer carries: each of 12 references has one of 1 MiB.
    for number in 0..12 {
        state.own(owning("2", "lending", &number.to_string())).await.unwrap();
    }
    state.receive(callback("2", "large")).await.unwrap();
    let waiting = state.waiting(1, LEASE).await.unwrap().remove(0);
    let large = |copy: Copy| Copy { body: Bytes::from(vec![b'x'; 1 << 20]), ..copy };
    let copies = (0..12).map(|number| large(copy("lending", &number.to_string())));
    state.settle(&waiting, FanOutDecision::Deliver(KIND, copies.collect()), &ROOM).await.unwrap();
    state.enqueue(vec![made("payments"), made("risk")], &ROOM).await.unwrap();
    let wanted =
        [("lending", 11), ("nobody", 3), ("payments", 5), ("risk", 5)].map(|(team, most)| (tenant(team), most));
    let claimed = state.claim(&wanted, LEASE).await.unwrap();
    let teams: Vec<_> = claimed.iter().map(|delivery| delivery.tenant.as_str()).collect();
    assert_eq!(teams, [&["lending"; 11][..], &["payments", "risk"]].concat());
    assert_eq!(state.claim(&wanted, LEASE).await.unwrap().len(), 1);
}

fn made(team: &str) -> Made {
    Made { account: live(), id: "1".into(), kind: KIND, copy: copy(team, "a"), tags: vec![] }
}

#[tokio::test]
async fn what_may_lose_state_is_told() {
    let engine = Engine::redis().await;
    assert_eq!(engine.state.durability_warnings().await, Ok(vec![]));
    engine.server().ask::<()>(redis::cmd("CONFIG").arg("SET").arg("appendfsync").arg("no"));
    engine.server().ask::<()>(redis::cmd("CONFIG").arg("SET").arg("maxmemory-policy").arg("allkeys-lru"));
    assert_eq!(engine.state.durability_warnings().await.unwrap().len(), 2);
    engine.server().ask::<()>(redis::cmd("CONFIG").arg("SET").arg("appendonly").arg("no"));
    let told = engine.state.durability_warnings().await.unwrap();
    assert!(told[0].to_string().contains("a restart of Redis loses everything"), "{told:?}");
    // State works also for a Redis user that may not read the configuration.
    engine.server().ask::<()>(redis::cmd("ACL").arg(&["SETUSER", "default", "-config"]));
    assert!(engine.state.durability_warnings().await.unwrap()[0].to_string().contains("snapshot"));
    assert_eq!(engine.state.receive(callback("1", "x")).await, Ok(ReceiveOutcome::New));
}
