//! The parts of the benchmark. Each is measured in rounds, in which the peers take turns.

use std::io;
use std::time::Duration;

use crate::load::{self, count};
use crate::mock::{Behaviour, Mock};
use crate::peers::{Peer, Place, Scene, Who};
use crate::results::{Figure, Results};
use crate::stream::{self, Streams};
use crate::wrk;

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Start, memory, the binary's size.
    Process,
    /// As many calls as 32 connections carry.
    Throughput,
    /// Latency at 300 calls a second.
    Latency,
    /// Time to the first chunk, chunks a second.
    Streams,
    /// A PTU deployment that is full, and a PAYG one behind it.
    Spill,
    /// Tokens beside keys, and one app in a flood beside another.
    Apps,
    /// Answers that are kept, beside those that are not.
    Cache,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) rounds: usize,
    pub(crate) starts: usize,
    pub(crate) throughput: Duration,
    pub(crate) latency: Duration,
    pub(crate) streams: Duration,
    pub(crate) hold: Duration,
    pub(crate) spill: Duration,
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Pace {
    pub(crate) const FULL: Self = Self {
        rounds: 3,
        starts: 9,
        throughput: ms(3000),
        latency: ms(4000),
        streams: ms(2000),
        hold: ms(2000),
        spill: ms(6000),
    };

    /// Shows that everything works; its figures are rough.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        starts: 3,
        throughput: ms(1000),
        latency: ms(1000),
        streams: ms(500),
        hold: ms(500),
        spill: ms(2000),
    };
}

/// Calls a second of the latency and spill parts.
pub(crate) const RATE: u32 = 300;

/// How long a peer that was paused answers before it is measured.
const WAKING: Duration = ms(1000);

/// Streams at once of the streams part.
const STREAMS: usize = 32;

/// Streams that show the time to the first chunk: some 20 ms to it, then a short answer.
const SHORT: Behaviour = Behaviour {
    delay: Duration::ZERO,
    first_token: ms(20),
    chunks: 10,
    gap: ms(5),
    admits: None,
};

/// Streams that show how many chunks can pass: no pauses.
const DENSE: Behaviour = Behaviour {
    delay: Duration::ZERO,
    first_token: Duration::ZERO,
    chunks: 500,
    gap: Duration::ZERO,
    admits: None,
};

/// A benchmark under way.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) pace: Pace,
    pub(crate) peers: Vec<Who>,
    pub(crate) backend: Mock,
    pub(crate) ptu: Mock,
    pub(crate) results: Results,
    /// What broke.
    pub(crate) broken: Vec<String>,
    /// Says what is done now.
    pub(crate) say: fn(&str),
}

impl Bench {
    /// Measures these parts. What a peer does wrong is noted; the others go on.
    pub(crate) fn run(&mut self, parts: &[Part]) -> io::Result<()> {
        if parts.contains(&Part::Process) {
            self.processes()?;
        }
        let on_one = [Part::Throughput, Part::Latency, Part::Streams];
        if parts.iter().any(|part| on_one.contains(part)) {
            let peers = self.start_all()?;
            self.warm_up(&peers);
            if parts.contains(&Part::Throughput) {
                self.backend.play(Behaviour::default());
                self.rounds(Part::Throughput, &peers, Self::throughput);
            }
            if parts.contains(&Part::Latency) {
                self.backend.play(Behaviour::default());
                self.rounds(Part::Latency, &peers, Self::latency);
                self.results.subtract_direct(Figure::P99, Figure::AddedP99);
            }
            if parts.contains(&Part::Streams) {
                self.rounds(Part::Streams, &peers, Self::streams);
            }
        }
        if parts.contains(&Part::Spill) {
            self.spill();
        }
        if parts.contains(&Part::Apps) {
            self.apps();
        }
        if parts.contains(&Part::Cache) {
            self.cache();
        }
        Ok(())
    }

    /// Notes what went wrong with a peer.
    pub(crate) fn note(&mut self, what: &str, who: Who, measured: io::Result<()>) {
        if let Err(error) = measured {
            self.broken.push(format!("{who}, {what}: {error}"));
        }
    }

    /// Measures the peers in turn, in each round another one first.
    fn rounds(
        &mut self,
        part: Part,
        peers: &[Peer],
        measure: impl Fn(&mut Self, &Peer) -> io::Result<()>,
    ) {
        for round in 0..self.pace.rounds {
            let what = format!("{part:?}, round {}", round + 1);
            (self.say)(&what);
            for peer in turns(peers, round) {
                // 300 calls a second keep LiteLLM busy for long after their time.
                if peer.who == Who::Litellm && part != Part::Throughput && round > 0 {
                    continue;
                }
                let measured = peer.alone(|peer| {
                    peer.wake()?;
                    measure(self, peer)
                });
                self.note(&what, peer.who, measured);
            }
        }
    }

    fn start_all(&mut self) -> io::Result<Vec<Peer>> {
        self.backend.play(Behaviour::default());
        let mut peers = Vec::new();
        for who in self.peers.clone() {
            (self.say)(&format!("start {who}"));
            let peer = match self.place.start(who, Scene::One) {
                Ok(peer) => peer,
                Err(error) => {
                    self.note("start", who, Err(error));
                    continue;
                }
            };
            if let (Who::Litellm, Some(process)) = (who, &peer.process) {
                self.note_start(&peer);
                let idle = process.memory()?;
                self.results.add(Figure::IdleRss, who, idle.rss);
                self.results.add(Figure::IdlePss, who, idle.pss);
            }
            peer.pause()?;
            peers.push(peer);
        }
        Ok(peers)
    }

    fn warm_up(&mut self, peers: &[Peer]) {
        for peer in peers {
            // LiteLLM imports and compiles much of itself in its first calls.
            let lasting = match peer.who {
                Who::Litellm => self.pace.throughput * 3,
                _ => ms(1000),
            };
            let warm = peer.alone(|peer| wrk::run(peer.calls, lasting, &self.place.work));
            self.note("warm-up", peer.who, warm.map(drop));
        }
    }

    fn throughput(&mut self, peer: &Peer) -> io::Result<()> {
        let load = || wrk::run(peer.calls, self.pace.throughput, &self.place.work);
        let (run, cpu) = peer.cpu_of(load)?;
        if run.errors > 0.0 || run.calls < 1.0 {
            return Err(io::Error::other(format!("{run:?}")));
        }
        let results = &mut self.results;
        results.add(Figure::CallsPerSecond, peer.who, run.per_second);
        if let Some(cpu) = cpu {
            results.add(Figure::CpuPer10kCalls, peer.who, cpu / run.calls * 1e4);
        }
        Ok(())
    }

    fn latency(&mut self, peer: &Peer) -> io::Result<()> {
        let load = load::open_loop(peer.calls, RATE, self.pace.latency)?;
        if load.errors > 0 {
            return Err(io::Error::other(format!("{} errors", load.errors)));
        }
        for (figure, share) in [
            (Figure::P50, 0.5),
            (Figure::P99, 0.99),
            (Figure::P999, 0.999),
        ] {
            let value = load.percentile_ms(share);
            self.results.add(figure, peer.who, value);
        }
        Ok(())
    }

    fn streams(&mut self, peer: &Peer) -> io::Result<()> {
        self.backend.play(SHORT);
        let first = self.stream(peer, SHORT)?;
        for (figure, share) in [(Figure::FirstChunkP50, 0.5), (Figure::FirstChunkP99, 0.99)] {
            let value = load::percentile_ms(&first.first_chunk, share);
            self.results.add(figure, peer.who, value);
        }
        self.backend.play(DENSE);
        let (dense, cpu) = peer.cpu_of(|| self.stream(peer, DENSE))?;
        let chunks = count(dense.chunks);
        let per_second = chunks / dense.lasted.as_secs_f64();
        let results = &mut self.results;
        results.add(Figure::ChunksPerSecond, peer.who, per_second);
        if let Some(cpu) = cpu {
            results.add(Figure::CpuPerMillionChunks, peer.who, cpu / chunks * 1e6);
        }
        Ok(())
    }

    fn stream(&self, peer: &Peer, behaviour: Behaviour) -> io::Result<Streams> {
        let chunks = usize::try_from(behaviour.chunks).map_err(io::Error::other)?;
        stream::run(peer.streams, STREAMS, chunks, self.pace.streams)
    }
}

/// The peers in this round's order.
pub(crate) fn turns<T>(peers: &[T], round: usize) -> Vec<&T> {
    let first = round % peers.len().max(1);
    peers.iter().cycle().skip(first).take(peers.len()).collect()
}

impl Peer {
    fn pause(&self) -> io::Result<()> {
        self.process.as_ref().map_or(Ok(()), |p| p.pause())
    }

    /// Has a peer that was paused answer for a while, so that what is measured is how it serves and not how
    /// its memory comes back: of 1,200 calls the first twelve would be the slowest hundredth.
    fn wake(&self) -> io::Result<()> {
        if self.who == Who::Litellm {
            // It would be busy with these calls for long.
            return Ok(());
        }
        load::open_loop(self.calls, RATE, WAKING).map(drop)
    }

    /// Measures with this peer awake and the others paused.
    fn alone<T>(&self, measure: impl FnOnce(&Self) -> io::Result<T>) -> io::Result<T> {
        if let Some(process) = &self.process {
            process.resume()?;
        }
        let measured = measure(self);
        self.pause()?;
        measured
    }

    /// Measures, and says how much CPU time the peer took meanwhile, seconds.
    fn cpu_of<T>(&self, measure: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Option<f64>)> {
        let Some(process) = &self.process else {
            return Ok((measure()?, None));
        };
        let before = process.cpu_seconds()?;
        let measured = measure()?;
        Ok((measured, Some(process.cpu_seconds()? - before)))
    }
}
