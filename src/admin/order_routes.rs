//! The paths of orders about the cache, persons and callbacks. Each body is read whole before its order begins.

use super::answer::Refusal;
use super::audit::{Order, carry_out};
use super::auth::Caller;
use super::context::Context;
use super::orders::Orders;
use super::outcome::Outcome;
use crate::base::name::TenantName;
use crate::base::web::whole_body;
use crate::cache::Change;
use crate::callback::{self, Endpoints};
use crate::iluma::route_name::RouteName;
use crate::state::{DeliveryId, Replay};
use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use std::sync::Arc;

/// `POST /v1/cache/purge`: removes the stored answers of a route, the private answers of a team, or all answers. With
/// `dry_run` it only counts them. Counting is not an order, because nothing changes.
pub(super) async fn purge(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let body = whole_body(request).await?;
    let config = context.config();
    let (changes, dry_run) = changes(&body, |tenant| config.tenants.iter().any(|known| known.name.as_str() == tenant))?;
    if dry_run {
        return context.orders.count_purge(&changes).await.answer;
    }
    let (orders, subject) = (Arc::clone(&context.orders), purged(&changes));
    carry_out(&context, &caller, Order::Purge, Some(subject), async move { orders.purge(&changes).await }).await
}

/// `POST /v1/erase`: erases a person.
pub(super) async fn erase(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let body = whole_body(request).await?;
    let tags = context.orders.persons.named(&body).map_err(|error| Refusal::invalid(error.to_string()))?;
    let orders = Arc::clone(&context.orders);
    carry_out(&context, &caller, Order::Erase, None, async move { orders.erase(tags).await }).await
}

/// `POST /v1/callbacks/replay` with `{"id"}`, `{"tenant","since"}` and optionally `until`, or `{"all":true}`: delivers
/// callbacks again.
pub(super) async fn replay(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let what = callback::replay(&whole_body(request).await?, None)?;
    if let Replay::Since(tenant, ..) = &what {
        context.ever_known(tenant).await?;
    }
    let subject = match &what {
        Replay::One(id) | Replay::Own(_, id) => id.to_string(),
        Replay::Since(tenant, ..) | Replay::AllDead(Some(tenant)) => tenant.to_string(),
        Replay::AllDead(None) => "all".to_owned(),
    };
    let orders = Arc::clone(&context.orders);
    carry_out(&context, &caller, Order::Replay, Some(subject), async move { orders.replay(what).await }).await
}

/// Returns the subject of a purge for the audit log.
fn purged(changes: &[Change]) -> String {
    match changes.first() {
        Some(Change::Subject(subject)) => subject.as_str().to_owned(),
        Some(Change::Tenant(tenant)) => tenant.to_string(),
        Some(Change::All | Change::Erased(_) | Change::Registry) | None => "all".to_owned(),
    }
}

/// `POST /v1/callbacks/pause` with `{"tenant"}` and optionally `type`: stops the attempts at the team's endpoints until
/// they are resumed.
pub(super) async fn pause(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let work = |orders: Arc<Orders>, endpoints: Endpoints| async move { orders.pause(&endpoints).await };
    about_endpoints((&context, &caller), Order::PauseCallbacks, request, work).await
}

/// `POST /v1/callbacks/resume` with `{"tenant"}` and optionally `type`: ends the pauses of the team's endpoints,
/// whatever their reason.
pub(super) async fn resume(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let work = |orders: Arc<Orders>, endpoints: Endpoints| async move { orders.resume(&endpoints).await };
    about_endpoints((&context, &caller), Order::ResumeCallbacks, request, work).await
}

/// `POST /v1/callbacks/test` with `{"tenant"}` and optionally `type`: sends a signed test delivery to the team's
/// endpoints.
pub(super) async fn test(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let work = |orders: Arc<Orders>, endpoints: Endpoints| async move { orders.test(&endpoints).await };
    about_endpoints((&context, &caller), Order::TestCallbacks, request, work).await
}

/// Carries out an order about the endpoints of a team. The body names the team, and may name one type of callbacks.
async fn about_endpoints<F>(
    (context, caller): (&Context, &Caller),
    order: Order,
    request: Request,
    work: impl FnOnce(Arc<Orders>, Endpoints) -> F,
) -> Result<Response, Refusal>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let endpoints = callback::endpoints(&whole_body(request).await?, None)?;
    let subject = Some(endpoints.tenant().to_string());
    carry_out(context, caller, order, subject, work(Arc::clone(&context.orders), endpoints)).await
}

/// `DELETE /v1/callbacks/{id}`: deletes a dead letter.
pub(super) async fn delete_dead_letter(
    State(context): State<Arc<Context>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let orders = Arc::clone(&context.orders);
    let subject = id.parse::<DeliveryId>().ok().map(|id| id.to_string());
    let work = async move { orders.delete_dead_letter(&id).await };
    carry_out(&context, &caller, Order::DeleteDeadLetter, subject, work).await
}

/// The body of a purge. It must select exactly one: a route, a team, or all entries.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Purge {
    route: Option<String>,
    tenant: Option<String>,
    all: Option<bool>,
    #[serde(default)]
    dry_run: bool,
}

/// Parses the body of a purge. Returns the changes, and a flag that is true if the entries are only to be counted.
/// `is_known` returns true for the name of a configured team.
fn changes(order: &[u8], is_known: impl Fn(&str) -> bool) -> Result<(Vec<Change>, bool), Refusal> {
    let unclear = || {
        Refusal::invalid(
            "name one thing to purge: {\"route\":\"bank\"}, \"cft\" or \"bank_codes\", {\"tenant\":\"NAME\"} or \
             {\"all\":true}; \"dry_run\":true beside it only counts",
        )
    };
    let order: Purge = serde_json::from_slice(order).map_err(|_| unclear())?;
    let dry_run = order.dry_run;
    let changes = match order {
        Purge { route: Some(route), tenant: None, all: None, .. } => match route.parse() {
            Ok(name) => of_route(name).ok_or_else(unclear),
            Err(_) => Err(unclear()),
        },
        Purge { route: None, tenant: Some(tenant), all: None, .. } => {
            let tenant: TenantName = tenant.parse().map_err(|_| unclear())?;
            if is_known(tenant.as_str()) { Ok(vec![Change::Tenant(tenant)]) } else { Err(Refusal::UnknownTenant) }
        }
        Purge { route: None, tenant: None, all: Some(true), .. } => Ok(vec![Change::All]),
        Purge { .. } => Err(unclear()),
    };
    Ok((changes?, dry_run))
}

/// Returns the changes that purge the answers of a row of the route table, and of the rows that it includes. Returns
/// `None` if answers of the row are never stored.
fn of_route(name: RouteName) -> Option<Vec<Change>> {
    let own = name.spec().kind.subject()?;
    let included = name.spec().includes.iter().filter_map(|name| name.spec().kind.subject());
    Some(std::iter::once(own).chain(included).map(Change::Subject).collect())
}
