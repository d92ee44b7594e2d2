//! The sums of table `chargeback`: what an app spent, by day, model and kind.
//!
//! They lie beside the day's calls, with row keys that begin with `sum|`.

use rust_decimal::Decimal;

use super::{Range, Row, Store, StoreError, Table, encode_key};

/// What the keys of sums begin with.
pub const SUM: &str = "sum|";

/// What an app spent on these UTC days, such as `2026-11-23`.
///
/// # Errors
/// When the store fails, or a sum is no decimal number.
pub async fn spent(
    store: &dyn Store,
    app: &str,
    days: impl Iterator<Item = String>,
) -> Result<Decimal, StoreError> {
    let mut total = Decimal::ZERO;
    for day in days {
        let mut range = Range::of(format!("{}|{day}", encode_key(app)), SUM);
        loop {
            let page = store.read(Table::Chargeback, &range).await?;
            for row in &page.rows {
                total = total.saturating_add(cost(row)?);
            }
            match page.next {
                Some(next) => range.after = Some(next),
                None => break,
            }
        }
    }
    Ok(total)
}

/// The cost of a sum, 0 where it has none.
fn cost(row: &Row) -> Result<Decimal, StoreError> {
    let text = row.fields.get_text("cost");
    if text.is_empty() {
        return Ok(Decimal::ZERO);
    }
    Decimal::from_str_exact(text).map_err(|_| {
        let (partition, row) = (&row.key.partition, &row.key.row);
        StoreError::Damaged(format!(
            "the cost of {partition} {row} is no decimal number"
        ))
    })
}
