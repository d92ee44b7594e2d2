//! How figures are written.

use rust_decimal::Decimal;

/// What stands where there is no figure.
pub(super) const NONE: &str = "–";

/// A whole number in groups of three, for example `12,345`.
pub(super) fn whole(number: u64) -> String {
    grouped(&number.to_string())
}

fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number in short, for example `0.25`, `12.3`, `12,345`, `1.23 M`.
pub(super) fn short(number: f64) -> String {
    if number >= 1e9 {
        return format!("{:.2} G", number / 1e9);
    }
    if number >= 1e6 {
        return format!("{:.2} M", number / 1e6);
    }
    if number >= 100.0 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 100 and a million"
        )]
        return whole(number.round() as u64);
    }
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// As [`short`], of a whole number.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(super) fn short_whole(number: u64) -> String {
    short(number as f64)
}

/// An exact amount, to the cent, for example `1,234.50`; below a cent to two digits that count.
pub(super) fn money(amount: &str) -> String {
    let Ok(amount) = amount.parse::<Decimal>() else {
        return NONE.to_owned();
    };
    let cents = amount.round_dp(2);
    if cents.is_zero() && !amount.is_zero() {
        let digits = amount.round_sf(2).unwrap_or(amount);
        return digits.normalize().to_string();
    }
    let text = format!("{cents:.2}");
    let (units, cents) = text.split_once('.').unwrap_or((&text, "00"));
    let (sign, units) = units
        .strip_prefix('-')
        .map_or(("", units), |units| ("-", units));
    format!("{sign}{}.{cents}", grouped(units))
}

/// A time, for example `230 ms`, `1.2 s`.
pub(super) fn ms(ms: Option<u64>) -> String {
    match ms {
        None => NONE.to_owned(),
        Some(ms) if ms < 1000 => format!("{ms} ms"),
        Some(ms) if ms < 100_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        Some(ms) => format!("{} s", whole(ms / 1000)),
    }
}

/// An age of so many seconds, for example `0.4 s`, `42 s`, `3 min`, `2 h`.
pub(super) fn ago(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

/// A percentage, for example `12.5 %`.
pub(super) fn percent(percent: Option<f64>) -> String {
    percent.map_or(NONE.to_owned(), |percent| format!("{} %", short(percent)))
}

/// The time of day of an RFC 3339 moment, for example `17:06:30`.
pub(super) fn time_of_day(moment: &str) -> &str {
    moment.get(11..19).unwrap_or(moment)
}

/// The day and minute of an RFC 3339 moment, for example `11-23 17:06`.
pub(super) fn day_and_minute(moment: &str) -> String {
    let part = moment.get(5..16).unwrap_or(moment);
    part.replace('T', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(whole(0), "0");
        assert_eq!(whole(999), "999");
        assert_eq!(whole(1_234_567), "1,234,567");
        let texts = [0.0, 0.25, 12.3, 99.99, 12_345.6, 1_234_567.0, 2e9].map(short);
        assert_eq!(
            texts,
            ["0", "0.25", "12.3", "99.99", "12,346", "1.23 M", "2.00 G"]
        );
        let texts = [None, Some(0), Some(999), Some(1250), Some(120_000)].map(ms);
        assert_eq!(texts, ["–", "0 ms", "999 ms", "1.2 s", "120 s"]);
        assert_eq!(percent(Some(12.5)), "12.5 %");
        let texts = [0.44, 42.0, 180.0, 7200.0].map(ago);
        assert_eq!(texts, ["0.4 s", "42 s", "3 min", "2 h"]);
    }

    #[test]
    fn amounts_are_rounded_to_cents_but_never_to_nothing() {
        let texts = ["0", "1234567.895", "0.004567", "-3.5", "12", "x"].map(money);
        assert_eq!(
            texts,
            ["0.00", "1,234,567.90", "0.0046", "-3.50", "12.00", "–"]
        );
    }

    #[test]
    fn moments_are_cut() {
        assert_eq!(time_of_day("2026-11-23T17:06:30.000Z"), "17:06:30");
        assert_eq!(day_and_minute("2026-11-23T17:06:30.000Z"), "11-23 17:06");
        assert_eq!(time_of_day("?"), "?");
    }
}
