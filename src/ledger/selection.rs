//! The selection of lines of the ledger: days, a team, the columns that name a line, and a page.

use crate::base::calendar::Day;
use crate::base::name::TenantName;
use std::str::FromStr;

/// The columns that name a line: some of day, team and route. Lines that have equal values in these columns are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns([bool; 3]);

/// The name of a line: its day, team and route. A column that was not selected is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineName(pub(super) [String; 3]);

/// The error for a text that is not a list of columns.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be day, tenant or route, or several of them with commas in between")]
pub struct NoColumns;

impl Columns {
    /// All columns: no lines are summed.
    pub const ALL: Self = Self([true; 3]);
    const NAMES: [&'static str; 3] = ["day", "tenant", "route"];

    /// Returns the names of the columns, in the order day, tenant, route.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().zip(self.0).filter_map(|(name, is_named)| is_named.then_some(name))
    }

    /// Returns the name of a line as text: its values in these columns, with commas in between. `parts` are the line's
    /// day, team and route.
    #[must_use]
    pub fn name(self, parts: [&str; 3]) -> String {
        let parts = parts.into_iter().zip(self.0);
        parts.filter_map(|(part, is_named)| is_named.then_some(part)).collect::<Vec<_>>().join(",")
    }

    /// Reads the name of a line, as [`Columns::name`] writes it; `None` if the text can't be such a name.
    #[must_use]
    pub fn read(self, text: &str) -> Option<LineName> {
        let is_word = |part: &str| {
            (1..=64).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        let (mut name, mut given) = (LineName::default(), text.split(','));
        for (part, is_named) in name.0.iter_mut().zip(self.0) {
            if is_named {
                given.next().filter(|given| is_word(given))?.clone_into(part);
            }
        }
        let is_day = !self.has_day() || name.0[0].parse::<Day>().is_ok();
        (is_day && given.next().is_none()).then_some(name)
    }

    pub(super) const fn has_day(self) -> bool {
        self.0[0]
    }

    /// Returns the SQL expressions for day, tenant and route: the column, or an empty text if the column is not
    /// selected.
    pub(super) fn expressions(self) -> [&'static str; 3] {
        let [day, tenant, route] = self.0;
        [(day, "day"), (tenant, "tenant"), (route, "route")].map(|(is_named, name)| if is_named { name } else { "''" })
    }

    /// Returns a line's day, team and route, with an empty text for each column that is not selected.
    pub(super) fn keep(self, parts: [&str; 3]) -> [&str; 3] {
        let [day, tenant, route] = parts;
        let [has_day, has_tenant, has_route] = self.0;
        [(has_day, day), (has_tenant, tenant), (has_route, route)]
            .map(|(is_named, part)| if is_named { part } else { "" })
    }
}

impl FromStr for Columns {
    type Err = NoColumns;

    fn from_str(text: &str) -> Result<Self, NoColumns> {
        let mut columns = Self([false; 3]);
        for name in text.split(',') {
            let at = Self::NAMES.iter().position(|known| *known == name).ok_or(NoColumns)?;
            if std::mem::replace(&mut columns.0[at], true) {
                return Err(NoColumns);
            }
        }
        Ok(columns)
    }
}

/// A request for lines of the ledger, in the order of their names.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The first day.
    pub from: Day,
    /// The last day, which is included.
    pub to: Day,
    /// The team; `None` for all.
    pub tenant: Option<TenantName>,
    /// The columns that name a line. Lines of the same name are summed.
    pub columns: Columns,
    /// The name of the line before the page; `None` if the page begins with the first line.
    pub after: Option<LineName>,
    /// The largest number of lines on the page.
    pub most: usize,
}

impl Selection {
    /// Selects all lines of these days, both included.
    #[must_use]
    pub const fn days(from: Day, to: Day) -> Self {
        Self { from, to, tenant: None, columns: Columns::ALL, after: None, most: usize::MAX }
    }

    /// Returns the days that have to be read for the page. If the day is a selected column, the days before that of the
    /// line `after` are skipped.
    pub(super) fn span(&self) -> impl Iterator<Item = Day> {
        let (first, last) = (self.first(), self.to);
        std::iter::successors((first <= last).then_some(first), move |day| (*day < last).then(|| day.next()))
    }

    /// Returns the first day that has to be read for the page.
    pub(super) fn first(&self) -> Day {
        let after = self.after.as_ref().filter(|_| self.columns.has_day());
        after.and_then(|name| name.0[0].parse().ok()).map_or(self.from, |day: Day| day.max(self.from))
    }

    /// Returns true if no further day has to be read. `lines` is the number of lines of the days that were read so far.
    pub(super) const fn is_full(&self, lines: usize) -> bool {
        self.columns.has_day() && lines > self.most
    }

    /// Returns true if the lines of a team are selected.
    pub(super) fn takes(&self, tenant: &str) -> bool {
        self.tenant.as_ref().is_none_or(|name| name.as_str() == tenant)
    }

    /// Returns true if a line comes before the page.
    pub(super) fn is_before(&self, name: &[&str; 3]) -> bool {
        self.after.as_ref().is_some_and(|after| *name <= after.0.each_ref().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_some_of_day_tenant_and_route_each_once() {
        for (text, names) in [
            ("day", vec!["day"]),
            ("route", vec!["route"]),
            ("route,day", vec!["day", "route"]),
            ("tenant,route,day", vec!["day", "tenant", "route"]),
        ] {
            assert_eq!(text.parse::<Columns>().map(|columns| columns.names().collect::<Vec<_>>()), Ok(names), "{text}");
        }
        for text in ["", "team", "day,", "day,day", "day, route", "*"] {
            assert_eq!(text.parse::<Columns>(), Err(NoColumns), "{text}");
        }
    }

    #[test]
    fn the_name_of_a_line_is_read_as_it_is_written() {
        let parts = ["2026-11-25", "lending", "bank_get"];
        for (columns, text) in [
            ("day,tenant,route", "2026-11-25,lending,bank_get"),
            ("tenant", "lending"),
            ("day,route", "2026-11-25,bank_get"),
        ] {
            let columns: Columns = columns.parse().unwrap();
            assert_eq!(columns.name(parts), text);
            assert_eq!(columns.read(text), Some(LineName(columns.keep(parts).map(str::to_owned))), "{text}");
        }
        for (columns, text) in [
            ("tenant", ""),
            ("tenant", "lending,bank"),
            ("day", "lending"),
            ("tenant,route", "lending"),
            ("route", "a b"),
        ] {
            assert_eq!(columns.parse::<Columns>().unwrap().read(text), None, "{columns}: {text}");
        }
    }

    #[test]
    fn a_page_of_lines_with_a_day_begins_at_the_day_of_the_page() {
        let day = |text: &str| text.parse::<Day>().unwrap();
        let page = |columns: &str, after: &str| {
            let columns: Columns = columns.parse().unwrap();
            let after = columns.read(after);
            Selection { columns, after, ..Selection::days(day("2026-11-01"), day("2026-11-03")) }
        };
        for (columns, after, days) in [
            ("day", "", vec!["2026-11-01", "2026-11-02", "2026-11-03"]),
            ("day", "2026-11-02", vec!["2026-11-02", "2026-11-03"]),
            ("day,tenant,route", "2026-11-03,lending,bank", vec!["2026-11-03"]),
            ("day", "2026-10-01", vec!["2026-11-01", "2026-11-02", "2026-11-03"]),
            ("day", "2026-12-01", vec![]),
            ("tenant", "lending", vec!["2026-11-01", "2026-11-02", "2026-11-03"]),
        ] {
            let read: Vec<String> = page(columns, after).span().map(|day| day.to_string()).collect();
            assert_eq!(read, days, "{columns}: {after}");
        }
        assert_eq!(Selection::days(day("9999-12-31"), day("9999-12-31")).span().count(), 1, "the calendar has an end");
    }
}
