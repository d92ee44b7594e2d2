//! The rows of table `chargebackrejects`: events that could not be read, whole, with the reason.
//!
//! The partition is the UTC day on which the event came, the row key a hash of the event and of its
//! place in the hub: one that is delivered again meets its own row. What does not fit a row goes on
//! in further ones, `HASH|1` and so on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{Change, Fields, Store, StoreError, Table, Write, bounds};
use crate::gateway::time::Timestamp;

/// Most bytes of an event that are kept: what an Event Hub takes at most, short of a dedicated
/// cluster (azure-docs, event-hubs-tier-limits: 1 MB).
const MAX_EVENT: usize = 1 << 20;

/// Characters of a field: a quarter of what fits, as some characters count twice in UTF-16.
const PART: usize = bounds::MAX_TEXT / 4;

/// Fields with parts of the event in one row.
const PARTS: usize = 24;

/// Most bytes of a transaction, as [`bounds::weight`] counts them.
const MAX_BYTES: usize = bounds::MAX_TRANSACTION - (64 << 10);

/// An event that could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reject {
    /// When it came: to the hub, where that is known.
    pub came: Timestamp,
    /// Where it stood in the hub; empty where that is not known.
    pub place: String,
    /// What is wrong with it.
    pub reason: String,
    /// The event as it came.
    pub body: Vec<u8>,
}

impl Reject {
    /// The row's key, and what that of each further row begins with.
    pub fn id(&self) -> String {
        digest(&[self.place.as_bytes(), &self.body])
    }

    fn writes(&self) -> Vec<Write> {
        let id = self.id();
        let kept = self.body.get(..MAX_EVENT).unwrap_or(&self.body);
        // Other control characters would be six bytes each on their way.
        let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        let is_text = |text: &&str| !text.contains(is_odd);
        let (encoding, body) = match std::str::from_utf8(kept).ok().filter(is_text) {
            Some(text) => ("utf-8", text.to_owned()),
            None => ("base64", STANDARD.encode(kept)),
        };
        let size = u64::try_from(self.body.len()).unwrap_or(u64::MAX);
        let mut fields = Fields::new()
            .text("came", self.came.rfc3339())
            .text("place", &*self.place)
            .text("reason", self.reason.chars().take(1024).collect::<String>())
            .text("encoding", encoding)
            .number("bytes", size)
            .flag("truncated", kept.len() < self.body.len());
        let characters: Vec<char> = body.chars().collect();
        let parts: Vec<String> = characters
            .chunks(PART)
            .map(|part| part.iter().collect())
            .collect();
        let mut writes = Vec::new();
        let mut rows = parts.chunks(PARTS).peekable();
        for number in 0.. {
            for (i, part) in rows.next().unwrap_or_default().iter().enumerate() {
                fields = fields.text(&format!("body_{i:02}"), part.as_str());
            }
            let row = match number {
                0 => id.clone(),
                number => format!("{id}|{number}"),
            };
            let change = Change::Upsert(std::mem::take(&mut fields));
            writes.push(Write { row, change });
            if rows.peek().is_none() {
                break;
            }
        }
        writes
    }
}

/// Writes rejects, each once.
///
/// # Errors
/// When the store fails; all can be written again then.
pub async fn write(store: &dyn Store, rejects: &[Reject]) -> Result<(), StoreError> {
    let mut batch: Vec<Write> = Vec::new();
    let mut day = String::new();
    let mut bytes = 0;
    for reject in rejects {
        let writes = reject.writes();
        let size = size(&writes)?;
        let fits = day == reject.came.day()
            && batch.len() + writes.len() <= bounds::MAX_WRITES
            && bytes + size <= MAX_BYTES;
        if !fits && !batch.is_empty() {
            store
                .write(Table::Rejects, &day, std::mem::take(&mut batch))
                .await?;
            bytes = 0;
        }
        day = reject.came.day();
        // The same event twice in a batch is one row.
        if batch
            .iter()
            .all(|one| writes.iter().all(|new| new.row != one.row))
        {
            batch.extend(writes);
            bytes += size;
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    store.write(Table::Rejects, &day, batch).await
}

fn size(writes: &[Write]) -> Result<usize, StoreError> {
    let each = writes.iter().map(|write| match &write.change {
        Change::Upsert(fields) => bounds::weight(fields),
        _ => Ok(0),
    });
    each.sum()
}

/// A hash of texts, 40 hexadecimal digits. Each is preceded by its length, so that other texts with
/// the same bytes one after the other have another hash.
pub fn digest(texts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let digits = hash.finalize().into_iter().take(20);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::Embedded;

    fn body(writes: &[Write]) -> String {
        let mut body = String::new();
        for write in writes {
            let Change::Upsert(fields) = &write.change else {
                panic!("{write:?}")
            };
            let parts = (0..PARTS).map(|i| fields.get_text(&format!("body_{i:02}")).to_owned());
            body += &parts.collect::<String>();
        }
        body
    }

    fn reject(body: &[u8]) -> Reject {
        Reject {
            reason: "why".into(),
            body: body.to_vec(),
            ..Reject::default()
        }
    }

    #[test]
    fn an_event_is_kept_whole_whatever_it_is() {
        for text in [
            "",
            "{\"id\":1}\n",
            "\u{1F600}",
            "\u{1F600}".repeat(200_000).as_str(),
            "\u{65E5}".repeat(340_000).as_str(),
            "\"".repeat(1_000_000).as_str(),
        ] {
            let writes = reject(text.as_bytes()).writes();
            assert_eq!(body(&writes), text);
            assert_eq!(
                bounds::transaction("day", &writes),
                Ok(()),
                "{}",
                text.len()
            );
        }
        for bytes in [vec![0xFF; 1 << 20], vec![1; 1 << 20], vec![b'x'; 1 << 20]] {
            let writes = reject(&bytes).writes();
            let text = body(&writes);
            let kept = STANDARD.decode(&text).ok().filter(|kept| *kept == bytes);
            assert!(kept.is_some() || text.as_bytes() == bytes);
            assert_eq!(bounds::transaction("day", &writes), Ok(()));
            assert!(size(&writes).unwrap() <= MAX_BYTES);
        }
    }

    #[test]
    fn what_is_beyond_a_hubs_events_is_cut_and_says_so() {
        let writes = reject(&vec![b'x'; MAX_EVENT + 1]).writes();
        let Change::Upsert(fields) = &writes[0].change else {
            panic!("{writes:?}")
        };
        assert!(fields.get_flag("truncated"));
        assert_eq!(fields.get_number("bytes"), 1_048_577);
    }

    #[tokio::test]
    async fn no_transaction_of_rejects_is_too_large_as_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        for text in ["\u{65E5}".repeat(14_000), "\"".repeat(40_000)] {
            let body = |n: usize| Reject {
                place: n.to_string(),
                ..reject(text.as_bytes())
            };
            let rejects: Vec<Reject> = (0..100).map(body).collect();
            // The store refuses what Table Storage would.
            write(&store, &rejects).await.unwrap();
            let writes = rejects.first().unwrap().writes();
            let Change::Upsert(fields) = &writes[0].change else {
                panic!("{writes:?}")
            };
            let counted = bounds::weight(fields).unwrap();
            assert!(counted >= serde_json::to_string(&text).unwrap().len());
        }
    }

    #[test]
    fn events_at_different_places_are_different_rejects() {
        let at = |place: &str, body: &str| {
            let reject = Reject {
                place: place.into(),
                body: body.into(),
                ..Reject::default()
            };
            reject.id()
        };
        assert_eq!(at("1", "x"), at("1", "x"));
        assert_ne!(at("1", "x"), at("2", "x"));
        assert_ne!(at("1", "2x"), at("12", "x"));
    }
}
