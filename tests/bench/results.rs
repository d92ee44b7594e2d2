//! What was measured.

use std::collections::BTreeMap;

use crate::peers::Who;

/// A figure; the order is the report's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    CallsPerSecond,
    CpuPer10kCalls,
    P50,
    P99,
    P999,
    AddedP99,
    FirstChunkP50,
    FirstChunkP99,
    ChunksPerSecond,
    CpuPerMillionChunks,
    IdleRss,
    IdlePss,
    StreamsRss,
    StreamsPss,
    StartMs,
    BinaryMb,
    SpillGoodPerSecond,
    SpillErrors,
    SpillWasted,
    SpillAtPtu,
    SpillP99,
    TokenShare,
    FloodSlowdown,
    FloodErrors,
    FloodAdmitted,
    MissesPerSecond,
    HitsPerSecond,
    HitsOfMisses,
}

impl Figure {
    pub(crate) const ALL: [Self; 28] = [
        Self::CallsPerSecond,
        Self::CpuPer10kCalls,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::AddedP99,
        Self::FirstChunkP50,
        Self::FirstChunkP99,
        Self::ChunksPerSecond,
        Self::CpuPerMillionChunks,
        Self::IdleRss,
        Self::IdlePss,
        Self::StreamsRss,
        Self::StreamsPss,
        Self::StartMs,
        Self::BinaryMb,
        Self::SpillGoodPerSecond,
        Self::SpillErrors,
        Self::SpillWasted,
        Self::SpillAtPtu,
        Self::SpillP99,
        Self::TokenShare,
        Self::FloodSlowdown,
        Self::FloodErrors,
        Self::FloodAdmitted,
        Self::MissesPerSecond,
        Self::HitsPerSecond,
        Self::HitsOfMisses,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::CallsPerSecond => "calls/s, 32 connections",
            Self::CpuPer10kCalls => "CPU s per 10,000 calls",
            Self::P50 => "p50 at 300 calls/s, ms",
            Self::P99 => "p99 at 300 calls/s, ms",
            Self::P999 => "p99.9 at 300 calls/s, ms",
            Self::AddedP99 => "p99 above direct's, ms",
            Self::FirstChunkP50 => "first chunk of 32 streams, p50, ms",
            Self::FirstChunkP99 => "first chunk of 32 streams, p99, ms",
            Self::ChunksPerSecond => "chunks/s, 32 streams",
            Self::CpuPerMillionChunks => "CPU s per million chunks",
            Self::IdleRss => "idle memory, RSS, MB",
            Self::IdlePss => "idle memory, PSS, MB",
            Self::StreamsRss => "1,000 streams above idle, RSS, MB",
            Self::StreamsPss => "1,000 streams above idle, PSS, MB",
            Self::StartMs => "start to first 200, ms",
            Self::BinaryMb => "binary, MB",
            Self::SpillGoodPerSecond => "spill: good answers/s of 300",
            Self::SpillErrors => "spill: errors for clients",
            Self::SpillWasted => "spill: wasted 429s at the PTU",
            Self::SpillAtPtu => "spill: answered by the PTU",
            Self::SpillP99 => "spill: p99, ms",
            Self::TokenShare => "calls/s with Entra tokens, of those with keys",
            Self::FloodSlowdown => "p99 beside another app's flood, of that alone",
            Self::FloodErrors => "errors beside another app's flood",
            Self::FloodAdmitted => "admitted/s of the flood's 600",
            Self::MissesPerSecond => "cache: misses/s, 32 connections",
            Self::HitsPerSecond => "cache: hits/s, 32 connections",
            Self::HitsOfMisses => "cache: hits/s, of misses/s",
        }
    }

    const fn decimals(self) -> usize {
        match self {
            Self::CallsPerSecond
            | Self::ChunksPerSecond
            | Self::SpillErrors
            | Self::SpillWasted
            | Self::SpillAtPtu
            | Self::FloodErrors
            | Self::MissesPerSecond
            | Self::HitsPerSecond => 0,
            Self::CpuPer10kCalls
            | Self::P50
            | Self::P99
            | Self::P999
            | Self::AddedP99
            | Self::FirstChunkP50
            | Self::FirstChunkP99
            | Self::CpuPerMillionChunks
            | Self::TokenShare
            | Self::FloodSlowdown
            | Self::HitsOfMisses => 2,
            _ => 1,
        }
    }

    /// The figure as text.
    pub(crate) fn show(self, value: f64) -> String {
        format!("{value:.*}", self.decimals())
    }
}

/// A figure's values, one a round.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<(Figure, Who), Vec<f64>>,
}

impl Results {
    pub(crate) fn add(&mut self, figure: Figure, who: Who, value: f64) {
        self.values.entry((figure, who)).or_default().push(value);
    }

    /// Adds what the peers' rounds have above the backend's own, as another figure.
    pub(crate) fn subtract_direct(&mut self, of: Figure, to: Figure) {
        let direct = self.values.get(&(of, Who::Direct)).cloned();
        let direct = direct.unwrap_or_default();
        for who in Who::ALL.into_iter().filter(|who| *who != Who::Direct) {
            let own = self.values.get(&(of, who)).cloned().unwrap_or_default();
            for (own, direct) in own.iter().zip(&direct) {
                self.add(to, who, own - direct);
            }
        }
    }

    /// The median of the rounds.
    pub(crate) fn median(&self, figure: Figure, who: Who) -> Option<f64> {
        let mut values = self.values.get(&(figure, who))?.clone();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        if values.len() % 2 == 1 {
            return Some(upper);
        }
        Some(f64::midpoint(*values.get(middle - 1)?, upper))
    }

    /// The median, with the lowest and the highest where the rounds differ.
    pub(crate) fn cell(&self, figure: Figure, who: Who) -> Option<String> {
        let median = figure.show(self.median(figure, who)?);
        let values = self.values.get(&(figure, who))?;
        let lowest = figure.show(values.iter().copied().fold(f64::INFINITY, f64::min));
        let highest = figure.show(values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        if lowest == highest {
            return Some(median);
        }
        Some(format!("{median} ({lowest} to {highest})"))
    }
}
