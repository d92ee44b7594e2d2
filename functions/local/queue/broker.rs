//! The rules of Service Bus queues, in memory, with the time as an argument: scheduled messages,
//! locks that run out, delivery counts, dead letters, expiry and duplicate detection.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::azure::service_bus::Messages;
use crate::gateway::batch::message::{Message, Outgoing, Received};
use crate::gateway::time::Timestamp;

/// What a queue goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a lock holds, ms.
    pub lock_ms: u64,
    /// A message that was delivered as often and abandoned is dead-lettered.
    pub max_deliveries: u64,
    /// How long a `MessageId` is remembered, ms.
    pub duplicates_ms: u64,
}

impl Default for Limits {
    /// The service's own, but for the day of duplicate detection, which infra/ sets.
    fn default() -> Self {
        Self {
            lock_ms: 60_000,
            max_deliveries: 10,
            duplicates_ms: 24 * 3_600_000,
        }
    }
}

/// What the dead letters of a queue are called.
pub const DEAD_LETTERS: &str = "$deadletterqueue";

/// A message in a queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its number.
    pub sequence: u64,
    /// How often it was delivered.
    pub deliveries: u64,
    /// When it became, or becomes, visible.
    pub visible: Timestamp,
    /// When it is discarded.
    pub expires: Option<Timestamp>,
    /// Whether it is dead.
    pub is_dead: bool,
    /// The message.
    pub message: Message,
}

/// A message that was delivered under a lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The lock's token.
    pub token: u64,
    /// The message.
    pub received: Received,
}

/// What a step changes in what is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A message is, or stands, so.
    Put(String, Box<Stored>),
    /// A message is gone.
    Gone(String, u64),
    /// An id was seen.
    Id(String, String, Timestamp),
    /// An id is forgotten.
    Forgotten(String, String),
}

/// There is no such queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchQueue;

/// Queues.
#[derive(Debug)]
pub struct Broker {
    queues: BTreeMap<String, Queue>,
    last_sequence: u64,
    last_token: u64,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
struct Queue {
    ready: BTreeMap<u64, Stored>,
    scheduled: BTreeMap<(Timestamp, u64), Stored>,
    locked: BTreeMap<u64, (Timestamp, Stored)>,
    dead: BTreeMap<u64, Stored>,
    ids: HashMap<Arc<str>, Timestamp>,
    /// The ids in the order in which they are forgotten.
    order: VecDeque<(Timestamp, Arc<str>)>,
    limits: Limits,
}

impl Broker {
    /// Empty queues of these names.
    pub fn new<'n>(queues: impl IntoIterator<Item = (&'n str, Limits)>) -> Self {
        let empty = |limits| Queue {
            limits,
            ..Queue::default()
        };
        let queues = queues.into_iter();
        Self {
            queues: queues
                .map(|(name, limits)| (lower(name), empty(limits)))
                .collect(),
            last_sequence: 0,
            last_token: 0,
            changes: Vec::new(),
        }
    }

    /// Puts back what was kept. Locks are not: whoever held them is gone.
    pub fn restore(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Put(name, stored) => {
                    self.last_sequence = self.last_sequence.max(stored.sequence);
                    let Some(queue) = self.queues.get_mut(&name) else {
                        continue;
                    };
                    if stored.is_dead {
                        queue.dead.insert(stored.sequence, *stored);
                    } else {
                        let key = (stored.visible, stored.sequence);
                        queue.scheduled.insert(key, *stored);
                    }
                }
                Change::Id(name, id, until) => {
                    if let Some(queue) = self.queues.get_mut(&name) {
                        queue.remember(&id, until);
                    }
                }
                Change::Gone(..) | Change::Forgotten(..) => {}
            }
        }
    }

    /// What has changed since the last time, to be kept.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Takes a message in; `false` where it is a duplicate, which is dropped.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn send(
        &mut self,
        name: &str,
        outgoing: Outgoing,
        now: Timestamp,
    ) -> Result<bool, NoSuchQueue> {
        let name = lower(name);
        let queue = self.queues.get_mut(&name).ok_or(NoSuchQueue)?;
        if let Some(id) = &outgoing.message.id {
            if queue.ids.get(&**id).is_some_and(|until| *until > now) {
                return Ok(false);
            }
            let until = now.plus_ms(queue.limits.duplicates_ms);
            queue.remember(id, until);
            self.changes
                .push(Change::Id(name.clone(), id.clone(), until));
        }
        self.last_sequence += 1;
        let visible = outgoing.scheduled.unwrap_or(now).max(now);
        let ttl = outgoing.ttl_s;
        let stored = Stored {
            sequence: self.last_sequence,
            deliveries: 0,
            visible,
            expires: ttl.map(|s| visible.plus_ms(s.saturating_mul(1000))),
            is_dead: false,
            message: outgoing.message,
        };
        self.changes
            .push(Change::Put(name, Box::new(stored.clone())));
        queue.scheduled.insert((visible, stored.sequence), stored);
        Ok(true)
    }

    /// Delivers the next message under a lock.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn receive(&mut self, name: &str, now: Timestamp) -> Result<Option<Delivery>, NoSuchQueue> {
        let name = lower(name);
        self.tick(&name, now)?;
        let queue = self.queues.get_mut(&name).ok_or(NoSuchQueue)?;
        let Some(mut stored) = queue.next_ready(&name, now, &mut self.changes) else {
            return Ok(None);
        };
        stored.deliveries += 1;
        self.last_token += 1;
        self.changes
            .push(Change::Put(name, Box::new(stored.clone())));
        let received = stored.received();
        let until = now.plus_ms(queue.limits.lock_ms);
        queue.locked.insert(self.last_token, (until, stored));
        Ok(Some(Delivery {
            token: self.last_token,
            received,
        }))
    }

    /// Takes the next message out. `name` may be that of dead letters: `QUEUE/$deadletterqueue`.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn take(&mut self, name: &str, now: Timestamp) -> Result<Option<Received>, NoSuchQueue> {
        let name = lower(name);
        let (name, of_dead) = match name.strip_suffix(DEAD_LETTERS) {
            Some(queue) => (queue.trim_end_matches('/').to_owned(), true),
            None => (name, false),
        };
        self.tick(&name, now)?;
        let queue = self.queues.get_mut(&name).ok_or(NoSuchQueue)?;
        let next = if of_dead {
            queue.dead.pop_first().map(|(_, stored)| stored)
        } else {
            queue.next_ready(&name, now, &mut self.changes)
        };
        let Some(mut stored) = next else {
            return Ok(None);
        };
        stored.deliveries += 1;
        self.changes.push(Change::Gone(name, stored.sequence));
        Ok(Some(stored.received()))
    }

    /// Renews a lock; `false` where it has run out.
    pub fn renew(&mut self, name: &str, token: u64, now: Timestamp) -> bool {
        let Some(queue) = self.queues.get_mut(&lower(name)) else {
            return false;
        };
        let lock_ms = queue.limits.lock_ms;
        match queue.locked.get_mut(&token) {
            Some((until, _)) if *until > now => {
                *until = now.plus_ms(lock_ms);
                true
            }
            _ => false,
        }
    }

    /// Ends a delivered message; `false` where its lock has run out.
    pub fn complete(&mut self, name: &str, token: u64, now: Timestamp) -> bool {
        match self.unlock(name, token, now) {
            Some(stored) => {
                self.changes
                    .push(Change::Gone(lower(name), stored.sequence));
                true
            }
            None => false,
        }
    }

    /// Gives a delivered message back: it comes again at once, or goes to the dead letters.
    pub fn abandon(&mut self, name: &str, token: u64, now: Timestamp) {
        if let Some(stored) = self.unlock(name, token, now) {
            self.back(&lower(name), stored);
        }
    }

    fn unlock(&mut self, name: &str, token: u64, now: Timestamp) -> Option<Stored> {
        let queue = self.queues.get_mut(&lower(name))?;
        let (until, stored) = queue.locked.remove(&token)?;
        if until > now {
            return Some(stored);
        }
        self.back(&lower(name), stored);
        None
    }

    fn back(&mut self, name: &str, mut stored: Stored) {
        let Some(queue) = self.queues.get_mut(name) else {
            return;
        };
        if stored.deliveries < queue.limits.max_deliveries {
            queue.ready.insert(stored.sequence, stored);
            return;
        }
        stored.is_dead = true;
        let reason = ("DeadLetterReason", "MaxDeliveryCountExceeded");
        stored
            .message
            .properties
            .insert(reason.0.into(), reason.1.into());
        self.changes
            .push(Change::Put(name.to_owned(), Box::new(stored.clone())));
        queue.dead.insert(stored.sequence, stored);
    }

    /// Does what is due: shows scheduled messages, takes back those whose locks have run out,
    /// forgets ids.
    fn tick(&mut self, name: &str, now: Timestamp) -> Result<(), NoSuchQueue> {
        let queue = self.queues.get_mut(name).ok_or(NoSuchQueue)?;
        let later = queue.scheduled.split_off(&(now.plus_ms(1), 0));
        let due = std::mem::replace(&mut queue.scheduled, later);
        queue
            .ready
            .extend(due.into_values().map(|stored| (stored.sequence, stored)));
        let run_out = |_: &u64, (until, _): &mut (Timestamp, Stored)| *until <= now;
        let back: Vec<Stored> = queue
            .locked
            .extract_if(.., run_out)
            .map(|(_, (_, stored))| stored)
            .collect();
        while let Some((until, _)) = queue.order.front()
            && *until <= now
            && let Some((until, id)) = queue.order.pop_front()
        {
            // It may have been seen again since.
            if queue.ids.get(&id) == Some(&until) {
                queue.ids.remove(&id);
                let id = id.as_ref().to_owned();
                self.changes.push(Change::Forgotten(name.to_owned(), id));
            }
        }
        back.into_iter().for_each(|stored| self.back(name, stored));
        Ok(())
    }

    /// Messages in a queue, those under way and scheduled ones too; not its dead letters.
    pub fn length(&self, name: &str) -> usize {
        self.queues.get(&lower(name)).map_or(0, |queue| {
            queue.ready.len() + queue.scheduled.len() + queue.locked.len()
        })
    }

    /// The messages of a queue at `now`, counted as the service counts them.
    pub fn messages(&self, name: &str, now: Timestamp) -> Option<Messages> {
        let queue = self.queues.get(&lower(name))?;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let locked = queue.locked.values().map(|(_, stored)| stored);
        let waiting = queue.ready.values().chain(locked);
        let due = queue
            .scheduled
            .values()
            .filter(|stored| stored.visible <= now);
        let waiting: Vec<Timestamp> = waiting.chain(due).map(|stored| stored.visible).collect();
        let all = queue.ready.len() + queue.locked.len() + queue.scheduled.len();
        Some(Messages {
            waiting: count(waiting.len()),
            scheduled: count(all - waiting.len()),
            dead: count(queue.dead.len()),
            oldest: waiting.into_iter().min(),
        })
    }

    /// Dead letters of a queue.
    pub fn dead(&self, name: &str) -> usize {
        self.queues
            .get(&lower(name))
            .map_or(0, |queue| queue.dead.len())
    }
}

impl Queue {
    fn remember(&mut self, id: &str, until: Timestamp) {
        let id: Arc<str> = id.into();
        self.ids.insert(Arc::clone(&id), until);
        self.order.push_back((until, id));
    }

    /// The next visible message, past those that have expired.
    fn next_ready(
        &mut self,
        name: &str,
        now: Timestamp,
        changes: &mut Vec<Change>,
    ) -> Option<Stored> {
        loop {
            let (sequence, stored) = self.ready.pop_first()?;
            if stored.expires.is_none_or(|expires| expires > now) {
                return Some(stored);
            }
            changes.push(Change::Gone(name.to_owned(), sequence));
        }
    }
}

/// Names of queues have no case.
fn lower(name: &str) -> String {
    name.to_lowercase()
}

impl Stored {
    fn received(&self) -> Received {
        Received {
            message: self.message.clone(),
            sequence: self.sequence,
            deliveries: self.deliveries,
            enqueued: self.visible,
            expires: self.expires,
        }
    }
}

#[cfg(test)]
mod tests;
