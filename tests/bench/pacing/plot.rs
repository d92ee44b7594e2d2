//! The plot: utilization, slots and the queue over the day, one above the other.

use std::fmt::Write as _;

use super::world::{Day, MINUTES};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const PANEL: f64 = 180.0;
const GAP: f64 = 50.0;
const TOP: f64 = 60.0;

/// A mean of so many minutes is a point.
const STEP: usize = 5;

const COLOURS: [&str; 3] = ["#8a8f98", "#d9822b", "#1f6feb"];

type Panel = (&'static str, f64, fn(&Day) -> Vec<f64>);

const PANELS: [Panel; 3] = [
    ("PTU utilization, %", 120.0, |day| day.utilization.clone()),
    ("slots in use", 40.0, |day| {
        day.slots.iter().map(|n| f64::from(*n)).collect()
    }),
    ("batch calls waiting, thousands", 100.0, |day| {
        day.queue.iter().map(|n| *n as f64 / 1000.0).collect()
    }),
];

/// The plot of the days, in the order of their colours.
pub(super) fn svg(days: &[&(&str, Day)]) -> String {
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        LEFT + WIDTH + 20.0
    );
    for (i, (name, _)) in days.iter().enumerate() {
        let x = LEFT + i as f64 * 260.0;
        let colour = COLOURS[i % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"14\" width=\"14\" height=\"14\" fill=\"{colour}\"/><text x=\"{}\" y=\"26\">{name}</text>",
            x + 20.0
        );
    }
    for (i, panel) in PANELS.iter().enumerate() {
        draw(&mut svg, panel, days, TOP + i as f64 * (PANEL + GAP));
    }
    svg += "</svg>\n";
    svg
}

fn draw(svg: &mut String, (title, most, values): &Panel, days: &[&(&str, Day)], top: f64) {
    let bottom = top + PANEL;
    let y = |value: f64| bottom - value.min(*most) / most * PANEL;
    let x = |minute: usize| LEFT + minute as f64 / MINUTES as f64 * WIDTH;
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        top - 8.0
    );
    for part in 0..=4 {
        let value = most * f64::from(part) / 4.0;
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#e3e6ea\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            LEFT + WIDTH,
            LEFT - 8.0,
            y(value) + 4.0,
            y = y(value),
        );
    }
    for hour in (0..=24).step_by(3) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{hour}:00</text>",
            x(hour * 60),
            bottom + 18.0
        );
    }
    for (i, (_, day)) in days.iter().enumerate() {
        let points = values(day);
        let points: Vec<String> = points
            .chunks(STEP)
            .enumerate()
            .map(|(at, some)| {
                let mean = some.iter().sum::<f64>() / some.len() as f64;
                format!("{:.1},{:.1}", x(at * STEP), y(mean))
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" points=\"{}\"/>",
            COLOURS[i % COLOURS.len()],
            points.join(" ")
        );
    }
}
