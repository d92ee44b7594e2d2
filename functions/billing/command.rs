//! What `spillway bill` does: makes what is asked for and writes it out.

use std::io::{self, Write};
use std::sync::Arc;

use super::export::{Export, RowFormat};
use super::render::{self, About, Format};
use super::{Billing, BillingError, Period, price_check, reconcile};
use crate::gateway::bill::By;
use crate::gateway::time::Timestamp;
use crate::store::prices;

/// Digits after the point of a table's amounts, where nobody says how many.
pub const DECIMALS: u32 = 2;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its days.
    pub period: Period,
    /// Only this app.
    pub app: Option<Arc<str>>,
    /// What it is broken down by.
    pub by: Vec<By>,
    /// How it is written.
    pub format: Format,
    /// Digits after the point of a table's amounts.
    pub decimals: u32,
    /// What it is.
    pub what: What,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The bill.
    Bill,
    /// What spilling cost.
    Spill,
    /// The calls, one by one.
    Calls,
    /// What the last look at Azure's list prices proposed.
    PriceProposals,
}

/// Makes what is asked for and writes it to `out`.
///
/// # Errors
/// When it can't be made, or written.
pub async fn run(
    billing: &Billing,
    request: Request,
    now: Timestamp,
    out: &mut dyn Write,
) -> io::Result<()> {
    let names = billing.names().await;
    let about = About {
        period: request.period,
        currency: &billing.currency,
        names: &names,
    };
    let text = match request.what {
        What::Calls => return calls(billing, &request, out).await,
        What::PriceProposals => {
            let latest = prices::latest(billing.store.as_ref()).await;
            let latest = latest.map_err(io::Error::other)?;
            match request.format {
                Format::Json => format!("{:#}\n", price_check::to_json(latest.as_ref())),
                Format::Table | Format::Csv => price_check::to_text(latest.as_ref()),
            }
        }
        What::Spill => {
            let lines = billing
                .spilled(request.period)
                .await
                .map_err(io::Error::other)?;
            render::spills(&lines, about, request.format)
        }
        What::Bill => {
            let reconciled = billing.reconciled(request.period, request.app.as_deref());
            let reconciled = reconciled.await.map_err(io::Error::other)?;
            let reconciled = reconciled.as_deref();
            let bill = billing.bill(request.period, request.by, request.app, now);
            let bill = bill.await.map_err(io::Error::other)?;
            match request.format {
                Format::Table => render::to_table(&bill, about, request.decimals)
                    .map(|table| table + &reconcile::to_text(reconciled.unwrap_or_default())),
                Format::Csv => render::to_csv(&bill, about),
                Format::Json => {
                    render::to_json(&bill, about, reconciled).map(|json| format!("{json:#}\n"))
                }
            }
            .map_err(io::Error::other)?
        }
    };
    out.write_all(text.as_bytes())?;
    out.flush()
}

async fn calls(billing: &Billing, request: &Request, out: &mut dyn Write) -> io::Result<()> {
    let format = match request.format {
        Format::Csv => RowFormat::Csv,
        Format::Json => RowFormat::Json,
        Format::Table => {
            let why = "calls can be had as csv and json, not as a table";
            return Err(io::Error::other(BillingError::Asked(why.into())));
        }
    };
    let store = Arc::clone(&billing.store);
    let app = request.app.as_deref();
    let export = Export::new(store, format, request.period, app, None, usize::MAX);
    let mut export = export.await.map_err(io::Error::other)?;
    while let Some(piece) = export.next().await.map_err(io::Error::other)? {
        out.write_all(piece.as_bytes())?;
    }
    out.flush()
}
