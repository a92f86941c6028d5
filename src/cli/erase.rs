//! `iluma-gateway erase`: erases a person from running gateways.

use super::operator::{OperatorError, Target};
use http::Method;
use std::io::{self, Read as _};

/// The largest order, in bytes: a person has a handful of fields.
const LARGEST_ORDER: u64 = 64 << 10;

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "The person is read from standard input, so that it is in no process list and no shell history:\n  \
                  {\"bank_code\":\"BCA\",\"bank_account_number\":\"…\"}, {\"given_name\":\"…\"} with or without surname, or {\"nik\":\"…\"}\n\n\
                  Example: iluma-gateway erase --config config.toml <person.json"
)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
}

/// Erases the person that standard input names; returns the receipt.
///
/// # Errors
/// Returns an error if the order was not carried out, or not on every node.
pub(super) async fn run(args: Args) -> Result<String, OperatorError> {
    let mut person = Vec::new();
    io::stdin().lock().take(LARGEST_ORDER).read_to_end(&mut person)?;
    args.target.ask(Method::POST, "/v1/erase", person.into()).await
}
