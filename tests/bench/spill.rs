//! The scene that the gateway is made for: a PTU deployment that is full most of the time.

use std::io;
use std::time::Duration;

use crate::load::{self, count};
use crate::measure::{Bench, RATE, ms, turns};
use crate::mock::{Behaviour, Rate};
use crate::peers::{Scene, Who};
use crate::results::Figure;

/// Both deployments take so long for an answer.
const ANSWERS: Behaviour = Behaviour {
    delay: ms(20),
    first_token: Duration::ZERO,
    chunks: 0,
    gap: Duration::ZERO,
    admits: None,
};

/// What the PTU deployment admits.
const ADMITTED: Rate = Rate {
    per_second: 100.0,
    burst: 10.0,
};

impl Bench {
    /// A PTU deployment admits a third of the calls; a PAYG one behind it takes all.
    pub(crate) fn spill(&mut self) {
        let able = |who: &&Who| matches!(who, Who::Nginx | Who::Spillway);
        let peers: Vec<Who> = self.peers.iter().filter(able).copied().collect();
        for round in 0..self.pace.rounds {
            (self.say)(&format!("Spill, round {}", round + 1));
            for who in turns(&peers, round) {
                let measured = self.spill_at(*who);
                self.note("spill", *who, measured);
            }
        }
    }

    fn spill_at(&mut self, who: Who) -> io::Result<()> {
        self.ptu.play(ANSWERS);
        self.backend.play(ANSWERS);
        let peer = self.place.start(who, Scene::Spill)?;
        self.ptu.play(Behaviour {
            admits: Some(ADMITTED),
            ..ANSWERS
        });
        let load = load::open_loop(peer.calls, RATE, self.pace.spill)?;
        let at_ptu = self.ptu.count();
        let wasted = u32::try_from(at_ptu.throttled).map_err(io::Error::other)?;
        let good = u32::try_from(at_ptu.good).map_err(io::Error::other)?;
        for (figure, value) in [
            (Figure::SpillGoodPerSecond, load.good_per_second()),
            (Figure::SpillErrors, count(load.errors)),
            (Figure::SpillWasted, f64::from(wasted)),
            (Figure::SpillAtPtu, f64::from(good)),
            (Figure::SpillP99, load.percentile_ms(0.99)),
        ] {
            self.results.add(figure, who, value);
        }
        Ok(())
    }
}
