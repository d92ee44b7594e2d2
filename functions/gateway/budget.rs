//! What an app may spend in a month, and what becomes of its calls when it has.
//!
//! What was spent is read from the chargeback sums now and then, so it is a little old. It only grows
//! within a month: an app that is found over its budget stays so until the month is over, however
//! old the figure is. One that is found below may be above by now; the figure's age says how
//! much that is worth. Months are UTC's.

use std::fmt;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::time::Timestamp;

#[cfg(test)]
mod tests;

/// The part of the budget from which an app is warned.
const WARNED_FROM: Decimal = Decimal::from_parts(8, 0, 0, false, 1);

/// Age from which a figure is stale, ms. It is meant to be read every minute: several reads have
/// failed then.
const STALE_MS: u64 = 5 * 60_000;

/// What becomes of the calls of an app that has spent its budget.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OnExhausted {
    /// They are refused: 429 `budget_exceeded`.
    #[default]
    Refuse,
    /// They are served at low priority, from what others leave.
    LowPriority,
}

/// An app's budget, from the configuration. The currency is the configuration's one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// What the app may spend in a month. With 0 it may spend nothing.
    pub per_month: Decimal,
    /// What becomes of its calls then.
    pub on_exhausted: OnExhausted,
}

/// What an app has spent in a month, as last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spend {
    /// The month.
    pub month: Month,
    /// What was spent in it by then.
    #[serde(with = "rust_decimal::serde::str")]
    pub spent: Decimal,
    /// When that was read.
    pub as_of: Timestamp,
}

/// How far an app is, in order: each is worse than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetState {
    /// Below 80 % of its budget, as far as is known.
    Fine,
    /// From 80 % on: the answers' headers say so.
    Warned,
    /// All of it is spent.
    Exhausted,
}

/// How an app stands with its budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetStanding {
    /// How far it is.
    pub state: BudgetState,
    /// What becomes of its call: `None` while anything is left.
    pub action: Option<OnExhausted>,
    /// What it has spent this month, as far as is known.
    pub spent: Decimal,
    /// That in percent of the budget, rounded down to a tenth.
    pub percent: Decimal,
    /// Whether the figure is too old to be relied on, or there is none for this month. Worth a line
    /// in the log, not a refusal: a bill that can't be read is not the app's fault.
    pub is_stale: bool,
    /// Milliseconds until the next month begins, and the budget is whole again. At least 1.
    pub renews_in_ms: u64,
}

impl Budget {
    /// How the app stands at `now`, by what was last read. A figure of another month tells nothing.
    pub fn standing(&self, spend: Option<&Spend>, now: Timestamp) -> BudgetStanding {
        let month = Month::of(now);
        let spend = spend.filter(|spend| spend.month == month);
        let spent = spend.map_or(Decimal::ZERO, |spend| spend.spent);
        let state = self.state(spent);
        BudgetStanding {
            state,
            action: (state == BudgetState::Exhausted).then_some(self.on_exhausted),
            spent,
            percent: self.percent(spent),
            is_stale: spend.is_none_or(|spend| now.ms_since(spend.as_of) >= STALE_MS),
            renews_in_ms: month.next().start().ms_since(now).max(1),
        }
    }

    fn state(&self, spent: Decimal) -> BudgetState {
        // Less than the budget itself, so it can't overflow.
        let warned_from = self.per_month.saturating_mul(WARNED_FROM);
        if spent >= self.per_month {
            BudgetState::Exhausted
        } else if spent >= warned_from {
            BudgetState::Warned
        } else {
            BudgetState::Fine
        }
    }

    /// What was spent in percent of the budget, rounded down to a tenth. Where the budget is 0, or a fraction
    /// has more digits than a decimal: 100.
    pub fn percent(&self, spent: Decimal) -> Decimal {
        let part = spent.checked_div(self.per_month);
        let percent = part.and_then(|part| part.checked_mul(Decimal::ONE_HUNDRED));
        percent.map_or(Decimal::ONE_HUNDRED, |percent| {
            percent.trunc_with_scale(1).normalize()
        })
    }
}

/// A month in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Month {
    year: i32,
    /// 1 to 12.
    month: u8,
}

impl Month {
    /// The month that `at` is in.
    pub fn of(at: Timestamp) -> Self {
        let seconds = i64::try_from(at.unix_ms() / 1000).unwrap_or(i64::MAX);
        let date = OffsetDateTime::from_unix_timestamp(seconds);
        let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        Self {
            year: date.year(),
            month: date.month().into(),
        }
    }

    /// The month after it.
    #[must_use]
    pub const fn next(self) -> Self {
        match self.month {
            12 => Self {
                year: self.year.saturating_add(1),
                month: 1,
            },
            month => Self {
                year: self.year,
                month: month + 1,
            },
        }
    }

    /// Its first moment; the end of time where there is none.
    pub fn start(self) -> Timestamp {
        let month = time::Month::try_from(self.month).ok();
        let first = month.and_then(|m| time::Date::from_calendar_date(self.year, m, 1).ok());
        let seconds = first.map(|date| date.midnight().assume_utc().unix_timestamp());
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let ms = seconds.map_or(u64::MAX, |seconds| seconds.saturating_mul(1000));
        Timestamp::from_unix_ms(ms)
    }
}

impl fmt::Display for Month {
    /// For example `2026-11`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl From<Month> for String {
    fn from(month: Month) -> Self {
        month.to_string()
    }
}

impl std::str::FromStr for Month {
    type Err = String;

    /// Reads `2026-11`.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (year, month) = text.split_once('-')?;
            let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
            let shaped = year.len() == 4 && month.len() == 2 && digits(year) && digits(month);
            let (year, month) = (year.parse().ok()?, month.parse().ok()?);
            // The last year that has a next one: a month ends where the next begins.
            (shaped && (1970..9999).contains(&year) && (1..=12).contains(&month))
                .then_some(Self { year, month })
        };
        read().ok_or_else(|| format!("`{text}` is no month; write it as 2026-11"))
    }
}

impl TryFrom<String> for Month {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
