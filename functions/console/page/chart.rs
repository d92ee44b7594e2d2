//! Charts, as SVG. The plot stretches with the page; its labels stand beside it as ordinary text, so
//! that they are as large on a phone as anything else.

use std::fmt::Write;

use maud::{Markup, html};

use super::figures::short;

/// Height of a plot in its own units; its width is the number of its points.
const HEIGHT: f64 = 100.0;

/// How the series are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Bars on top of each other: what belongs together to a whole.
    Stacked,
    /// A line each: what is compared.
    Lines,
}

/// A series: its name, the class that has its colour, and its values.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

/// A line across.
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) value: f64,
}

/// A chart.
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) form: Form,
    pub(super) series: Vec<Series>,
    pub(super) limits: Vec<Limit>,
    /// What each point is called.
    pub(super) points: Vec<String>,
    /// How values are written.
    pub(super) write: fn(f64) -> String,
}

impl Chart {
    /// A chart without limits, whose values are written in short.
    pub(super) const fn new(
        title: &'static str,
        unit: &'static str,
        form: Form,
        points: Vec<String>,
        series: Vec<Series>,
    ) -> Self {
        Self {
            title,
            unit,
            form,
            series,
            limits: Vec::new(),
            points,
            write: short,
        }
    }

    /// The figure.
    pub(super) fn draw(&self) -> Markup {
        let most = self.most();
        let top = nice(most);
        let count = self.points.len().max(1);
        html! {
            figure.chart {
                figcaption {
                    span.title { (self.title) }
                    " " span.unit { (self.unit) }
                    span.legend {
                        @for series in &self.series {
                            span { i class=(series.class) {} (series.name) }
                        }
                        @for limit in &self.limits {
                            span { i.limit {} (limit.name) }
                        }
                    }
                }
                div.plot {
                    div.y aria-hidden="true" {
                        span { ((self.write)(top)) }
                        span { ((self.write)(top / 2.0)) }
                        span { "0" }
                    }
                    svg viewBox={ "0 0 " (count) " 100" } preserveAspectRatio="none" role="img"
                        aria-label=(self.summary()) {
                        path.grid d={ "M0 0H" (count) "M0 50H" (count) "M0 100H" (count) } {}
                        @match self.form {
                            Form::Stacked => (self.bars(top)),
                            Form::Lines => (self.lines(top)),
                        }
                        @for limit in &self.limits {
                            path.limit d={ "M0 " (place(limit.value, top)) "H" (count) } {}
                        }
                        (self.tips())
                    }
                    div.x aria-hidden="true" {
                        @for label in self.labels() { span { (label) } }
                    }
                }
            }
        }
    }

    /// The highest that anything reaches.
    fn most(&self) -> f64 {
        let limits = self.limits.iter().map(|limit| limit.value);
        let values = (0..self.points.len()).map(|point| {
            let at = self.series.iter().filter_map(|one| value(one, point));
            match self.form {
                Form::Stacked => at.sum(),
                Form::Lines => at.fold(0.0, f64::max),
            }
        });
        values.chain(limits).fold(0.0, f64::max)
    }

    fn bars(&self, top: f64) -> Markup {
        let mut paths = vec![String::new(); self.series.len()];
        for point in 0..self.points.len() {
            let mut below = 0.0;
            for (series, path) in self.series.iter().zip(&mut paths) {
                let Some(value) = value(series, point).filter(|value| *value > 0.0) else {
                    continue;
                };
                let (upper, lower) = (place(below + value, top), place(below, top));
                // Writing to a String can't fail.
                let _ = write!(path, "M{point}.1 {lower}V{upper}h.8V{lower}z");
                below += value;
            }
        }
        html! {
            @for (series, path) in self.series.iter().zip(&paths) {
                path class=(series.class) d=(path) {}
            }
        }
    }

    /// Each point is as wide as the time it is of; where there is none the line has a gap.
    fn lines(&self, top: f64) -> Markup {
        let path = |series: &Series| {
            let mut path = String::new();
            let mut drawing = false;
            for point in 0..self.points.len() {
                let value = value(series, point);
                if let Some(value) = value {
                    let step = if drawing { "V" } else { &format!("M{point} ") };
                    let _ = write!(path, "{step}{}H{}", place(value, top), point + 1);
                }
                drawing = value.is_some();
            }
            path
        };
        html! {
            @for series in &self.series {
                path.line.(series.class) d=(path(series)) {}
            }
        }
    }

    /// What a pointer over a point is shown.
    fn tips(&self) -> Markup {
        html! {
            @for (point, name) in self.points.iter().enumerate() {
                rect.tip x=(point) width="1" height="100" {
                    title {
                        (name)
                        @for series in &self.series {
                            @if let Some(value) = value(series, point) {
                                "\n" (series.name) " " ((self.write)(value))
                            }
                        }
                    }
                }
            }
        }
    }

    /// Some of the points' names, evenly.
    fn labels(&self) -> Vec<&str> {
        let every = (self.points.len() / 6).max(1);
        let some = self.points.iter().step_by(every);
        some.map(String::as_str).collect()
    }

    /// What a screen reader says of it; the page has the figures in a table too.
    fn summary(&self) -> String {
        let mut text = format!("{}, {}", self.title, self.unit);
        for series in &self.series {
            let values = series.values.iter().flatten().copied();
            let most = values.clone().fold(0.0, f64::max);
            let last = series.values.iter().rev().flatten().next();
            let last = last.map_or("none".to_owned(), |last| (self.write)(*last));
            let _ = write!(
                text,
                "; {}: at most {}, last {last}",
                series.name,
                (self.write)(most)
            );
        }
        text
    }
}

fn value(series: &Series, point: usize) -> Option<f64> {
    series.values.get(point).copied().flatten()
}

/// Where a value is, from the top, to a hundredth.
fn place(value: f64, top: f64) -> f64 {
    let place = HEIGHT - value * HEIGHT / top;
    (place * 100.0).round() / 100.0
}

/// The next number of 1, 2 or 5 and noughts.
fn nice(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let ten = 10f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * ten);
    let fits = steps.into_iter().find(|step| *step >= most * 0.999);
    fits.unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(form: Form, values: [Vec<Option<f64>>; 2]) -> String {
        let [one, other] = values;
        let points = (0..one.len()).map(|point| format!("<{point}>")).collect();
        let series = |name, values| Series {
            name,
            class: name,
            values,
        };
        let series = vec![series("ptu", one), series("payg", other)];
        Chart::new("Tokens", "a minute", form, points, series)
            .draw()
            .into_string()
    }

    #[test]
    fn bars_stand_on_each_other() {
        let some = vec![Some(30.0), Some(0.0), None];
        let svg = chart(Form::Stacked, [some, vec![Some(20.0), None, Some(50.0)]]);
        assert!(svg.contains("M0.1 100V40h.8V100z"), "{svg}");
        assert!(svg.contains("M0.1 40V0h.8V40z"), "{svg}");
        assert!(svg.contains("M2.1 100V0h.8V100z"), "{svg}");
        assert!(svg.contains("&lt;0&gt;"), "names are no markup");
    }

    #[test]
    fn a_line_has_a_gap_where_there_is_nothing() {
        let some = vec![Some(1.0), Some(2.0), None, Some(1.0)];
        let svg = chart(Form::Lines, [some, Vec::new()]);
        assert!(svg.contains("d=\"M0 50H1V0H2M3 50H4\""), "{svg}");
    }

    #[test]
    fn an_empty_chart_is_one() {
        let svg = chart(Form::Stacked, [Vec::new(), Vec::new()]);
        assert!(svg.contains("at most 0, last none"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn scales_end_at_round_numbers() {
        let tops = [0.0, 0.7, 1.0, 3.0, 42.0, 500.0, 501.0].map(nice);
        assert_eq!(tops, [1.0, 1.0, 1.0, 5.0, 50.0, 500.0, 1000.0]);
    }
}
