//! What is wrong with a file, and where.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The key, for example `backend[1].deployment[0].kind`; empty for a mistake in the TOML itself.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All that is wrong with a file, by line. Never empty where it is returned as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// The file's name, as it was given.
    pub file: String,
    /// The mistakes, by line and column.
    pub list: Vec<Mistake>,
}

/// One mistake per line: `file:line:column: path: message`.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.list.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            let Mistake {
                line,
                column,
                path,
                message,
            } = mistake;
            write!(f, "{}:{line}:{column}: ", self.file)?;
            if !path.is_empty() {
                write!(f, "{path}: ")?;
            }
            write!(f, "{message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes while a file is read.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// Where each line starts, in bytes.
    lines: Vec<usize>,
    list: Vec<Mistake>,
    /// Paths that misspelt keys most likely mean.
    meant: Vec<String>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            lines: std::iter::once(0).chain(after_breaks).collect(),
            list: Vec::new(),
            meant: Vec::new(),
        }
    }

    /// Notes a mistake at a byte of the text.
    pub(super) fn add(&mut self, at: usize, path: impl Into<String>, message: impl Into<String>) {
        let (line, column) = self.position(at);
        self.list.push(Mistake {
            line,
            column,
            path: path.into(),
            message: message.into(),
        });
    }

    /// Notes that a misspelt key most likely means the one at `path`: that one is then neither
    /// reported as missing nor is anything concluded from its absence.
    pub(super) fn add_meant(&mut self, path: String) {
        self.meant.push(path);
    }

    /// Whether a misspelt key most likely means the one at `path`.
    pub(super) fn is_meant(&self, path: &str) -> bool {
        self.meant.iter().any(|meant| meant == path)
    }

    /// Whether a misspelt key below `prefix` most likely means a key called one of `names`.
    pub(super) fn is_meant_below(&self, prefix: &str, names: &[&str]) -> bool {
        let last = |path: &str| {
            path.rsplit('.')
                .next()
                .is_some_and(|key| names.contains(&key))
        };
        self.meant
            .iter()
            .any(|path| path.starts_with(prefix) && last(path))
    }

    /// Forgets the mistakes whose path is not meant.
    pub(super) fn retain(&mut self, is_meant: impl Fn(&str) -> bool) {
        self.list.retain(|mistake| is_meant(&mistake.path));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.position(at).0
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = line
            .checked_sub(1)
            .and_then(|i| self.lines.get(i))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or_default();
        // A byte order mark is no character that anyone sees.
        let column = before.chars().filter(|c| *c != '\u{feff}').count() + 1;
        (line.max(1), column)
    }

    /// All that was noted, by line.
    pub(super) fn into_mistakes(mut self, file: &str) -> Mistakes {
        self.list.sort();
        self.list.dedup();
        Mistakes {
            file: file.to_owned(),
            list: self.list,
        }
    }
}
