//! `iluma-gateway keys`: creates, lists, rotates and revokes teams' keys at a running gateway.

use super::operator::{OperatorError, Target};
use crate::base::name::TenantName;
use http::Method;
use serde_json::json;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  iluma-gateway keys create --config config.toml --tenant lending --expires-in 90d\n  iluma-gateway keys revoke --config config.toml --tenant lending 5f0c1d2e3a4b5c6d"
)]
pub(super) struct Args {
    #[command(subcommand)]
    order: Order,
}

#[derive(clap::Subcommand, Debug)]
enum Order {
    /// Create a key; it is printed this once.
    Create {
        #[command(flatten)]
        of: Team,
        /// A note for other operators.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// The lifetime of the key, such as 90d; without it the key has no end.
        #[arg(long, value_name = "TIME")]
        expires_in: Option<String>,
    },
    /// List a team's keys, with their last uses.
    List {
        #[command(flatten)]
        of: Team,
    },
    /// Create a successor of a key; the old key ends after a grace.
    Rotate {
        #[command(flatten)]
        of: Team,
        /// The id of the key.
        id: String,
        /// The time for which the key still works, such as 1h; without it a day.
        #[arg(long, value_name = "TIME")]
        grace: Option<String>,
    },
    /// Revoke a key.
    Revoke {
        #[command(flatten)]
        of: Team,
        /// The id of the key.
        id: String,
    },
}

#[derive(clap::Args, Debug)]
struct Team {
    #[command(flatten)]
    target: Target,
    /// The team.
    #[arg(long, value_name = "NAME")]
    tenant: TenantName,
}

/// Sends the order to the gateway, and returns the answer.
///
/// # Errors
/// Returns an error if the order was not carried out, or not on every node.
pub(super) async fn run(args: Args) -> Result<String, OperatorError> {
    let (of, method, below, body) = match args.order {
        Order::Create { of, note, expires_in } => {
            (of, Method::POST, String::new(), json!({ "note": note, "expires_in": expires_in }))
        }
        Order::List { of } => (of, Method::GET, String::new(), json!({})),
        Order::Rotate { of, id, grace } => {
            (of, Method::POST, format!("/{}/rotate", escaped(&id)), json!({ "grace": grace }))
        }
        Order::Revoke { of, id } => (of, Method::DELETE, format!("/{}", escaped(&id)), json!({})),
    };
    let path = format!("/v1/tenants/{}/keys{below}", of.tenant);
    of.target.ask(method, &path, body.to_string().into()).await
}

/// Returns an id as a segment of a path, percent-encoded.
fn escaped(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}
