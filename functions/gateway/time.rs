//! A moment, as an argument: the domain never reads a clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// RFC 3339 in UTC, always with three digits of milliseconds, so that texts order as times do.
const RFC3339_MS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds of a UTC day.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A moment in UTC, in whole milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment `ms` milliseconds after the Unix epoch.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// This moment and `ms` milliseconds more; saturates instead of overflowing.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment, 0 when `earlier` is the later one.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// As [`Self::ms_since`], as a duration.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.ms_since(earlier))
    }

    /// A moment as others write it: RFC 3339 to any fraction of a second, in UTC where it names no
    /// zone. `None` where it is none, or before 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = OffsetDateTime::parse(text, &Rfc3339);
        let moment = parsed.or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339));
        let ms = moment.ok()?.unix_timestamp_nanos() / 1_000_000;
        u64::try_from(ms).ok().map(Self)
    }

    /// RFC 3339 with milliseconds, for example `2026-11-23T17:06:30.250Z`.
    pub fn rfc3339(self) -> String {
        self.date_time().format(RFC3339_MS).unwrap_or_default()
    }

    /// The UTC day, for example `2026-11-23`.
    pub fn day(self) -> String {
        let day = self.date_time();
        format!(
            "{:04}-{:02}-{:02}",
            day.year(),
            u8::from(day.month()),
            day.day()
        )
    }

    fn date_time(self) -> OffsetDateTime {
        let ns = i128::from(self.0) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(ns).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T17:06:30.000Z.
    const MOMENT: Timestamp = Timestamp::from_unix_ms(1_795_453_590_000);

    #[test]
    fn texts_have_their_milliseconds_and_order_as_times_do() {
        assert_eq!(MOMENT.rfc3339(), "2026-11-23T17:06:30.000Z");
        assert_eq!(MOMENT.plus_ms(250).rfc3339(), "2026-11-23T17:06:30.250Z");
        assert_eq!(Timestamp::default().rfc3339(), "1970-01-01T00:00:00.000Z");
        assert!(MOMENT.rfc3339() < MOMENT.plus_ms(250).rfc3339());
    }

    #[test]
    fn moments_are_read_as_others_write_them() {
        let same = [
            "2026-11-23T17:06:30Z",
            "2026-11-23T17:06:30.0000000Z",
            "2026-11-23T17:06:30",
            "2026-11-23T18:06:30.000+01:00",
        ];
        for text in same {
            assert_eq!(Timestamp::parse(text), Some(MOMENT), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-11-23",
            "1969-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_day_is_that_of_utc() {
        assert_eq!(MOMENT.day(), "2026-11-23");
        let seconds_left = 6 * 3600 + 53 * 60 + 30;
        assert_eq!(MOMENT.plus_ms(seconds_left * 1000 - 1).day(), "2026-11-23");
        assert_eq!(MOMENT.plus_ms(seconds_left * 1000).day(), "2026-11-24");
    }

    #[test]
    fn time_passed_is_never_negative_and_never_overflows() {
        assert_eq!(
            MOMENT.plus_ms(250).since(MOMENT),
            Duration::from_millis(250)
        );
        assert_eq!(MOMENT.since(MOMENT.plus_ms(250)), Duration::ZERO);
        assert_eq!(MOMENT.plus_ms(u64::MAX).unix_ms(), u64::MAX);
    }
}
