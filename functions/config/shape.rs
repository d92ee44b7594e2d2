//! Checks a tree against the JSON Schema: keys, types, ranges, words.

use serde_json::{Map, Value};

use super::mistakes::Report;
use super::tree::{Tree, below};

/// How like a known name a misspelt one has to be, from 0 to 1 (Jaro-Winkler).
const LIKE: f64 = 0.75;

/// Notes all structural mistakes of `tree`.
pub(super) fn check(tree: &Tree, schema: &Value, report: &mut Report<'_>) {
    let mut checker = Checker {
        tree,
        root: schema,
        report,
    };
    checker.value(schema, &tree.value, "");
}

/// ` (did you mean NAME?)`, or the list of what there is.
pub(super) fn suggestion<'n>(wrong: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    let nearest = nearest(wrong, &known);
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "there is none".into(),
        None => format!("there are: {}", known.join(", ")),
    }
}

fn nearest<'n>(wrong: &str, known: &[&'n str]) -> Option<&'n str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(&wrong.to_lowercase(), name), *name))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| name)
}

struct Checker<'a, 't> {
    tree: &'a Tree,
    root: &'a Value,
    report: &'a mut Report<'t>,
}

impl<'a> Checker<'a, '_> {
    fn value(&mut self, schema: &'a Value, value: &Value, path: &str) {
        let schema = self.resolve(schema);
        if self.report.is_meant(path) {
            return;
        }
        if let Some(words) = words(schema) {
            return self.word(&words, value, path);
        }
        let expected = schema.get("type").map(types).unwrap_or_default();
        match value {
            Value::Object(map) if expected.contains(&"object") => self.object(schema, map, path),
            Value::Array(items) if expected.contains(&"array") => self.array(schema, items, path),
            Value::String(text) if expected.contains(&"string") => self.text(schema, text, path),
            Value::Bool(_) if expected.contains(&"boolean") => {}
            Value::Number(number) if is_whole(number) && expected.contains(&"integer") => {
                self.number(schema, number, path);
            }
            _ if expected.is_empty() => {}
            _ => {
                let found = describe(value);
                let wanted = expected.iter().find(|name| **name != "null");
                let wanted = wanted.map_or("nothing", |name| article(name));
                self.at_value(path, format!("must be {wanted}, is {found}"));
            }
        }
    }

    fn at_value(&mut self, path: &str, message: String) {
        self.report.add(self.tree.value_at(path), path, message);
    }

    /// Follows `$ref` and steps over the `anyOf` that an optional value is.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        for _ in 0..8 {
            let reference = schema.get("$ref").and_then(Value::as_str);
            let target = reference.and_then(|text| self.root.pointer(text.trim_start_matches('#')));
            let options = schema.get("anyOf").and_then(Value::as_array);
            let some = options.and_then(|all| {
                all.iter()
                    .find(|one| one.get("type") != Some(&"null".into()))
            });
            match target.or(some) {
                Some(next) => schema = next,
                None => break,
            }
        }
        schema
    }

    fn object(&mut self, schema: &'a Value, map: &Map<String, Value>, path: &str) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        let known = |name: &str| properties.and_then(|all| all.get(name));
        for (key, value) in map {
            let path = below(path, key);
            match known(key) {
                Some(schema) => self.value(schema, value, &path),
                None => {
                    let names = properties.unwrap_or(&empty).keys().map(String::as_str);
                    let free: Vec<&str> = names.filter(|name| !map.contains_key(*name)).collect();
                    self.unknown_key(key, &path, &free);
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) && !self.report.is_meant(&below(path, name)) {
                let at = self.tree.key(path);
                self.report.add(at, path, format!("`{name}` is missing"));
            }
        }
    }

    fn unknown_key(&mut self, key: &str, path: &str, free: &[&str]) {
        let hint = suggestion(key, free.iter().copied());
        if let Some(name) = nearest(key, free) {
            let parent = path.strip_suffix(key).unwrap_or_default();
            self.report.add_meant(format!("{parent}{name}"));
        }
        let message = format!("`{key}` is no key here; {hint}");
        self.report.add(self.tree.key(path), path, message);
    }

    fn array(&mut self, schema: &'a Value, items: &[Value], path: &str) {
        let most = schema.get("maxItems").and_then(Value::as_u64);
        if let Some(most) = most.filter(|most| items.len() as u64 > *most) {
            let message = format!("must have {most} entries at most, has {}", items.len());
            self.at_value(path, message);
        }
        let Some(schema) = schema.get("items") else {
            return;
        };
        for (i, item) in items.iter().enumerate() {
            self.value(schema, item, &format!("{path}[{i}]"));
        }
    }

    fn text(&mut self, schema: &Value, text: &str, path: &str) {
        let length = text.chars().count() as u64;
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let least = bound("minLength").unwrap_or(0);
        let most = bound("maxLength").unwrap_or(u64::MAX);
        if length < least || length > most {
            let message = format!("must have from {least} to {most} characters, has {length}");
            self.at_value(path, message);
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number, path: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let (least, most) = (bound("minimum"), bound("maximum"));
        let value = number.as_f64().unwrap_or(f64::NAN);
        let inside = least.is_none_or(|l| value >= l) && most.is_none_or(|m| value <= m);
        if inside {
            return;
        }
        let unit = if path.ends_with("_ms") { " ms" } else { "" };
        let range = match (least, most) {
            (Some(l), Some(m)) => format!("from {l} to {m}{unit}"),
            (Some(l), None) => format!("{l}{unit} at least"),
            (None, Some(m)) => format!("{m}{unit} at most"),
            (None, None) => return,
        };
        self.at_value(path, format!("must be {range}, is {number}"));
    }

    fn word(&mut self, words: &[&str], value: &Value, path: &str) {
        let Some(text) = value.as_str() else {
            let message = format!(
                "must be one of {}, is {}",
                words.join(", "),
                describe(value)
            );
            return self.at_value(path, message);
        };
        if words.contains(&text) {
            return;
        }
        let hint = suggestion(text, words.iter().copied());
        let message = if self.tree.may_show(path) {
            format!("`{text}` is no value of this key; {hint}")
        } else {
            format!("must be one of {}", words.join(", "))
        };
        self.at_value(path, message);
    }
}

/// The words that an enumeration allows.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(list) = schema.get("enum").and_then(Value::as_array) {
        return Some(list.iter().filter_map(Value::as_str).collect());
    }
    let options = schema.get("oneOf").and_then(Value::as_array)?;
    Some(
        options
            .iter()
            .filter_map(|o| o.get("const").and_then(Value::as_str))
            .collect(),
    )
}

fn types(value: &Value) -> Vec<&str> {
    match value {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_whole(number: &serde_json::Number) -> bool {
    number.is_i64() || number.is_u64()
}

fn article(name: &str) -> &'static str {
    match name {
        "object" => "a table",
        "array" => "an array",
        "string" => "a string",
        "boolean" => "true or false",
        "integer" => "a whole number",
        _ => "something else",
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "a number out of range",
        Value::Bool(_) => "true or false",
        Value::Number(number) if is_whole(number) => "a whole number",
        Value::Number(_) => "a number with a fraction",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "a table",
    }
}
