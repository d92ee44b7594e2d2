//! What differs between two configurations, key by key, and what of it needs a restart.
//!
//! References stay as they are written, so that none of the environment's values is compared or shown,
//! and a machine that has none of them can compare.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::Mistakes;
use super::mistakes::Report;
use super::tree::{Tree, below};

/// The sections and keys that can change in a running process. Whatever is not named needs a restart.
const LIVE: [&str; 24] = [
    "app",
    "auth.admin_key_hashes",
    "auth.admin_role",
    "auth.pass_caller_object_id",
    "backend",
    "gateway.answer_headers",
    "gateway.api_version",
    "gateway.batch_timeout_ms",
    "gateway.deadline_ms",
    "gateway.default_mark_ms",
    "gateway.first_byte_timeout_ms",
    "gateway.heartbeat_ms",
    "gateway.idle_timeout_ms",
    "gateway.max_answer_ms",
    "gateway.max_attempts",
    "gateway.max_mark_ms",
    "gateway.ramp_ms",
    "gateway.region",
    "gateway.wait_budget_ms",
    "model",
    "pacing.lower_percent",
    "pacing.slots",
    "pacing.upper_percent",
    "price",
];

/// What says where the configuration is and where things are kept: the file that comes with the program.
const PACKAGED: [&str; 2] = ["live", "storage"];

/// The keys by which a table of a list is known, before its place in it.
const NAMES: [&str; 2] = ["name", "model"];

/// A configuration's text as keys and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document(BTreeMap<String, String>);

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key, for example `backend[payg].deployment[gpt-4o].weight`.
    pub path: String,
    /// Its value before; `None`: it was not there.
    pub before: Option<String>,
    /// Its value now; `None`: it is gone.
    pub after: Option<String>,
}

impl Document {
    /// Reads a configuration. `file` is its name in messages.
    ///
    /// # Errors
    /// The mistakes of its TOML. Whether it is a good configuration is not asked.
    pub fn read(text: &str, file: &str) -> Result<Self, Mistakes> {
        let mut report = Report::new(text);
        let as_written = |name: &str| Some(format!("${{{name}}}"));
        let tree = Tree::read(text, &as_written, &mut report);
        if !tree.is_whole {
            return Err(report.into_mistakes(file));
        }
        let mut keys = BTreeMap::new();
        flatten(&tree.value, String::new(), &mut keys);
        Ok(Self(keys))
    }

    /// What is other in `after`, by key.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let all: BTreeMap<&String, ()> = self
            .0
            .keys()
            .chain(after.0.keys())
            .map(|k| (k, ()))
            .collect();
        let pairs = all
            .into_keys()
            .map(|key| (key, self.0.get(key), after.0.get(key)));
        let different = pairs.filter(|(_, before, after)| before != after);
        different
            .map(|(path, before, after)| Difference {
                path: path.clone(),
                before: before.cloned(),
                after: after.cloned(),
            })
            .collect()
    }
}

impl Difference {
    /// Whether a running process can't take it.
    pub fn needs_restart(&self) -> bool {
        !is_in(&self.path, &LIVE)
    }

    /// Whether only the file that comes with the program can say it.
    pub fn is_packaged(&self) -> bool {
        is_in(&self.path, &PACKAGED)
    }

    fn is_secret(&self) -> bool {
        self.path.ends_with("].key") || self.path == "telemetry.headers"
    }
}

/// `+ KEY = VALUE`, `- KEY = VALUE` or `~ KEY = VALUE -> VALUE`. Of a secret only that it differs.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        let shown = |value| {
            if self.is_secret() {
                "(not shown)"
            } else {
                value
            }
        };
        match (self.before.as_deref(), self.after.as_deref()) {
            (Some(before), Some(_)) if self.is_secret() => {
                write!(f, "~ {path} = {}", shown(before))
            }
            (Some(before), Some(after)) => write!(f, "~ {path} = {before} -> {after}"),
            (Some(before), None) => write!(f, "- {path} = {}", shown(before)),
            (None, after) => write!(f, "+ {path} = {}", shown(after.unwrap_or_default())),
        }
    }
}

fn is_in(path: &str, keys: &[&str]) -> bool {
    keys.iter().any(|key| {
        let rest = path.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// Puts each key of a value into `keys`, by its path.
fn flatten(value: &Value, path: String, keys: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) if !table.is_empty() || path.is_empty() => {
            for (key, value) in table {
                flatten(value, below(&path, key), keys);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let mut number = BTreeMap::new();
            for item in items {
                let name = NAMES.iter().find_map(|key| item.get(key)?.as_str());
                let name = name.unwrap_or_default();
                let nth = number.entry(name).and_modify(|n| *n += 1).or_insert(1);
                let place = match (name, *nth) {
                    ("", nth) => format!("{path}[{nth}]"),
                    (name, 1) => format!("{path}[{name}]"),
                    (name, nth) => format!("{path}[{name}#{nth}]"),
                };
                flatten(item, place, keys);
            }
        }
        value => {
            keys.insert(path, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "[gateway]\nworkers = 2\n[[backend]]\nname = \"a\"\nkey = \"canary-1\"\nregion = \"${REGION}\"\n[[backend.deployment]]\nname = \"gpt-4o\"\nweight = 1\n[[app]]\nname = \"portal\"\nmodels = [\"x\", \"y\"]\n";

    fn lines(before: &str, after: &str) -> Vec<String> {
        let read = |text| Document::read(text, "test").unwrap_or_else(|e| panic!("{e}"));
        let differences = read(before).differences(&read(after));
        differences.iter().map(Difference::to_string).collect()
    }

    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(BASE.contains(from), "{from}");
        lines(BASE, &BASE.replacen(from, to, 1))
    }

    #[test]
    fn each_key_is_named_with_its_old_and_new_value() {
        assert_eq!(
            changed("weight = 1", "weight = 3"),
            ["~ backend[a].deployment[gpt-4o].weight = 1 -> 3"]
        );
        assert_eq!(
            changed("[\"x\", \"y\"]", "[\"x\"]"),
            ["~ app[portal].models = [\"x\",\"y\"] -> [\"x\"]"]
        );
        assert_eq!(
            changed("weight = 1\n", "weight = 1\ntier = 2\n"),
            ["+ backend[a].deployment[gpt-4o].tier = 2"]
        );
        assert_eq!(
            changed("name = \"portal\"", "name = \"other\""),
            [
                "+ app[other].models = [\"x\",\"y\"]",
                "+ app[other].name = \"other\"",
                "- app[portal].models = [\"x\",\"y\"]",
                "- app[portal].name = \"portal\"",
            ]
        );
    }

    #[test]
    fn order_layout_and_comments_are_no_difference() {
        let app = "[[app]]\nname = \"portal\"\nmodels = [\"x\", \"y\"]\n";
        let moved = format!("# first\n{app}{}", BASE.replacen(app, "", 1));
        assert!(lines(BASE, &moved).is_empty());
        assert!(changed("workers = 2", "workers   =   0x2").is_empty());
    }

    #[test]
    fn a_secret_is_only_said_to_differ_and_a_reference_is_not_resolved() {
        let text = changed("canary-1", "canary-2").join("\n")
            + &changed("key = \"canary-1\"\n", "").join("\n");
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("~ backend[a].key = (not shown)"), "{text}");
        assert_eq!(
            changed("${REGION}", "west"),
            ["~ backend[a].region = \"${REGION}\" -> \"west\""]
        );
    }

    #[test]
    fn what_nobody_has_named_as_live_needs_a_restart() {
        let needs = |path: &str| {
            let path = path.to_owned();
            let (before, after) = (None, None);
            let difference = Difference {
                path,
                before,
                after,
            };
            (difference.needs_restart(), difference.is_packaged())
        };
        for live in [
            "backend[a].deployment[gpt-4o].weight",
            "app[portal].limit[gpt-4o].tokens_per_minute",
            "model[gpt-4o].strategy",
            "price[2].input",
            "gateway.wait_budget_ms",
            "pacing.slots",
            "auth.admin_key_hashes",
        ] {
            assert_eq!(needs(live), (false, false), "{live}");
        }
        for fixed in [
            "gateway.workers",
            "auth.mode",
            "auth.tenant",
            "batch.queue",
            "chargeback.currency",
            "apples.weight",
            "something_new.key",
        ] {
            assert_eq!(needs(fixed), (true, false), "{fixed}");
        }
        for packaged in ["storage.tables", "live.blob"] {
            assert_eq!(needs(packaged), (true, true), "{packaged}");
        }
    }

    #[test]
    fn every_key_of_the_gateway_that_is_named_as_live_is_there() {
        let schema = crate::config::schema();
        for key in LIVE {
            let (section, key) = key.split_once('.').unwrap_or((key, ""));
            let section = schema["properties"].get(section);
            assert!(section.is_some(), "{key}");
            if key.is_empty() {
                continue;
            }
            let all = schema["$defs"].as_object().unwrap().values();
            let mut all = all.filter_map(|def| def.get("properties"));
            assert!(all.any(|keys| keys.get(key).is_some()), "{key}");
        }
    }

    #[test]
    fn broken_toml_is_not_compared() {
        let mistakes = Document::read("[gateway\n", "b.toml").unwrap_err();
        assert!(mistakes.to_string().starts_with("b.toml:1:"), "{mistakes}");
    }
}
