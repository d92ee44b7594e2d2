//! The simulated provisioned deployment: Azure's leaky bucket, and what Azure Monitor would say of it.

use spillway::gateway::pacing::window::Capacity;
use spillway::gateway::ptu::{CallTokens, Full, ModelRate, PtuBucket, Reservation, Utilization};
use spillway::gateway::time::Timestamp;

/// PTUs of the deployment.
const PTUS: u32 = 300;

/// The model that it runs.
const MODEL: &str = "gpt-4o";

/// What Azure counts for 100 tokens of the published rate: it knows better than the gateway, which has
/// to learn it.
const TRUE_PER_CENT: u64 = 110;

pub(super) struct Ptu {
    bucket: PtuBucket,
    /// Input tokens a minute that it really does.
    rate: f64,
    /// Work by minute, in weighted tokens.
    minutes: Vec<f64>,
    start: Timestamp,
}

impl Ptu {
    pub(super) fn new(start: Timestamp, minutes: usize) -> Self {
        let published = Self::published_rate();
        let rate = ModelRate {
            input_tpm_per_ptu: published.input_tpm_per_ptu * 100 / TRUE_PER_CENT,
            ..published
        };
        Self {
            bucket: PtuBucket::new(PTUS, rate, start),
            rate: (u64::from(PTUS) * rate.input_tpm_per_ptu) as f64,
            minutes: vec![0.0; minutes + 60],
            start,
        }
    }

    /// What Microsoft says that a PTU of the model does.
    pub(super) fn published_rate() -> ModelRate {
        ModelRate::of(MODEL).unwrap_or(ModelRate::ASSUMED)
    }

    /// What the gateway believes that it does.
    pub(super) fn published() -> Capacity {
        Capacity::of(PTUS, MODEL)
    }

    pub(super) fn admit(
        &mut self,
        estimate: CallTokens,
        now: Timestamp,
    ) -> Result<Reservation, Full> {
        self.bucket.admit(estimate, now)
    }

    /// Ends a call that was admitted at `began`: its work was done evenly in between.
    pub(super) fn settle(
        &mut self,
        reservation: Reservation,
        tokens: CallTokens,
        began: Timestamp,
        now: Timestamp,
    ) {
        self.bucket.settle(reservation, tokens, now);
        let (from, until) = (began.ms_since(self.start), now.ms_since(self.start));
        let weighted = (tokens.prompt + 4 * tokens.output) as f64;
        let mut at = from;
        while at < until {
            let end = ((at / 60_000 + 1) * 60_000).min(until);
            let part = weighted * (end - at) as f64 / (until - from) as f64;
            if let Some(minute) = self.minutes.get_mut((at / 60_000) as usize) {
                *minute += part;
            }
            at = end;
        }
    }

    /// What an answer's header says.
    pub(super) fn header(&mut self, now: Timestamp) -> Utilization {
        self.bucket.utilization(now)
    }

    /// Utilization of a minute, in percent.
    pub(super) fn percent(&self, minute: usize) -> f64 {
        self.minutes.get(minute).copied().unwrap_or(0.0) * 100.0 / self.rate
    }
}
