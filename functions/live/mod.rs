//! The configuration, changed while the gateway runs: watched, judged, taken or refused.
//!
//! Each instance looks by itself every `poll_seconds`. What it finds is judged whole: its mistakes as at
//! the start, and what can't change in a running process. If it is good it is taken at once, and kept;
//! if not, the one that runs goes on, and what is wrong is said in the log, on the console and in the
//! metrics until a good one comes.

pub mod command;
pub mod history;
pub mod source;
pub mod standing;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use self::history::History;
use self::source::{Found, Source};
use self::standing::{Generation, Refused, Standing};
use crate::config::diff::{Difference, Document};
use crate::config::{Config, Mistakes};
use crate::gateway::time::Timestamp;
use crate::host::clock::Clock;

/// Says what a `${NAME}` stands for.
pub type Env = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Longest wait for the configuration at the start: longer, and the one that comes with the program
/// serves first.
const AT_THE_START: Duration = Duration::from_secs(10);

/// Digits of a hash that are shown.
const HASH: usize = 12;

/// A configuration's text, and its name in messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The text.
    pub text: String,
    /// Where it is from.
    pub from: String,
}

/// The beginning of the SHA-256 of a configuration's text, as `sha256sum` prints it.
pub fn hash(text: &str) -> String {
    let digits = Sha256::digest(text.as_bytes()).into_iter();
    let digits: String = digits.map(|byte| format!("{byte:02x}")).collect();
    digits.chars().take(HASH).collect()
}

/// Reads a configuration that is to take the place of `running`.
///
/// # Errors
/// All that is in its way: its mistakes, and each key that differs although it can't change, as
/// `is_fixed` says, which is so because of `why`.
pub fn judge(
    running: &str,
    next: &Written,
    env: &Env,
    is_fixed: fn(&Difference) -> bool,
    why: &str,
) -> Result<Config, Vec<String>> {
    let Written { text, from } = next;
    let (read, wrong) = match Config::parse(text, from, env) {
        Ok(config) => (Some(config), None),
        Err(mistakes) => (None, Some(mistakes)),
    };
    let said = wrong.as_ref().map(Mistakes::to_string).unwrap_or_default();
    let mut mistakes: Vec<String> = said.lines().map(str::to_owned).collect();
    // A text whose TOML is broken has said so.
    if let (Ok(before), Ok(after)) = (Document::read(running, from), Document::read(text, from)) {
        let is_wrong = |one: &Difference| {
            let mut all = wrong.iter().flat_map(|mistakes| &mistakes.list);
            all.any(|mistake| mistake.path == one.path)
        };
        let differences = before.differences(&after).into_iter();
        let fixed = differences.filter(|one| is_fixed(one) && !is_wrong(one));
        mistakes.extend(fixed.map(|one| format!("{from}: {one}: {why}")));
    }
    match read {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes),
    }
}

/// Watches the configuration.
pub struct Watcher {
    source: Source,
    every: Duration,
    env: Box<Env>,
    clock: Clock,
    history: Option<History>,
    /// The text of the one that runs.
    running: String,
    /// The version that was looked at last.
    tag: Option<String>,
    standing: Arc<Standing>,
}

impl Watcher {
    /// Watches `source` every so many seconds. `packaged` is the configuration that comes with the
    /// program. The ones that are taken are kept in `history`.
    pub fn new(
        source: Source,
        poll_seconds: u64,
        packaged: Written,
        history: Option<History>,
        env: Box<Env>,
    ) -> Self {
        let clock = Clock::new();
        let generation = Generation {
            hash: hash(&packaged.text),
            since: clock.now(),
            from: packaged.from,
        };
        Self {
            source,
            every: Duration::from_secs(poll_seconds),
            env,
            clock,
            history,
            running: packaged.text,
            tag: None,
            standing: Arc::new(Standing::new(generation)),
        }
    }

    /// How it stands.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// The configuration to begin with in place of the packaged one: what is there, where it is good
    /// and `may_serve` has nothing against it. It may differ from the packaged one in all but where
    /// it is itself and where things are kept.
    pub async fn begin(
        &mut self,
        may_serve: impl Fn(&Config) -> Result<(), String>,
    ) -> Option<Config> {
        let looked = tokio::time::timeout(AT_THE_START, self.source.look(None)).await;
        let found = looked.unwrap_or_else(|_| {
            let seconds = AT_THE_START.as_secs();
            Err(format!("no answer within {seconds} s"))
        });
        let judge = |running: &str, next: &Written, env: &Env| {
            let why = "only the packaged file says so: deploy it";
            let config = judge(running, next, env, Difference::is_packaged, why)?;
            may_serve(&config).map_err(|why| vec![why])?;
            Ok(config)
        };
        let taken = self.take(found, judge, |_| Ok(())).await;
        if taken.is_none() && !self.standing.is_fine() {
            tracing::error!(
                generation = %self.standing.running().hash,
                "the configuration that comes with the program serves"
            );
        }
        taken
    }

    /// Looks again and again, for ever. `apply` has the process go by a configuration.
    pub async fn keep(mut self, apply: impl Fn(&Config) -> Result<(), String>) {
        let mut random = fastrand::Rng::new();
        loop {
            let every = u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX);
            // Instances that were started together look at different times.
            let pause = every.saturating_add(random.u64(0..=every / 4));
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.look(&apply).await;
        }
    }

    /// Looks once, and takes what is there, if it is another one and good.
    pub async fn look(&mut self, apply: impl Fn(&Config) -> Result<(), String>) {
        let found = self.source.look(self.tag.as_deref()).await;
        let judge = |running: &str, next: &Written, env: &Env| {
            let why = "it needs a restart";
            judge(running, next, env, Difference::needs_restart, why)
        };
        self.take(found, judge, apply).await;
    }

    async fn take(
        &mut self,
        found: Result<Found, String>,
        judge: impl Fn(&str, &Written, &Env) -> Result<Config, Vec<String>>,
        apply: impl Fn(&Config) -> Result<(), String>,
    ) -> Option<Config> {
        let now = self.clock.now();
        let (tag, written, next) = match found {
            Ok(Found::Same) => {
                self.standing.reached();
                return None;
            }
            Ok(Found::Changed { tag, written, text }) => {
                let from = self.source.to_string();
                (tag, written, Written { text, from })
            }
            Ok(Found::Absent) => {
                self.standing
                    .missed(now, format!("{} is not there", self.source));
                return None;
            }
            Err(why) => {
                self.standing
                    .missed(now, format!("{} can't be read: {why}", self.source));
                return None;
            }
        };
        self.tag = Some(tag);
        self.standing.reached();
        let hash = hash(&next.text);
        let is_begun = self.standing.running().from == next.from;
        if next.text == self.running && is_begun {
            self.standing.stays();
            return None;
        }
        let judged = judge(&self.running, &next, &*self.env);
        let judged = judged.and_then(|config| {
            apply(&config).map_err(|why| vec![why])?;
            Ok(config)
        });
        match judged {
            Ok(config) => {
                self.accept(hash, next, written, now).await;
                Some(config)
            }
            Err(mistakes) => {
                refuse(&hash, &mistakes);
                let at = now;
                self.standing.refuse(Refused { hash, at, mistakes });
                None
            }
        }
    }

    async fn accept(&mut self, hash: String, next: Written, written: Timestamp, now: Timestamp) {
        let from = next.from;
        tracing::info!(generation = hash, from, "a configuration was taken");
        self.running = next.text;
        self.standing.take(Generation {
            hash: hash.clone(),
            since: now,
            from,
        });
        let Some(history) = &self.history else { return };
        if let Err(error) = history.keep(&self.running, &hash, written).await {
            tracing::warn!(%error, "the configuration that was taken can't be kept for a roll-back");
        }
    }
}

/// Each mistake in a line of the log, and what that means.
fn refuse(hash: &str, mistakes: &[String]) {
    for mistake in mistakes {
        tracing::error!(refused = hash, "{mistake}");
    }
    tracing::error!(
        refused = hash,
        mistakes = mistakes.len(),
        "a configuration was refused: the one that runs goes on"
    );
}

#[cfg(test)]
mod tests;
