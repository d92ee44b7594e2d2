//! Another model in the place of one that can't serve the call, where the configuration has one.

use std::sync::Arc;

use http::Method;

use super::attempt::First;
use super::call::{Answered, Call};
use super::error::RelayError;
use super::record::CallRecord;
use crate::gateway::fallback::{Chain, Reason, refusal};
use crate::gateway::plan::GiveUp;
use crate::gateway::pool::ModelPool;

/// How far a call is in its model's chain.
#[derive(Default)]
pub(super) struct Progress {
    passed: usize,
}

impl Progress {
    /// The model to try after this end, if there is one.
    pub(super) fn next(
        &mut self,
        call: &Call<'_>,
        ended: &Result<Answered, RelayError>,
        record: &CallRecord,
    ) -> Option<Arc<ModelPool>> {
        let reason = reason(ended)?;
        let chain = chain(call, &record.event.model)?;
        let pools = &call.relay.settings.pool;
        let may_use =
            |model: &str| pools.model(model).is_some() && call.caller.app.may_ask_for(model);
        let (passed, model) = chain.next(self.passed, reason, may_use)?;
        self.passed = passed;
        let pool = pools.model(model)?;
        tracing::debug!(
            request_id = record.event.id,
            trace_id = record.event.trace_digits(),
            model = &*record.event.model,
            substitute = &**model,
            ?reason,
            "falls back"
        );
        Some(Arc::clone(pool))
    }

    /// Whether another model than the one asked for is tried.
    pub(super) const fn has_begun(&self) -> bool {
        self.passed > 0
    }
}

/// Whether the body of a 400 has to be read to know if another model may serve.
pub(super) fn reads_refusal(call: &Call<'_>, status: u16, record: &CallRecord) -> bool {
    status == 400 && chain(call, &record.event.model).is_some_and(Chain::reads_refusals)
}

/// The chain of the model that was asked for, where the call may follow it. Never one that names
/// something stored or makes it: what comes after could not be served where it lies. Nor one that was
/// given its place by its maker, who sees to what comes next.
fn chain<'c>(call: &'c Call<'_>, model: &str) -> Option<&'c Chain> {
    let chain = call.relay.settings.fallbacks.get(model)?;
    let is_stateful = call.pinned.is_some()
        || call.route.stored_id().is_some()
        || call.reading.stored_ids().next().is_some()
        || call.route.makes_stored(call.reading.store());
    let is_placed = call.is_paced || call.only.is_some();
    (call.method == Method::POST && !is_stateful && !is_placed).then_some(chain)
}

fn reason(ended: &Result<Answered, RelayError>) -> Option<Reason> {
    match ended {
        Err(RelayError::NoAnswer {
            why: GiveUp::AllThrottled { .. } | GiveUp::AllFailed | GiveUp::NoDeployment,
            ..
        }) => Some(Reason::Exhausted),
        Ok(answered) if answered.response.status() == 400 => match &answered.first {
            First::Whole(body) => refusal(body),
            First::Chunks(_) => None,
        },
        _ => None,
    }
}
