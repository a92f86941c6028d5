//! `iluma-gateway erasures`: exports the receipts of erasures, for auditors and for `restore --erasures`.

use super::operator::{OperatorError, Target};
use bytes::Bytes;
use http::Method;
use serde::Deserialize;

/// The number of receipts in one request: the largest page of the admin API.
const PAGE: usize = 1000;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: iluma-gateway erasures --config config.toml >erasures.jsonl")]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

#[derive(Deserialize)]
struct Line {
    id: String,
}

/// Returns the receipts of all nodes as JSON lines, oldest first.
///
/// # Errors
/// Returns an error if the receipts can't be read.
pub(super) async fn run(args: Args) -> Result<String, OperatorError> {
    let (mut all, mut after) = (String::new(), String::new());
    loop {
        let path = format!("/v1/erasures?limit={PAGE}{after}");
        let page = args.target.ask_for("application/x-ndjson", (Method::GET, &path, Bytes::new())).await?;
        all.push_str(&page);
        let last = page.lines().last().and_then(|line| serde_json::from_str::<Line>(line).ok());
        match last {
            Some(last) if page.lines().count() == PAGE => after = format!("&after={}", last.id),
            Some(_) | None => return Ok(all),
        }
    }
}
