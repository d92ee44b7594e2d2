//! The days that a bill is of.

use crate::gateway::budget::Month;
use crate::gateway::price::list::day;
use crate::gateway::time::{DAY_MS, Timestamp};

/// Most days of a bill: a leap year's.
const MAX_DAYS: u64 = 366;

/// Some UTC days, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// The first moment of the first day.
    first: Timestamp,
    /// The first moment of the last day.
    last: Timestamp,
}

/// How somebody names a period: a month, or the first and last day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span<'a> {
    /// For example `2026-11`.
    pub month: Option<&'a str>,
    /// For example `2026-11-01`.
    pub from: Option<&'a str>,
    /// The last day itself is part of it.
    pub to: Option<&'a str>,
}

impl Period {
    /// The period that is named; the month of `now` where none is.
    ///
    /// # Errors
    /// Why it is no period, for who named it.
    pub fn read(span: Span<'_>, now: Timestamp) -> Result<Self, String> {
        match span {
            Span {
                month: None,
                from: None,
                to: None,
            } => Ok(Self::of(Month::of(now))),
            Span {
                month: Some(month),
                from: None,
                to: None,
            } => month.parse().map(Self::of),
            Span {
                month: None,
                from: Some(from),
                to: Some(to),
            } => Self::between(from, to),
            _ => Err("name a month, or `from` and `to`".into()),
        }
    }

    fn between(from: &str, to: &str) -> Result<Self, String> {
        let read = |text: &str| {
            day(text).ok_or_else(|| format!("`{text}` is no day; write it as 2026-11-01"))
        };
        let (first, last) = (read(from)?, read(to)?);
        if last < first {
            return Err(format!("{to} is before {from}"));
        }
        if last.ms_since(first) / DAY_MS >= MAX_DAYS {
            return Err(format!("{from} to {to} are more than {MAX_DAYS} days"));
        }
        Ok(Self { first, last })
    }

    fn of(month: Month) -> Self {
        let first = month.start();
        let days = month.next().start().ms_since(first) / DAY_MS;
        Self {
            first,
            last: first.plus_ms(days.saturating_sub(1) * DAY_MS),
        }
    }

    /// The first moment of each day.
    pub fn days(self) -> impl Iterator<Item = Timestamp> {
        let days = self.last.ms_since(self.first) / DAY_MS;
        (0..=days).map(move |day| self.first.plus_ms(day * DAY_MS))
    }

    /// The months that its days are in.
    pub fn months(self) -> impl Iterator<Item = Month> {
        let last = Month::of(self.last);
        std::iter::successors(Some(Month::of(self.first)), |month| Some(month.next()))
            .take_while(move |month| *month <= last)
    }

    /// Its first day, for example `2026-11-01`.
    pub fn from(self) -> String {
        self.first.day()
    }

    /// Its last day.
    pub fn to(self) -> String {
        self.last.day()
    }
}
