//! What one allowance limits together: the rates and the calls in flight.

use super::meter::{Meter, Reading};
use super::share::{Measured, Share};
use super::{Allowance, IN_FLIGHT_RETRY_MS, Limit, Sort, Standing};
use crate::gateway::time::Timestamp;

#[derive(Debug)]
pub(super) struct Scope {
    requests: Option<Meter>,
    tokens: Option<Meter>,
    in_flight: Option<Gauge>,
    share: Share,
}

impl Scope {
    pub(super) fn new(allowance: Allowance, now: Timestamp) -> Self {
        let meter = |limit: u64| Meter::new(limit, now);
        Self {
            requests: allowance.requests_per_minute.map(meter),
            tokens: allowance.tokens_per_minute.map(meter),
            in_flight: allowance.in_flight.map(Gauge::new),
            share: Share::WHOLE,
        }
    }

    /// Allows this from now on; what was used counts on.
    pub(super) fn allow(&mut self, allowance: Allowance, now: Timestamp) {
        let fresh = Self::new(allowance, now);
        let before = std::mem::replace(self, fresh);
        let pairs = [
            (&mut self.requests, before.requests),
            (&mut self.tokens, before.tokens),
        ];
        for (meter, before) in pairs {
            if let (Some(meter), Some(mut before)) = (meter, before) {
                before.advance(now);
                before.set_limit(meter.limit());
                *meter = before;
            }
        }
        if let (Some(gauge), Some(before)) = (&mut self.in_flight, before.in_flight) {
            gauge.now = before.now;
        }
        self.set_share(before.share, now);
    }

    /// This instance's share.
    pub(super) const fn share(&self) -> Share {
        self.share
    }

    /// Lets time pass; before anything else is asked.
    pub(super) fn advance(&mut self, now: Timestamp) {
        for meter in self.meters() {
            meter.advance(now);
        }
    }

    /// The limit that is in a call's way, and for how many milliseconds.
    pub(super) fn refusal(&self, is_models: bool, now: Timestamp) -> Option<(Limit, u64)> {
        let limit = |sort, allowed| Limit {
            sort,
            is_models,
            allowed,
        };
        let closed = |meter: &Option<Meter>, sort| {
            let meter = meter.as_ref().filter(|meter| !meter.is_open())?;
            Some((limit(sort, meter.limit()), meter.opens_in(now)))
        };
        let crowded = self.in_flight.as_ref().filter(|gauge| !gauge.is_open());
        let crowded = crowded.map(|gauge| {
            let limit = limit(Sort::InFlight, u64::from(gauge.limit));
            (limit, IN_FLIGHT_RETRY_MS)
        });
        let rates = super::longer(
            closed(&self.requests, Sort::Requests),
            closed(&self.tokens, Sort::Tokens),
        );
        super::longer(rates, crowded)
    }

    pub(super) fn charge(&mut self, estimate: u64) {
        if let Some(meter) = &mut self.requests {
            meter.charge(1);
        }
        if let Some(meter) = &mut self.tokens {
            meter.charge(meter.at_most(estimate));
        }
        if let Some(gauge) = &mut self.in_flight {
            gauge.now = gauge.now.saturating_add(1);
        }
    }

    pub(super) fn refuse(&mut self, estimate: u64) {
        if let Some(meter) = &mut self.requests {
            meter.refuse(1);
        }
        if let Some(meter) = &mut self.tokens {
            meter.refuse(meter.at_most(estimate));
        }
        if let Some(gauge) = &mut self.in_flight {
            gauge.refused = gauge.refused.saturating_add(1);
        }
    }

    pub(super) fn leave(&mut self) {
        if let Some(gauge) = &mut self.in_flight {
            gauge.now = gauge.now.saturating_sub(1);
        }
    }

    /// Makes of a call that was charged `estimate` one that used `tokens`.
    pub(super) fn correct(
        &mut self,
        estimate: u64,
        tokens: u64,
        charged: Timestamp,
        now: Timestamp,
    ) {
        let Some(meter) = &mut self.tokens else {
            return;
        };
        meter.advance(now);
        let counted = meter.at_most(estimate);
        if tokens > counted {
            meter.charge(tokens - counted);
        } else {
            meter.refund(counted - tokens, charged);
        }
    }

    pub(super) fn set_share(&mut self, share: Share, now: Timestamp) {
        self.share = share;
        for meter in self.meters() {
            meter.advance(now);
            meter.set_share(share);
        }
        if let Some(gauge) = &mut self.in_flight {
            gauge.part = share.of_calls(gauge.limit);
        }
    }

    /// The limit that is used most, and that is wanted most, stand for all.
    pub(super) fn measure(&mut self, elapsed_ms: u64, now: Timestamp) -> Measured {
        self.advance(now);
        let mut most = Measured {
            share: self.share,
            ..Measured::default()
        };
        for meter in self.meters() {
            for (most, used) in most.used.iter_mut().zip(meter.used()) {
                *most = used.max(*most);
            }
            most.wanted = most.wanted.max(meter.wanted(elapsed_ms));
        }
        if let Some(gauge) = &mut self.in_flight {
            let [now, ..] = &mut most.used;
            *now = gauge.used().max(*now);
            most.wanted = most.wanted.max(gauge.wanted());
        }
        most
    }

    pub(super) fn standing(&self, other: Option<&Self>, now: Timestamp) -> Standing {
        let tighter = |of: fn(&Self) -> &Option<Meter>| {
            let other = other.and_then(|scope| of(scope).as_ref());
            let both = of(self).iter().chain(other);
            both.map(|meter| meter.reading(now))
                .min_by_key(|reading: &Reading| reading.remaining)
        };
        Standing {
            requests: tighter(|scope| &scope.requests),
            tokens: tighter(|scope| &scope.tokens),
        }
    }

    fn meters(&mut self) -> impl Iterator<Item = &mut Meter> {
        self.requests.iter_mut().chain(&mut self.tokens)
    }
}

/// Calls in flight.
#[derive(Debug)]
struct Gauge {
    limit: u32,
    /// This instance's part of the limit. At least 1: with more instances than calls allowed there
    /// can be as many calls as instances.
    part: u32,
    now: u32,
    /// Refused since it was last measured.
    refused: u32,
}

impl Gauge {
    const fn new(limit: u32) -> Self {
        Self {
            limit,
            part: if limit == 0 { 1 } else { limit },
            now: 0,
            refused: 0,
        }
    }

    const fn is_open(&self) -> bool {
        self.now < self.part
    }

    fn used(&self) -> Share {
        Share::of(u64::from(self.now), u64::from(self.limit))
    }

    fn wanted(&mut self) -> Share {
        let refused = u64::from(std::mem::take(&mut self.refused));
        Share::of(u64::from(self.now) + refused, u64::from(self.limit))
    }
}
