//! The calls of a period, one by one, as CSV or JSON, a page at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{BillingError, Period, apps, csv};
use crate::store::bill::{self, row_key};
use crate::store::chargeback::CALL;
use crate::store::{Field, Key, Row, Store, bounds, encode_key};

/// The columns of a call, in this order.
pub const COLUMNS: [&str; 37] = [
    "time",
    "app",
    "user",
    "model",
    "operation",
    "kind",
    "backend",
    "deployment",
    "region",
    "priority",
    "status",
    "outcome",
    "streamed",
    "spilled",
    "usage",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "image_input_tokens",
    "weighted_tokens",
    "cost",
    "first_byte_ms",
    "total_ms",
    "id",
    "subject",
    "trace_id",
    "attempts",
    "cache",
    "saved_tokens",
    "saved_cost",
    "cached_audio_tokens",
    "cached_image_tokens",
    "service_tier",
    "unpriced",
];

/// How the calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// A line each, under a head.
    Csv,
    /// An array of objects.
    Json,
}

/// An export under way: what is held is a page of calls.
#[derive(Debug)]
pub struct Export {
    store: Arc<dyn Store>,
    format: RowFormat,
    /// The apps' days that are still to be read, in order.
    days: VecDeque<(Arc<str>, String)>,
    after: Option<Key>,
    /// Calls that may still be written.
    left: usize,
    stage: Stage,
    is_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Rows,
    Done,
}

impl Export {
    /// The export of a period, or of one app's part of it. It goes on after the call that
    /// `continuation` names, and ends after `limit` calls.
    ///
    /// # Errors
    /// When the store can't be read, or the continuation is none of this export.
    pub async fn new(
        store: Arc<dyn Store>,
        format: RowFormat,
        period: Period,
        app: Option<&str>,
        continuation: Option<&str>,
        limit: usize,
    ) -> Result<Self, BillingError> {
        let apps = apps(store.as_ref(), period).await?;
        let apps = apps
            .iter()
            .filter(|one| app.is_none_or(|app| app == &***one));
        let mut days: VecDeque<(Arc<str>, String)> = apps
            .flat_map(|app| period.days().map(move |day| (Arc::clone(app), day.day())))
            .collect();
        let mut after = None;
        if let Some(text) = continuation {
            let at = Continuation::read(text, &days).ok_or_else(|| {
                BillingError::Asked("the continuation is none of this export".into())
            })?;
            days.drain(..at.day);
            after = Some(at.after);
        }
        Ok(Self {
            store,
            format,
            days,
            after,
            left: limit,
            stage: Stage::Head,
            is_first: true,
        })
    }

    /// The next piece of the export, not empty; `None` at its end.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn next(&mut self) -> Result<Option<String>, BillingError> {
        match self.stage {
            Stage::Head => {
                self.stage = Stage::Rows;
                Ok(Some(self.head()))
            }
            Stage::Rows => {
                if let Some(rows) = self.rows().await? {
                    return Ok(Some(self.written(&rows)));
                }
                self.stage = Stage::Done;
                Ok((self.format == RowFormat::Json).then(|| "\n]}\n".to_owned()))
            }
            Stage::Done => Ok(None),
        }
    }

    /// Where another export goes on after this one, where there is more.
    pub fn continuation(&self) -> Option<String> {
        let (app, day) = self.days.front()?;
        let after = self.after.as_ref();
        let id = after
            .and_then(|key| key.row.strip_prefix(CALL))
            .unwrap_or_default();
        Some(format!("{}|{day}|{id}", encode_key(app)))
    }

    /// The next calls, at least one; `None` at the end.
    async fn rows(&mut self) -> Result<Option<Vec<Row>>, BillingError> {
        while let Some((app, day)) = self.days.front()
            && self.left > 0
        {
            let limit = self.left.min(bounds::MAX_PAGE);
            let after = self.after.take();
            let page = bill::calls(self.store.as_ref(), app, day, after, limit).await?;
            self.left = self.left.saturating_sub(page.rows.len());
            match page.next {
                Some(next) => self.after = Some(next),
                None => drop(self.days.pop_front()),
            }
            if !page.rows.is_empty() {
                return Ok(Some(page.rows));
            }
        }
        Ok(None)
    }

    fn head(&self) -> String {
        match self.format {
            RowFormat::Csv => {
                let mut out = String::new();
                csv::line(&mut out, COLUMNS);
                out
            }
            RowFormat::Json => "{\"calls\":[\n".to_owned(),
        }
    }

    fn written(&mut self, rows: &[Row]) -> String {
        let mut out = String::with_capacity(rows.len() * 512);
        for row in rows {
            match self.format {
                RowFormat::Csv => {
                    let cells = COLUMNS.map(|name| text_of(row, name));
                    csv::line(&mut out, cells.iter().map(String::as_str));
                }
                RowFormat::Json => {
                    if !self.is_first {
                        out.push_str(",\n");
                    }
                    out.push_str(&object(row).to_string());
                }
            }
            self.is_first = false;
        }
        out
    }
}

/// Where an export goes on.
struct Continuation {
    /// Number of the app's day.
    day: usize,
    after: Key,
}

impl Continuation {
    /// Reads `APP|DAY|ID`, each part encoded as in keys; without an id it is the day's beginning.
    fn read(text: &str, days: &VecDeque<(Arc<str>, String)>) -> Option<Self> {
        let (app, rest) = text.split_once('|')?;
        let (day, id) = rest.split_once('|')?;
        let is_key = id.len() <= 512 && !id.contains('|');
        let known = days
            .iter()
            .position(|(one, on)| encode_key(one) == app && on == day);
        let index = known.filter(|_| is_key)?;
        let (app, day) = days.get(index)?;
        Some(Self {
            day: index,
            after: row_key(app, day, &format!("{CALL}{id}")),
        })
    }
}

fn text_of(row: &Row, name: &str) -> String {
    match row.fields.get(name) {
        Some(Field::Text(text)) => text.clone(),
        Some(Field::Int(number)) => number.to_string(),
        Some(Field::Bool(flag)) => flag.to_string(),
        None => String::new(),
    }
}

fn object(row: &Row) -> Value {
    let mut object = Map::new();
    for (name, field) in row.fields.iter() {
        let value = match (name, field) {
            ("attempts", Field::Text(json)) => {
                serde_json::from_str(json).unwrap_or_else(|_| Value::from(json.as_str()))
            }
            (_, Field::Text(text)) => Value::from(text.as_str()),
            (_, Field::Int(number)) => Value::from(*number),
            (_, Field::Bool(flag)) => Value::from(*flag),
        };
        object.insert(name.to_owned(), value);
    }
    Value::Object(object)
}
