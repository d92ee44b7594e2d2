//! What a bill is made of, read from table `chargeback`: which apps have calls in a month, what the
//! calls of an app's day come to, and the calls themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::chargeback::{CALL, INDEX, UNPRICED, partition};
use super::sums::{PTU, SUM, Sum};
use super::{Key, Page, Pages, Range, Row, Store, StoreError, Table};
use crate::gateway::bill::spill::{Call, Was};
use crate::gateway::bill::{Figures, PtuUse, Use};
use crate::gateway::event::{Cache, Kind, UsageSource};
use crate::gateway::time::Timestamp;

/// The status of a call whose client left: no failure of anybody.
const CLIENT_GONE: u64 = 499;

/// What an app's calls of a day come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppDay {
    /// By model and deployment.
    pub uses: Vec<Use>,
    /// By hour and PTU.
    pub ptu_uses: Vec<PtuUse>,
}

/// The apps with calls in a month such as `2026-11`, in order of their keys.
///
/// # Errors
/// When the store fails.
pub async fn apps(store: &dyn Store, month: &str) -> Result<Vec<Arc<str>>, StoreError> {
    let range = Range::of(format!("{INDEX}{month}"), "");
    let rows = Pages::new(store, Table::Chargeback, range).rest().await?;
    let apps = rows.iter().map(|row| row.fields.get_text("app").into());
    Ok(apps.collect())
}

/// What an app's calls of a UTC day come to, from their sums.
///
/// # Errors
/// When the store fails, or a row is none of this program.
pub async fn sums(store: &dyn Store, app: &Arc<str>, day: &Arc<str>) -> Result<AppDay, StoreError> {
    let mut sums = AppDay::default();
    // PTU hours and sums come after the calls in the order of keys, and nothing else does.
    let range = Range {
        after: Some(row_key(app, day, PTU)),
        ..Range::of(partition(app, day), "")
    };
    let mut pages = Pages::new(store, Table::Chargeback, range);
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            if row.key.row.starts_with(PTU) {
                sums.ptu_uses.push(ptu_use(row, app)?);
            } else if row.key.row.starts_with(SUM) {
                sums.uses.push(used(row, app, day)?);
            }
        }
    }
    Ok(sums)
}

/// As [`sums`], by user too: reads each call.
///
/// # Errors
/// As [`sums`].
pub async fn by_user(
    store: &dyn Store,
    app: &Arc<str>,
    day: &Arc<str>,
) -> Result<AppDay, StoreError> {
    let mut uses: BTreeMap<[Arc<str>; 4], Figures> = BTreeMap::new();
    let mut hours: BTreeMap<(u8, [Arc<str>; 4]), u64> = BTreeMap::new();
    let mut pages = Pages::new(store, Table::Chargeback, calls_of(app, day));
    while let Some(rows) = pages.next().await? {
        for row in &rows {
            let text = |name| Arc::from(row.fields.get_text(name));
            let (user, model, backend) = (text("user"), text("model"), text("backend"));
            let of: [Arc<str>; 4] = [user, model, backend, text("kind")];
            let sum = uses.entry(of.clone()).or_default();
            let figures = figures_of_call(row)?;
            sum.add(&figures).map_err(|_| damaged(row, "a count"))?;
            let weighted = row.fields.get_number("weighted_tokens");
            if &*of[3] == Kind::Ptu.as_str() {
                let [user, model, backend, _] = of;
                let of = [user, model, backend, text("deployment")];
                let sum = hours.entry((hour_of_call(row)?, of)).or_default();
                *sum = sum.saturating_add(weighted);
            }
        }
    }
    let uses = uses
        .into_iter()
        .map(|([user, model, backend, kind], figures)| Use {
            app: Arc::clone(app),
            day: Arc::clone(day),
            user,
            model,
            backend,
            kind,
            figures,
        });
    let hours = hours.into_iter();
    let ptu_uses = hours.map(
        |((hour, [user, model, backend, deployment]), weighted)| PtuUse {
            app: Arc::clone(app),
            hour,
            user,
            model,
            backend,
            deployment,
            weighted,
        },
    );
    Ok(AppDay {
        uses: uses.collect(),
        ptu_uses: ptu_uses.collect(),
    })
}

/// A page of an app's calls of a UTC day, in order of their ids, which is that of time: `limit` at
/// most (up to 1,000), from after the call of the key `after` on.
///
/// # Errors
/// When the store fails.
pub async fn calls(
    store: &dyn Store,
    app: &str,
    day: &str,
    after: Option<Key>,
    limit: usize,
) -> Result<Page, StoreError> {
    let range = Range {
        after,
        limit,
        ..calls_of(app, day)
    };
    store.read(Table::Chargeback, &range).await
}

/// A call, as far as spilling goes; `None` where it neither spilled nor was at a PTU.
///
/// # Errors
/// When the row is none of this program.
pub fn spill(row: &Row, app: &Arc<str>) -> Result<Option<Call>, StoreError> {
    let fields = &row.fields;
    let was = if fields.get_flag("spilled") {
        let tokens = row.fields.get_tokens().total();
        let cost = fields.get_text("cost");
        let cost = (!cost.is_empty())
            .then(|| amount(row, "cost"))
            .transpose()?;
        Was::Spilled(tokens, cost)
    } else if fields.get_text("kind") == Kind::Ptu.as_str() {
        Was::Taken(row.fields.get_number("weighted_tokens"))
    } else {
        return Ok(None);
    };
    let time = Timestamp::parse(fields.get_text("time"));
    Ok(Some(Call {
        time: time.ok_or_else(|| damaged(row, "time"))?,
        app: Arc::clone(app),
        model: fields.get_text("model").into(),
        was,
    }))
}

/// The key of a row of an app's day.
pub fn row_key(app: &str, day: &str, row: &str) -> Key {
    Key {
        partition: partition(app, day),
        row: row.to_owned(),
    }
}

fn calls_of(app: &str, day: &str) -> Range {
    Range::of(partition(app, day), CALL)
}

fn ptu_use(row: &Row, app: &Arc<str>) -> Result<PtuUse, StoreError> {
    let text = |name| Arc::from(row.fields.get_text(name));
    let hour = row.fields.get_text("hour").parse().ok();
    Ok(PtuUse {
        app: Arc::clone(app),
        user: "".into(),
        hour: hour
            .filter(|hour| *hour < 24)
            .ok_or_else(|| damaged(row, "hour"))?,
        backend: text("backend"),
        deployment: text("deployment"),
        model: text("model"),
        weighted: row.fields.get_number("weighted_tokens"),
    })
}

fn used(row: &Row, app: &Arc<str>, day: &Arc<str>) -> Result<Use, StoreError> {
    let text = |name| Arc::from(row.fields.get_text(name));
    let sum = Sum::read(row)?;
    Ok(Use {
        app: Arc::clone(app),
        user: "".into(),
        day: Arc::clone(day),
        model: text("model"),
        backend: text("backend"),
        kind: text("kind"),
        figures: Figures {
            calls: sum.calls,
            failed_calls: sum.failed_calls,
            spilled_calls: sum.spilled_calls,
            unpriced_calls: sum.unpriced_calls,
            estimated_calls: sum.estimated_calls,
            tokens: sum.tokens,
            spilled_tokens: sum.spilled_tokens,
            cost: sum.cost,
            spilled_cost: sum.spilled_cost,
            hit_calls: sum.hit_calls,
            coalesced_calls: sum.coalesced_calls,
            saved_tokens: sum.saved_tokens,
            saved_cost: sum.saved_cost,
        },
    })
}

/// What a call comes to, as the sums count it.
fn figures_of_call(row: &Row) -> Result<Figures, StoreError> {
    let fields = &row.fields;
    let (status, outcome) = (fields.get_number("status"), fields.get_text("outcome"));
    let failed = status >= 400 && status != CLIENT_GONE || matches!(outcome, "failed" | "cut");
    let usage = fields.get_text("usage");
    let is_ptu = fields.get_text("kind") == Kind::Ptu.as_str();
    let has_cost = !fields.get_text("cost").is_empty() || is_ptu;
    // Rows of earlier releases say it only by their having no cost.
    let is_unpriced = fields.get_flag(UNPRICED) || !has_cost && usage != UsageSource::None.as_str();
    let spilled = fields.get_flag("spilled");
    let (tokens, cost) = (row.fields.get_tokens(), amount(row, "cost")?);
    let if_spilled = |count: u64| if spilled { count } else { 0 };
    let cache = |what: Cache| u64::from(fields.get_text("cache") == what.as_str());
    Ok(Figures {
        calls: 1,
        failed_calls: failed.into(),
        spilled_calls: spilled.into(),
        unpriced_calls: is_unpriced.into(),
        estimated_calls: (usage == UsageSource::Estimated.as_str()).into(),
        spilled_tokens: if_spilled(tokens.total()),
        spilled_cost: if spilled { cost } else { Decimal::ZERO },
        tokens,
        cost,
        hit_calls: cache(Cache::Hit),
        coalesced_calls: cache(Cache::Coalesced),
        saved_tokens: fields.get_number("saved_tokens"),
        saved_cost: amount(row, "saved_cost")?,
    })
}

fn hour_of_call(row: &Row) -> Result<u8, StoreError> {
    let hour = row.fields.get_text("time").get(11..13);
    let hour = hour.and_then(|hour| hour.parse().ok());
    hour.filter(|hour| *hour < 24)
        .ok_or_else(|| damaged(row, "time"))
}

fn amount(row: &Row, name: &str) -> Result<Decimal, StoreError> {
    match row.fields.get_text(name) {
        "" => Ok(Decimal::ZERO),
        text => Decimal::from_str_exact(text).map_err(|_| damaged(row, name)),
    }
}

fn damaged(row: &Row, name: &str) -> StoreError {
    let Key { partition, row } = &row.key;
    StoreError::Damaged(format!("{name} of {partition} {row} can't be read"))
}
