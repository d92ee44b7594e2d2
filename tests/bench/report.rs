//! The tables: what was measured, and which goals are reached.

use std::fmt::Write as _;

use crate::peers::Who;
use crate::results::{Figure, Results};

/// A bound that Spillway is to keep.
struct Goal {
    figure: Figure,
    text: &'static str,
    bound: Bound,
}

enum Bound {
    /// At least so much.
    Least(f64),
    /// At most so much.
    Most(f64),
    /// At least so many times the peer's.
    LeastTimes(f64, Who),
    /// At most the peer's and so much more.
    MostOf(Who, f64),
    /// At most so many times the peer's.
    MostTimes(f64, Who),
}

const fn goal(figure: Figure, text: &'static str, bound: Bound) -> Goal {
    Goal {
        figure,
        text,
        bound,
    }
}

const GOALS: [Goal; 20] = [
    goal(
        Figure::CallsPerSecond,
        "at least 1.2 x Envoy's",
        Bound::LeastTimes(1.2, Who::Envoy),
    ),
    goal(
        Figure::CallsPerSecond,
        "at least 0.6 x nginx's",
        Bound::LeastTimes(0.6, Who::Nginx),
    ),
    goal(
        Figure::CallsPerSecond,
        "at least 150 x LiteLLM's",
        Bound::LeastTimes(150.0, Who::Litellm),
    ),
    goal(
        Figure::CpuPer10kCalls,
        "at most Envoy's",
        Bound::MostOf(Who::Envoy, 0.0),
    ),
    goal(
        Figure::AddedP99,
        "at most Envoy's",
        Bound::MostOf(Who::Envoy, 0.0),
    ),
    goal(
        Figure::AddedP99,
        "at most nginx's + 1 ms",
        Bound::MostOf(Who::Nginx, 1.0),
    ),
    goal(
        Figure::FirstChunkP50,
        "at most direct + 1 ms",
        Bound::MostOf(Who::Direct, 1.0),
    ),
    goal(
        Figure::ChunksPerSecond,
        "at least 0.9 x Envoy's",
        Bound::LeastTimes(0.9, Who::Envoy),
    ),
    goal(Figure::StreamsRss, "at most 40 MB", Bound::Most(40.0)),
    goal(Figure::IdleRss, "at most 20 MB", Bound::Most(20.0)),
    goal(Figure::StartMs, "at most 50 ms", Bound::Most(50.0)),
    goal(Figure::BinaryMb, "at most 20 MB", Bound::Most(20.0)),
    goal(
        Figure::SpillGoodPerSecond,
        "at least 300",
        Bound::Least(300.0),
    ),
    goal(Figure::SpillErrors, "none", Bound::Most(0.0)),
    goal(Figure::SpillWasted, "at most 119", Bound::Most(119.0)),
    goal(
        Figure::SpillWasted,
        "at most a tenth of nginx's",
        Bound::MostTimes(0.1, Who::Nginx),
    ),
    goal(Figure::TokenShare, "at least 0.9", Bound::Least(0.9)),
    goal(Figure::FloodSlowdown, "at most 1.2", Bound::Most(1.2)),
    goal(Figure::FloodErrors, "none", Bound::Most(0.0)),
    goal(Figure::HitsOfMisses, "at least 3", Bound::Least(3.0)),
];

impl Bound {
    /// The number that the bound comes to, and whether more is better.
    fn number(&self, figure: Figure, results: &Results) -> Option<(f64, bool)> {
        let of = |who| results.median(figure, who);
        Some(match self {
            Self::Least(number) => (*number, true),
            Self::Most(number) => (*number, false),
            Self::LeastTimes(times, who) => (times * of(*who)?, true),
            Self::MostOf(who, more) => (of(*who)? + more, false),
            Self::MostTimes(times, who) => (times * of(*who)?, false),
        })
    }
}

/// What was measured, one line a figure.
pub(crate) fn figures(results: &Results) -> String {
    let mut text = String::from("| figure |");
    for who in Who::ALL {
        let _ = write!(text, " {who} |");
    }
    text += "\n| --- |";
    text += &" ---: |".repeat(Who::ALL.len());
    text.push('\n');
    for figure in Figure::ALL {
        let cells = Who::ALL.map(|who| results.cell(figure, who));
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let _ = write!(text, "| {} |", figure.label());
        for cell in cells {
            let _ = write!(text, " {} |", cell.as_deref().unwrap_or("-"));
        }
        text.push('\n');
    }
    text
}

/// Which goals are reached. One whose figures are missing is named as not measured.
pub(crate) fn goals(results: &Results) -> String {
    let mut text = String::from(
        "| figure | Spillway | goal | bound | reached |\n| --- | ---: | --- | ---: | --- |\n",
    );
    for Goal {
        figure,
        text: goal,
        bound,
    } in GOALS
    {
        let label = figure.label();
        let own = results.median(figure, Who::Spillway);
        let (own, (bound, more_is_better)) = match (own, bound.number(figure, results)) {
            (Some(own), Some(bound)) => (own, bound),
            (own, _) => {
                let own = own.map_or_else(|| "-".into(), |own| figure.show(own));
                let _ = writeln!(text, "| {label} | {own} | {goal} | - | not measured |");
                continue;
            }
        };
        let reached = if more_is_better {
            own >= bound
        } else {
            own <= bound
        };
        let reached = if reached { "yes" } else { "**no**" };
        let (own, bound) = (figure.show(own), figure.show(bound));
        let _ = writeln!(text, "| {label} | {own} | {goal} | {bound} | {reached} |");
    }
    text
}
