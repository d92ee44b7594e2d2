//! The books at the end: rows, sums, what clients got and what backends served, each held against
//! the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rust_decimal::Decimal;
use spillway::gateway::time::Timestamp;
use spillway::store::chargeback::{CALL, partition};
use spillway::store::sums::{SUM, Sum};
use spillway::store::{Pages, Range, Row, Store, Table};

use super::backend::Tally;
use super::traffic::{APPS, Got, NIGHTLY, Wrong};

/// A row of a call.
#[derive(Debug)]
struct Call {
    app: String,
    status: u64,
    outcome: String,
    usage: String,
    tokens: (u64, u64),
}

/// Table `chargeback`, read whole.
#[derive(Debug, Default)]
pub(super) struct Books {
    calls: HashMap<String, Call>,
    /// Ids that stand in several rows.
    doubled: usize,
    /// By partition: what sums say, and what the rows come to.
    days: BTreeMap<String, [Total; 2]>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Total {
    calls: u64,
    input: u64,
    output: u64,
    cost: Decimal,
}

impl Total {
    fn add(&mut self, calls: u64, tokens: (u64, u64), cost: Decimal) {
        self.calls += calls;
        self.input += tokens.0;
        self.output += tokens.1;
        self.cost += cost;
    }
}

/// Calls that the sums of the days since then count, but for batch messages'.
pub(super) async fn counted(store: &dyn Store, since: Timestamp) -> io::Result<u64> {
    let mut days = vec![since.day(), now().day()];
    days.dedup();
    let mut calls = 0;
    for day in &days {
        for app in APPS.into_iter().filter(|app| *app != NIGHTLY) {
            let range = Range::of(partition(app, day), SUM);
            let rows = Pages::new(store, Table::Chargeback, range).rest().await;
            for row in rows.map_err(io::Error::other)? {
                calls += Sum::read(&row).map_err(io::Error::other)?.calls;
            }
        }
    }
    Ok(calls)
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp::from_unix_ms(since.map_or(0, |since| since.as_millis().try_into().unwrap_or(0)))
}

impl Books {
    /// Reads all rows.
    pub(super) async fn read(store: &dyn Store) -> io::Result<Self> {
        let mut books = Self::default();
        let mut pages = Pages::new(store, Table::Chargeback, Range::all());
        while let Some(rows) = pages.next().await.map_err(io::Error::other)? {
            for row in &rows {
                books.enter(row)?;
            }
        }
        Ok(books)
    }

    fn enter(&mut self, row: &Row) -> io::Result<()> {
        let fields = &row.fields;
        let day = self.days.entry(row.key.partition.clone());
        let [sums, calls] = day.or_default();
        if row.key.row.starts_with(SUM) {
            let sum = Sum::read(row).map_err(io::Error::other)?;
            let tokens = (sum.tokens.input, sum.tokens.output);
            sums.add(sum.calls, tokens, sum.cost);
        } else if row.key.row.starts_with(CALL) {
            let tokens = fields.get_tokens();
            let tokens = (tokens.input, tokens.output);
            let cost = fields.get_text("cost");
            let cost = if cost.is_empty() {
                Decimal::ZERO
            } else {
                let cost = Decimal::from_str_exact(cost);
                cost.map_err(|why| io::Error::other(why.to_string()))?
            };
            calls.add(1, tokens, cost);
            let call = Call {
                app: fields.get_text("app").to_owned(),
                status: fields.get_number("status"),
                outcome: fields.get_text("outcome").to_owned(),
                usage: fields.get_text("usage").to_owned(),
                tokens,
            };
            let id = fields.get_text("id").to_owned();
            self.doubled += usize::from(self.calls.insert(id, call).is_some());
        }
        Ok(())
    }

    pub(super) fn rows(&self) -> usize {
        self.calls.len() + self.doubled
    }

    /// What is wrong with rows, by what clients got: each id has its one row, with its tokens, and
    /// each row of the clients' apps is one that a client got.
    pub(super) fn against_clients(&self, got: &[Got]) -> Wrong {
        let mut wrong = Wrong::default();
        for got in got {
            match self.calls.get(&got.id) {
                None => wrong.add(format!("{} of {} has no row", got.id, got.app)),
                Some(row) => {
                    let outcome = if got.is_cut { "cut" } else { "completed" };
                    let has_tokens = got.is_cut || row.tokens == got.tokens;
                    if row.app != got.app || row.outcome != outcome || !has_tokens {
                        wrong.add(format!("{got:?} has the row {row:?}"));
                    }
                }
            }
        }
        if self.doubled > 0 {
            wrong.add(format!("{} ids have several rows", self.doubled));
        }
        let ids: HashSet<&str> = got.iter().map(|got| &*got.id).collect();
        let theirs = self.calls.iter().filter(|(_, row)| row.app != NIGHTLY);
        for (id, row) in theirs.filter(|(id, _)| !ids.contains(&***id)) {
            wrong.add(format!("{id} is no client's: {row:?}"));
        }
        wrong
    }

    /// What is wrong with rows, by the replies to batch messages.
    pub(super) fn against_replies(&self, events: &[String]) -> Wrong {
        let mut wrong = Wrong::default();
        for id in events {
            let row = self.calls.get(id);
            if !row.is_some_and(|row| row.app == NIGHTLY && row.status == 200) {
                wrong.add(format!("the reply's {id} has the row {row:?}"));
            }
        }
        wrong
    }

    /// What is wrong with rows, by what the backends served to the end.
    pub(super) fn against_backends(&self, served: &BTreeMap<String, Tally>) -> Wrong {
        let mut wrong = Wrong::default();
        let mut rows: BTreeMap<String, Tally> = BTreeMap::new();
        let whole = |row: &&Call| row.outcome == "completed" && row.usage == "reported";
        for row in self.calls.values().filter(whole) {
            let tally = rows.entry(row.app.clone()).or_default();
            tally.add(row.tokens.0, row.tokens.1);
        }
        for app in APPS {
            let (rows, served) = (rows.get(app), served.get(app));
            if rows != served {
                wrong.add(format!("{app}: rows {rows:?}, served {served:?}"));
            }
        }
        wrong
    }

    /// Days whose sums are not those of their rows.
    pub(super) fn sums(&self) -> Wrong {
        let mut wrong = Wrong::default();
        for (day, [sums, rows]) in self.days.iter().filter(|(_, [sums, rows])| sums != rows) {
            wrong.add(format!("{day}: sums {sums:?}, rows {rows:?}"));
        }
        wrong
    }
}
