//! The metrics as Prometheus text (exposition format 0.0.4), by the names that OpenTelemetry's have there:
//! underscores for dots, the unit at the end, `_total` of a counter. The gateway's own attributes are
//! labels without their `spillway.`.

use std::fmt::Write;

use crate::gateway::metrics::family::{Buckets, Family, Sample, Sort, Value};

/// The content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the gateway's own names begin with.
const OWN: &str = "spillway.";

/// The text of these metrics.
pub(super) fn text(families: &[Family]) -> String {
    let mut text = Text::default();
    families.iter().for_each(|family| text.family(family));
    text.0
}

fn name_of(family: &Family) -> String {
    let unit = match family.unit {
        "s" => "_seconds",
        "1" => "_ratio",
        "%" => "_percent",
        _ => "",
    };
    let end = match family.sort {
        Sort::Counter => "_total",
        Sort::Gauge | Sort::Histogram => "",
    };
    family.name.replace('.', "_") + unit + end
}

fn label_of(attribute: &str) -> String {
    let label = attribute.strip_prefix(OWN).unwrap_or(attribute);
    label.replace('.', "_")
}

/// Text as it grows. Writing to a String can't fail.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, family: &Family) {
        let name = name_of(family);
        let sort = match family.sort {
            Sort::Counter => "counter",
            Sort::Gauge => "gauge",
            Sort::Histogram => "histogram",
        };
        let help = family.help;
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {sort}");
        for sample in &family.samples {
            match &sample.value {
                Value::Whole(number) => self.line(&name, sample, None, &number.to_string()),
                Value::Real(number) => self.line(&name, sample, None, &number.to_string()),
                Value::Buckets(buckets) => self.histogram(&name, sample, buckets),
            }
        }
    }

    fn line(&mut self, name: &str, sample: &Sample, le: Option<&str>, value: &str) {
        self.0 += name;
        let mut open = '{';
        for (key, of) in &sample.attributes {
            let _ = write!(self.0, "{open}{}=\"", label_of(key));
            self.escaped(of);
            self.0.push('"');
            open = ',';
        }
        if let Some(le) = le {
            let _ = write!(self.0, "{open}le=\"{le}\"");
            open = ',';
        }
        if open == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.0 += "\\\\",
                '"' => self.0 += "\\\"",
                '\n' => self.0 += "\\n",
                c => self.0.push(c),
            }
        }
    }

    fn histogram(&mut self, name: &str, sample: &Sample, buckets: &Buckets) {
        let unit = |value: u64| {
            if buckets.is_time {
                seconds(value)
            } else {
                value.to_string()
            }
        };
        let bucket = format!("{name}_bucket");
        for (bound, count) in buckets.bounds.iter().zip(&buckets.at_most) {
            self.line(&bucket, sample, Some(&unit(*bound)), &count.to_string());
        }
        let count = buckets.count.to_string();
        self.line(&bucket, sample, Some("+Inf"), &count);
        self.line(&format!("{name}_sum"), sample, None, &unit(buckets.sum));
        self.line(&format!("{name}_count"), sample, None, &count);
    }
}

/// Milliseconds as seconds, exactly.
fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_exact_in_seconds() {
        let texts = [0, 10, 160, 1280, 10_240, 81_920, 100_000].map(seconds);
        assert_eq!(
            texts,
            ["0", "0.01", "0.16", "1.28", "10.24", "81.92", "100"]
        );
    }

    fn written(name: &'static str, unit: &'static str, sort: Sort, sample: Sample) -> String {
        let family = Family {
            name,
            unit,
            sort,
            help: "Says it.",
            samples: vec![sample],
        };
        text(&[family])
    }

    #[test]
    fn names_have_their_unit_and_a_label_holds_any_text() {
        let sample = || Sample {
            attributes: vec![
                ("spillway.app", "x\"y\\z\n".into()),
                ("gen_ai.token.type", String::new()),
            ],
            value: Value::Real(0.5),
        };
        for (name, unit, sort, shown) in [
            ("a.b", "{call}", Sort::Counter, "a_b_total"),
            ("a.b_c", "s", Sort::Gauge, "a_b_c_seconds"),
            ("a.b", "1", Sort::Gauge, "a_b_ratio"),
            ("a", "%", Sort::Gauge, "a_percent"),
        ] {
            let text = written(name, unit, sort, sample());
            let labels = "{app=\"x\\\"y\\\\z\\n\",gen_ai_token_type=\"\"}";
            assert!(
                text.ends_with(&format!("\n{shown}{labels} 0.5\n")),
                "{text}"
            );
        }
    }

    #[test]
    fn a_histograms_buckets_add_up() {
        let sample = Sample {
            attributes: Vec::new(),
            value: Value::Buckets(Buckets {
                is_time: true,
                bounds: &[10, 2500],
                at_most: vec![1, 3],
                count: 4,
                sum: 9005,
            }),
        };
        let text = written("a", "s", Sort::Histogram, sample);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "# TYPE a_seconds histogram",
                "a_seconds_bucket{le=\"0.01\"} 1",
                "a_seconds_bucket{le=\"2.5\"} 3",
                "a_seconds_bucket{le=\"+Inf\"} 4",
                "a_seconds_sum 9.005",
                "a_seconds_count 4",
            ]
        );
    }
}
