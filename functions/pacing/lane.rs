//! The slots of one model in this process: who waits, what is held, and the task that does the
//! reading and writing for all of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::{Gauge, Held, NoSlot, Slot};
use crate::gateway::pacing::lease::{Board, Decision, LEASE_MS, Need, WISH_MS, Wish, decide};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;
use crate::store::bounds::MAX_WRITES;
use crate::store::slots::{self, Rows};
use crate::store::{Store, StoreError, Write};

/// Most calls that wait in one process.
const MAX_WAITING: usize = 10_000;

/// Longest wait for the store, well within what is left of a lease when it is renewed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shortest time from reading the table to reading it again, ms: while calls wait, and at all.
const POLL_MS: (u64, u64) = (300, 20);

/// Rows that all waiting instances together read in a second at most: half of what a partition of
/// Table Storage serves (Microsoft Learn, "Scalability and performance targets for Table storage").
const ROWS_PER_SECOND: u64 = 1_000;

/// The pause after the store failed, ms.
const FAILED_MS: u64 = 2_000;

/// For how long after it was read the board says which slots may be used again, ms.
const FRESH_MS: u64 = 2_000;

/// Writes of one beat that may meet a changed row; the rest is left to the next beat.
const CONFLICTS: usize = 4;

/// What a call is guessed to hold its slot for, before any has ended, ms.
const GUESSED_HOLD_MS: u64 = 5_000;

/// Shortest and longest time after which a call is told to ask again, ms.
const RETRY_MS: (u64, u64) = (1_000, 60_000);

/// The slots of one model in this process.
#[derive(Debug)]
pub(super) struct Lane {
    model: Arc<str>,
    instance: String,
    store: Arc<dyn Store>,
    gauge: Arc<Gauge>,
    clock: Clock,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<oneshot::Sender<Slot>>,
    /// Slots that calls use, by number.
    used: BTreeMap<u32, Use>,
    turns: u64,
    /// The table as it was read last, and how many slots were open then.
    board: Board,
    read: Timestamp,
    open: u32,
    stands_back: bool,
    /// How long calls hold a slot, smoothed; 0 before the first has ended.
    hold_ms: u64,
}

/// A slot in use.
#[derive(Clone, Copy, Debug)]
struct Use {
    turn: u64,
    since: Timestamp,
    /// When the lease ends unless it is renewed.
    expires: Timestamp,
}

impl Lane {
    pub(super) fn new(
        model: Arc<str>,
        instance: String,
        store: Arc<dyn Store>,
        gauge: Arc<Gauge>,
        clock: Clock,
    ) -> Self {
        Self {
            model,
            instance,
            store,
            gauge,
            clock,
            state: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    pub(super) async fn acquire(&self, until: Timestamp) -> Result<Slot, NoSlot> {
        let (slot, given) = oneshot::channel();
        let is_first = {
            let mut state = self.state();
            if state.waiting.len() >= MAX_WAITING {
                state.waiting.retain(|waiter| !waiter.is_closed());
            }
            if state.waiting.len() >= MAX_WAITING {
                return Err(state.no_slot());
            }
            state.waiting.push_back(slot);
            state.waiting.len() == 1
        };
        if is_first {
            self.wake.notify_one();
        }
        let patience = until.since(self.clock.now());
        // A slot that is given just then is in the channel, and given back with it.
        match tokio::time::timeout(patience, given).await {
            Ok(Ok(slot)) => Ok(slot),
            _ => Err(self.state().no_slot()),
        }
    }

    /// Has the calls that wait go on without a slot.
    pub(super) fn let_all_go(&self) {
        for waiter in std::mem::take(&mut self.state().waiting) {
            // One that has gone meanwhile needs nothing.
            let _ = waiter.send(Slot { held: None });
        }
    }

    /// A call has ended: another one of this process gets its slot where it may, else nobody's it is.
    pub(super) fn give_back(held: &Held) {
        let lane = Arc::clone(&held.lane);
        let now = lane.clock.now();
        let next = {
            let mut state = lane.state();
            let Some(own) = state.used.remove(&held.number) else {
                return;
            };
            if own.turn != held.turn {
                // Its lease ran out, and another call has the slot by now.
                state.used.insert(held.number, own);
                return;
            }
            state.held_for(now.ms_since(own.since));
            let waiter = state.may_use_again(&lane.instance, held.number, own.expires, now);
            waiter.map(|waiter| (waiter, own.expires))
        };
        match next {
            Some((waiter, expires)) => lane.hand(waiter, held.number, expires, now),
            None => lane.wake.notify_one(),
        }
    }

    /// Gives the slot to a waiting call. One that has gone meanwhile gives it back at once.
    fn hand(
        self: &Arc<Self>,
        waiter: oneshot::Sender<Slot>,
        number: u32,
        expires: Timestamp,
        now: Timestamp,
    ) {
        let turn = {
            let mut state = self.state();
            state.turns += 1;
            let turn = state.turns;
            let since = now;
            state.used.insert(
                number,
                Use {
                    turn,
                    since,
                    expires,
                },
            );
            turn
        };
        let held = Held {
            lane: Arc::clone(self),
            number,
            turn,
        };
        drop(waiter.send(Slot { held: Some(held) }));
    }

    /// Beats for ever: while calls wait, as often as the table bears; else when a lease is to be
    /// renewed or a slot to be given back.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut random = fastrand::Rng::new();
        let mut is_failing = false;
        loop {
            self.something_to_do(&mut random).await;
            match self.beat(&mut random).await {
                Ok(()) if is_failing => {
                    is_failing = false;
                    tracing::info!(model = %self.model, "slots can be read and written again");
                }
                Ok(()) => {}
                Err(error) => {
                    if !is_failing {
                        tracing::error!(
                            model = %self.model, %error,
                            "table slots can't be read or written: low-priority calls wait"
                        );
                    }
                    is_failing = true;
                    tokio::time::sleep(Duration::from_millis(FAILED_MS)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(POLL_MS.1)).await;
        }
    }

    async fn something_to_do(&self, random: &mut fastrand::Rng) {
        let pause = self.state().pause_ms(self.clock.now(), random);
        let woken = self.wake.notified();
        match pause {
            None => woken.await,
            Some(ms) => {
                // Whichever is first.
                let _ = tokio::time::timeout(Duration::from_millis(ms), woken).await;
            }
        }
    }

    async fn beat(self: &Arc<Self>, random: &mut fastrand::Rng) -> Result<(), StoreError> {
        let rows = in_time(slots::read(&*self.store, &self.model)).await?;
        let now = self.clock.now();
        let in_use = rows.board.in_use(now);
        let open = self.gauge.open(&self.model, in_use, now).await;
        let need = self.state().saw(&rows.board, open, now);
        let decision = decide(&self.instance, &rows.board, &need, open, now, random);
        for slot in &decision.lost {
            tracing::warn!(model = %self.model, slot, "the lease of a slot ran out while a call used it");
            self.state().used.remove(slot);
        }
        let expires = now.plus_ms(LEASE_MS);
        self.keep_own(&rows, &decision, expires).await?;
        let taken = self.take(&rows, &decision.take, expires).await?;
        if let Some(waiting) = decision.wish {
            self.wish(&rows, waiting, now).await?;
        }
        self.hand_out(decision.reuse.iter().copied().chain(taken), expires, now);
        Ok(())
    }

    /// Renews and gives back. What has changed meanwhile ran out and is another one's.
    async fn keep_own(
        &self,
        rows: &Rows,
        decision: &Decision,
        expires: Timestamp,
    ) -> Result<(), StoreError> {
        let renewed = decision.renew.iter().chain(&decision.reuse);
        let renewed = renewed.map(|slot| rows.lease(*slot, &self.instance, expires));
        let released = decision.release.iter();
        let released = released.map(|slot| rows.lease(*slot, "", Timestamp::default()));
        let writes: Vec<Write> = renewed.chain(released).collect();
        let written = self.write(writes, usize::MAX).await?;
        let mut state = self.state();
        for (slot, is_own) in decision.renew.iter().zip(written) {
            if let Some(own) = state.used.get_mut(slot).filter(|_| is_own) {
                own.expires = expires;
            }
        }
        Ok(())
    }

    /// Tries to take `slots`; those that it got.
    async fn take(
        &self,
        rows: &Rows,
        slots: &[u32],
        expires: Timestamp,
    ) -> Result<Vec<u32>, StoreError> {
        let writes = slots
            .iter()
            .map(|slot| rows.lease(*slot, &self.instance, expires));
        let written = self.write(writes.collect(), CONFLICTS).await?;
        let taken = slots.iter().zip(written).filter(|(_, is_own)| *is_own);
        Ok(taken.map(|(slot, _)| *slot).collect())
    }

    /// Makes those of `writes` that can be made: which ones. After `conflicts` that can't it gives up
    /// on the others of their hundred.
    async fn write(&self, writes: Vec<Write>, conflicts: usize) -> Result<Vec<bool>, StoreError> {
        let mut done = Vec::with_capacity(writes.len());
        for some in writes.chunks(MAX_WRITES) {
            let mut left: Vec<usize> = (0..some.len()).collect();
            let mut failed = 0;
            let mut written = vec![false; some.len()];
            while !left.is_empty() && failed <= conflicts {
                let again = left.iter().filter_map(|i| some.get(*i).cloned()).collect();
                match in_time(slots::write(&*self.store, &self.model, again)).await {
                    Ok(()) => {
                        for i in left.drain(..) {
                            written.iter_mut().skip(i).take(1).for_each(|is| *is = true);
                        }
                    }
                    Err(StoreError::Changed { index } | StoreError::Exists { index })
                        if index < left.len() =>
                    {
                        left.remove(index);
                        failed += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
            done.append(&mut written);
        }
        Ok(done)
    }

    async fn wish(&self, rows: &Rows, waiting: u32, now: Timestamp) -> Result<(), StoreError> {
        let wish = slots::wish(&Wish {
            instance: self.instance.clone(),
            waiting,
            expires: now.plus_ms(WISH_MS),
        });
        in_time(slots::write(&*self.store, &self.model, vec![wish])).await?;
        let long_ago = Timestamp::from_unix_ms(now.unix_ms().saturating_sub(10 * WISH_MS));
        in_time(slots::forget_wishes(
            &*self.store,
            &self.model,
            &rows.board,
            long_ago,
        ))
        .await
    }

    /// Gives slots that are this instance's to calls that wait. One too many is given back at the
    /// next beat, which finds it idle.
    fn hand_out(
        self: &Arc<Self>,
        slots: impl Iterator<Item = u32>,
        expires: Timestamp,
        now: Timestamp,
    ) {
        for slot in slots {
            let waiter = {
                let mut state = self.state();
                state.note_lease(slot, &self.instance, expires);
                state.next_waiter()
            };
            match waiter {
                Some(waiter) => self.hand(waiter, slot, expires, now),
                None => self.wake.notify_one(),
            }
        }
    }
}

impl State {
    fn next_waiter(&mut self) -> Option<oneshot::Sender<Slot>> {
        while let Some(waiter) = self.waiting.pop_front() {
            if !waiter.is_closed() {
                return Some(waiter);
            }
        }
        None
    }

    /// Notes the board as it was read; what this instance needs.
    fn saw(&mut self, board: &Board, open: u32, now: Timestamp) -> Need {
        self.waiting.retain(|waiter| !waiter.is_closed());
        self.board.clone_from(board);
        (self.open, self.read) = (open, now);
        Need {
            used: self.used.keys().copied().collect(),
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            stands_back: std::mem::take(&mut self.stands_back),
        }
    }

    /// The call that gets a slot whose call has ended, where it may be used again.
    fn may_use_again(
        &mut self,
        instance: &str,
        slot: u32,
        expires: Timestamp,
        now: Timestamp,
    ) -> Option<oneshot::Sender<Slot>> {
        let is_fresh = now.ms_since(self.read) <= FRESH_MS && expires > now;
        if !is_fresh || slot >= self.board.usable(self.open, now) {
            return None;
        }
        let held = u32::try_from(self.used.len()).unwrap_or(u32::MAX);
        if self.board.yields(instance, held.saturating_add(1), now) {
            self.stands_back = true;
            return None;
        }
        self.next_waiter()
    }

    fn note_lease(&mut self, slot: u32, holder: &str, expires: Timestamp) {
        let known = self
            .board
            .leases
            .iter_mut()
            .find(|lease| lease.slot == slot);
        match known {
            Some(lease) => {
                holder.clone_into(&mut lease.holder);
                lease.expires = expires;
            }
            None => self
                .board
                .leases
                .push(crate::gateway::pacing::lease::Lease {
                    slot,
                    holder: holder.to_owned(),
                    expires,
                }),
        }
    }

    /// An eighth of the new one, as TCP smooths round trips (RFC 6298).
    fn held_for(&mut self, ms: u64) {
        self.hold_ms = match self.hold_ms {
            0 => ms,
            old => old - old / 8 + ms / 8,
        }
        .max(1);
    }

    fn no_slot(&self) -> NoSlot {
        let hold_ms = match self.hold_ms {
            0 => GUESSED_HOLD_MS,
            known => known,
        };
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        let rounds = (waiting + 1).div_ceil(u64::from(self.open.max(1)));
        NoSlot {
            retry_after_ms: hold_ms.saturating_mul(rounds).clamp(RETRY_MS.0, RETRY_MS.1),
        }
    }

    /// Milliseconds until the table is to be read again; `None`: when somebody says so.
    fn pause_ms(&self, now: Timestamp, random: &mut fastrand::Rng) -> Option<u64> {
        if self.waiting.is_empty() {
            let renewal = self
                .used
                .values()
                .map(|own| own.expires.ms_since(now))
                .min();
            return renewal.map(|left| left.saturating_sub(LEASE_MS / 2));
        }
        let rows = self.board.leases.len() + self.board.wishes.len();
        let instances = self.board.wishes.len().max(1);
        let read = u64::try_from(rows.saturating_mul(instances)).unwrap_or(u64::MAX);
        let stretched = read.saturating_mul(1000) / ROWS_PER_SECOND;
        let pause = stretched.clamp(POLL_MS.0, FRESH_MS * 2 / 3);
        Some(pause + random.u64(0..=pause / 2))
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| {
        let ms = PATIENCE.as_millis();
        Err(StoreError::Unavailable(format!("no answer within {ms} ms")))
    })
}
