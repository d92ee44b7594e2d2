//! A call's part in the cache, from the time that its key is known to its usage event.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::Cache;
use super::flight::{Lead, Part, Seat};
use crate::gateway::cache::kept::{Kept, is_filtered};
use crate::gateway::cache::{Key, parts};
use crate::gateway::event::{self, Outcome, Tokens, UsageEvent, UsageSource};

/// What a call is to the cache.
#[derive(Debug)]
pub(in crate::relay) enum Role {
    /// It makes the answer.
    Makes(Keep),
    /// It waits for another call's.
    Waits(Seat),
    /// It has been given one.
    Given(Part),
}

impl Role {
    /// The word that its answer says.
    pub(in crate::relay) const fn outcome(&self) -> event::Cache {
        match self {
            Self::Makes(_) => event::Cache::Miss,
            Self::Given(part) if part.calls == 0 => event::Cache::Hit,
            Self::Waits(_) | Self::Given(_) => event::Cache::Coalesced,
        }
    }

    /// Ends the call's part: what it was given, or shares with others, goes into its event.
    pub(in crate::relay) fn finish(self, event: &mut UsageEvent) {
        match self {
            Self::Makes(keep) => keep.finish(event),
            Self::Given(part) => give(&part, event),
            Self::Waits(seat) => {
                if let Some(part) = seat.part() {
                    give(&part, event);
                }
            }
        }
    }
}

/// Charges a call for its part of an answer.
fn give(part: &Part, event: &mut UsageEvent) {
    let answer = &part.answer;
    event.service_tier = answer.service_tier;
    if part.calls == 0 {
        event.cache = Some(event::Cache::Hit);
        (event.tokens, event.usage) = (Tokens::default(), UsageSource::None);
    } else {
        event.cache = Some(event::Cache::Coalesced);
        event.backend = Arc::clone(&answer.backend);
        event.deployment = Arc::clone(&answer.deployment);
        event.kind = answer.kind;
        event.region = Arc::clone(&answer.region);
        event.tokens = parts::part(&answer.tokens, part.calls, part.index);
        event.usage = answer.usage;
    }
    let spared = parts::rest(&answer.tokens, &event.tokens);
    event.saving = Some(Box::new(answer.saving(spared)));
}

/// The answer of a call as it passes, to be kept when it is whole.
#[derive(Debug)]
pub(in crate::relay) struct Keep {
    cache: Arc<Cache>,
    key: Key,
    /// Absent where nobody waits for it.
    lead: Option<Lead>,
    /// Set when the answer has begun.
    content_type: String,
    body: BytesMut,
    /// Whether it can't be kept.
    is_spoilt: bool,
}

impl Keep {
    pub(super) fn new(cache: Arc<Cache>, key: Key, lead: Option<Lead>) -> Self {
        Self {
            cache,
            key,
            lead,
            content_type: String::new(),
            body: BytesMut::new(),
            is_spoilt: false,
        }
    }

    /// The answer begins: as it is, and with these headers, may it be given again?
    pub(in crate::relay) fn begins(&mut self, is_right: bool, headers: &HeaderMap) {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        let content_type = headers.get(CONTENT_TYPE).and_then(text);
        let mut said = headers.get_all(CACHE_CONTROL).iter().filter_map(text);
        let is_open = !said.any(|said| said.to_ascii_lowercase().contains("no-store"));
        match content_type {
            Some(content_type) if is_right && is_open => self.content_type = content_type,
            _ => self.spoil(),
        }
    }

    /// Takes a copy of what passes of the answer.
    pub(in crate::relay) fn take(&mut self, chunk: &[u8]) {
        if self.is_spoilt {
            return;
        }
        if self.body.len().saturating_add(chunk.len()) > self.cache.max_answer {
            return self.spoil();
        }
        self.body.extend_from_slice(chunk);
    }

    /// The answer can't be kept: those who wait for it need not wait any longer.
    pub(in crate::relay) fn spoil(&mut self) {
        self.is_spoilt = true;
        self.body = BytesMut::new();
        if let Some(lead) = self.lead.take() {
            lead.give_up();
        }
    }

    fn finish(mut self, event: &mut UsageEvent) {
        event.cache = Some(event::Cache::Miss);
        if event.outcome == Outcome::ClientGone {
            // The lead is dropped, and so passed on.
            return;
        }
        let is_whole = event.outcome == Outcome::Completed
            && event.status == 200
            && event.usage == UsageSource::Reported
            && !self.is_spoilt
            && !self.content_type.is_empty()
            && !is_filtered(&self.body);
        if !is_whole {
            return self.spoil();
        }
        // A copy of its size: what it grew in may be twice as large.
        let body = Bytes::copy_from_slice(&self.body);
        let kept = Kept::new(event, std::mem::take(&mut self.content_type), body);
        let kept = Arc::new(kept);
        self.cache.put(self.key, &kept);
        let calls = self
            .lead
            .take()
            .map_or(1, |lead| lead.answered(Arc::clone(&kept)));
        if calls > 1 {
            event.tokens = parts::part(&kept.tokens, calls, 0);
            let spared = parts::rest(&kept.tokens, &event.tokens);
            event.saving = Some(Box::new(kept.saving(spared)));
        }
    }
}
