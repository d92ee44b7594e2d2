//! From text to configuration.

use serde::Deserialize;
use serde_json::Value;

use super::mistakes::Report;
use super::tree::Tree;
use super::{Backend, Config, Live, Mistakes, Storage, shape, validate};

/// The JSON Schema of `spillway.toml`, draft 2020-12.
pub fn schema() -> Value {
    schemars::schema_for!(Config).to_value()
}

/// As much of the file as says where the configuration lies.
#[derive(Deserialize)]
struct Lies {
    #[serde(default)]
    live: Live,
    #[serde(default)]
    storage: Storage,
}

impl Config {
    /// What a configuration says of where it lies itself and where things are kept; the rest is not
    /// looked at.
    ///
    /// # Errors
    /// The mistakes of its TOML and of these sections.
    pub fn place(
        text: &str,
        file: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Live, Storage), Mistakes> {
        let mut report = Report::new(text);
        let as_written = |name: &str| env(name).or_else(|| Some(String::new()));
        let tree = Tree::read(text, &as_written, &mut report);
        if !tree.is_whole {
            return Err(report.into_mistakes(file));
        }
        match serde_json::from_value::<Lies>(tree.value) {
            Ok(lies) => Ok((lies.live, lies.storage)),
            Err(e) => {
                report.add(0, "", e.to_string());
                Err(report.into_mistakes(file))
            }
        }
    }

    /// Reads a configuration. `file` is its name in messages, `env` says what a `${NAME}` stands for.
    ///
    /// # Errors
    /// All mistakes of the text, each with its place.
    pub fn parse(
        text: &str,
        file: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let mut report = Report::new(text);
        let tree = Tree::read(text, env, &mut report);
        shape::check(&tree, &schema(), &mut report);
        validate::formats(&tree, &mut report);
        let read = if report.is_empty() {
            serde_json::from_value::<Self>(tree.value.clone())
        } else {
            // What has the right shape is checked all the same.
            validate::names(&tree, &mut report);
            return Err(report.into_mistakes(file));
        };
        match read {
            Ok(mut config) => {
                validate::names(&tree, &mut report);
                if report.is_empty() {
                    config
                        .backends
                        .iter_mut()
                        .for_each(Backend::set_deleted_aside);
                    return Ok(config);
                }
            }
            Err(e) => report.add(0, "", e.to_string()),
        }
        Err(report.into_mistakes(file))
    }
}
