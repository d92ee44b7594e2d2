//! The rows of table `utilization`: how full provisioned deployments are, and who says so.
//!
//! The partition is a backend and a deployment. Row keys: a UTC minute, the source and, where several
//! instances write, the instance; `alert|` and an alert; `current`, the newest that Azure Monitor said.
//! Every row is written whole and may be written again: nothing is added up in the table.
//! [`hours`] are beside them, in partitions of their own.

pub mod hours;

use super::{Change, Fields, Key, Pages, Range, Row, Store, StoreError, Table, Write, encode_key};
use crate::gateway::pacing::calibration::Calibration;
use crate::gateway::pacing::figure::{Source, Warning};
use crate::gateway::pacing::known::Known;
use crate::gateway::pacing::monitor::MonitorMinute;
use crate::gateway::pacing::window::{Counts, DeploymentId, Minute, Use};
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;

/// What the keys of alerts begin with.
const ALERT: &str = "alert|";

/// The key of the newest that Azure Monitor said.
const CURRENT: &str = "current";

/// The newest that Azure Monitor said, and what the estimates are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// The newest minute that was complete.
    pub newest: MonitorMinute,
    /// When it was asked for.
    pub asked: Timestamp,
    /// The calibration factor.
    pub calibration: Calibration,
    /// The newest minute that it was learnt from.
    pub learnt: Minute,
}

/// An alert that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Azure's id of it.
    pub id: String,
    /// How full the deployment was, at least.
    pub utilization: Utilization,
    /// When it fired.
    pub fired: Timestamp,
    /// Until when it counts.
    pub expires: Timestamp,
    /// Whether it is over.
    pub is_over: bool,
}

/// What became of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It said something new.
    New,
    /// It was known, or what is known is newer.
    Known,
}

/// What the table says of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// What follows from its rows.
    pub known: Known,
    /// The newest that Azure Monitor said.
    pub current: Option<Current>,
}

/// The partition of a deployment.
pub fn partition(id: &DeploymentId) -> String {
    format!("{}|{}", encode_key(&id.backend), encode_key(&id.deployment))
}

/// What the table says of a deployment, from a minute on.
///
/// # Errors
/// When the store fails.
pub async fn read(
    store: &dyn Store,
    id: &DeploymentId,
    since: Minute,
) -> Result<Sheet, StoreError> {
    let partition = partition(id);
    let mut range = Range::of(&*partition, "");
    range.after = Some(Key {
        partition,
        row: since.key(),
    });
    let mut pages = Pages::new(store, Table::Utilization, range);
    let mut sheet = Sheet::default();
    while let Some(rows) = pages.next().await? {
        rows.iter().for_each(|row| sheet.add(row));
    }
    Ok(sheet)
}

/// Makes all of `writes` to a deployment's rows, or none: at most 100.
///
/// # Errors
/// When the store fails.
pub async fn write(
    store: &dyn Store,
    id: &DeploymentId,
    writes: Vec<Write>,
) -> Result<(), StoreError> {
    let partition = partition(id);
    store.write(Table::Utilization, &partition, writes).await
}

/// The write of a minute as Azure Monitor has it.
pub fn monitor(minute: &MonitorMinute, asked: Timestamp) -> Write {
    let fields = measured(minute).text("asked", asked.rfc3339());
    upsert(minute_key(minute.minute, Source::Monitor, ""), fields)
}

/// The write of what one instance has counted of a minute. `utilization` is what that comes to, where
/// the deployment's PTUs are known.
pub fn counts(counts: &Counts, instance: &str, utilization: Option<Utilization>) -> Write {
    let fields = Fields::new()
        .number("all", counts.used.all)
        .number("low", counts.used.low)
        .number("low_ms", counts.used.low_ms)
        .number("seen_ms", counts.seen.unix_ms());
    let fields = match utilization {
        Some(utilization) => percent(fields, "percent", utilization),
        None => fields,
    };
    upsert(minute_key(counts.minute, Source::Events, instance), fields)
}

/// The write of what an answer's header said at `seen`.
pub fn header(utilization: Utilization, seen: Timestamp, instance: &str) -> Write {
    let fields = percent(Fields::new(), "percent", utilization).number("seen_ms", seen.unix_ms());
    let minute = Minute::of(seen);
    upsert(minute_key(minute, Source::Header, instance), fields)
}

/// Writes what an alert says, where that is new: one that is over does not begin again, and one that
/// comes twice lasts no longer.
///
/// # Errors
/// When the store fails.
pub async fn record_alert(
    store: &dyn Store,
    id: &DeploymentId,
    alert: &Alert,
) -> Result<Recorded, StoreError> {
    let key = Key {
        partition: partition(id),
        row: format!("{ALERT}{}", encode_key(&alert.id)),
    };
    loop {
        let fields = percent(Fields::new(), "percent", alert.utilization)
            .text("id", &*alert.id)
            .text("fired", alert.fired.rfc3339())
            .text("expires", alert.expires.rfc3339())
            .number("expires_ms", alert.expires.unix_ms())
            .flag("is_over", alert.is_over);
        let change = match store.get(Table::Utilization, &key).await? {
            Some(row) if !alert.is_over || row.fields.get_flag("is_over") => {
                return Ok(Recorded::Known);
            }
            Some(row) => Change::Replace(fields, row.etag),
            None => Change::Insert(fields),
        };
        let row = key.row.clone();
        match write(store, id, vec![Write { row, change }]).await {
            Ok(()) => return Ok(Recorded::New),
            // Another instance was faster: what it wrote decides.
            Err(StoreError::Exists { .. } | StoreError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The alerts of a deployment that are kept.
///
/// # Errors
/// When the store fails.
pub async fn alerts(store: &dyn Store, id: &DeploymentId) -> Result<Vec<Alert>, StoreError> {
    let range = Range::of(partition(id), ALERT);
    let rows = Pages::new(store, Table::Utilization, range).rest().await?;
    let alerts = rows.iter().map(|Row { fields, .. }| Alert {
        id: fields.get_text("id").to_owned(),
        utilization: tenths(fields, "percent"),
        fired: fired(fields),
        expires: moment(fields, "expires_ms"),
        is_over: fields.get_flag("is_over"),
    });
    Ok(alerts.collect())
}

/// The write of the newest that Azure Monitor said.
pub fn current(current: &Current) -> Write {
    let fields = measured(&current.newest)
        .text("minute", current.newest.minute.key())
        .number("minute_ms", current.newest.minute.start().unix_ms())
        .text("asked", current.asked.rfc3339())
        .number("asked_ms", current.asked.unix_ms())
        .number("factor", current.calibration.thousandths())
        .number("learnt_ms", current.learnt.start().unix_ms());
    upsert(CURRENT.to_owned(), fields)
}

/// Deletes the rows of minutes before `before`, and alerts that ended before it; how many.
///
/// # Errors
/// When the store fails; what is left is deleted the next time.
pub async fn sweep(
    store: &dyn Store,
    id: &DeploymentId,
    before: Minute,
) -> Result<usize, StoreError> {
    let mut deleted = 0;
    let mut minutes = Pages::new(store, Table::Utilization, Range::of(partition(id), ""));
    while let Some(rows) = minutes.next().await? {
        deleted += delete_old(store, id, &rows, before).await?;
        // They come first, by time: none is old behind one that is not.
        if !rows.iter().all(|row| is_old(row, before)) {
            break;
        }
    }
    let mut alerts = Pages::new(store, Table::Utilization, Range::of(partition(id), ALERT));
    while let Some(rows) = alerts.next().await? {
        deleted += delete_old(store, id, &rows, before).await?;
    }
    Ok(deleted)
}

/// Deletes those of these rows that are old; how many.
async fn delete_old(
    store: &dyn Store,
    id: &DeploymentId,
    rows: &[Row],
    before: Minute,
) -> Result<usize, StoreError> {
    let old = rows.iter().filter(|row| is_old(row, before));
    let old: Vec<String> = old.map(|row| row.key.row.clone()).collect();
    let mut deleted = 0;
    for some in old.chunks(super::bounds::MAX_WRITES) {
        deleted += delete(store, id, some).await?;
    }
    Ok(deleted)
}

async fn delete(
    store: &dyn Store,
    id: &DeploymentId,
    rows: &[String],
) -> Result<usize, StoreError> {
    let one = |row: &String| Write {
        row: row.clone(),
        change: Change::Delete(None),
    };
    match write(store, id, rows.iter().map(one).collect()).await {
        Ok(()) => return Ok(rows.len()),
        // Another instance deletes as well.
        Err(StoreError::Changed { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut deleted = 0;
    for row in rows {
        match write(store, id, vec![one(row)]).await {
            Ok(()) => deleted += 1,
            Err(StoreError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

fn is_old(row: &Row, before: Minute) -> bool {
    let key = &row.key.row;
    if key.starts_with(ALERT) {
        return row.fields.get_number("expires_ms") < before.start().unix_ms();
    }
    key != CURRENT && **key < *before.key()
}

impl Sheet {
    fn add(&mut self, row: &Row) {
        let (key, fields) = (&row.key.row, &row.fields);
        if key == CURRENT {
            let current = current_of(fields);
            self.known.calibration = current.calibration;
            self.current = Some(current);
        } else if key.starts_with(ALERT) {
            self.known.warnings.push(Warning {
                source: Source::Alert,
                utilization: tenths(fields, "percent"),
                since: fired(fields),
                until: moment(fields, "expires_ms"),
            });
        } else if let Some((minute, source)) = minute_and_source(key) {
            self.add_minute(minute, source, fields);
        }
    }

    fn add_minute(&mut self, minute: Minute, source: &str, fields: &Fields) {
        let seen = moment(fields, "seen_ms");
        if source == Source::Monitor.as_str() {
            self.known.monitor.push(minute_of(minute, fields));
        } else if source == Source::Events.as_str() {
            let used = Use {
                all: fields.get_number("all"),
                low: fields.get_number("low"),
                low_ms: fields.get_number("low_ms"),
            };
            self.known.counts.push(Counts { minute, used, seen });
        } else if source == Source::Header.as_str() {
            let utilization = tenths(fields, "percent");
            self.known.warnings.push(Warning::header(utilization, seen));
        }
    }
}

fn minute_key(minute: Minute, source: Source, instance: &str) -> String {
    let key = format!("{}|{}", minute.key(), source.as_str());
    if instance.is_empty() {
        key
    } else {
        format!("{key}|{}", encode_key(instance))
    }
}

/// Keys that are none of a minute's are passed over: a later version may have put them there.
fn minute_and_source(key: &str) -> Option<(Minute, &str)> {
    let mut parts = key.split('|');
    let (minute, source) = (parts.next()?, parts.next()?);
    let start = Timestamp::parse(&format!("{minute}:00Z"))?;
    Some((Minute::of(start), source))
}

fn upsert(row: String, fields: Fields) -> Write {
    Write {
        row,
        change: Change::Upsert(fields),
    }
}

/// For people, `percent` as a text; for this program the same in tenths.
fn percent(fields: Fields, name: &str, utilization: Utilization) -> Fields {
    fields
        .text(name, utilization.to_string())
        .number(&format!("{name}_tenths"), utilization.tenths())
}

fn tenths(fields: &Fields, name: &str) -> Utilization {
    Utilization::of_tenths(fields.get_number(&format!("{name}_tenths")))
}

fn moment(fields: &Fields, name: &str) -> Timestamp {
    Timestamp::from_unix_ms(fields.get_number(name))
}

/// When an alert fired.
fn fired(fields: &Fields) -> Timestamp {
    Timestamp::parse(fields.get_text("fired")).unwrap_or_default()
}

fn measured(minute: &MonitorMinute) -> Fields {
    let fields = percent(Fields::new(), "percent", minute.average);
    percent(fields, "maximum", minute.maximum)
}

fn minute_of(minute: Minute, fields: &Fields) -> MonitorMinute {
    MonitorMinute {
        minute,
        average: tenths(fields, "percent"),
        maximum: tenths(fields, "maximum"),
    }
}

fn current_of(fields: &Fields) -> Current {
    Current {
        newest: minute_of(Minute::of(moment(fields, "minute_ms")), fields),
        asked: moment(fields, "asked_ms"),
        calibration: Calibration::of_thousandths(fields.get_number("factor")),
        learnt: Minute::of(moment(fields, "learnt_ms")),
    }
}
