//! Days and months for accounting, in one time zone.
//!
//! Invariants: a day is written `2026-11-25` and a month `2026-11`, so texts sort like times. The time zones are
//! compiled in, so that every node counts the same days, whatever is installed on its machine.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// The days and months of one time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar(TimeZone);

/// A day of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

/// A month of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    first: Date,
}

/// The error for a text that is not a time zone, a day or a month.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotATime {
    /// The text names no time zone.
    #[error("no such time zone; give a name of the IANA database, such as \"Asia/Jakarta\" or \"UTC\"")]
    Zone,
    /// The text is not a day.
    #[error("must be a day, such as 2026-11-25")]
    Day,
    /// The text is not a month.
    #[error("must be a month, such as 2026-11")]
    Month,
}

impl Calendar {
    /// Returns the day on which `time` lies.
    #[must_use]
    pub fn day(&self, time: SystemTime) -> Day {
        Day(self.0.to_datetime(stamp(time)).date())
    }

    /// Returns the duration from `time` until the next day begins, at least a second.
    #[must_use]
    pub fn until_next_day(&self, time: SystemTime) -> Duration {
        self.until(time, self.day(time).next())
    }

    /// Returns the duration from `time` until the next month begins, at least a second.
    #[must_use]
    pub fn until_next_month(&self, time: SystemTime) -> Duration {
        self.until(time, Day(next_month(self.day(time).month().first)))
    }

    /// Returns the moment at which a day begins, in seconds since 1970; 0 if it can't be represented.
    #[must_use]
    pub fn begin(&self, day: Day) -> i64 {
        self.0.to_timestamp(day.0.to_datetime(jiff::civil::Time::midnight())).map_or(0, jiff::Timestamp::as_second)
    }

    /// Returns the duration from `time` until `day` begins, at least a second: no client is asked to come back at once.
    fn until(&self, time: SystemTime, day: Day) -> Duration {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(self.begin(day)).unwrap_or(0));
        begin.duration_since(time).unwrap_or_default().max(Duration::from_secs(1))
    }
}

impl Day {
    /// The first day of the calendar.
    pub const MIN: Self = Self(Date::MIN);
    /// The last day of the calendar.
    pub const MAX: Self = Self(Date::MAX);

    /// Returns the month of the day.
    #[must_use]
    pub fn month(self) -> Month {
        Month { first: self.0.first_of_month() }
    }

    /// Returns the following day.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.tomorrow().unwrap_or(Date::MAX))
    }

    /// Returns the day that is `time` before this day.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
        Self(self.0.checked_sub(time).unwrap_or(Date::MIN))
    }
}

impl Month {
    /// Returns the first day of the month.
    #[must_use]
    pub fn first(self) -> Day {
        Day(self.first)
    }

    /// Returns the last day of the month.
    #[must_use]
    pub fn last(self) -> Day {
        Day(self.first.last_of_month())
    }
}

impl FromStr for Calendar {
    type Err = NotATime;

    fn from_str(name: &str) -> Result<Self, NotATime> {
        TimeZone::get(name).map(Self).map_err(|_| NotATime::Zone)
    }
}

impl FromStr for Day {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        let digits = text.len() == 10
            && text.bytes().enumerate().all(|(at, b)| if matches!(at, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
        if !digits {
            return Err(NotATime::Day);
        }
        text.parse().map(Self).map_err(|_| NotATime::Day)
    }
}

impl FromStr for Month {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        format!("{text}-01").parse::<Day>().map(Day::month).map_err(|_| NotATime::Month)
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.first.year(), self.first.month())
    }
}

fn next_month(first: Date) -> Date {
    first.last_of_month().tomorrow().unwrap_or(Date::MAX)
}

/// Converts a time to a timestamp. A time that no timestamp can represent becomes the first second of 1970.
fn stamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// 2026-11-30T16:59:59Z, the last second before December in Jakarta.
    const LAST_SECOND: u64 = 1_796_057_999;

    #[test]
    fn a_day_ends_where_its_people_are() {
        let jakarta: Calendar = "Asia/Jakarta".parse().unwrap();
        let now = at(LAST_SECOND);
        assert_eq!(jakarta.day(now).to_string(), "2026-11-30");
        assert_eq!(jakarta.day(now + Duration::from_secs(1)).to_string(), "2026-12-01");
        assert_eq!(jakarta.until_next_day(now), Duration::from_secs(1));
        assert_eq!(jakarta.until_next_month(now), Duration::from_secs(1));
        assert_eq!(jakarta.until_next_day(at(LAST_SECOND + 1)), Duration::from_secs(86400));
        assert_eq!(jakarta.until_next_month(at(LAST_SECOND + 1)), Duration::from_secs(31 * 86400));
        let utc: Calendar = "UTC".parse().unwrap();
        assert_eq!(utc.until_next_day(now), Duration::from_secs(7 * 3600 + 1));
        assert_eq!(jakarta.to_string(), "Asia/Jakarta");
    }

    #[test]
    fn days_and_months_are_read_as_they_are_written() {
        let day: Day = "2028-02-29".parse().unwrap();
        assert_eq!((day.to_string(), day.next().to_string()), ("2028-02-29".into(), "2028-03-01".into()));
        assert_eq!(day.before(Duration::from_secs(29 * 86400)).to_string(), "2028-01-31");
        let month: Month = "2028-02".parse().unwrap();
        assert_eq!((month.first().to_string(), month.last()), ("2028-02-01".into(), day));
        assert_eq!(month.to_string(), "2028-02");
        for bad in ["", "2026-2-1", "2026-02-30", "20260201", "2026-02-01T00:00", "-026-02-01", "2026-02-01 "] {
            assert_eq!(bad.parse::<Day>(), Err(NotATime::Day), "{bad}");
        }
        for bad in ["2026-13", "2026", "2026-11-25"] {
            assert_eq!(bad.parse::<Month>(), Err(NotATime::Month), "{bad}");
        }
        assert_eq!("Jakarta".parse::<Calendar>(), Err(NotATime::Zone));
    }
}
