//! `iluma-gateway purge`: removes stored answers from running gateways.

use super::operator::{OperatorError, Target};
use http::Method;
use serde_json::json;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  iluma-gateway purge --config config.toml --route cft\n  iluma-gateway purge --config config.toml --tenant lending"
)]
#[group(skip)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    what: What,
}

/// What is purged: one of these.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// The answers of a route: bank, cft or bank_codes.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// The answers that serve one team alone (share_cache = false).
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Every answer.
    #[arg(long)]
    all: bool,
}

/// Purges stored answers; returns what was removed.
///
/// # Errors
/// The order was not carried out, or not everywhere.
pub(super) async fn run(args: Args) -> Result<String, OperatorError> {
    let what = match (args.what.route, args.what.tenant) {
        (Some(route), _) => json!({ "route": route }),
        (None, Some(tenant)) => json!({ "tenant": tenant }),
        (None, None) => json!({ "all": true }),
    };
    args.target.ask(Method::POST, "/v1/cache/purge", what.to_string().into()).await
}
