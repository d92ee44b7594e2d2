//! How long a backend asks to be left alone, read from its answer's headers.
//!
//! The order is that of the official clients (openai-python, `_calculate_retry_timeout`):
//! `retry-after-ms`, then `retry-after` as seconds, then `retry-after` as an HTTP date. Where
//! Azure sends none of them, the exhausted window's `x-ratelimit-reset-*` says it.

use std::borrow::Cow;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::time::Timestamp;

/// Reads one header of an answer by its lower-case name.
pub trait Headers {
    /// The header's value, where it is there and is text.
    fn value(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// Milliseconds until the backend may be asked again; `None` when it does not say.
///
/// Nonsense (negative, not a number, a date that is past) is not an answer: the next form is
/// read. The caller bounds the figure, since waits of a day occur.
pub fn retry_after_ms(headers: &impl Headers, now: Timestamp) -> Option<u64> {
    header_ms(headers, "retry-after-ms", 1.0)
        .or_else(|| header_ms(headers, "retry-after", 1000.0))
        .or_else(|| date_ms(headers, now))
        .or_else(|| window_reset_ms(headers))
}

fn header_ms(headers: &impl Headers, name: &str, unit_ms: f64) -> Option<u64> {
    number_ms(headers.value(name)?.trim(), unit_ms)
}

/// A decimal number of `unit_ms` milliseconds each, rounded up: waiting too short costs a call.
fn number_ms(text: &str, unit_ms: f64) -> Option<u64> {
    let value: f64 = text.parse().ok()?;
    let ms = (value * unit_ms).ceil();
    if !ms.is_finite() || ms < 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; a float saturates"
    )]
    Some(ms as u64)
}

fn date_ms(headers: &impl Headers, now: Timestamp) -> Option<u64> {
    let value = headers.value("retry-after")?;
    let date = OffsetDateTime::parse(value.trim(), &Rfc2822).ok()?;
    let at = u64::try_from(date.unix_timestamp())
        .ok()?
        .saturating_mul(1000);
    (at > now.unix_ms()).then(|| at - now.unix_ms())
}

/// The later reset of the windows that have nothing left. Azure writes seconds as a plain number,
/// OpenAI a duration such as `1m30.5s` or `20ms`; `-1` and an unstated remainder mean unknown.
fn window_reset_ms(headers: &impl Headers) -> Option<u64> {
    let reset = |sort: &str| {
        let remaining = headers.value(&format!("x-ratelimit-remaining-{sort}"));
        let left = remaining.and_then(|v| v.trim().parse::<i64>().ok());
        if left.is_some_and(|left| left > 0) {
            return None;
        }
        let value = headers.value(&format!("x-ratelimit-reset-{sort}"))?;
        duration_ms(value.trim()).filter(|ms| *ms > 0)
    };
    reset("requests").max(reset("tokens"))
}

fn duration_ms(text: &str) -> Option<u64> {
    if let Some(ms) = number_ms(text, 1000.0) {
        return Some(ms);
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit);
        let unit_ms = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        total = total.saturating_add(number_ms(number, unit_ms)?);
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pairs<'a>(&'a [(&'a str, &'a str)]);

    impl Headers for Pairs<'_> {
        fn value(&self, name: &str) -> Option<Cow<'_, str>> {
            self.0
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| Cow::Borrowed(*v))
        }
    }

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    fn read(pairs: &[(&str, &str)]) -> Option<u64> {
        retry_after_ms(&Pairs(pairs), NOW)
    }

    #[test]
    fn milliseconds_win_over_seconds() {
        assert_eq!(
            read(&[("retry-after", "9"), ("retry-after-ms", "250")]),
            Some(250)
        );
        assert_eq!(read(&[("retry-after-ms", "250.2")]), Some(251));
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(read(&[("retry-after", " 1.5 ")]), Some(1500));
        assert_eq!(read(&[("retry-after", "0")]), Some(0));
    }

    #[test]
    fn a_date_counts_from_now() {
        // 1,700,000,000 s is Tue, 14 Nov 2023 22:13:20 GMT.
        assert_eq!(
            read(&[("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT")]),
            Some(30_000)
        );
        assert_eq!(
            read(&[("retry-after", "Tue, 14 Nov 2023 22:13:00 GMT")]),
            None
        );
    }

    #[test]
    fn nonsense_falls_through_to_the_next_form() {
        assert_eq!(
            read(&[("retry-after-ms", "soon"), ("retry-after", "2")]),
            Some(2000)
        );
        assert_eq!(read(&[("retry-after", "-5")]), None);
        assert_eq!(read(&[("retry-after-ms", "NaN")]), None);
        assert_eq!(read(&[("retry-after-ms", "inf")]), None);
    }

    #[test]
    fn the_exhausted_window_says_when_it_resets() {
        let tokens_out = [
            ("x-ratelimit-remaining-requests", "10"),
            ("x-ratelimit-reset-requests", "50"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "7"),
        ];
        assert_eq!(read(&tokens_out), Some(7000));
        assert_eq!(
            read(&[("x-ratelimit-reset-tokens", "1m30.5s")]),
            Some(90_500)
        );
        assert_eq!(read(&[("x-ratelimit-reset-requests", "20ms")]), Some(20));
        assert_eq!(
            read(&[("x-ratelimit-reset-requests", "1h2d")]),
            Some(176_400_000)
        );
    }

    #[test]
    fn an_unknown_window_is_no_answer() {
        let unstated = [
            ("x-ratelimit-remaining-tokens", "-1"),
            ("x-ratelimit-reset-tokens", "0"),
        ];
        assert_eq!(read(&unstated), None);
        assert_eq!(read(&[("x-ratelimit-reset-tokens", "5 parsecs")]), None);
        assert_eq!(read(&[("x-ratelimit-reset-tokens", "s")]), None);
        assert_eq!(read(&[]), None);
    }
}
