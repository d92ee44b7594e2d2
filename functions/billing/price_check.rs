//! A look at Azure's list prices once a day, where the configuration asks for it, and what it proposed.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::azure::{http_client, retail_prices};
use crate::gateway::price::retail::Proposal;
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::Store;
use crate::store::prices::{self, Latest};

/// Time between looks at whether the day's has been taken, by this or another instance.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// Looks for ever, once a day among all instances. What fails is logged and done again an hour later.
pub async fn keep(store: Arc<dyn Store>, clock: Clock) {
    loop {
        // Instances that start together ask one after the other.
        tokio::time::sleep(Duration::from_secs(fastrand::u64(5..120))).await;
        if let Err(error) = once(store.as_ref(), retail_prices::SERVICE, clock.now()).await {
            tracing::warn!(%error, "Azure's list prices were not compared with the list");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// The look of the day of `now`, unless it has been taken.
///
/// # Errors
/// Why there was none. It can be taken again.
pub async fn once(store: &dyn Store, service: &str, now: Timestamp) -> Result<(), String> {
    let day = now.day();
    if !prices::take(store, &day)
        .await
        .map_err(|error| error.to_string())?
    {
        return Ok(());
    }
    let looked = look(store, service, now).await;
    if looked.is_err() {
        // Where that fails too, the next day's look is the next one.
        let _ = prices::give_back(store, &day).await;
    }
    looked
}

async fn look(store: &dyn Store, service: &str, now: Timestamp) -> Result<(), String> {
    let client = http_client()?;
    let retail = retail_prices::read(&client, service, now).await;
    let retail = retail.map_err(|error| error.to_string())?;
    if retail.is_empty() {
        return Err("none of Azure's prices could be read".into());
    }
    let proposals = retail.proposals(now);
    let read = u64::try_from(retail.len()).unwrap_or(u64::MAX);
    let unlisted = retail.unlisted().collect::<Vec<_>>().join(", ");
    let kept = prices::keep(store, now, read, &unlisted, &proposals).await;
    kept.map_err(|error| error.to_string())?;
    let proposals = proposals.len();
    if proposals > 0 {
        tracing::warn!(
            proposals,
            "Azure has other list prices by now; nothing was changed"
        );
    }
    Ok(())
}

/// What the last look proposed, as JSON.
pub fn to_json(latest: Option<&Latest>) -> Value {
    match latest {
        None => json!({"checked_at": null, "proposals": []}),
        Some(latest) => json!({
            "checked_at": latest.at,
            "prices_read": latest.read,
            "proposals": latest.proposals,
            "unlisted": latest.unlisted.split(", ").filter(|name| !name.is_empty()).collect::<Vec<_>>(),
        }),
    }
}

/// As [`to_json`], for people.
pub fn to_text(latest: Option<&Latest>) -> String {
    let Some(latest) = latest else {
        return "Azure's list prices were not looked at: set [chargeback] check_prices = true\n"
            .into();
    };
    let count = latest.proposals.len();
    let mut out = format!(
        "looked at {}: {} prices, {count} changes proposed\n",
        latest.at, latest.read
    );
    for proposal in &latest.proposals {
        line(&mut out, proposal);
    }
    if !latest.unlisted.is_empty() {
        // Writing to a String can't fail.
        let _ = writeln!(out, "\nmeters of no model in the list: {}", latest.unlisted);
    }
    out
}

fn line(out: &mut String, proposal: &Proposal) {
    let sort = serde_json::to_value(proposal.sort).ok();
    let sort = sort.as_ref().and_then(Value::as_str).unwrap_or_default();
    let listed = proposal.listed.as_deref().unwrap_or("none");
    let size = proposal
        .up_to_input
        .map_or_else(String::new, |up_to| format!(" up to {up_to}"));
    let _ = writeln!(
        out,
        "{} {} {sort}{size}: {listed} -> {} since {} ({}; {})",
        proposal.model,
        proposal.region_class.as_str(),
        proposal.retail,
        proposal.from,
        proposal.meter,
        proposal.regions.join(" ")
    );
}
