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
    /// Only count the entries that would be removed.
    #[arg(long)]
    dry_run: bool,
}

/// The scope of the purge.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// Purge the answers of a route: bank, cft or bank_codes.
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Purge the answers that only one team may use (share_cache = false).
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Purge all answers.
    #[arg(long)]
    all: bool,
}

/// Purges stored answers, or counts them; returns the numbers.
///
/// # Errors
/// Returns an error if the order was not carried out, or not on every node.
pub(super) async fn run(args: Args) -> Result<String, OperatorError> {
    let mut what = match (args.what.route, args.what.tenant) {
        (Some(route), _) => json!({ "route": route }),
        (None, Some(tenant)) => json!({ "tenant": tenant }),
        (None, None) => json!({ "all": true }),
    };
    if args.dry_run {
        what["dry_run"] = true.into();
    }
    args.target.ask(Method::POST, "/v1/cache/purge", what.to_string().into()).await
}
