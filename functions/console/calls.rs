//! Single calls: the last that failed or were slow, and any that is asked for by id or app.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Console;
use crate::gateway::event::UsageEvent;
use crate::gateway::id;
use crate::gateway::metrics::notable::SLOW_MS;
use crate::gateway::time::Timestamp;
use crate::store::console::{self, HOUR_MS, MINUTE_MS};
use crate::store::{Fields, Key, Range, Store, StoreError, Table, chargeback, encode_key};

/// Most calls that are shown.
const MOST: usize = 100;

/// Most notable calls that are looked through for those that are asked for.
const MOST_NOTABLE: usize = 2000;

/// How far back an app's calls are looked for, one after the other until there are enough, ms.
const BACK_MS: [u64; 3] = [5 * MINUTE_MS, HOUR_MS, 24 * HOUR_MS];

/// Most pages of an app's rows that are read: 5,000 rows.
const MOST_PAGES: usize = 5;

/// Apps that are asked for an id at a time.
const AT_A_TIME: usize = 16;

/// Which calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// All of them; without an id and app, those that failed or were slow.
    #[default]
    Any,
    /// Answered with a 5xx, or broken off.
    Failed,
    /// Answered with 429.
    Throttled,
    /// Answered with another 4xx.
    Client,
    /// Whose first byte took ten seconds or more.
    Slow,
}

impl Status {
    pub(super) const ALL: [Self; 5] = [
        Self::Any,
        Self::Failed,
        Self::Throttled,
        Self::Client,
        Self::Slow,
    ];

    /// The word used in URLs.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Failed => "failed",
            Self::Throttled => "throttled",
            Self::Client => "client",
            Self::Slow => "slow",
        }
    }

    fn is_of(self, call: &CallRow) -> bool {
        match self {
            Self::Any => true,
            Self::Failed => call.status >= 500 || call.outcome == "cut",
            Self::Throttled => call.status == 429,
            Self::Client => (400..500).contains(&call.status) && call.status != 429,
            Self::Slow => call.first_byte_ms >= SLOW_MS,
        }
    }
}

/// What is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// A call's id, as its answer's `x-spillway-request-id` says; absent or empty: any.
    #[serde(default)]
    #[schemars(regex(pattern = r"^$|^[0-9A-Za-z]{26}$"))]
    pub(super) id: String,
    /// Only this app's; absent or empty: all apps'.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(super) app: String,
    /// Which calls.
    #[serde(default)]
    pub(super) status: Status,
}

impl Wish {
    /// What is wrong with it.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        let is_id =
            self.id.len() == id::LENGTH && self.id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !self.id.is_empty() && !is_id {
            return Some("An id has 26 letters and digits: what `x-spillway-request-id` says.");
        }
        (self.app.chars().count() > 64).then_some("An app's name has at most 64 characters.")
    }
}

/// Calls.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Calls {
    /// The calls, newest first; 100 at most.
    pub(super) calls: Vec<CallRow>,
    /// Whether there may be more that match, which were not looked at.
    pub(super) is_cut: bool,
}

/// A call.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CallRow {
    /// Its id, as its answer's `x-spillway-request-id` says.
    pub(super) id: String,
    /// When it came in, RFC 3339.
    pub(super) time: String,
    /// Who called.
    pub(super) app: String,
    /// The model asked for; empty where the operation has none.
    pub(super) model: String,
    /// The operation, such as `chat/completions`.
    pub(super) operation: String,
    /// The status that the client saw.
    pub(super) status: u64,
    /// How it ended: `completed`, `client_gone`, `cut` or `failed`.
    pub(super) outcome: String,
    /// The backend that answered; empty when none did.
    pub(super) backend: String,
    /// The deployment that answered; empty when none did.
    pub(super) deployment: String,
    /// `ptu` or `payg`; empty when none answered.
    pub(super) kind: String,
    /// Whether the answer was streamed.
    pub(super) streamed: bool,
    /// Whether a full PTU deployment passed it on to pay-as-you-go.
    pub(super) spilled: bool,
    /// What became of it in the cache: `hit`, `miss` or `coalesced`; empty where it did not come to that.
    pub(super) cache: String,
    /// Tokens that it was spared so.
    pub(super) saved_tokens: u64,
    /// Prompt tokens.
    pub(super) input_tokens: u64,
    /// Generated tokens.
    pub(super) output_tokens: u64,
    /// From its arrival to the first byte, ms.
    pub(super) first_byte_ms: u64,
    /// From its arrival to the end, ms.
    pub(super) total_ms: u64,
    /// Every try, in order.
    pub(super) attempts: Vec<AttemptRow>,
    /// The trace it belongs to, where the client named one.
    pub(super) trace_id: String,
}

/// A try at a deployment.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub(super) struct AttemptRow {
    /// The backend.
    pub(super) backend: String,
    /// The deployment.
    pub(super) deployment: String,
    /// `ptu` or `payg`.
    pub(super) kind: String,
    /// The status, where one came.
    #[serde(default)]
    pub(super) status: Option<u16>,
    /// What went wrong, in a word.
    #[serde(default)]
    pub(super) error: Option<String>,
    /// How long it took to the first byte or the failure, ms.
    pub(super) ms: u64,
}

impl CallRow {
    fn of(fields: &Fields) -> Self {
        let text = |name| fields.get_text(name).to_owned();
        // Rows of older versions may have other attempts; the call is worth showing without.
        let attempts = serde_json::from_str(fields.get_text("attempts")).unwrap_or_default();
        Self {
            id: text("id"),
            time: text("time"),
            app: text("app"),
            model: text("model"),
            operation: text("operation"),
            status: fields.get_number("status"),
            outcome: text("outcome"),
            backend: text("backend"),
            deployment: text("deployment"),
            kind: text("kind"),
            streamed: fields.get_flag("streamed"),
            spilled: fields.get_flag("spilled"),
            cache: text("cache"),
            saved_tokens: fields.get_number("saved_tokens"),
            input_tokens: fields.get_number("input_tokens"),
            output_tokens: fields.get_number("output_tokens"),
            first_byte_ms: fields.get_number("first_byte_ms"),
            total_ms: fields.get_number("total_ms"),
            attempts,
            trace_id: text("trace_id"),
        }
    }

    fn of_event(event: &UsageEvent) -> Self {
        Self::of(&chargeback::call(event))
    }
}

/// Finds calls.
///
/// # Errors
/// When the store fails.
pub(super) async fn find(console: &Console, wish: &Wish) -> Result<Calls, StoreError> {
    let now = console.relay.clock.now();
    let Some(store) = console.store.as_deref() else {
        return Ok(in_memory(console, wish));
    };
    if !wish.id.is_empty() {
        let calls = by_id(console, store, wish).await?;
        return Ok(chosen(calls, wish, false));
    }
    if !wish.app.is_empty() {
        return of_app(store, wish, now).await;
    }
    notable(console, store, wish, now).await
}

/// Those that failed or were slow, of all instances.
async fn notable(
    console: &Console,
    store: &dyn Store,
    wish: &Wish,
    now: Timestamp,
) -> Result<Calls, StoreError> {
    // The newest are not in the store yet.
    let fresh = console.watch.calls();
    let known: BTreeSet<&str> = fresh.iter().map(|call| &*call.id).collect();
    let mut calls: Vec<CallRow> = fresh.iter().map(CallRow::of_event).collect();
    let mut stored = console::NewestCalls::new(store, now);
    let (mut looked, mut found) = (0, 0);
    while found <= MOST
        && looked < MOST_NOTABLE
        && let Some(some) = stored.next().await?
    {
        looked += some.len();
        let some = some.iter().map(CallRow::of);
        for call in some.filter(|call| wish.status.is_of(call)) {
            found += 1;
            if !known.contains(&*call.id) {
                calls.push(call);
            }
        }
    }
    Ok(chosen(calls, wish, looked >= MOST_NOTABLE))
}

/// Without a store: those that failed or were slow, of this process.
fn in_memory(console: &Console, wish: &Wish) -> Calls {
    let calls = console.watch.calls();
    let calls = calls.iter().map(CallRow::of_event).filter(|call| {
        (wish.id.is_empty() || call.id == wish.id) && (wish.app.is_empty() || call.app == wish.app)
    });
    chosen(calls.collect(), wish, false)
}

fn chosen(mut calls: Vec<CallRow>, wish: &Wish, is_cut: bool) -> Calls {
    calls.retain(|call| wish.status.is_of(call));
    calls.sort_by(|a, b| b.id.cmp(&a.id));
    let is_cut = is_cut || calls.len() > MOST;
    calls.truncate(MOST);
    Calls { calls, is_cut }
}

/// The call of an id: its time says the day, and the app, where none is named, is one of those
/// that are configured.
async fn by_id(
    console: &Console,
    store: &dyn Store,
    wish: &Wish,
) -> Result<Vec<CallRow>, StoreError> {
    let id = wish.id.to_ascii_uppercase();
    let Some(made) = id::time_of(&id) else {
        return Ok(Vec::new());
    };
    let apps = if wish.app.is_empty() {
        console.relay.metrics.names().apps.clone()
    } else {
        vec![wish.app.as_str().into()]
    };
    // The id is made a moment before the call's time is taken.
    let days = BTreeSet::from([made.day(), made.plus_ms(1000).day()]);
    let keys = apps.iter().flat_map(|app| {
        days.iter().map(|day| Key {
            partition: format!("{}|{day}", encode_key(app)),
            row: format!("{}{id}", chargeback::CALL),
        })
    });
    let rows = stream::iter(keys.collect::<Vec<_>>())
        .map(|key| async move { store.get(Table::Chargeback, &key).await })
        .buffer_unordered(AT_A_TIME);
    let rows: Vec<_> = rows.try_collect().await?;
    let rows = rows.into_iter().flatten();
    Ok(rows.map(|row| CallRow::of(&row.fields)).collect())
}

/// An app's calls, of ever longer times until there are enough.
async fn of_app(store: &dyn Store, wish: &Wish, now: Timestamp) -> Result<Calls, StoreError> {
    let mut found = Calls {
        calls: Vec::new(),
        is_cut: false,
    };
    for back_ms in BACK_MS {
        let from = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(back_ms));
        let (calls, is_cut) = since(store, &wish.app, from, now).await?;
        found = chosen(calls, wish, is_cut);
        if found.calls.len() == MOST || is_cut {
            break;
        }
    }
    Ok(found)
}

/// An app's calls since `from`, and whether there are more than were read.
async fn since(
    store: &dyn Store,
    app: &str,
    from: Timestamp,
    now: Timestamp,
) -> Result<(Vec<CallRow>, bool), StoreError> {
    let mut calls = Vec::new();
    let mut pages = 0;
    for day in BTreeSet::from([from.day(), now.day()]) {
        let partition = format!("{}|{day}", encode_key(app));
        let mut range = Range::of(&*partition, chargeback::CALL);
        range.after = Some(Key {
            partition,
            row: format!("{}{}", chargeback::CALL, id::first_of(from)),
        });
        loop {
            if pages == MOST_PAGES {
                return Ok((calls, true));
            }
            pages += 1;
            let page = store.read(Table::Chargeback, &range).await?;
            calls.extend(page.rows.iter().map(|row| CallRow::of(&row.fields)));
            match page.next {
                Some(next) => range.after = Some(next),
                None => break,
            }
        }
    }
    Ok((calls, false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_chooses_its_calls() {
        let call = |status: u16, outcome, first_byte_ms| {
            CallRow::of_event(&UsageEvent {
                status,
                outcome,
                first_byte_ms,
                ..UsageEvent::default()
            })
        };
        use crate::gateway::event::Outcome::{Completed, Cut, Failed};
        let calls = [
            call(200, Completed, 10),
            call(200, Cut, 10),
            call(429, Failed, 0),
            call(404, Failed, 0),
            call(503, Failed, 0),
            call(200, Completed, 60_000),
        ];
        let count = |status: Status| calls.iter().filter(|call| status.is_of(call)).count();
        assert_eq!(Status::ALL.map(count), [6, 2, 1, 1, 1]);
    }

    #[test]
    fn what_is_no_id_is_told() {
        let wish = |id: &str| Wish {
            id: id.to_owned(),
            ..Wish::default()
        };
        assert_eq!(wish("").mistake(), None);
        assert_eq!(wish("01KB0000000000000000000000").mistake(), None);
        assert!(wish("x").mistake().is_some());
        assert!(wish("01KB000000000000000000000é").mistake().is_some());
    }
}
