//! What Azure Monitor said, by the hour, for looking back: a row has an hour's minutes.
//!
//! The partition is `hours|`, the backend and the deployment, the row key the UTC hour. Rows of single
//! minutes are there for pacing, beside those of other sources; a week of them would be too many to
//! read for a page. One function writes them, a run at a time.

use super::partition;
use crate::gateway::pacing::monitor::MonitorMinute;
use crate::gateway::pacing::window::{DeploymentId, Minute};
use crate::gateway::ptu::Utilization;
use crate::gateway::time::Timestamp;
use crate::store::{
    Change, Fields, Key, Pages, Range, Row, Store, StoreError, Table, Write, bounds,
};

/// Minutes of an hour.
const MINUTES: usize = 60;

/// Milliseconds of a minute and of an hour.
const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

/// An hour's minutes; `None` where nothing is known.
type Hour = [Option<Utilization>; MINUTES];

fn hours(id: &DeploymentId) -> String {
    format!("hours|{}", partition(id))
}

/// The UTC hour, such as `2026-11-23T17`.
fn hour_key(at: Timestamp) -> String {
    at.rfc3339().chars().take(13).collect()
}

/// Writes minutes down, in the place of what was written of the same ones before.
///
/// # Errors
/// When the store fails.
pub async fn write(
    store: &dyn Store,
    id: &DeploymentId,
    minutes: &[MonitorMinute],
) -> Result<(), StoreError> {
    let partition = hours(id);
    let mut minutes: Vec<&MonitorMinute> = minutes.iter().collect();
    minutes.sort_by_key(|one| one.minute);
    for same in minutes.chunk_by(|a, b| hour_key(a.minute.start()) == hour_key(b.minute.start())) {
        let Some(first) = same.first() else { continue };
        let row = hour_key(first.minute.start());
        let key = Key {
            partition: partition.clone(),
            row: row.clone(),
        };
        let known = store.get(Table::Utilization, &key).await?;
        let known = known.map(|row| row.fields).unwrap_or_default();
        let before = hour(&known);
        let mut hour = before;
        for one in same {
            if let Some(place) = hour.get_mut(place(one.minute)) {
                *place = Some(one.average);
            }
        }
        if hour == before {
            continue;
        }
        let change = Change::Upsert(known.with(fields(&hour)));
        let writes = vec![Write { row, change }];
        store.write(Table::Utilization, &partition, writes).await?;
    }
    Ok(())
}

/// The minutes that are known of the hours from that of `from` on, in order.
///
/// # Errors
/// When the store fails.
pub async fn read(
    store: &dyn Store,
    id: &DeploymentId,
    from: Timestamp,
) -> Result<Vec<(Minute, Utilization)>, StoreError> {
    let partition = hours(id);
    let before = Timestamp::from_unix_ms(from.unix_ms().saturating_sub(HOUR_MS));
    let mut range = Range::of(&*partition, "");
    range.after = Some(Key {
        partition,
        row: hour_key(before),
    });
    let rows = Pages::new(store, Table::Utilization, range).rest().await?;
    Ok(rows.iter().flat_map(minutes).collect())
}

/// Deletes the hours before that of `before`; how many.
///
/// # Errors
/// When the store fails; what is left is deleted the next time.
pub async fn sweep(
    store: &dyn Store,
    id: &DeploymentId,
    before: Timestamp,
) -> Result<usize, StoreError> {
    let (partition, first_kept) = (hours(id), hour_key(before));
    let range = Range {
        limit: bounds::MAX_WRITES,
        ..Range::of(&*partition, "")
    };
    let mut deleted = 0;
    loop {
        // They come by time, and those that were read are gone the next time.
        let rows = store.read(Table::Utilization, &range).await?.rows;
        let old: Vec<Write> = rows
            .into_iter()
            .map(|row| row.key.row)
            .take_while(|hour| *hour < first_kept)
            .map(|row| Write {
                row,
                change: Change::Delete(None),
            })
            .collect();
        if old.is_empty() {
            return Ok(deleted);
        }
        deleted += old.len();
        store.write(Table::Utilization, &partition, old).await?;
    }
}

/// A minute's place in its hour.
fn place(minute: Minute) -> usize {
    let minutes = minute.start().unix_ms() % HOUR_MS / MINUTE_MS;
    usize::try_from(minutes).unwrap_or_default()
}

/// Tenths of a percent with commas between them; nothing where nothing is known.
fn fields(hour: &Hour) -> Fields {
    let minutes = hour.map(|minute| minute.map_or(String::new(), |of| of.tenths().to_string()));
    Fields::new().text("tenths", minutes.join(","))
}

fn hour(fields: &Fields) -> Hour {
    let mut hour = [None; MINUTES];
    let minutes = fields.get_text("tenths").split(',');
    for (place, text) in hour.iter_mut().zip(minutes) {
        *place = text.parse().ok().map(Utilization::of_tenths);
    }
    hour
}

fn minutes(row: &Row) -> Vec<(Minute, Utilization)> {
    let Some(start) = Timestamp::parse(&format!("{}:00:00Z", row.key.row)) else {
        // A later version may have put it there.
        return Vec::new();
    };
    let known = (0..).zip(hour(&row.fields)).filter_map(|(number, of)| {
        let minute = Minute::of(start.plus_ms(number * MINUTE_MS));
        Some((minute, of?))
    });
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;

    /// 2026-11-23T17:00:00.000Z.
    const HOUR: Timestamp = Timestamp::from_unix_ms(1_795_453_200_000);

    fn id() -> DeploymentId {
        DeploymentId {
            backend: "swe".into(),
            deployment: "a|b".into(),
        }
    }

    fn minute(minutes: u64, percent: u64) -> MonitorMinute {
        MonitorMinute {
            minute: Minute::of(HOUR.plus_ms(minutes * MINUTE_MS)),
            average: Utilization::of_percent(percent),
            maximum: Utilization::FULL,
        }
    }

    #[tokio::test]
    async fn an_hours_minutes_come_one_by_one_and_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        for minutes in [
            vec![minute(59, 50), minute(61, 70)],
            vec![minute(60, 60), minute(59, 51)],
        ] {
            write(&store, &id(), &minutes).await.unwrap();
        }
        let known = |minutes: &[(u64, u64)]| -> Vec<(Minute, Utilization)> {
            let minutes = minutes.iter().map(|(at, percent)| minute(*at, *percent));
            minutes.map(|one| (one.minute, one.average)).collect()
        };
        let all = read(&store, &id(), HOUR).await.unwrap();
        assert_eq!(all, known(&[(59, 51), (60, 60), (61, 70)]));
        let later = HOUR.plus_ms(HOUR_MS + 1);
        let last = read(&store, &id(), later).await.unwrap();
        assert_eq!(last, known(&[(60, 60), (61, 70)]));
        assert_eq!(sweep(&store, &id(), later).await.unwrap(), 1);
        assert_eq!(read(&store, &id(), HOUR).await.unwrap(), last);
    }
}
