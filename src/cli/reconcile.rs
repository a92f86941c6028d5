//! `iluma-gateway usage reconcile`: compares Iluma's bill with the ledger, by day and route.
//!
//! Invariants: the command only reads and compares, because people have to judge a difference; a comparison is in the
//! audit log before it is printed; nothing is compared if the figures of some node are missing.

use crate::base::calendar::Day;
use crate::iluma::route_name::RouteName;
use crate::ledger::Row;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Options of the command.
#[derive(clap::Args, Debug)]
pub(super) struct Args {
    /// The configuration file of the gateway.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// The bill: CSV with a head line, and a line for each day and route.
    #[arg(long, value_name = "FILE")]
    bill: PathBuf,
    /// The column of the day, such as 2026-11-25.
    #[arg(long, value_name = "COLUMN", default_value = "day")]
    day: String,
    /// The column of the route, by its name in the route table.
    #[arg(long, value_name = "COLUMN", default_value = "route")]
    route: String,
    /// The column of the number of calls.
    #[arg(long, value_name = "COLUMN", default_value = "count")]
    count: String,
    /// The first day to compare [default: the first day of the bill].
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<Day>,
    /// The last day to compare [default: the last day of the bill].
    #[arg(long, value_name = "YYYY-MM-DD")]
    to: Option<Day>,
}

/// The longest period: a year and a month.
const LONGEST_PERIOD: Duration = Duration::from_secs(400 * 86400);

/// The reason why a bill was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BillError {
    /// The file can't be read, or is not CSV.
    #[error("--bill: {0}")]
    Csv(#[from] csv::Error),
    /// A column is missing. Holds its name, and the names of the columns that the bill has.
    #[error(
        "--bill: there is no column {0:?} in the head line, which has {1}; name the columns with --day, --route and --count"
    )]
    Column(String, String),
    /// A line is malformed.
    #[error("--bill: line {line}: {fault}")]
    Line { line: u64, fault: &'static str },
    /// There is no line.
    #[error("--bill: the file has no line of calls")]
    Empty,
    /// The compared days are not a period of 1 to 400 days. Holds the first and the last day.
    #[error("{0} to {1} is no period of 1 to 400 days: correct --from and --to, or a date in the bill")]
    Period(Day, Day),
    /// A line's day is outside the options' period.
    #[error("--bill: {0} is not between --from and --to")]
    Outside(Day),
}

/// The bill: the numbers of calls by day and route.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bill {
    calls: BTreeMap<(Day, RouteName), u64>,
    /// The first and the last day that are compared.
    days: (Day, Day),
}

/// A day and route for which the bill and the billable calls of the ledger differ.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    day: String,
    route: String,
    bill: u64,
    billable: u64,
    unknown: u64,
}

impl Bill {
    /// Reads the bill that the options name.
    pub(super) fn read(args: &Args) -> Result<Self, BillError> {
        let columns = [&args.day, &args.route, &args.count];
        let reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(&args.bill)?;
        Self::parse(reader, columns)?.between(args.from, args.to)
    }

    /// Sets the first and the last day that are compared, if the options give them. Returns an error if the period is
    /// not 1 to 400 days, or if the bill has a day outside of it.
    fn between(mut self, from: Option<Day>, to: Option<Day>) -> Result<Self, BillError> {
        let (first, last) = self.days;
        let (from, to) = (from.unwrap_or(first), to.unwrap_or(last));
        if from > to || to.before(LONGEST_PERIOD) > from {
            return Err(BillError::Period(from, to));
        }
        if let Some(outside) = [first, last].into_iter().find(|day| !(from..=to).contains(day)) {
            return Err(BillError::Outside(outside));
        }
        self.days = (from, to);
        Ok(self)
    }

    fn parse<R: std::io::Read>(mut reader: csv::Reader<R>, columns: [&String; 3]) -> Result<Self, BillError> {
        let head = reader.headers()?.clone();
        let place = |name: &String| {
            let fits = |column: &str| column.trim_start_matches('\u{feff}').eq_ignore_ascii_case(name);
            let found = || head.iter().map(|column| format!("{column:?}")).collect::<Vec<_>>().join(", ");
            head.iter().position(fits).ok_or_else(|| BillError::Column(name.clone(), found()))
        };
        let [day, route, count] = [place(columns[0])?, place(columns[1])?, place(columns[2])?];
        let mut bill = BTreeMap::new();
        for record in reader.records() {
            let record = record?;
            let line = record.position().map_or(0, csv::Position::line);
            let fault = |fault| BillError::Line { line, fault };
            let field = |at: usize| record.get(at).unwrap_or_default();
            let day = field(day).parse().map_err(|_| fault("the day must be such as 2026-11-25"))?;
            let route =
                field(route).parse().map_err(|_| fault("the route must be a name of docs/routes.md, such as bank"))?;
            let count: u64 = field(count).parse().map_err(|_| fault("the count must be a whole number"))?;
            let sum: &mut u64 = bill.entry((day, route)).or_default();
            *sum = sum.checked_add(count).ok_or_else(|| fault("the count is too large"))?;
        }
        let ((first, _), (last, _)) = bill.keys().next().zip(bill.keys().next_back()).ok_or(BillError::Empty)?;
        Ok(Self { days: (*first, *last), calls: bill })
    }

    /// Returns the first and the last day that are compared.
    pub(super) const fn days(&self) -> (Day, Day) {
        self.days
    }

    /// Returns every day and route for which the bill and the billable calls of the ledger differ. `rows` are the
    /// ledger's lines of the compared days.
    pub(super) fn compare(&self, rows: &[Row]) -> Vec<Difference> {
        let mut all = BTreeMap::<(String, String), [u64; 3]>::new();
        for ((day, route), count) in &self.calls {
            all.entry((day.to_string(), route.to_string())).or_default()[0] += count;
        }
        for Row { day, route, counts, .. } in rows {
            let sums = all.entry((day.clone(), route.clone())).or_default();
            sums[1] += counts.billable;
            sums[2] += counts.unknown;
        }
        let differing = all.into_iter().filter(|(_, [bill, billable, _])| bill != billable);
        let difference = |((day, route), [bill, billable, unknown]): ((String, String), [u64; 3])| Difference {
            day,
            route,
            bill,
            billable,
            unknown,
        };
        differing.map(difference).collect()
    }
}

/// Returns the differences as a table. `from` and `to` are the first and the last compared day.
pub(super) fn table((from, to): (Day, Day), differences: &[Difference]) -> String {
    if differences.is_empty() {
        return format!("The bill and the ledger agree from {from} to {to}.\n");
    }
    let mut text =
        format!("{:<10}  {:<12}  {:>9}  {:>9}  {:>9}  difference\n", "day", "route", "bill", "billable", "unknown");
    for Difference { day, route, bill, billable, unknown } in differences {
        let said = if bill > billable {
            let more = bill - billable;
            let explained = more.min(*unknown);
            format!("+{more}: {explained} of them may be unknown calls")
        } else {
            format!("-{}: the ledger has more", billable - bill)
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "{day:<10}  {route:<12}  {bill:>9}  {billable:>9}  {unknown:>9}  {said}");
    }
    let _ = write!(text, "\nCompared: {from} to {to}.");
    text.push_str(" Nothing was settled. GET /v1/usage/unknown lists unknown calls, POST /v1/usage/unknown/settle settles them.\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Counts;

    fn bill(text: &str, columns: [&str; 3]) -> Result<Bill, String> {
        let columns = columns.map(str::to_owned);
        let reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        Bill::parse(reader, columns.each_ref()).map_err(|error| error.to_string())
    }

    const PLAIN: [&str; 3] = ["day", "route", "count"];

    fn row(day: &str, tenant: &str, route: &str, billable: u64, unknown: u64) -> Row {
        let counts = Counts { billable, unknown, ..Counts::default() };
        Row { day: day.to_owned(), tenant: tenant.to_owned(), route: route.to_owned(), counts }
    }

    #[test]
    fn one_call_more_and_one_less_are_both_named() {
        let text = "day,route,count\n2026-11-25,bank,11\n2026-11-25,ktp,4\n2026-11-26,bank,7\n2026-11-26,bank,1\n";
        let bill = bill(text, PLAIN).unwrap();
        assert_eq!(bill.days(), ("2026-11-25".parse().unwrap(), "2026-11-26".parse().unwrap()));
        let rows = [
            row("2026-11-25", "lending", "bank", 6, 2),
            row("2026-11-25", "payments", "bank", 4, 0),
            row("2026-11-25", "lending", "ktp", 5, 0),
            row("2026-11-26", "lending", "bank", 8, 3),
            row("2026-11-26", "lending", "npwp", 1, 0),
        ];
        let difference = |day: &str, route: &str, [bill, billable, unknown]: [u64; 3]| Difference {
            day: day.to_owned(),
            route: route.to_owned(),
            bill,
            billable,
            unknown,
        };
        let expected = [
            difference("2026-11-25", "bank", [11, 10, 2]),
            difference("2026-11-25", "ktp", [4, 5, 0]),
            difference("2026-11-26", "npwp", [0, 1, 0]),
        ];
        assert_eq!(bill.compare(&rows), expected);
        let shown = table(bill.days(), &expected);
        assert!(
            shown.contains("+1: 1 of them may be unknown calls") && shown.contains("-1: the ledger has more"),
            "{shown}"
        );
        assert!(table(bill.days(), &[]).contains("agree from 2026-11-25 to 2026-11-26"));
    }

    #[test]
    fn columns_have_the_names_that_are_given() {
        let text = "Tanggal,Layanan,Jumlah\n2026-11-25,\"bank\", 3\n";
        assert!(bill(text, ["Tanggal", "Layanan", "Jumlah"]).is_ok());
        assert!(bill(text, PLAIN).unwrap_err().contains("--day, --route and --count"));
        for (line, said) in
            [("25-11-2026,bank,1", "day"), ("2026-11-25,nothing,1", "route"), ("2026-11-25,bank,x", "count")]
        {
            let fault = bill(&format!("day,route,count\n{line}\n"), PLAIN).unwrap_err();
            assert!(fault.contains("line 2") && fault.contains(said), "{line}: {fault}");
        }
        assert!(bill("day,route,count\n", PLAIN).unwrap_err().contains("no line"));
        let semicolons = bill("day;route;count\n2026-11-25;bank;1\n", PLAIN).unwrap_err();
        assert!(semicolons.contains("the head line, which has \"day;route;count\""), "{semicolons}");
        let short = bill("day,route,count\n2026-11-25,bank\n", PLAIN).unwrap_err();
        assert!(short.contains("line: 2") && short.contains("2 fields"), "{short}");
        let large = bill("day,route,count\n2026-11-25,bank,18446744073709551615\n2026-11-25,bank,1\n", PLAIN);
        assert!(large.unwrap_err().contains("line 3: the count is too large"));
    }

    #[test]
    fn the_period_is_the_bills_unless_a_longer_one_is_given() {
        let bill = |from: Option<&str>, to: Option<&str>| {
            let bill = bill("day,route,count\n2026-11-25,bank,1\n2026-11-27,bank,1\n", PLAIN).unwrap();
            let day = |text: &str| text.parse().unwrap();
            bill.between(from.map(day), to.map(day)).map(|bill| bill.days()).map_err(|error| error.to_string())
        };
        let days = |from: &str, to: &str| Ok((from.parse().unwrap(), to.parse().unwrap()));
        assert_eq!(bill(None, None), days("2026-11-25", "2026-11-27"));
        assert_eq!(bill(Some("2026-11-01"), Some("2026-11-30")), days("2026-11-01", "2026-11-30"));
        assert!(bill(Some("2026-11-26"), None).unwrap_err().contains("2026-11-25 is not between"));
        assert!(bill(Some("2024-11-26"), None).unwrap_err().contains("no period of 1 to 400 days"));
        assert!(bill(Some("2026-12-01"), None).unwrap_err().contains("correct --from and --to"));
    }
}
