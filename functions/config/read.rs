//! From text to configuration.

use serde::Deserialize;
use serde_json::Value;

use super::mistakes::Report;
use super::place::blobs;
use super::tree::Tree;
use super::{Backend, Config, Live, Mistakes, StoragePlace, shape, validate};

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
    storage: BlobStorage,
}

/// As much of `[storage]`. Where tables are is often a reference, to a variable that only the gateway has.
#[derive(Default, Deserialize)]
struct BlobStorage {
    #[serde(default, deserialize_with = "blobs")]
    blobs: Option<StoragePlace>,
}

impl Lies {
    /// Whether what stands at a path belongs to it; the path of a mistake in the TOML itself is empty.
    fn has(path: &str) -> bool {
        path.is_empty() || path == "storage.blobs" || path.starts_with("live.")
    }
}

impl Config {
    /// What a configuration says of where it lies itself: `[live]`, and `blobs` of `[storage]`. The rest is
    /// not looked at, nor are the variables that it takes.
    ///
    /// # Errors
    /// The mistakes of its TOML and of these keys.
    pub fn place(
        text: &str,
        file: &str,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Live, Option<StoragePlace>), Mistakes> {
        let mut report = Report::new(text);
        let tree = Tree::read(text, env, &mut report);
        report.retain(Lies::has);
        if !report.is_empty() {
            return Err(report.into_mistakes(file));
        }
        match serde_json::from_value::<Lies>(tree.value) {
            Ok(lies) => Ok((lies.live, lies.storage.blobs)),
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
