//! Answers `GET /businesses/:business_id/api_keys?token=:token` with API keys, once for each token.
//!
//! The answer's shape and the error for a used token are not documented.

use http::StatusCode;
use serde_json::{Value, json};

use super::key::{DEVELOPMENT, LIVE};
use super::problem::Problem;
use super::reply::Reply;
use super::seed::Seed;
use super::world::World;

/// The longest business id or token, in bytes.
const MAX: usize = 256;

/// Returns the configured keys. If none are configured, returns two keys that are invented from the business id.
/// Refuses a token that was used before.
pub(super) fn get(world: &World, parameters: &[String], query: &str) -> Result<Reply, Problem> {
    let business = parameters.first().map_or("", String::as_str);
    let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token").map(|(_, token)| token);
    let token = token.filter(|token| !token.is_empty() && token.len() <= MAX);
    let token = token.ok_or_else(|| Problem::field("token", "token is required"))?;
    if business.len() > MAX {
        return Err(Problem::not_found());
    }
    if !world.use_token(format!("{business}/{token}")) {
        let message = "The token was used before; it is single use only";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "INVALID_TOKEN_ERROR", message));
    }
    let shown = |key: &str| json!({ "type": if key.starts_with(DEVELOPMENT) { "DEVELOPMENT" } else { "LIVE" }, "api_key": key });
    let keys: Vec<Value> = if world.options.keys.is_empty() {
        [DEVELOPMENT, LIVE[0]]
            .iter()
            .map(|prefix| shown(&format!("{prefix}{}", Seed::of(&[prefix, business]).hex(32))))
            .collect()
    } else {
        world.options.keys.iter().map(|key| shown(key)).collect()
    };
    Ok(Reply::json(&json!({ "business_id": business, "api_keys": keys })))
}
