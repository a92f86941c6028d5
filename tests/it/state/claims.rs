//! Cases of the suite about idempotency keys: one claim at a time, an answer for a day, erased with its person.

use super::{DAY, Engine, person, tenant};
use bytes::Bytes;
use futures_util::future::join_all;
use iluma_gateway::state::{ClaimEnd, Claimed, Claiming, Erased, Holder, State};
use std::time::{Duration, SystemTime};

/// Returns a claim of the key `k` by a request of the team `lending`. `token` is the claim's own token, and `holder` is
/// the process that makes the claim.
fn claiming(token: u8, holder: &Holder) -> Claiming {
    Claiming {
        tenant: tenant("lending"),
        key: (*b"k").into(),
        request: [1; 32],
        holder: holder.clone(),
        token: [token; 16],
    }
}

fn answered(text: &'static str, tag: u8, asked: SystemTime) -> ClaimEnd {
    ClaimEnd::Answered { content: Bytes::from_static(text.as_bytes()), tags: vec![person(tag)], asked }
}

async fn end(state: &State, claiming: &Claiming, end: ClaimEnd) -> bool {
    state.end_claim(&state.claim_of(claiming), end).await.unwrap()
}

pub(super) async fn a_key_has_one_claim_and_keeps_its_answer_for_a_day(engine: Engine) {
    let (state, holder) = (&engine.state, Holder::new("a"));
    let claims = (1..=50).map(|token| claiming(token, &holder)).collect::<Vec<_>>();
    let all = join_all(claims.iter().map(|claiming| state.claim_key(claiming))).await;
    let new: Vec<_> = all.iter().zip(&claims).filter(|(claimed, _)| **claimed == Ok(Claimed::New)).collect();
    assert_eq!(new.len(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|claimed| **claimed == Ok(Claimed::InFlight)).count(), 49, "{all:?}");
    let first = new[0].1.clone();
    assert_eq!(state.claim_key(&first).await, Ok(Claimed::New), "the same step again");

    let (other, asked) = (claiming(99, &holder), engine.clock.wall());
    assert_eq!(state.claim_key(&Claiming { request: [2; 32], ..other.clone() }).await, Ok(Claimed::OtherRequest));
    for different in
        [Claiming { tenant: tenant("payments"), ..other.clone() }, Claiming { key: (*b"K").into(), ..other.clone() }]
    {
        assert_eq!(state.claim_key(&different).await, Ok(Claimed::New), "{different:?}");
    }
    assert!(!end(state, &other, ClaimEnd::Free).await, "another's claim");
    assert!(end(state, &first, answered("the answer", 7, asked)).await);
    assert!(!end(state, &first, ClaimEnd::NotKept).await, "a claim ends once");
    let kept = Ok(Claimed::Answered(Bytes::from_static(b"the answer")));
    assert_eq!(state.claim_key(&other).await, kept);
    engine.clock.advance(DAY - Duration::from_secs(1));
    assert_eq!(state.claim_key(&other).await, kept);
    engine.clock.advance(Duration::from_secs(2));
    assert_eq!(state.claim_key(&other).await, Ok(Claimed::New));
    assert!(!end(state, &first, ClaimEnd::Free).await, "the claim before it is over");
    assert_eq!(state.claim_key(&claiming(98, &holder)).await, Ok(Claimed::InFlight));
}

pub(super) async fn a_claim_ends_as_its_call_does(engine: Engine) {
    let (state, holder) = (&engine.state, Holder::new("a"));
    let first = claiming(1, &holder);
    for (token, ended, expected) in [
        (1, ClaimEnd::Free, Claimed::New),
        (2, ClaimEnd::NotKept, Claimed::NotKept),
        (3, ClaimEnd::Unknown, Claimed::Unknown),
    ] {
        let claim = claiming(token, &holder);
        assert_eq!(state.claim_key(&claim).await, Ok(Claimed::New), "{ended:?}");
        assert!(end(state, &claim, ended.clone()).await);
        let next = claiming(50 + token, &holder);
        assert_eq!(state.claim_key(&next).await, Ok(expected), "{ended:?}");
        // A settlement frees the key, whatever its claim had become.
        let has_it = if ended == ClaimEnd::Free { &next } else { &claim };
        assert!(end(state, has_it, ClaimEnd::Free).await);
    }
    // An unknown outcome may still get its answer.
    assert_eq!(state.claim_key(&first).await, Ok(Claimed::New));
    assert!(end(state, &first, ClaimEnd::Unknown).await);
    assert!(end(state, &first, answered("late", 7, engine.clock.wall())).await);
    let kept = Claimed::Answered(Bytes::from_static(b"late"));
    assert_eq!(state.claim_key(&claiming(2, &holder)).await, Ok(kept));
}

pub(super) async fn a_claim_outlives_its_process_as_unknown(engine: Engine) {
    let claim = claiming(1, &Holder::new("a"));
    assert_eq!(engine.state.claim_key(&claim).await, Ok(Claimed::New));
    let done = Claiming { key: (*b"done").into(), ..claim.clone() };
    assert_eq!(engine.state.claim_key(&done).await, Ok(Claimed::New));
    assert!(end(&engine.state, &done, answered("kept", 7, engine.clock.wall())).await);
    let engine = engine.restarted().await;
    let (state, holder) = (&engine.state, Holder::new("a"));
    assert_eq!(state.claim_key(&claiming(2, &holder)).await, Ok(Claimed::Unknown));
    let kept = Claimed::Answered(Bytes::from_static(b"kept"));
    assert_eq!(state.claim_key(&Claiming { holder: holder.clone(), token: [2; 16], ..done }).await, Ok(kept));
    // For ten minutes, the claim of another node that may be gone counts as in flight.
    let elsewhere = Holder::new("b");
    assert_eq!(state.claim_key(&claiming(2, &elsewhere)).await, Ok(Claimed::InFlight));
    engine.clock.advance(Duration::from_secs(601));
    assert_eq!(state.claim_key(&claiming(2, &elsewhere)).await, Ok(Claimed::Unknown));
    // A settlement after the crash frees the key.
    assert!(end(state, &claim, ClaimEnd::Free).await);
    assert_eq!(state.claim_key(&claiming(3, &holder)).await, Ok(Claimed::New));
}

pub(super) async fn a_kept_answer_is_erased_with_its_person(engine: Engine) {
    let (state, holder) = (&engine.state, Holder::new("a"));
    let (one, two) = (claiming(1, &holder), Claiming { key: (*b"two").into(), ..claiming(2, &holder) });
    let asked = engine.clock.wall();
    for claim in [&one, &two] {
        assert_eq!(state.claim_key(claim).await, Ok(Claimed::New));
    }
    assert!(end(state, &one, answered("about the person", 7, asked)).await);
    engine.clock.advance(Duration::from_secs(1));
    assert_eq!(state.erase(&[person(7)]).await, Ok(Erased { answers: 1, ..Erased::default() }));
    assert_eq!(state.claim_key(&claiming(9, &holder)).await, Ok(Claimed::Erased));
    assert_eq!(state.erase(&[person(7)]).await, Ok(Erased::default()));
    // The answer of a call that began before the erasure is not kept.
    assert!(end(state, &two, answered("about the person", 7, asked)).await);
    assert_eq!(state.claim_key(&Claiming { token: [9; 16], ..two }).await, Ok(Claimed::Erased));
    // A later request makes the person a new customer.
    engine.clock.advance(Duration::from_secs(1));
    let three = Claiming { key: (*b"three").into(), ..claiming(3, &holder) };
    assert_eq!(state.claim_key(&three).await, Ok(Claimed::New));
    assert!(end(state, &three, answered("new", 7, engine.clock.wall())).await);
    let kept = Claimed::Answered(Bytes::from_static(b"new"));
    assert_eq!(state.claim_key(&Claiming { token: [9; 16], ..three }).await, Ok(kept));
}

pub(super) async fn old_keys_are_swept(engine: Engine) {
    let (state, holder) = (&engine.state, Holder::new("a"));
    for key in 0..3_u8 {
        let claim = Claiming { key: [key].into(), ..claiming(key, &holder) };
        assert_eq!(state.claim_key(&claim).await, Ok(Claimed::New));
        assert!(end(state, &claim, answered("x", 7, engine.clock.wall())).await);
    }
    assert_eq!(state.sweep().await, Ok(0));
    engine.clock.advance(DAY + Duration::from_secs(1));
    assert_eq!(state.sweep().await, Ok(3));
    assert_eq!(state.sweep().await, Ok(0));
}
