//! The plot: memory, descriptors, calls and latency, one above the other, with the faults as bands.

use std::fmt::Write as _;

use super::faults::Band;
use super::watch::Sample;

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 40.0;
const PANEL: f64 = 120.0;
const GAP: f64 = 46.0;
const TOP: f64 = 60.0;

/// Most points of a line.
const POINTS: usize = 600;

const LINE: &str = "#1f6feb";

/// Of Azurite's faults and of the backends'.
const BANDS: [(&str, &str); 2] = [
    ("#f5d0d0", "Azurite silent or out of reach"),
    ("#f3ead2", "one or both PTU backends fail"),
];

type Panel = (&'static str, fn(&Sample) -> f64);

const PANELS: [Panel; 4] = [
    ("memory (anonymous pages), MB", |at| at.vitals.anonymous),
    ("file descriptors", |at| at.vitals.descriptors),
    ("good answers a second", |at| at.calls),
    ("p99 of each second, ms", |at| at.p99),
];

/// The plot of a soak of so many seconds.
pub(super) fn svg(samples: &[Sample], bands: &[Band], seconds: f64) -> String {
    let height = TOP + crate::load::count(PANELS.len()) * (PANEL + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        LEFT + WIDTH + RIGHT
    );
    let mut x = LEFT;
    for (colour, name) in BANDS {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"14\" width=\"14\" height=\"14\" fill=\"{colour}\"/><text x=\"{}\" y=\"26\">{name}</text>",
            x + 20.0
        );
        x += 260.0;
    }
    let mut top = TOP;
    for panel in &PANELS {
        draw(&mut svg, panel, samples, bands, seconds, top);
        top += PANEL + GAP;
    }
    svg += "</svg>\n";
    svg
}

fn draw(
    svg: &mut String,
    (title, value): &Panel,
    samples: &[Sample],
    bands: &[Band],
    seconds: f64,
    top: f64,
) {
    let bottom = top + PANEL;
    let values = samples.iter().map(value).filter(|value| value.is_finite());
    let most = round_up(values.fold(1.0, f64::max));
    let x = |second: f64| LEFT + second / seconds * WIDTH;
    let y = |value: f64| bottom - value / most * PANEL;
    for band in bands {
        let [store, backends] = BANDS;
        let (colour, _) = if band.is_of_the_store() {
            store
        } else {
            backends
        };
        let (from, to) = (x(band.begins_s()), x(band.ends_s()));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{PANEL}\" fill=\"{colour}\" fill-opacity=\"0.7\"/>",
            to - from
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        top - 8.0
    );
    for part in [0.0, 0.5, 1.0] {
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#c9ced6\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.0}</text>",
            LEFT + WIDTH,
            LEFT - 8.0,
            y(most * part) + 4.0,
            most * part,
            y = y(most * part),
        );
    }
    for sixth in 0..=6 {
        let part = f64::from(sixth) / 6.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{:.1} min</text>",
            x(seconds * part),
            bottom + 18.0,
            seconds * part / 60.0
        );
    }
    let step = samples.len().div_ceil(POINTS).max(1);
    // Of several seconds the worst, so that no peak goes missing.
    let points = samples.chunks(step).filter_map(|some| {
        let worst = some.iter().map(value).filter(|value| value.is_finite());
        let worst = worst.reduce(f64::max)?;
        let at = some.first()?.at;
        Some(format!("{:.1},{:.1}", x(at), y(worst)))
    });
    let points: Vec<String> = points.collect();
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"{LINE}\" stroke-width=\"1.3\" points=\"{}\"/>",
        points.join(" ")
    );
}

/// The next number of the form 1, 2 or 5 and zeros.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let fits = steps.into_iter().find(|step| *step >= value);
    fits.unwrap_or(value)
}
