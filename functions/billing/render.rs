//! Bills as a table for people, as CSV and as JSON for programs.
//!
//! CSV and JSON have exact amounts. A table has them rounded, so that the rows shown still add up to
//! the total shown.

use std::fmt::Write;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::{BillingError, Names, Period, csv, reconcile};
use crate::gateway::bill::spill::SpillLine;
use crate::gateway::bill::split::rounded;
use crate::gateway::bill::{Bill, BillError, By, IDLE, Line};
use crate::gateway::reconcile::Reconciled;

/// How a bill is written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For spreadsheets.
    Csv,
    /// For programs.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            _ => Err(format!(
                "`{text}` is no format; it can be table, csv or json"
            )),
        }
    }
}

/// What is said of a whole bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'a> {
    /// Its days.
    pub period: Period,
    /// The currency of all amounts.
    pub currency: &'a str,
    /// Display names of apps.
    pub names: &'a Names,
}

/// What has an app's display name in CSV and JSON, beside its id.
const APP_NAME: &str = "app_name";

/// A count on a line.
type Count = fn(&Line) -> u64;

/// The counts of a line, as CSV and JSON name them.
const COUNTS: [(&str, Count); 20] = [
    ("calls", |line| line.figures.calls),
    ("failed_calls", |line| line.figures.failed_calls),
    ("spilled_calls", |line| line.figures.spilled_calls),
    ("unpriced_calls", |line| line.figures.unpriced_calls),
    ("estimated_calls", |line| line.figures.estimated_calls),
    ("input_tokens", |line| line.figures.tokens.input),
    ("cached_tokens", |line| line.figures.tokens.cached),
    ("output_tokens", |line| line.figures.tokens.output),
    ("reasoning_tokens", |line| line.figures.tokens.reasoning),
    ("audio_input_tokens", |line| line.figures.tokens.audio_input),
    ("audio_output_tokens", |line| {
        line.figures.tokens.audio_output
    }),
    ("image_input_tokens", |line| line.figures.tokens.image_input),
    ("spilled_tokens", |line| line.figures.spilled_tokens),
    ("weighted_tokens", |line| line.weighted),
    ("unpriced_weighted_tokens", |line| line.unpriced_weighted),
    ("hit_calls", |line| line.figures.hit_calls),
    ("coalesced_calls", |line| line.figures.coalesced_calls),
    ("saved_tokens", |line| line.figures.saved_tokens),
    ("cached_audio_tokens", |line| {
        line.figures.tokens.cached_audio
    }),
    ("cached_image_tokens", |line| {
        line.figures.tokens.cached_image
    }),
];

/// The amounts of a line. The last one is what it owes: the two before it together.
const AMOUNTS: [&str; 5] = [
    "saved_cost",
    "spilled_cost",
    "payg_cost",
    "ptu_cost",
    "cost",
];

fn amounts(line: &Line) -> Result<[Decimal; 5], BillError> {
    let figures = &line.figures;
    let amounts = [
        figures.saved_cost,
        figures.spilled_cost,
        figures.cost,
        line.ptu_cost,
        line.cost()?,
    ];
    Ok(amounts.map(|amount| amount.normalize()))
}

/// A bill as CSV, without a line for the total: who adds the lines up has it.
///
/// # Errors
/// [`BillError::TooLarge`].
pub fn to_csv(bill: &Bill, about: About<'_>) -> Result<String, BillingError> {
    let mut out = String::new();
    let by = bill.by.iter().map(|by| by.as_str());
    let counts = COUNTS.iter().map(|(name, _)| *name);
    let has_apps = bill.by.contains(&By::App);
    csv::line(
        &mut out,
        by.chain(["idle"])
            .chain(counts)
            .chain(AMOUNTS)
            .chain(["currency"])
            .chain(has_apps.then_some(APP_NAME)),
    );
    for line in &bill.lines {
        let mut cells: Vec<String> = line.of.iter().map(|of| of.to_string()).collect();
        cells.push(line.is_idle.to_string());
        cells.extend(COUNTS.iter().map(|(_, count)| count(line).to_string()));
        cells.extend(amounts(line)?.iter().map(ToString::to_string));
        cells.push(about.currency.to_owned());
        if has_apps {
            let name = app_of(bill, line).and_then(|app| about.names.of(app));
            cells.push(name.unwrap_or_default().to_owned());
        }
        csv::line(&mut out, cells.iter().map(String::as_str));
    }
    Ok(out)
}

/// The app that a line is for, where the bill is broken down by app.
fn app_of<'l>(bill: &Bill, line: &'l Line) -> Option<&'l str> {
    let mut of = bill.by.iter().zip(&line.of);
    of.find(|(by, _)| **by == By::App).map(|(_, app)| &**app)
}

/// What a line is for, as people read it.
fn shown(bill: &Bill, line: &Line, names: &Names) -> Vec<String> {
    let of = bill.by.iter().zip(&line.of);
    of.map(|(by, of)| match by {
        By::App => names.shown(of),
        _ => of.to_string(),
    })
    .collect()
}

/// A bill as JSON, and how far its days are from what Azure counts, where that is to be told. Amounts are
/// text, because a number there is a float to most who read it.
///
/// # Errors
/// [`BillError::TooLarge`].
pub fn to_json(
    bill: &Bill,
    about: About<'_>,
    reconciled: Option<&[Reconciled]>,
) -> Result<Value, BillingError> {
    let lines: Result<Vec<Value>, BillError> = bill
        .lines
        .iter()
        .map(|line| {
            let of = bill.by.iter().zip(&line.of);
            let of = of.map(|(by, of)| (by.as_str().to_owned(), json!(of)));
            let mut object: Map<String, Value> = of.collect();
            object.insert("idle".into(), json!(line.is_idle));
            if let Some(name) = app_of(bill, line).and_then(|app| about.names.of(app)) {
                object.insert(APP_NAME.into(), json!(name));
            }
            put_figures(&mut object, line)?;
            Ok(Value::Object(object))
        })
        .collect();
    let mut total = Map::new();
    put_figures(&mut total, &bill.total)?;
    let mut json = json!({
        "from": about.period.from(),
        "to": about.period.to(),
        "currency": about.currency,
        "by": bill.by.iter().map(|by| by.as_str()).collect::<Vec<_>>(),
        "lines": lines?,
        "total": total,
    });
    if let (Some(days), Some(object)) = (reconciled, json.as_object_mut()) {
        object.insert("reconciliation".into(), reconcile::to_json(days));
    }
    Ok(json)
}

fn put_figures(object: &mut Map<String, Value>, line: &Line) -> Result<(), BillError> {
    for (name, count) in COUNTS {
        object.insert(name.into(), json!(count(line)));
    }
    for (name, amount) in AMOUNTS.into_iter().zip(amounts(line)?) {
        object.insert(name.into(), json!(amount.to_string()));
    }
    Ok(())
}

/// A bill as a table, with `decimals` digits after the point, and below it what is missing in it.
///
/// # Errors
/// [`BillError::TooLarge`].
pub fn to_table(bill: &Bill, about: About<'_>, decimals: u32) -> Result<String, BillingError> {
    let round = |amount: fn(&Line) -> Decimal| {
        let exact: Vec<Decimal> = bill.lines.iter().map(amount).collect();
        rounded(&exact, decimals).ok_or(BillError::TooLarge)
    };
    // Each column adds up by itself; a row's last cell is its two before it.
    let (payg, ptu) = (
        round(|line| line.figures.cost)?,
        round(|line| line.ptu_cost)?,
    );
    let by = bill.by.iter().map(|by| by.as_str().to_owned());
    let head = by.chain(HEAD.map(str::to_owned));
    let mut table = vec![head.collect::<Vec<String>>()];
    let mut sums = [Decimal::ZERO; 2];
    for ((line, payg), ptu) in bill.lines.iter().zip(payg).zip(ptu) {
        sums = [sums[0] + payg, sums[1] + ptu];
        let mut row = shown(bill, line, about.names);
        if line.is_idle && !row.iter().any(|of| of == IDLE) {
            match row.first_mut() {
                Some(first) => *first = format!("{IDLE} {first}"),
                None => row.push(IDLE.into()),
            }
        } else if row.is_empty() && bill.lines.len() > 1 {
            row.push(String::new());
        }
        row.extend(figures_shown(line, payg, ptu));
        table.push(row);
    }
    let mut total = vec![String::new(); bill.by.len()];
    if let Some(first) = total.first_mut() {
        *first = "total".into();
    }
    total.extend(figures_shown(&bill.total, sums[0], sums[1]));
    table.push(total);
    let mut out = format!(
        "{} to {}, {}\n\n",
        about.period.from(),
        about.period.to(),
        about.currency
    );
    out.push_str(&aligned(&table, bill.by.len()));
    out.push_str(&saved(&bill.total, about.currency));
    out.push_str(&missing(&bill.total));
    Ok(out)
}

/// The columns of the table after those that it is broken down by.
const HEAD: [&str; 8] = [
    "calls", "input", "cached", "output", "spilled", "payg", "ptu", "cost",
];

fn figures_shown(line: &Line, payg: Decimal, ptu: Decimal) -> [String; 8] {
    let figures = &line.figures;
    [
        figures.calls.to_string(),
        figures.tokens.input.to_string(),
        figures.tokens.cached.to_string(),
        figures.tokens.output.to_string(),
        figures.spilled_calls.to_string(),
        payg.to_string(),
        ptu.to_string(),
        (payg + ptu).to_string(),
    ]
}

/// What the cache spared, said below the table where it spared anything.
fn saved(total: &Line, currency: &str) -> String {
    let figures = &total.figures;
    let calls = figures.hit_calls.saturating_add(figures.coalesced_calls);
    if calls == 0 {
        return String::new();
    }
    format!(
        "\n{calls} calls were given another call's answer, which saved {} tokens and {} {currency} of pay-as-you-go\n",
        figures.saved_tokens,
        figures.saved_cost.normalize()
    )
}

/// What the amounts do not hold, said below them.
fn missing(total: &Line) -> String {
    let mut out = String::new();
    let unpriced = total.figures.unpriced_calls;
    if unpriced > 0 {
        // Writing to a String can't fail.
        let _ = writeln!(
            out,
            "\n{unpriced} calls have no price: they are not in the cost, or, where only their service tier has none, as standard ones; state it as [[price]]"
        );
    }
    let weighted = total.unpriced_weighted;
    if weighted > 0 {
        let _ = writeln!(
            out,
            "\n{weighted} weighted tokens were used of PTUs without a price, which is not in the cost: state the deployment's ptus, or a [[price]] with ptu_hour"
        );
    }
    out
}

/// The first `texts` columns to the left, the others to the right.
pub(super) fn aligned(table: &[Vec<String>], texts: usize) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    // A row may lack the first cell's column: rows end together.
    let cell = |row: &Vec<String>, column: usize| {
        let missing = columns - row.len();
        let index = column.checked_sub(missing);
        index
            .and_then(|index| row.get(index).cloned())
            .unwrap_or_default()
    };
    let texts = texts.max(columns - HEAD.len().min(columns));
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let widths = table.iter().map(|row| cell(row, column).chars().count());
            widths.max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in table {
        let mut line = String::new();
        for (column, width) in widths.iter().enumerate() {
            let text = printable(&cell(row, column));
            let _ = if column < texts {
                write!(line, "{text:<width$}  ")
            } else {
                write!(line, "{text:>width$}  ")
            };
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A text that moves no cursor.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

const SPILL_HEAD: [&str; 6] = [
    "filled_by",
    "app",
    "model",
    "spilled_calls",
    "spilled_tokens",
    "spilled_cost",
];

fn spill_cells(line: &SpillLine) -> [String; 6] {
    let spilled = &line.spilled;
    [
        line.filled_by.to_string(),
        line.app.to_string(),
        line.model.to_string(),
        spilled.calls.to_string(),
        spilled.tokens.to_string(),
        spilled.cost.normalize().to_string(),
    ]
}

/// What spilling cost, in a format.
pub fn spills(lines: &[SpillLine], about: About<'_>, format: Format) -> String {
    match format {
        Format::Table => {
            let mut table = vec![SPILL_HEAD.map(str::to_owned).to_vec()];
            table.extend(lines.iter().map(|line| {
                let [filled_by, app, rest @ ..] = spill_cells(line);
                let named = [filled_by, app].map(|app| about.names.shown(&app));
                named.into_iter().chain(rest).collect()
            }));
            aligned(&table, 3)
        }
        Format::Csv => {
            let mut out = String::new();
            csv::line(&mut out, SPILL_HEAD.into_iter().chain(["currency"]));
            for line in lines {
                let cells = spill_cells(line);
                let cells = cells.iter().map(String::as_str);
                csv::line(&mut out, cells.chain([about.currency]));
            }
            out
        }
        Format::Json => {
            let lines = lines.iter().map(|line| {
                json!({
                    "filled_by": line.filled_by,
                    "app": line.app,
                    "model": line.model,
                    "spilled_calls": line.spilled.calls,
                    "spilled_tokens": line.spilled.tokens,
                    "spilled_cost": line.spilled.cost.normalize().to_string(),
                })
            });
            let whole = json!({
                "from": about.period.from(),
                "to": about.period.to(),
                "currency": about.currency,
                "lines": lines.collect::<Vec<_>>(),
            });
            whole.to_string()
        }
    }
}
