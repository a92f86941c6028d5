//! Cases of the suite about endpoints: the history of attempts, and pauses.

use super::{DAY, Engine, KIND, LEASE, queued, tenant};
use iluma_gateway::iluma::callback_type::CallbackType;
use iluma_gateway::state::{
    AttemptError, AttemptRecord, AttemptResult, Conclusion, Deleted, Delivery, DeliveryOutcome, DeliveryStatus,
    Endpoint, PROBE_INTERVAL, Page, PauseReason, Replay, Resume,
};
use std::time::Duration;

const HOUR: Duration = PROBE_INTERVAL;
/// The sum of the waits in a retry schedule, after which a paused delivery becomes a dead letter.
const AGE: Duration = Duration::from_secs(3 * 86_400);

fn endpoint() -> Endpoint {
    Endpoint { tenant: tenant("lending"), kind: KIND }
}

impl Engine {
    /// Ends the claim of a delivery with an attempt that has this result, and returns the attempt.
    async fn attempted(&self, delivery: &Delivery, outcome: DeliveryOutcome, result: AttemptResult) -> AttemptRecord {
        let attempt = AttemptRecord { time: self.whole_second(), result, duration: Duration::from_millis(12) };
        self.state.conclude(delivery, Conclusion { outcome, attempt: Some(attempt) }).await.unwrap();
        attempt
    }

    fn whole_second(&self) -> std::time::SystemTime {
        let since = self.clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap();
        std::time::UNIX_EPOCH + Duration::from_secs(since.as_secs())
    }

    async fn reasons(&self) -> Vec<PauseReason> {
        self.state.pauses().await.unwrap().into_iter().map(|pause| pause.reason).collect()
    }

    async fn fails(&self, delivery: &Delivery, status: u16) {
        let now = DeliveryOutcome::Retry(self.clock.wall());
        self.attempted(delivery, now, AttemptResult::Status(status)).await;
    }
}

pub(super) async fn attempts_are_remembered_until_a_dead_letter_is_deleted(engine: Engine) {
    queued(&engine, 1).await;
    let delivery = engine.claim("lending").await.remove(0);
    let first = engine
        .attempted(&delivery, DeliveryOutcome::Retry(engine.clock.wall()), AttemptResult::Error(AttemptError::Tls))
        .await;
    let delivery = engine.claim("lending").await.remove(0);
    assert_eq!(engine.state.delete(delivery.id).await, Ok(Deleted::NotDead));
    let second = engine.attempted(&delivery, DeliveryOutcome::Dead, AttemptResult::Status(503)).await;
    let engine = engine.restarted().await;
    let state = &engine.state;
    let found = state.find(delivery.id).await.unwrap().unwrap();
    assert_eq!((found.status, found.history), (DeliveryStatus::Dead, vec![first, second]));
    let page = Page { most: 9, ..Page::default() };
    let listed = state.list(DeliveryStatus::Dead, &page).await.unwrap();
    assert_eq!((listed.len(), listed[0].attempts, listed[0].last), (1, 2, Some(second)));
    assert_eq!(found.entry, listed[0]);

    let none = "msg_000102030405060708090a0b0c0d0e0f".parse().unwrap();
    assert_eq!((state.find(none).await, state.delete(none).await), (Ok(None), Ok(Deleted::Unknown)));
    assert_eq!(state.delete(delivery.id).await, Ok(Deleted::Done));
    assert_eq!(state.list(DeliveryStatus::Dead, &page).await.unwrap(), []);
    assert_eq!((state.find(delivery.id).await, state.delete(delivery.id).await), (Ok(None), Ok(Deleted::Unknown)));
    assert_eq!(state.replay(Replay::One(delivery.id)).await, Ok(0));
}

pub(super) async fn lists_and_replays_are_by_type_time_and_team(engine: Engine) {
    queued(&engine, 2).await;
    let begin = engine.clock.wall();
    let claimed = engine.claim("lending").await;
    engine.state.conclude(&claimed[0], DeliveryOutcome::Dead).await.unwrap();
    engine.clock.advance(HOUR);
    let middle = engine.clock.wall();
    engine.clock.advance(HOUR);
    engine.state.conclude(&claimed[1], DeliveryOutcome::Dead).await.unwrap();
    let end = engine.clock.wall() + HOUR;
    let all = Page { most: 9, ..Page::default() };
    for (page, count) in [
        (all.clone(), 2),
        (Page { kind: Some(KIND), ..all.clone() }, 2),
        (Page { kind: Some(CallbackType::DocumentOcrCaptureRequest), ..all.clone() }, 0),
        (Page { since: Some(middle), ..all.clone() }, 1),
        (Page { until: Some(middle), ..all.clone() }, 1),
        (Page { since: Some(middle), until: Some(middle), ..all.clone() }, 0),
        (Page { since: Some(begin), until: Some(end), most: 1, ..all.clone() }, 1),
    ] {
        assert_eq!(engine.state.list(DeliveryStatus::Dead, &page).await.unwrap().len(), count, "{page:?}");
    }
    let id = claimed[0].id;
    for (what, count) in [
        (Replay::Own(tenant("payments"), id), 0),
        (Replay::AllDead(Some(tenant("payments"))), 0),
        (Replay::Since(tenant("lending"), middle, Some(middle)), 0),
        (Replay::Since(tenant("lending"), begin - HOUR, Some(middle)), 1),
        (Replay::AllDead(Some(tenant("lending"))), 1),
        (Replay::Own(tenant("lending"), id), 1),
    ] {
        assert_eq!(engine.state.replay(what.clone()).await, Ok(count), "{what:?}");
    }
}

pub(super) async fn an_endpoint_that_is_gone_is_paused_until_its_url_is_set_again(engine: Engine) {
    queued(&engine, 2).await;
    let claimed = engine.claim("lending").await;
    engine.fails(&claimed[0], 410).await;
    // A delivery that was claimed before the pause fails too, and does not change the pause.
    engine.fails(&claimed[1], 503).await;
    assert_eq!(engine.reasons().await, [PauseReason::Gone]);
    engine.clock.advance(2 * HOUR);
    assert_eq!(engine.claim("lending").await.len(), 0, "it is not probed");
    engine.state.set_url(&tenant("lending"), KIND, "https://a.internal/").await.unwrap();
    assert_eq!(engine.reasons().await, []);
    assert_eq!(engine.claim("lending").await.len(), 2);
}

pub(super) async fn an_endpoint_that_failed_for_a_day_is_probed_and_resumed_by_a_success(engine: Engine) {
    queued(&engine, 3).await;
    let claimed = engine.claim("lending").await;
    engine.fails(&claimed[0], 503).await;
    engine.clock.advance(DAY - Duration::from_secs(1));
    engine.fails(&claimed[1], 503).await;
    assert_eq!(engine.reasons().await, []);
    engine.clock.advance(Duration::from_secs(1));
    engine.fails(&engine.claim("lending").await.remove(0), 503).await;
    assert_eq!(engine.reasons().await, [PauseReason::Failing]);
    engine.clock.advance(LEASE + Duration::from_secs(1));
    assert_eq!(engine.claim("lending").await.len(), 0);

    engine.clock.advance(HOUR);
    let probes = engine.claim("lending").await;
    assert_eq!((probes.len(), probes[0].is_probe), (1, true));
    let counts = (probes[0].attempts, probes[0].probes);
    engine.attempted(&probes[0], DeliveryOutcome::Probed, AttemptResult::Status(503)).await;
    assert_eq!(engine.claim("lending").await.len(), 0, "until the next hour");
    engine.clock.advance(HOUR);
    let probe = engine.claim("lending").await.remove(0);
    assert_eq!((probe.id, probe.is_probe), (probes[0].id, true), "the oldest");
    assert_eq!((probe.attempts, probe.probes), (counts.0 + 1, counts.1 + 1));
    engine.attempted(&probe, DeliveryOutcome::Delivered, AttemptResult::Status(204)).await;
    assert_eq!(engine.reasons().await, []);
    let rest = engine.claim("lending").await;
    assert_eq!((rest.len(), rest.iter().any(|delivery| delivery.is_probe)), (2, false));
    // After the success, the day of failures is counted from its start again.
    engine.fails(&rest[0], 503).await;
    assert_eq!(engine.reasons().await, []);
}

pub(super) async fn a_pause_by_order_is_durable_and_stops_attempts_but_not_age(engine: Engine) {
    queued(&engine, 2).await;
    engine.state.pause(&[endpoint()], PauseReason::Team).await.unwrap();
    let engine = engine.restarted().await;
    let state = &engine.state;
    assert_eq!(engine.reasons().await, [PauseReason::Team]);
    state.set_url(&tenant("lending"), KIND, "https://a.internal/").await.unwrap();
    assert_eq!(state.resume(&[endpoint()], Resume::Automatic).await, Ok(0));
    assert_eq!(engine.claim("lending").await.len(), 0);
    assert_eq!(state.expire_paused(AGE).await, Ok(vec![]));
    assert_eq!(state.resume(&[endpoint()], Resume::Any).await, Ok(1));
    assert_eq!(state.resume(&[endpoint()], Resume::Any).await, Ok(0));
    let claimed = engine.claim("lending").await;
    assert_eq!(claimed.len(), 2);
    for delivery in &claimed {
        state.conclude(delivery, DeliveryOutcome::Untried).await.unwrap();
    }

    state.pause(&[endpoint()], PauseReason::Operator).await.unwrap();
    engine.clock.advance(AGE + HOUR);
    assert_eq!(engine.claim("lending").await.len(), 0, "it is not probed");
    assert_eq!(state.expire_paused(AGE).await, Ok(vec![tenant("lending"); 2]));
    assert_eq!(engine.listed(DeliveryStatus::Dead).await, 2);
    // The age of a replayed delivery is counted from the replay.
    assert_eq!(state.replay(Replay::AllDead(None)).await, Ok(2));
    assert_eq!(engine.claim("lending").await.len(), 0);
    assert_eq!(state.expire_paused(AGE).await, Ok(vec![]));
    assert_eq!(state.resume(&[endpoint()], Resume::Any).await, Ok(1));
    assert_eq!(engine.claim("lending").await.len(), 2);
}
