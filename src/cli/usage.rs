//! `iluma-gateway usage`: prints a month of the ledger as a table.
//!
//! The command reads the journal directly, even while a gateway uses it. It reads the published figures of the other
//! nodes from Redis. So the command needs no listener, no token, and no running gateway.

use super::reconcile;
use crate::base::calendar::{Day, Month};
use crate::base::clock::Clock;
use crate::base::tasks::Tasks;
use crate::config::{Faults, Settings};
use crate::ledger::{self, Counts, Row, Statement};
use crate::redis::{KeySpace, RedisClient};
use crate::state::{Ordered, audit_beside};
use secrecy::ExposeSecret as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The longest wait for Redis.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Options of the command.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  iluma-gateway usage --config /etc/iluma-gateway/config.toml\n  \
                  iluma-gateway usage --config /etc/iluma-gateway/config.toml --month 2026-11\n  \
                  iluma-gateway usage reconcile --config /etc/iluma-gateway/config.toml --bill bill.csv",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    order: Option<Order>,
    /// The configuration file of the gateway.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// The month; without it this month, in the time zone of `quotas.time_zone`.
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<Month>,
}

#[derive(clap::Subcommand, Debug)]
enum Order {
    /// Compare Iluma's bill with the ledger by day and route; it shows every difference and settles nothing.
    ///
    /// Exits with 0 if they agree, with 3 if they differ, and with 1 if they could not be compared.
    Reconcile(reconcile::Args),
}

/// The reason why the command printed no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum UsageError {
    /// The configuration has faults.
    #[error(transparent)]
    Configuration(#[from] Faults),
    /// The journal does not exist.
    #[error(
        "state.path: there is no journal at {}: no gateway with this configuration has run here; give --config the file \
         of the gateway that runs, such as /etc/iluma-gateway/config.toml", .0.display()
    )]
    NoJournal(PathBuf),
    /// The journal can't be read.
    #[error("state.path: the journal can't be read: {0}")]
    Journal(#[from] rusqlite::Error),
    /// The bill can't be read.
    #[error(transparent)]
    Bill(#[from] reconcile::BillError),
    /// Redis can't be used.
    #[error("state.redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Redis, which has the other nodes' figures, does not answer.
    #[error("state.redis: Redis does not answer, so the other nodes' figures are missing; nothing was compared")]
    Incomplete,
    /// The comparison can't be written to the audit log.
    #[error("state.path: the audit log can't be written, so nothing was compared: {0}")]
    Audit(rusqlite::Error),
}

/// The result of the command: the text to print, and the result of a comparison.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) text: String,
    /// True if the ledger differs from the bill; false if they agree or if no bill was compared.
    pub(super) differs: bool,
}

/// Returns the table of a month, or the differences between a bill and the ledger, as text to print.
///
/// # Errors
/// Returns an error if the configuration has faults, or if the journal or the bill can't be read. A comparison also
/// fails if Redis does not answer, or if the audit log can't be written.
pub(super) async fn run(args: Args) -> Result<Report, UsageError> {
    match args {
        Args { order: Some(Order::Reconcile(args)), .. } => compare(&args).await,
        Args { order: None, config: Some(config), month } => {
            let settings = Settings::load(&config)?;
            let today = || settings.quotas.calendar.day(Clock::system().wall());
            let month = month.unwrap_or_else(|| today().month());
            let Statement { rows, is_complete, .. } = report(&settings, (month.first(), month.last())).await?;
            Ok(Report { text: table(&rows) + partial(is_complete), differs: false })
        }
        // clap requires the configuration, so this case does not happen.
        Args { order: None, .. } => Ok(Report { text: String::new(), differs: false }),
    }
}

/// Compares a bill with the ledger, and writes the comparison to the audit log.
async fn compare(args: &reconcile::Args) -> Result<Report, UsageError> {
    let (settings, bill) = (Settings::load(&args.config)?, reconcile::Bill::read(args)?);
    let (from, to) = bill.days();
    let Statement { rows, is_complete, .. } = report(&settings, (from, to)).await?;
    if !is_complete {
        return Err(UsageError::Incomplete);
    }
    let differences = bill.compare(&rows);
    let order = Ordered {
        token: "shell".to_owned(),
        role: "admin",
        peer: None,
        order: "reconcile",
        subject: Some(format!("{from} to {to}")),
        outcome: "done",
    };
    let counts = serde_json::json!({ "differences": differences.len() });
    audit_beside(&settings, &Clock::system(), order, counts).map_err(UsageError::Audit)?;
    Ok(Report { text: reconcile::table((from, to), &differences), differs: !differences.is_empty() })
}

const fn partial(is_complete: bool) -> &'static str {
    if is_complete {
        ""
    } else {
        "\nRedis does not answer: these are the figures of this node's journal, without the other nodes.\n"
    }
}

/// Reads the ledger's lines from the first to the last of `days`, both included. Waits a short time for Redis, which
/// has the other nodes' figures.
async fn report(settings: &Settings, days: (Day, Day)) -> Result<Statement, UsageError> {
    if !settings.state.path.exists() {
        return Err(UsageError::NoJournal(settings.state.path.clone()));
    }
    let (tasks, stop) = (Tasks::new(), CancellationToken::new());
    let redis = match &settings.state.redis {
        Some(redis) => {
            let redis = RedisClient::new(&redis.main, KeySpace::new(settings.state.root_key.expose_secret()), &[])?;
            redis.keep(&tasks, stop.clone());
            let mut up = redis.watch();
            let _ = tokio::time::timeout(TIMEOUT, up.wait_for(|up| *up)).await;
            Some(redis)
        }
        None => None,
    };
    let statement = ledger::report(settings, days, redis).await?;
    stop.cancel();
    Ok(statement)
}

/// Formats the rows as a table by team and route, with a sum for each team and for all teams. Amounts are in rupiah.
fn table(rows: &[Row]) -> String {
    let mut teams = BTreeMap::<&str, BTreeMap<&str, Counts>>::new();
    for row in rows {
        *teams.entry(&row.tenant).or_default().entry(&row.route).or_default() += row.counts;
    }
    let mut lines = vec![["tenant", "route"].into_iter().chain(Counts::NAMES).map(str::to_owned).collect()];
    let line = |tenant: &str, route: &str, counts: &Counts| -> Vec<String> {
        let numbers = counts.numbers().map(|number| number.to_string());
        [tenant.to_owned(), route.to_owned()].into_iter().chain(numbers).collect()
    };
    let mut all = Counts::default();
    for (tenant, routes) in &teams {
        let mut sum = Counts::default();
        for (route, counts) in routes {
            lines.push(line(tenant, route, counts));
            sum += *counts;
        }
        lines.push(line(tenant, "all", &sum));
        all += sum;
    }
    lines.push(line("all", "all", &all));
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            // Names are aligned to the left, numbers to the right.
            let _ = if column < 2 { write!(text, "{cell:<width$}  ") } else { write!(text, "{cell:>width$}  ") };
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_sums_teams_and_all() {
        let row = |tenant: &str, route: &str, requests, cost| Row {
            day: "2026-11-25".to_owned(),
            tenant: tenant.to_owned(),
            route: route.to_owned(),
            counts: Counts { requests, cost, ..Counts::default() },
        };
        let rows = [row("lending", "bank", 2, 1000), row("lending", "bank", 1, 0), row("lending", "ktp", 1, 1500)];
        let expected = "\
tenant   route  requests  upstream_calls  billable  unknown  hits  collapsed  shared  cost  saved
lending  bank          3               0         0        0     0          0       0  1000      0
lending  ktp           1               0         0        0     0          0       0  1500      0
lending  all           4               0         0        0     0          0       0  2500      0
all      all           4               0         0        0     0          0       0  2500      0
";
        assert_eq!(table(&rows), expected);
    }
}
