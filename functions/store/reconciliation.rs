//! The rows of table `reconciliation`: what the gateway counted of each deployment's day beside what
//! Azure Monitor has of it.
//!
//! The partition is a UTC month, `2026-11`; the row a day, a backend and a deployment, written anew by
//! each look at that day. Partition `looks` has a row a day, by which the first instance takes the look.

use std::sync::Arc;

use super::{
    Change, Field, Fields, Pages, Range, Row, Store, StoreError, Table, Write, bounds, daily,
    encode_key,
};
use crate::gateway::reconcile::{Figure, Reconciled};

const LOOKS: &str = "looks";

/// Characters of a UTC month, such as `2026-11`.
const MONTH: usize = 7;

/// The names of a figure's fields, ours and Azure's.
const REQUESTS: [&str; 2] = ["requests", "azure_requests"];
const PROMPT: [&str; 2] = ["prompt_tokens", "azure_prompt_tokens"];
const GENERATED: [&str; 2] = ["generated_tokens", "azure_generated_tokens"];

/// Takes the look of a day, such as `2026-11-23`. `false` where another instance has.
///
/// # Errors
/// When the store fails.
pub async fn take(store: &dyn Store, day: &str) -> Result<bool, StoreError> {
    daily::take(store, Table::Reconciliation, LOOKS, day).await
}

/// Gives the look of a day back, so that it is taken again.
///
/// # Errors
/// When the store fails.
pub async fn give_back(store: &dyn Store, day: &str) -> Result<(), StoreError> {
    daily::give_back(store, Table::Reconciliation, LOOKS, day).await
}

/// Keeps what was found of some deployments on one day.
///
/// # Errors
/// When the store fails.
pub async fn keep(store: &dyn Store, day: &str, found: &[Reconciled]) -> Result<(), StoreError> {
    let month: String = day.chars().take(MONTH).collect();
    for part in found.chunks(bounds::MAX_WRITES) {
        let writes = part.iter().map(|one| Write {
            row: format!(
                "{day}|{}|{}",
                encode_key(&one.backend),
                encode_key(&one.deployment)
            ),
            change: Change::Upsert(fields(one)),
        });
        store
            .write(Table::Reconciliation, &month, writes.collect())
            .await?;
    }
    Ok(())
}

/// What was found of a month, such as `2026-11`: by day, backend and deployment.
///
/// # Errors
/// When the store fails.
pub async fn month(store: &dyn Store, month: &str) -> Result<Vec<Reconciled>, StoreError> {
    let range = Range::of(month, "");
    let rows = Pages::new(store, Table::Reconciliation, range)
        .rest()
        .await?;
    Ok(rows.iter().map(reconciled).collect())
}

fn fields(one: &Reconciled) -> Fields {
    let fields = Fields::new()
        .text("day", &*one.day)
        .text("backend", &*one.backend)
        .text("deployment", &*one.deployment)
        .flag("shared", one.is_shared)
        .number("estimated_tokens", one.estimated)
        .number("hours", one.hours.into());
    let figures = [
        (REQUESTS, one.requests),
        (PROMPT, one.prompt),
        (GENERATED, one.generated),
    ];
    figures
        .into_iter()
        .fold(fields, |fields, ([ours, azures], figure)| {
            let fields = fields.number(ours, figure.ours);
            match figure.metered {
                Some(metered) => fields.number(azures, metered),
                None => fields,
            }
        })
}

fn reconciled(row: &Row) -> Reconciled {
    let text = |name| Arc::from(row.fields.get_text(name));
    let figure = |[ours, azures]: [&str; 2]| {
        let is_metered = matches!(row.fields.get(azures), Some(Field::Int(_)));
        Figure {
            ours: row.fields.get_number(ours),
            metered: is_metered.then(|| row.fields.get_number(azures)),
        }
    };
    Reconciled {
        day: text("day"),
        backend: text("backend"),
        deployment: text("deployment"),
        is_shared: row.fields.get_flag("shared"),
        requests: figure(REQUESTS),
        prompt: figure(PROMPT),
        generated: figure(GENERATED),
        estimated: row.fields.get_number("estimated_tokens"),
        hours: u8::try_from(row.fields.get_number("hours")).unwrap_or(u8::MAX),
    }
}
