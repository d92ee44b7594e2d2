//! What a peer takes: time to start, memory, the size of its binary.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::measure::{Bench, ms, turns};
use crate::mock::{Behaviour, Mock};
use crate::peers::{Peer, Place, Scene, Who};
use crate::process::Memory;
use crate::results::Figure;
use crate::stream;

/// Streams held open.
const HELD: usize = 1000;

/// Streams that stay.
const LONG: Behaviour = Behaviour {
    delay: Duration::ZERO,
    first_token: ms(20),
    chunks: 100_000,
    gap: ms(250),
    admits: None,
};

/// Holds so many streams open at Spillway; what they take, beside what it takes idle.
pub(crate) fn held(place: &Place, backend: &Mock, count: usize) -> io::Result<String> {
    backend.play(LONG);
    let peer = place.start(Who::Spillway, Scene::One)?;
    let Some(process) = &peer.process else {
        return Err(io::Error::other("there is no process to look at"));
    };
    std::thread::sleep(ms(500));
    let (idle, idle_files) = (process.memory()?, process.open_files()?);
    let (mut most, mut most_files) = (0.0_f64, 0);
    stream::hold(peer.streams, count, ms(5000), || {
        most = most.max(process.memory()?.rss);
        most_files = most_files.max(process.open_files()?);
        Ok(())
    })?;
    Ok(format!(
        "{count} streams open, a chunk every {} ms on each: {most:.1} MB and {most_files} open files; \
         idle {:.1} MB and {idle_files}\n",
        LONG.gap.as_millis(),
        idle.rss,
    ))
}

impl Bench {
    /// Starts the peers again and again, then looks at the memory of each.
    pub(crate) fn processes(&mut self) -> io::Result<()> {
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
                let started = self.place.start(*who, Scene::One);
                let noted = started.map(|peer| self.note_start(&peer));
                self.note("start", *who, noted);
            }
        }
        for who in peers {
            (self.say)(&format!("memory of {who}"));
            let measured = self.memory(who);
            self.note("memory", who, measured);
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
        stream::hold(peer.streams, HELD, self.pace.hold, || {
            let now = process.memory()?;
            most.rss = most.rss.max(now.rss);
            most.pss = most.pss.max(now.pss);
            Ok(())
        })?;
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

    pub(crate) fn note_start(&mut self, peer: &Peer) {
        let ms = peer.started_in.as_secs_f64() * 1e3;
        self.results.add(Figure::StartMs, peer.who, ms);
    }
}
