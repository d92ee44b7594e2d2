//! What an answer that is kept costs beside one that a backend has to be asked for.

use std::io;

use crate::http::{Credential, KEY};
use crate::measure::Bench;
use crate::mock::Behaviour;
use crate::peers::{Scene, Who};
use crate::results::Figure;
use crate::wrk::{self, Calls};

impl Bench {
    /// Hits and misses in turn, at Spillway alone. The backend answers at once, so that misses cost what
    /// they cost Spillway.
    pub(crate) fn cache(&mut self) {
        let measured = self.try_cache();
        self.note("cache", Who::Spillway, measured);
    }

    fn try_cache(&mut self) -> io::Result<()> {
        if !self.peers.contains(&Who::Spillway) {
            return Ok(());
        }
        self.backend.play(Behaviour::default());
        let peer = self.place.start(Who::Spillway, Scene::Cache)?;
        let key = Credential::Key(KEY);
        for round in 0..self.pace.rounds {
            (self.say)(&format!("Cache, round {}", round + 1));
            let mut per_second = [0.0; 2];
            for (of, calls) in per_second.iter_mut().zip([Calls::Distinct, Calls::Same]) {
                let before = self.backend.count().good;
                let lasting = self.pace.throughput;
                let run = wrk::run_of(calls, &key, peer.calls, lasting, &self.place.work)?;
                let asked = self.backend.count().good - before;
                let is_as_meant = match calls {
                    Calls::Same => asked <= 1,
                    _ => asked > 1,
                };
                if run.errors > 0.0 || run.calls < 1.0 || !is_as_meant {
                    let what = format!("{run:?}, of which the backend was asked {asked}");
                    return Err(io::Error::other(what));
                }
                *of = run.per_second;
            }
            let [misses, hits] = per_second;
            let results = &mut self.results;
            results.add(Figure::MissesPerSecond, Who::Spillway, misses);
            results.add(Figure::HitsPerSecond, Who::Spillway, hits);
            results.add(Figure::HitsOfMisses, Who::Spillway, hits / misses);
        }
        Ok(())
    }
}
