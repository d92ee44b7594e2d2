//! The parts of the benchmark. Each is measured in rounds, in which the peers take turns.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::load::{self, count};
use crate::mock::{Behaviour, Mock, Rate};
use crate::peers::{Peer, Place, Scene, Who};
use crate::process::Memory;
use crate::results::{Figure, Results};
use crate::{stream, wrk};

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

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Pace {
    pub(crate) const FULL: Self = Self {
        rounds: 3,
        starts: 9,
        throughput: ms(4000),
        latency: ms(5000),
        streams: ms(2000),
        hold: ms(3000),
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
const RATE: u32 = 300;

/// Streams at once of the streams part.
const STREAMS: usize = 32;

/// Streams held open.
const HELD: usize = 1000;

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

/// Streams that stay.
const LONG: Behaviour = Behaviour {
    delay: Duration::ZERO,
    first_token: ms(20),
    chunks: 100_000,
    gap: ms(250),
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
    /// Measures these parts.
    pub(crate) fn run(&mut self, parts: &[Part]) -> io::Result<()> {
        if parts.contains(&Part::Process) {
            self.processes()?;
        }
        let on_one = [Part::Throughput, Part::Latency, Part::Streams];
        if parts.iter().any(|part| on_one.contains(part)) {
            let peers = self.start_all()?;
            for part in parts {
                match part {
                    Part::Throughput => self.throughput(&peers)?,
                    Part::Latency => self.latency(&peers)?,
                    Part::Streams => self.streams(&peers)?,
                    Part::Process | Part::Spill => {}
                }
            }
        }
        if parts.contains(&Part::Spill) {
            self.spill()?;
        }
        Ok(())
    }

    fn start_all(&mut self) -> io::Result<Vec<Peer>> {
        self.backend.play(Behaviour::default());
        let mut peers = Vec::new();
        for who in self.peers.clone() {
            (self.say)(&format!("start {who}"));
            let peer = match self.place.start(who, Scene::One) {
                Ok(peer) => peer,
                Err(error) => {
                    self.broken.push(error.to_string());
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

    fn note_start(&mut self, peer: &Peer) {
        let ms = peer.started_in.as_secs_f64() * 1e3;
        self.results.add(Figure::StartMs, peer.who, ms);
    }

    fn processes(&mut self) -> io::Result<()> {
        let binaries: [(Who, Option<PathBuf>); 2] = [
            (Who::Spillway, Some(self.place.programs.spillway.clone())),
            (Who::Envoy, self.place.programs.envoy.clone()),
        ];
        for (who, path) in binaries {
            if let Some(path) = path.filter(|_| self.peers.contains(&who)) {
                let bytes = u32::try_from(std::fs::metadata(path)?.len());
                let bytes = bytes.map_err(io::Error::other)?;
                let mb = f64::from(bytes) / 1e6;
                self.results.add(Figure::BinaryMb, who, mb);
            }
        }
        // LiteLLM takes too long to be started again and again; its one start is noted elsewhere.
        let light = |who: &&Who| !matches!(who, Who::Direct | Who::Litellm);
        let peers: Vec<Who> = self.peers.iter().filter(light).copied().collect();
        for round in 0..self.pace.starts {
            for who in turns(&peers, round) {
                self.backend.play(Behaviour::default());
                let peer = self.place.start(*who, Scene::One)?;
                self.note_start(&peer);
            }
        }
        for who in peers {
            (self.say)(&format!("memory of {who}"));
            self.memory(who)?;
        }
        Ok(())
    }

    /// Memory when idle, and with streams open.
    fn memory(&mut self, who: Who) -> io::Result<()> {
        self.backend.play(LONG);
        let peer = self.place.start(who, Scene::One)?;
        let Some(process) = &peer.process else {
            return Ok(());
        };
        std::thread::sleep(ms(500));
        let idle = process.memory()?;
        let mut most = Memory::default();
        let held = stream::hold(peer.streams, HELD, self.pace.hold, || {
            let now = process.memory()?;
            most.rss = most.rss.max(now.rss);
            most.pss = most.pss.max(now.pss);
            Ok(())
        });
        if let Err(error) = held {
            self.broken.push(format!("{who}, streams held: {error}"));
            return Ok(());
        }
        for (figure, value) in [
            (Figure::IdleRss, idle.rss),
            (Figure::IdlePss, idle.pss),
            (Figure::StreamsRss, most.rss - idle.rss),
            (Figure::StreamsPss, most.pss - idle.pss),
        ] {
            self.results.add(figure, who, value);
        }
        Ok(())
    }

    fn throughput(&mut self, peers: &[Peer]) -> io::Result<()> {
        self.backend.play(Behaviour::default());
        for peer in peers {
            // LiteLLM imports and compiles much of itself in its first calls.
            let warm_up = match peer.who {
                Who::Litellm => self.pace.throughput * 2,
                _ => ms(1000),
            };
            peer.alone(|peer| wrk::run(peer.calls, warm_up, &self.place.work))?;
        }
        for round in 0..self.pace.rounds {
            (self.say)(&format!("throughput, round {}", round + 1));
            for peer in turns(peers, round) {
                let (run, cpu) = peer.alone(|peer| {
                    peer.cpu_of(|| wrk::run(peer.calls, self.pace.throughput, &self.place.work))
                })?;
                if run.errors > 0.0 || run.calls < 1.0 {
                    self.broken
                        .push(format!("{}, throughput: {run:?}", peer.who));
                    continue;
                }
                let results = &mut self.results;
                results.add(Figure::CallsPerSecond, peer.who, run.per_second);
                if let Some(cpu) = cpu {
                    results.add(Figure::CpuPer10kCalls, peer.who, cpu / run.calls * 1e4);
                }
            }
        }
        Ok(())
    }

    fn latency(&mut self, peers: &[Peer]) -> io::Result<()> {
        self.backend.play(Behaviour::default());
        for round in 0..self.pace.rounds {
            (self.say)(&format!("latency, round {}", round + 1));
            let mut p99s = Vec::new();
            for peer in able(peers, round) {
                let load = peer.alone(|p| load::open_loop(p.calls, RATE, self.pace.latency))?;
                if load.errors > 0 {
                    let errors = load.errors;
                    self.broken
                        .push(format!("{}, latency: {errors} errors", peer.who));
                    continue;
                }
                let shares = [
                    (Figure::P50, 0.5),
                    (Figure::P99, 0.99),
                    (Figure::P999, 0.999),
                ];
                for (figure, share) in shares {
                    self.results
                        .add(figure, peer.who, load.percentile_ms(share));
                }
                p99s.push((peer.who, load.percentile_ms(0.99)));
            }
            let direct = p99s.iter().find(|(who, _)| *who == Who::Direct);
            let Some(direct) = direct.map(|(_, p99)| *p99) else {
                continue;
            };
            for (who, p99) in p99s.iter().filter(|(who, _)| *who != Who::Direct) {
                self.results.add(Figure::AddedP99, *who, p99 - direct);
            }
        }
        Ok(())
    }

    fn streams(&mut self, peers: &[Peer]) -> io::Result<()> {
        for round in 0..self.pace.rounds {
            (self.say)(&format!("streams, round {}", round + 1));
            for peer in able(peers, round) {
                let lasting = self.pace.streams;
                self.backend.play(SHORT);
                let first = peer.alone(|p| stream::run(p.streams, STREAMS, lasting))?;
                for (figure, share) in [(Figure::FirstChunkP50, 0.5), (Figure::FirstChunkP99, 0.99)]
                {
                    let value = load::percentile_ms(&first.first_chunk, share);
                    self.results.add(figure, peer.who, value);
                }
                self.backend.play(DENSE);
                let (dense, cpu) =
                    peer.alone(|p| p.cpu_of(|| stream::run(p.streams, STREAMS, lasting)))?;
                let chunks = count(dense.chunks);
                let per_second = chunks / dense.lasted.as_secs_f64();
                let results = &mut self.results;
                results.add(Figure::ChunksPerSecond, peer.who, per_second);
                if let Some(cpu) = cpu {
                    results.add(Figure::CpuPerMillionChunks, peer.who, cpu / chunks * 1e6);
                }
            }
        }
        Ok(())
    }

    /// A PTU deployment admits a third of the calls; a PAYG one behind it takes all.
    fn spill(&mut self) -> io::Result<()> {
        let answers = Behaviour {
            delay: ms(20),
            ..Behaviour::default()
        };
        let ptu = Behaviour {
            admits: Some(Rate {
                per_second: 100.0,
                burst: 10.0,
            }),
            ..answers
        };
        let able = |who: &&Who| matches!(who, Who::Nginx | Who::Spillway);
        let peers: Vec<Who> = self.peers.iter().filter(able).copied().collect();
        for round in 0..self.pace.rounds.min(3) {
            (self.say)(&format!("spill, round {}", round + 1));
            for who in turns(&peers, round) {
                self.ptu.play(answers);
                self.backend.play(answers);
                let peer = self.place.start(*who, Scene::Spill)?;
                self.ptu.play(ptu);
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
                    self.results.add(figure, *who, value);
                }
            }
        }
        Ok(())
    }
}

/// The peers in this round's order.
fn turns<T>(peers: &[T], round: usize) -> Vec<&T> {
    let first = round % peers.len().max(1);
    peers.iter().cycle().skip(first).take(peers.len()).collect()
}

/// The peers in this round's order. LiteLLM, which 300 calls a second and dense streams keep
/// busy for long after their time, has only the first round.
fn able(peers: &[Peer], round: usize) -> Vec<&Peer> {
    let mut turns = turns(peers, round);
    turns.retain(|peer| round == 0 || peer.who != Who::Litellm);
    turns
}

impl Peer {
    fn pause(&self) -> io::Result<()> {
        self.process.as_ref().map_or(Ok(()), |p| p.pause())
    }

    /// Measures with this peer awake and the others paused.
    fn alone<T>(&self, measure: impl FnOnce(&Self) -> io::Result<T>) -> io::Result<T> {
        if let Some(process) = &self.process {
            process.resume()?;
        }
        let measured = measure(self);
        self.pause()?;
        measured.map_err(|e| io::Error::other(format!("{}: {e}", self.who)))
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
