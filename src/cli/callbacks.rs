//! `iluma-gateway callbacks`: lists, replays, pauses, resumes and tests callbacks of a running gateway.

use super::operator::{OperatorError, Target};
use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  iluma-gateway callbacks list --config config.toml --state dead --tenant lending\n  \
                  iluma-gateway callbacks replay --config config.toml --all"
)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List callbacks by state, with their attempts.
    List(List),
    /// Send callbacks again: one, those of a team since a time, or all dead letters.
    Replay(Replay),
    /// Stop attempts at the URL of a team for a type, or at all of the team's URLs.
    Pause(Endpoints),
    /// Resume attempts after a pause of any reason.
    Resume(Endpoints),
    /// Send a signed test delivery to the URL of a team for a type, or to all of the team's URLs.
    Test(Endpoints),
}

/// Options of `list`.
#[derive(clap::Args, Debug)]
struct List {
    #[command(flatten)]
    target: Target,
    /// The state: queued, dead, delivered or unowned.
    #[arg(long, default_value = "dead")]
    state: String,
    /// Only callbacks of this team.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only callbacks of this type, such as `NAME_VALIDATOR_REQUEST`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only callbacks from this time on, such as `2026-11-25T08:30:00Z`: the time of their end, or of receipt if they
    /// have not ended.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only callbacks until this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The largest number of callbacks; at most 1000.
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u16>,
    /// The value of `next` from the page before.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
}

/// Options of `replay`.
#[derive(clap::Args, Debug)]
struct Replay {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    what: Replayed,
    /// The beginning of the time span, such as `2026-11-25T08:30:00Z`.
    #[arg(long, value_name = "TIME", requires = "tenant")]
    since: Option<String>,
    /// The end of that time span; without it, now.
    #[arg(long, value_name = "TIME", requires = "since")]
    until: Option<String>,
}

/// The callbacks that are sent again. Exactly one of these options names them.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct Replayed {
    /// One callback.
    #[arg(long)]
    id: Option<String>,
    /// The callbacks of a team since a time.
    #[arg(long, value_name = "NAME", requires = "since")]
    tenant: Option<String>,
    /// All dead letters.
    #[arg(long)]
    all: bool,
}

/// Options of `pause`, `resume` and `test`.
#[derive(clap::Args, Debug)]
struct Endpoints {
    #[command(flatten)]
    target: Target,
    /// The team.
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// The type, such as `NAME_VALIDATOR_REQUEST`; all types if it is left out.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

/// Sends the request or the order to the gateway, and returns the answer.
///
/// # Errors
/// Returns an error if the order was not carried out.
pub(super) async fn run(args: Args) -> Result<String, OperatorError> {
    match args.action {
        Action::List(list) => list.target.ask(Method::GET, &list.path(), Vec::new().into()).await,
        Action::Replay(replay) => post(&replay.target, "replay", &replay.order()).await,
        Action::Pause(endpoints) => post(&endpoints.target, "pause", &endpoints.order()).await,
        Action::Resume(endpoints) => post(&endpoints.target, "resume", &endpoints.order()).await,
        Action::Test(endpoints) => post(&endpoints.target, "test", &endpoints.order()).await,
    }
}

async fn post(target: &Target, order: &str, body: &Value) -> Result<String, OperatorError> {
    target.ask(Method::POST, &format!("/v1/callbacks/{order}"), body.to_string().into()).await
}

impl List {
    fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("state", &self.state);
        for (name, value) in [
            ("tenant", &self.tenant),
            ("type", &self.kind),
            ("since", &self.since),
            ("until", &self.until),
            ("limit", &self.limit.map(|limit| limit.to_string())),
            ("after", &self.after),
        ] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        format!("/v1/callbacks?{}", query.finish())
    }
}

impl Replay {
    fn order(&self) -> Value {
        let mut order = match &self.what {
            Replayed { id: Some(id), .. } => json!({ "id": id }),
            Replayed { tenant: Some(tenant), .. } => json!({ "tenant": tenant, "since": self.since }),
            Replayed { .. } => json!({ "all": true }),
        };
        if let Some(until) = &self.until {
            order["until"] = json!(until);
        }
        order
    }
}

impl Endpoints {
    fn order(&self) -> Value {
        let mut order = json!({ "tenant": self.tenant });
        if let Some(kind) = &self.kind {
            order["type"] = json!(kind);
        }
        order
    }
}
