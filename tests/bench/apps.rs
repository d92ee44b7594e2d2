//! Apps: what a token costs beside a key, and what an app notes of another one's flood.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::http::{Credential, FLOOD_KEY, KEY};
use crate::load::{self, Load, count};
use crate::measure::{Bench, RATE};
use crate::mock::Behaviour;
use crate::peers::{Scene, Who};
use crate::results::Figure;
use crate::tenant::Tenant;
use crate::wrk;

/// Calls a second of the flood: ten times its limit, which is 3,600 a minute.
const FLOOD_RATE: u32 = 600;

impl Bench {
    /// Both scenes, at Spillway alone.
    pub(crate) fn apps(&mut self) {
        let measured = self.try_apps();
        self.note("apps", Who::Spillway, measured);
    }

    fn try_apps(&mut self) -> io::Result<()> {
        if !self.peers.contains(&Who::Spillway) {
            return Ok(());
        }
        self.backend.play(Behaviour::default());
        let tenant = Tenant::start(self.place.tenant_port())?;
        let token = Credential::Token(tenant.token()?);
        let key = Credential::Key(KEY);
        for round in 0..self.pace.rounds {
            (self.say)(&format!("Apps, round {}", round + 1));
            // A new process: an app that was quiet may use its whole minute at once.
            let peer = self.place.start(Who::Spillway, Scene::Apps)?;
            let throughput = |credential| self.throughput_of(peer.calls, credential);
            throughput(&key)?;
            let (by_key, by_token) = if round % 2 == 0 {
                let by_key = throughput(&key)?;
                (by_key, throughput(&token)?)
            } else {
                let by_token = throughput(&token)?;
                (throughput(&key)?, by_token)
            };
            let flooded = self.flood(peer.calls)?;
            let results = &mut self.results;
            results.add(Figure::TokenShare, Who::Spillway, by_token / by_key);
            results.add(Figure::FloodSlowdown, Who::Spillway, flooded.slowdown);
            results.add(Figure::FloodErrors, Who::Spillway, flooded.errors);
            results.add(Figure::FloodAdmitted, Who::Spillway, flooded.admitted);
        }
        Ok(())
    }

    fn throughput_of(&self, address: SocketAddr, credential: &Credential) -> io::Result<f64> {
        let run = wrk::run_as(credential, address, self.pace.throughput, &self.place.work)?;
        if run.errors > 0.0 || run.calls < 1.0 {
            return Err(io::Error::other(format!("{run:?}")));
        }
        Ok(run.per_second)
    }

    /// The app that behaves, alone and beside the other.
    fn flood(&self, address: SocketAddr) -> io::Result<Flooded> {
        let flood = |rate, lasting| {
            let flood = Credential::Key(FLOOD_KEY);
            load::open_loop_as(&flood, address, rate, lasting)
        };
        let lasting = self.pace.latency;
        let alone = load::open_loop(address, RATE, lasting)?;
        // Its minute is used up first.
        let spent = wrk::run_as(
            &Credential::Key(FLOOD_KEY),
            address,
            Duration::from_secs(2),
            &self.place.work,
        )?;
        if spent.errors < 1.0 {
            return Err(io::Error::other("the flood's limit was not reached"));
        }
        let (beside, flood) = thread::scope(|scope| {
            let flood = scope.spawn(|| flood(FLOOD_RATE, lasting));
            let beside = load::open_loop(address, RATE, lasting);
            (beside, flood.join())
        });
        let flood = flood.map_err(|_| io::Error::other("the flood broke"))??;
        Flooded::of(&alone, &beside?, &flood)
    }
}

/// What the app that behaves noted.
struct Flooded {
    /// Its p99 beside the flood, in terms of its p99 alone.
    slowdown: f64,
    /// Its calls that got no good answer, alone or beside.
    errors: f64,
    /// Calls of the flood that were admitted, a second.
    admitted: f64,
}

impl Flooded {
    fn of(alone: &Load, beside: &Load, flood: &Load) -> io::Result<Self> {
        if flood.errors == 0 {
            return Err(io::Error::other("nothing of the flood was refused"));
        }
        Ok(Self {
            slowdown: beside.percentile_ms(0.99) / alone.percentile_ms(0.99),
            errors: count(alone.errors + beside.errors),
            admitted: flood.good_per_second(),
        })
    }
}
