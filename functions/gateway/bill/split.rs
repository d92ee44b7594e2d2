//! Shares of an amount that add up to it, to the last digit.

use rust_decimal::Decimal;

use crate::gateway::price::COST_DECIMALS;

/// `amount` in parts as large as `weights` say, by the largest remainder: each part is rounded down
/// to a unit of 10^-12, and the units that are left over go, one each, to the parts that lost most
/// by that, the first of them first. So the parts add up to the amount, and none is a whole unit off.
///
/// `None` where there is no weight to go by, or the amount is negative or has no exact parts: more
/// than twelve digits after the point, or 10^16 and more.
pub fn split(amount: Decimal, weights: &[u64]) -> Option<Vec<Decimal>> {
    let units = split_units(units(amount)?, weights)?;
    units.into_iter().map(of_units).collect()
}

/// As [`split`], for a count of things that can't be divided.
pub fn split_count(count: u64, weights: &[u64]) -> Option<Vec<u64>> {
    let parts = split_units(u128::from(count), weights)?;
    parts
        .into_iter()
        .map(|part| u64::try_from(part).ok())
        .collect()
}

fn split_units(units: u128, weights: &[u64]) -> Option<Vec<u128>> {
    let total = weights
        .iter()
        .try_fold(0u64, |sum, w| sum.checked_add(*w))?;
    let total = u128::from(total);
    // Two steps, because the product of units and a weight may be beyond 128 bits.
    let (whole, rest) = (units.checked_div(total)?, units.checked_rem(total)?);
    let mut parts = Vec::with_capacity(weights.len());
    let mut lost = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        let weight = u128::from(*weight);
        // `rest` and `weight` are below 2^64.
        let of_rest = rest * weight;
        parts.push(whole.checked_mul(weight)?.checked_add(of_rest / total)?);
        lost.push((of_rest % total, index));
    }
    let left = units.checked_sub(parts.iter().sum())?;
    lost.sort_by_key(|(lost, index)| (std::cmp::Reverse(*lost), *index));
    for (_, index) in lost.into_iter().take(usize::try_from(left).ok()?) {
        *parts.get_mut(index)? += 1;
    }
    Some(parts)
}

/// An amount in units of 10^-12.
fn units(amount: Decimal) -> Option<u128> {
    let amount = amount.normalize();
    let missing = COST_DECIMALS.checked_sub(amount.scale())?;
    let mantissa = u128::try_from(amount.mantissa()).ok()?;
    mantissa
        .checked_mul(10u128.checked_pow(missing)?)
        .filter(|units| *units < 10u128.pow(16 + COST_DECIMALS))
}

fn of_units(units: u128) -> Option<Decimal> {
    let units = i128::try_from(units).ok()?;
    let amount = Decimal::try_from_i128_with_scale(units, COST_DECIMALS).ok()?;
    Some(amount.normalize())
}

/// `amounts` with `decimals` digits after the point, so that they still add up: to their sum, rounded
/// half up. Who rounds each by itself shows a bill that does not.
///
/// `None` for a negative amount, or one beyond reason.
pub fn rounded(amounts: &[Decimal], decimals: u32) -> Option<Vec<Decimal>> {
    let unit = 10u128.checked_pow(COST_DECIMALS.checked_sub(decimals)?)?;
    let exact: Option<Vec<u128>> = amounts.iter().map(|amount| units(*amount)).collect();
    let exact = exact?;
    let sum = exact
        .iter()
        .try_fold(0u128, |sum, one| sum.checked_add(*one))?;
    let shown = sum.checked_add(unit / 2)? / unit;
    let mut parts: Vec<u128> = exact.iter().map(|one| one / unit).collect();
    let left = shown.checked_sub(parts.iter().sum())?;
    let mut lost: Vec<(u128, usize)> = exact.iter().map(|one| one % unit).zip(0..).collect();
    lost.sort_by_key(|(lost, index)| (std::cmp::Reverse(*lost), *index));
    for (_, index) in lost.into_iter().take(usize::try_from(left).ok()?) {
        *parts.get_mut(index)? += 1;
    }
    let decimal = |part: u128| {
        let part = i128::try_from(part).ok()?;
        Decimal::try_from_i128_with_scale(part, decimals).ok()
    };
    parts.into_iter().map(decimal).collect()
}
