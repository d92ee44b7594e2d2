//! Where the configuration is.

use std::fmt;
use std::path::{Path, PathBuf};

/// The variable that holds the configuration's text.
const TEXT_VARIABLE: &str = "SPILLWAY_CONFIG_TOML";
/// The variable that names the configuration's file.
const FILE_VARIABLE: &str = "SPILLWAY_CONFIG";
/// The file beside host.json: the Functions host starts the handler in that folder.
const DEFAULT_FILE: &str = "spillway.toml";

/// Where the configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// The text itself, from the environment.
    Text(String),
}

/// A configuration's file that could not be read.
#[derive(Debug)]
pub struct SourceError {
    /// The file.
    pub file: PathBuf,
    /// Why.
    pub cause: std::io::Error,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cannot read the configuration {}: {} (another file: {FILE_VARIABLE}; its text: {TEXT_VARIABLE})",
            self.file.display(),
            self.cause
        )
    }
}

impl std::error::Error for SourceError {}

impl Source {
    /// The file that was named, else the text or the file that the environment names, else
    /// `spillway.toml`.
    pub fn find(named: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let filled = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(file) = named {
            return Self::File(file.to_owned());
        }
        if let Some(text) = filled(TEXT_VARIABLE) {
            return Self::Text(text);
        }
        Self::File(filled(FILE_VARIABLE).map_or_else(|| DEFAULT_FILE.into(), PathBuf::from))
    }

    /// The text, and its name in messages.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(&self) -> Result<(String, String), SourceError> {
        match self {
            Self::Text(text) => Ok((text.clone(), TEXT_VARIABLE.to_owned())),
            Self::File(file) => std::fs::read_to_string(file)
                .map(|text| (text, file.display().to_string()))
                .map_err(|cause| SourceError {
                    file: file.clone(),
                    cause,
                }),
        }
    }
}
