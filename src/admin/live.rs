//! `GET /v1/live`: streams the access log as server-sent events, each line at the moment when it is written.
//!
//! Invariant: a stream ends when the drain begins, and when its token or session no longer works.

use super::answer::Refusal;
use super::auth::identify;
use super::context::Context;
use crate::iluma::route_name::RouteName;
use crate::telemetry::logs::{LineFilter, Subscription};
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, stream};
use http::header::{AUTHORIZATION, CACHE_CONTROL, COOKIE};
use http::{HeaderMap, HeaderValue, Method};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// The time between two comments in a stream of events. The comments keep proxies from closing a connection on which no
/// line is sent.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Streams the lines of the access log that are written from now on. The query may select a `tenant`, a `route`, and a
/// `status` such as `404` or `5xx`. The client loses lines beyond 200 a second on average, and lines that it reads too
/// slowly. An event `dropped` has the number of lost lines.
pub(super) async fn follow(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let filter = wanted(&context, query.as_deref().unwrap_or_default())?;
    let lines = context.live.subscribe(filter).ok_or(Refusal::TooManyFollowers)?;
    let mut heartbeat = tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let credentials = headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
    let credentials: HeaderMap = credentials.filter(|(name, _)| *name == AUTHORIZATION || *name == COOKIE).collect();
    let (reloads, drain) = (context.reloads(), context.until_drain());
    let is_known = move || {
        let (context, credentials) = (Arc::clone(&context), credentials.clone());
        async move { matches!(identify(&context, &Method::GET, &credentials).await, Ok(Some(_))) }.boxed()
    };
    let is_known = Box::new(is_known);
    let follower = Follower { lines, held: None, heartbeat, reloads, drain, is_known };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let mut response = Sse::new(events).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn wanted(context: &Context, query: &str) -> Result<LineFilter, Refusal> {
    let mut filter = LineFilter::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "tenant" => filter.tenant = Some(context.tenant(&value)?),
            "route" => {
                let route = value.parse::<RouteName>().map_err(|_| Refusal::invalid("there is no such route"))?;
                filter.route = Some(route);
            }
            "status" => {
                let wrong = |()| Refusal::invalid("status is a number or a class, such as 404 or 5xx");
                filter.status = Some(value.parse().map_err(wrong)?);
            }
            _ => return Err(Refusal::invalid("known here: tenant, route and status")),
        }
    }
    Ok(filter)
}

/// A client that follows the log.
struct Follower {
    lines: Subscription,
    /// The line that follows an event about lost lines; `None` if no line waits.
    held: Option<Bytes>,
    heartbeat: Interval,
    reloads: watch::Receiver<u64>,
    drain: CancellationToken,
    /// Returns true while the client's token or session works.
    is_known: Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>,
}

impl Follower {
    /// Returns the next event, or `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(line) = self.held.take() {
                return Some(line_event(&line));
            }
            tokio::select! {
                biased;
                () = self.drain.cancelled() => return None,
                _ = self.reloads.changed() => {
                    if !(self.is_known)().await {
                        return None;
                    }
                }
                _ = self.heartbeat.tick() => {
                    return if (self.is_known)().await { Some(Event::default().comment("heartbeat")) } else { None };
                }
                line = self.lines.line() => {
                    match self.lines.dropped() {
                        0 => return Some(line_event(&line)),
                        dropped => {
                            self.held = Some(line);
                            return Some(dropped_event(dropped));
                        }
                    }
                }
            }
        }
    }
}

fn line_event(line: &[u8]) -> Event {
    // A line is JSON, so it is text.
    Event::default().data(String::from_utf8_lossy(line))
}

fn dropped_event(dropped: u64) -> Event {
    Event::default().event("dropped").data(format!("{{\"dropped\":{dropped}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::base::trace_context::TraceContext;
    use crate::telemetry::CacheOutcome;
    use crate::telemetry::logs::{AccessLog, Record};
    use crate::telemetry::redact::Redactor;

    fn record() -> Record<'static> {
        Record {
            time: Clock::system().wall(),
            request_id: uuid::Uuid::nil(),
            trace_id: TraceContext::new().trace,
            client: None,
            tenant: None,
            route: RouteName::Bank,
            method: "POST",
            status: 200,
            cache: CacheOutcome::Hit,
            duration: Duration::ZERO,
            upstream_duration: None,
            redis_duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            upstream_status: None,
            reason: None,
        }
    }

    fn follower(lines: Subscription, is_known: bool) -> (Follower, watch::Sender<u64>) {
        let reloads = watch::Sender::new(0);
        let follower = Follower {
            lines,
            held: None,
            heartbeat: tokio::time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
            reloads: reloads.subscribe(),
            drain: CancellationToken::new(),
            is_known: Box::new(move || std::future::ready(is_known).boxed()),
        };
        (follower, reloads)
    }

    fn text(event: Option<Event>) -> String {
        format!("{event:?}")
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_gives_signs_of_life_and_ends_with_its_token_or_at_the_drain() {
        let (log, _writer) = AccessLog::start(Box::new(std::io::sink()), Redactor::new(Vec::new())).unwrap();
        let lines = || log.live().subscribe(LineFilter::default()).unwrap();
        let (mut follower_a, reloads) = follower(lines(), true);
        reloads.send_modify(|count| *count += 1);
        assert!(text(follower_a.next().await).contains("heartbeat"), "a reload that keeps the token changes nothing");
        follower_a.drain.cancel();
        assert!(follower_a.next().await.is_none());
        let (mut follower_b, _reloads) = follower(lines(), false);
        assert!(follower_b.next().await.is_none(), "the token does not work any more");
    }

    #[tokio::test]
    async fn lines_that_were_lost_are_told_before_the_next_one() {
        let (log, writer) = AccessLog::start(Box::new(std::io::sink()), Redactor::new(Vec::new())).unwrap();
        let (mut follower, _reloads) = follower(log.live().subscribe(LineFilter::default()).unwrap(), true);
        for _ in 0..700 {
            log.write(&record());
        }
        // `finish` makes the writer write all 700 lines. 512 of them wait for the follower, and the others are lost.
        writer.finish();
        let told = text(follower.next().await);
        assert!(told.contains("dropped") && told.contains("188"), "{told}");
        assert!(text(follower.next().await).contains("request_id"));
        assert_eq!(follower.lines.dropped(), 0);
    }
}
