//! Cases of the suite about browser sessions: found until they end, bounded for each holder, removed after their end.

use super::Engine;
use iluma_gateway::state::{MOST_SESSIONS, SessionKind, State, StateError};
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const SECRET: [u8; 32] = [7; 32];

async fn open(state: &State, id: &str) {
    state.open_session(SessionKind::Console, id, ("ops", SECRET)).await.unwrap();
}

/// Returns the minutes after which the session ends without a further request; `None` if it has ended. The look-up
/// counts as a request.
async fn left(state: &State, id: &str) -> Option<u64> {
    let found = state.session(SessionKind::Console, id).await.unwrap()?;
    assert_eq!((found.holder.as_str(), found.secret), ("ops", SECRET));
    Some((found.left + Duration::from_millis(500)).as_secs() / 60)
}

pub(super) async fn a_session_is_found_until_it_is_idle_old_or_closed(engine: Engine) {
    let state = &engine.state;
    for id in ["idle", "used", "closed"] {
        open(state, id).await;
    }
    assert_eq!(left(state, "none").await, None);
    assert_eq!(state.session(SessionKind::Portal, "used").await, Ok(None), "of the console alone");
    assert_eq!(left(state, "used").await, Some(30));
    state.close_session(SessionKind::Console, "closed").await.unwrap();
    state.close_session(SessionKind::Console, "closed").await.unwrap();
    assert_eq!(left(state, "closed").await, None);
    engine.clock.advance(29 * MINUTE);
    assert_eq!(left(state, "used").await, Some(30), "each request restarts the time");
    engine.clock.advance(2 * MINUTE);
    assert_eq!(left(state, "idle").await, None);
    for minutes in (31..705).step_by(25) {
        assert_eq!(left(state, "used").await, Some(30), "after {minutes} minutes");
        engine.clock.advance(25 * MINUTE);
    }
    assert_eq!(left(state, "used").await, Some(14), "706 of 720 minutes");
    engine.clock.advance(13 * MINUTE);
    assert_eq!(left(state, "used").await, Some(1));
    engine.clock.advance(MINUTE + MINUTE / 60);
    assert_eq!(left(state, "used").await, None, "twelve hours are over");
}

pub(super) async fn sessions_outlive_a_restart(engine: Engine) {
    open(&engine.state, "kept").await;
    open(&engine.state, "closed").await;
    engine.state.close_session(SessionKind::Console, "closed").await.unwrap();
    let engine = engine.restarted().await;
    assert_eq!(left(&engine.state, "kept").await, Some(30));
    assert_eq!(left(&engine.state, "closed").await, None);
}

pub(super) async fn the_session_that_ends_first_makes_room(engine: Engine) {
    let state = &engine.state;
    state.open_session(SessionKind::Portal, "other", ("ops", SECRET)).await.unwrap();
    for at in 0..=MOST_SESSIONS {
        open(state, &at.to_string()).await;
        engine.clock.advance(Duration::from_secs(11));
        // The first one is in use, so the second one is idle the longest.
        assert!(left(state, "0").await.is_some());
    }
    assert_eq!(left(state, "1").await, None);
    assert!(left(state, "2").await.is_some());
    assert!(left(state, &MOST_SESSIONS.to_string()).await.is_some());
    assert!(state.session(SessionKind::Portal, "other").await.unwrap().is_some(), "a holder of another kind");
}

pub(super) async fn sessions_that_have_ended_are_swept(engine: Engine) {
    let state = &engine.state;
    open(state, "idle").await;
    engine.clock.advance(20 * MINUTE);
    open(state, "open").await;
    assert_eq!(state.sweep().await, Ok(0));
    engine.clock.advance(11 * MINUTE);
    assert_eq!(state.sweep().await, Ok(1));
    assert_eq!(state.sweep().await, Ok(0));
    assert!(left(state, "open").await.is_some());
}

pub(super) async fn without_state_no_session_is_opened_found_or_closed(engine: Engine) {
    let state = &engine.state;
    open(state, "one").await;
    state.close().await;
    let out = StateError::Unavailable;
    assert_eq!(state.open_session(SessionKind::Console, "two", ("ops", SECRET)).await, Err(out));
    assert_eq!(state.session(SessionKind::Console, "one").await, Err(out));
    assert_eq!(state.close_session(SessionKind::Console, "one").await, Err(out));
}
