//! How full a provisioned deployment is: Azure's leaky bucket for PTUs.
//!
//! A call is admitted while utilization is below 100 %. It then reserves its estimate (prompt less
//! cached tokens, plus the most it may generate), which is corrected when the call ends. The bucket
//! drains all the time, at the rate that its PTUs pay for (Microsoft Learn, "Provisioned
//! throughput", section on utilization). So the last call admitted may lift it above 100 %.
//!
//! Levels are whole numbers: one *input token* is [`UNITS_PER_TOKEN`] units, so that a rate in
//! tokens a minute drains exactly that many units a millisecond and nothing is lost to rounding.

use super::time::Timestamp;

#[cfg(test)]
mod tests;

/// One input token in the bucket's units: the milliseconds of a minute.
const UNITS_PER_TOKEN: u128 = 60_000;

/// The time of full rate that the bucket holds, in ms. Azure does not publish its own; the rates
/// are quoted per minute, so 100 % is a minute's work.
const WINDOW_MS: u128 = 60_000;

const TABLE: &str = include_str!("ptu/models.csv");

/// What one PTU of a model does, from `ptu/models.csv` (source and date stand there).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelRate {
    /// Input tokens a minute that one PTU processes.
    pub input_tpm_per_ptu: u64,
    /// Input tokens that one output token counts as.
    pub output_ratio: u64,
}

impl ModelRate {
    /// The rate for models without a row, such as embeddings: that of gpt-4o. An assumption.
    pub const ASSUMED: Self = Self {
        input_tpm_per_ptu: 2_500,
        output_ratio: 4,
    };

    /// The rate of `model`, a name such as `gpt-4o` or, with a version after it,
    /// `gpt-4o-2024-11-20`: the longest row that the name is or starts with. `None` without a row.
    pub fn of(model: &str) -> Option<Self> {
        rows()
            .filter(|(name, _)| is_or_extends(model, name))
            .max_by_key(|(name, _)| name.len())
            .map(|(_, rate)| rate)
    }
}

fn rows() -> impl Iterator<Item = (&'static str, ModelRate)> {
    TABLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let mut cells = line.split(',');
            let name = cells.next()?;
            let input_tpm_per_ptu = cells.next()?.parse().ok()?;
            let output_ratio = cells.next()?.parse().ok()?;
            Some((
                name,
                ModelRate {
                    input_tpm_per_ptu,
                    output_ratio,
                },
            ))
        })
}

/// Whether `model` is `row`, or `row` with a version (`-2024-...`) after it. `gpt-4o-audio` is
/// another model than `gpt-4o`.
pub(super) fn is_or_extends(model: &str, row: &str) -> bool {
    match model.strip_prefix(row) {
        Some("") => true,
        Some(rest) => rest
            .strip_prefix('-')
            .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())),
        None => false,
    }
}

/// The tokens of one call that a provisioned deployment charges for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTokens {
    /// Tokens of the prompt, cached ones included.
    pub prompt: u64,
    /// Prompt tokens that came from the cache: free.
    pub cached: u64,
    /// Tokens generated; in an estimate, the most that may be (`max_tokens`).
    pub output: u64,
}

/// What an admitted call has put in the bucket, to be corrected by [`PtuBucket::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a reservation that is never settled stays at its estimate"]
pub struct Reservation {
    units: u128,
}

/// Utilization in tenths of a percent, so that nothing here needs a float.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utilization(u64);

impl Utilization {
    /// Nothing runs.
    pub const IDLE: Self = Self(0);

    /// All that is paid for is used.
    pub const FULL: Self = Self(1000);

    /// So many tenths of a percent.
    pub const fn of_tenths(tenths: u64) -> Self {
        Self(tenths)
    }

    /// So many percent.
    pub const fn of_percent(percent: u64) -> Self {
        Self(percent.saturating_mul(10))
    }

    /// Tenths of a percent: 1000 is full, more is possible.
    pub const fn tenths(self) -> u64 {
        self.0
    }
}

impl std::fmt::Display for Utilization {
    /// As in Azure's `azure-openai-deployment-utilization` header, for example `97.5%`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}%", self.0 / 10, self.0 % 10)
    }
}

/// Why a call was not admitted: the bucket is at 100 % or above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Milliseconds until utilization is below 100 %, when nothing else comes in. At least 1.
    pub retry_after_ms: u64,
    /// How full it is now.
    pub utilization: Utilization,
}

/// The leaky bucket of one provisioned deployment.
#[derive(Debug)]
pub struct PtuBucket {
    units_per_ms: u128,
    output_ratio: u128,
    level: u128,
    drained_until: Timestamp,
}

impl PtuBucket {
    /// An empty bucket of `ptus` units of a model that does `rate` with each. Without any rate
    /// (0 PTUs) one input token a minute is assumed, so that a wait can always be stated.
    pub fn new(ptus: u32, rate: ModelRate, now: Timestamp) -> Self {
        let per_minute = u128::from(ptus) * u128::from(rate.input_tpm_per_ptu);
        Self {
            units_per_ms: per_minute.max(1),
            output_ratio: u128::from(rate.output_ratio),
            level: 0,
            drained_until: now,
        }
    }

    /// Admits a call of `estimate` and reserves that, or says how long to stay away.
    ///
    /// # Errors
    /// [`Full`] when utilization is 100 % or more.
    pub fn admit(&mut self, estimate: CallTokens, now: Timestamp) -> Result<Reservation, Full> {
        self.drain(now);
        if self.level >= self.capacity() {
            return Err(Full {
                retry_after_ms: self.ms_until_admission(),
                utilization: self.utilization_of_level(),
            });
        }
        let units = self.units(estimate);
        self.level = self.level.saturating_add(units);
        Ok(Reservation { units })
    }

    /// Corrects an admitted call from its estimate to what it really used.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a reservation is settled once"
    )]
    pub fn settle(&mut self, reservation: Reservation, actual: CallTokens, now: Timestamp) {
        self.drain(now);
        let with_actual = self.level.saturating_add(self.units(actual));
        self.level = with_actual.saturating_sub(reservation.units);
    }

    /// How full the bucket is.
    pub fn utilization(&mut self, now: Timestamp) -> Utilization {
        self.drain(now);
        self.utilization_of_level()
    }

    /// Milliseconds until a call is admitted, when nothing else comes in; 0 when one is now.
    pub fn retry_after_ms(&mut self, now: Timestamp) -> u64 {
        self.drain(now);
        if self.level < self.capacity() {
            0
        } else {
            self.ms_until_admission()
        }
    }

    /// A clock that went back drains nothing, and nothing twice once it is forward again.
    fn drain(&mut self, now: Timestamp) {
        let ms = u128::from(now.ms_since(self.drained_until));
        self.level = self
            .level
            .saturating_sub(self.units_per_ms.saturating_mul(ms));
        self.drained_until = self.drained_until.max(now);
    }

    fn capacity(&self) -> u128 {
        self.units_per_ms.saturating_mul(WINDOW_MS)
    }

    fn units(&self, tokens: CallTokens) -> u128 {
        let input = u128::from(tokens.prompt.saturating_sub(tokens.cached));
        let output = u128::from(tokens.output).saturating_mul(self.output_ratio);
        input.saturating_add(output).saturating_mul(UNITS_PER_TOKEN)
    }

    /// Whole milliseconds until the level is below capacity; only right at or above it.
    fn ms_until_admission(&self) -> u64 {
        let excess = self.level.saturating_sub(self.capacity()).saturating_add(1);
        u64::try_from(excess.div_ceil(self.units_per_ms)).unwrap_or(u64::MAX)
    }

    fn utilization_of_level(&self) -> Utilization {
        let tenths = self.level.saturating_mul(1000) / self.capacity();
        Utilization(u64::try_from(tenths).unwrap_or(u64::MAX))
    }
}
