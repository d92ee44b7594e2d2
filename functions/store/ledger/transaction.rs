//! What of a batch of events goes into one transaction: their rows, and the sums that they count in.

use std::collections::{BTreeMap, HashMap, HashSet};

use rust_decimal::Decimal;

use crate::gateway::event::{Tokens, UsageEvent};
use crate::gateway::price::Charge;
use crate::gateway::time::Timestamp;
use crate::store::sums::{Of, Sum};
use crate::store::{Change, Etag, Fields, Key, Row, StoreError, Write, bounds, chargeback};

/// Most bytes of a transaction, as [`bounds::row`] counts them: two a character. JSON may need six.
const MAX_BYTES: usize = 1 << 20;

/// Digits after the point that a cost is kept with, more than any price comes to: sums up to 10^10
/// are exact with them.
pub(super) const COST_DIGITS: u32 = 18;

/// The last moment that has four digits for its year.
const MAX_TIME: Timestamp = Timestamp::from_unix_ms(253_402_300_799_999);

/// More tokens than any call has. An event with more is no usage, and would spoil a sum.
pub const MAX_TOKENS: u64 = 1_000_000_000_000;

/// An event on its way into its row.
pub(super) struct Entry<'a> {
    pub(super) index: usize,
    pub(super) event: &'a UsageEvent,
    pub(super) row: String,
    fields: Fields,
    bytes: usize,
    sum: Sum,
    pub(super) of: Vec<Of<'a>>,
}

impl<'a> Entry<'a> {
    /// The entry of an event, or why it can't be one.
    pub(super) fn new(
        index: usize,
        event: &'a UsageEvent,
        key: &Key,
        mut charge: Charge,
    ) -> Result<Self, String> {
        check(event)?;
        charge.cost = charge.cost.map(kept);
        charge.saved = kept(charge.saved);
        let fields = chargeback::fields(event, &charge);
        let bytes = bounds::row(&fields).map_err(|error| error.to_string())?;
        Ok(Self {
            index,
            event,
            row: key.row.clone(),
            fields,
            bytes,
            sum: Sum::of(event, &charge),
            of: Of::all(event).collect(),
        })
    }
}

/// A sum that is there.
pub(super) struct There {
    etag: Etag,
    sum: Sum,
    /// All of its row. What a later version counts in it has to stay: that version's calls are there.
    fields: Fields,
}

impl There {
    pub(super) fn read(row: Row) -> Result<Self, StoreError> {
        let sum = Sum::read(&row)?;
        let Row { etag, fields, .. } = row;
        Ok(Self { etag, sum, fields })
    }
}

fn kept(amount: Decimal) -> Decimal {
    amount.round_dp(COST_DIGITS).normalize()
}

/// What an event has to have, whoever wrote it.
fn check(event: &UsageEvent) -> Result<(), String> {
    let Tokens {
        input,
        output,
        cached,
        reasoning,
        audio_input,
        audio_output,
        image_input,
        cached_audio,
        cached_image,
    } = event.tokens;
    let counts = [
        input,
        output,
        cached,
        reasoning,
        audio_input,
        audio_output,
        image_input,
        cached_audio,
        cached_image,
    ];
    if event.id.is_empty() {
        return Err("it has no id".into());
    }
    if event.app.is_empty() {
        return Err("it names no app".into());
    }
    let most = counts.iter().fold(event.saved_tokens(), |a, b| a.max(*b));
    if most > MAX_TOKENS {
        return Err(format!(
            "it has more than {MAX_TOKENS} tokens, which no call has"
        ));
    }
    if event.time > MAX_TIME {
        return Err("its time is beyond the year 9999".into());
    }
    Ok(())
}

/// The parts of a day's entries that fit a transaction each, with their sums.
pub(super) fn batches<'e, 'a>(entries: &'e [Entry<'a>]) -> Vec<Vec<&'e Entry<'a>>> {
    let mut batches = Vec::new();
    let mut batch: Vec<&Entry<'a>> = Vec::new();
    let mut of: HashSet<String> = HashSet::new();
    let mut bytes = 0;
    for entry in entries {
        let own: Vec<String> = entry.of.iter().map(|of| of.row(0)).collect();
        let new = own.iter().filter(|row| !of.contains(*row)).count();
        let is_full = batch.len() + 1 + of.len() + new > bounds::MAX_WRITES;
        if (is_full || bytes + entry.bytes > MAX_BYTES) && !batch.is_empty() {
            batches.push(std::mem::take(&mut batch));
            of.clear();
            bytes = 0;
        }
        batch.push(entry);
        of.extend(own);
        bytes += entry.bytes;
    }
    batches.push(batch);
    batches
}

/// The batch's rows, and after them its sums in a shard. `None` where a sum can't be kept exactly.
pub(super) fn writes(
    batch: &[&Entry<'_>],
    there: &HashMap<String, There>,
    shard: u32,
) -> Option<Vec<Write>> {
    let mut added: BTreeMap<String, (&Of<'_>, &UsageEvent, Sum)> = BTreeMap::new();
    for entry in batch {
        for of in &entry.of {
            let none = (of, entry.event, Sum::default());
            let (_, _, sum) = added.entry(of.row(shard)).or_insert(none);
            *sum = sum.plus(&entry.sum)?;
        }
    }
    let calls = batch.iter().map(|entry| Write {
        row: entry.row.clone(),
        change: Change::Insert(entry.fields.clone()),
    });
    let mut writes: Vec<Write> = calls.collect();
    for (row, (of, event, added)) in added {
        let fields = |sum: &Sum| of.fields(&event.app, &event.time.day(), sum);
        let change = match there.get(&row) {
            Some(there) => {
                let sum = fields(&there.sum.plus(&added)?);
                Change::Replace(there.fields.clone().with(sum), there.etag.clone())
            }
            None => Change::Insert(fields(&added)),
        };
        writes.push(Write { row, change });
    }
    Some(writes)
}
