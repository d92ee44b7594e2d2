//! The TOML text as JSON, with the place of every key and value, and the environment's values in.

use std::collections::HashMap;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::env::expand;
use super::mistakes::Report;

/// Where a key and its value stand in the text, in bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: usize,
    value: usize,
}

/// A file's values and their places.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) value: Value,
    places: HashMap<String, Place>,
    /// Paths of values that may hold what came from the environment.
    from_env: Vec<String>,
    /// Whether all of the text could be read: nothing can be concluded from absence otherwise.
    pub(super) is_whole: bool,
}

impl Tree {
    /// Reads the text; mistakes of TOML itself and of `${NAME}` references go to the report.
    pub(super) fn read(
        text: &str,
        env: &dyn Fn(&str) -> Option<String>,
        report: &mut Report<'_>,
    ) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let is_whole = errors.is_empty();
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            report.add(at, "", format!("not valid TOML: {}", error.message()));
        }
        let mut builder = Builder {
            env,
            report,
            places: HashMap::new(),
            from_env: Vec::new(),
        };
        let value = builder.table(table.get_ref(), "");
        Self {
            value,
            places: builder.places,
            from_env: builder.from_env,
            is_whole,
        }
    }

    /// Where the key at `path` stands, or the nearest one above it.
    pub(super) fn key(&self, path: &str) -> usize {
        self.place(path).map_or(0, |place| place.key)
    }

    /// Where the value at `path` stands, or the nearest one above it.
    pub(super) fn value_at(&self, path: &str) -> usize {
        self.place(path).map_or(0, |place| place.value)
    }

    /// Whether the value at `path` may be shown: it holds nothing of the environment's.
    pub(super) fn may_show(&self, path: &str) -> bool {
        let is_key = path.rsplit('.').next() == Some("key");
        !is_key && !self.from_env.iter().any(|from| from == path)
    }

    fn place(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return Some(*place);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// The path of `key` in the table at `path`.
pub(super) fn below(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

struct Builder<'a, 't> {
    env: &'a dyn Fn(&str) -> Option<String>,
    report: &'a mut Report<'t>,
    places: HashMap<String, Place>,
    from_env: Vec<String>,
}

impl Builder<'_, '_> {
    fn table(&mut self, table: &DeTable<'_>, path: &str) -> Value {
        let mut map = Map::new();
        for (key, value) in table.iter() {
            let path = below(path, key.get_ref());
            let place = Place {
                key: key.span().start,
                value: value.span().start,
            };
            self.places.insert(path.clone(), place);
            map.insert(key.get_ref().to_string(), self.value(value, &path));
        }
        Value::Object(map)
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        match value.get_ref() {
            DeValue::String(text) => self.string(text, value.span().start, path),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Null, Value::from),
            DeValue::Float(number) => number
                .as_str()
                .parse::<f64>()
                .map_or(Value::Null, Value::from),
            DeValue::Boolean(yes) => Value::from(*yes),
            DeValue::Datetime(date) => Value::from(date.to_string()),
            DeValue::Array(items) => {
                let items = items.iter().enumerate().map(|(i, item)| {
                    let path = format!("{path}[{i}]");
                    let at = item.span().start;
                    self.places
                        .insert(path.clone(), Place { key: at, value: at });
                    self.value(item, &path)
                });
                Value::Array(items.collect())
            }
            DeValue::Table(table) => self.table(table, path),
        }
    }

    fn string(&mut self, text: &str, at: usize, path: &str) -> Value {
        match expand(text, self.env) {
            Ok(expanded) => {
                if expanded != text {
                    self.from_env.push(path.to_owned());
                }
                Value::from(expanded)
            }
            Err(bad) => {
                for reference in bad {
                    self.report.add(at, path, reference.message());
                }
                // What the value would have been is unknown; nothing more is said of it.
                self.report.add_meant(path.to_owned());
                Value::from("")
            }
        }
    }
}
