//! Whether a call may go on: its app's limits and budget, and what its answer says of them.

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::call::Call;
use super::error::RelayError;
use super::headers::set;
use super::record::CallRecord;
use crate::gateway::budget::BudgetState;
use crate::gateway::limit::call_estimate;
use crate::gateway::priority::Priority;
use crate::gateway::route::Operation;
use crate::quota::{Denial, Standing};

/// What a backend's own limits are called in its answers.
const LIMIT_PREFIX: &str = "x-ratelimit-";

/// Admits the call: its place in the limits goes to its record, which settles it whatever happens.
/// How the app stands is known in both cases.
pub(super) fn admit(
    call: &Call<'_>,
    record: &mut CallRecord,
) -> (Standing, Result<(), RelayError>) {
    let prompt_tokens = record.prompt_tokens;
    admit_by(call, record, || estimate(call, prompt_tokens))
}

/// As [`admit`], a call that is taken in now and made later. Its tokens count when it is made.
pub(super) fn admit_for_later(
    call: &Call<'_>,
    record: &mut CallRecord,
) -> (Standing, Result<(), RelayError>) {
    admit_by(call, record, || 0)
}

fn admit_by(
    call: &Call<'_>,
    record: &mut CallRecord,
    estimate: impl FnOnce() -> u64,
) -> (Standing, Result<(), RelayError>) {
    let app = &call.caller.app.name;
    let model = call.model.name();
    let spends = record.can_use;
    let quotas = &call.relay.quotas;
    let admission = quotas.admit(app, model, spends, estimate, record.now());
    let standing = admission.standing;
    if admission.is_demoted() {
        record.event.priority = Priority::Low;
    }
    let verdict = match admission.verdict {
        Ok(reservation) => {
            record.reservation = reservation;
            Ok(())
        }
        Err(Denial::Budget(budget)) => Err(RelayError::BudgetExceeded {
            app: app.to_string(),
            renews_in_ms: budget.renews_in_ms,
        }),
        Err(Denial::Limit(refused)) => Err(RelayError::LimitReached {
            app: app.to_string(),
            model: refused.limit.is_models.then(|| model.to_string()),
            limit: refused.limit,
            retry_after_ms: refused.retry_after_ms,
        }),
    };
    (standing, verdict)
}

/// The tokens that a call is admitted by; none for one that makes nothing.
fn estimate(call: &Call<'_>, prompt_tokens: u64) -> u64 {
    let operation = call.route.operation;
    if call.method != Method::POST || !operation.is_billed() {
        return 0;
    }
    let generates = !matches!(operation, Operation::Embeddings | Operation::Speech);
    call_estimate(prompt_tokens, call.reading.max_output_tokens(), generates)
}

/// Puts how the app stands into an answer's headers. An app with limits is told of these only: a
/// backend's own are one deployment's of several, and shared with other apps.
pub(super) fn tell(standing: &Standing, headers: &mut HeaderMap, tells_budget: bool) {
    if let Some(limits) = &standing.limits {
        let others: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with(LIMIT_PREFIX))
            .cloned()
            .collect();
        for name in others {
            headers.remove(name);
        }
        for (name, value) in limits.headers() {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
    if let Some(budget) = &standing.budget
        && tells_budget
        && budget.state > BudgetState::Fine
    {
        set(headers, "x-spillway-budget", format!("{}%", budget.percent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::limit::{self, Reading};

    #[test]
    fn an_app_with_limits_is_told_of_its_own_only() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-renewalperiod-tokens",
        ] {
            headers.append(name, HeaderValue::from_static("9"));
            headers.append(name, HeaderValue::from_static("10"));
        }
        let mut unlimited = headers.clone();
        let reading = Reading {
            limit: 60,
            remaining: 59,
            reset_ms: 1001,
        };
        let standing = Standing {
            limits: Some(limit::Standing {
                requests: Some(reading),
                tokens: None,
            }),
            budget: None,
        };
        tell(&standing, &mut headers, true);
        let told: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.contains(&("x-ratelimit-limit-requests", "60")));
        assert!(told.contains(&("x-ratelimit-remaining-requests", "59")));
        assert!(told.contains(&("x-ratelimit-reset-requests", "2")));
        tell(&Standing::default(), &mut unlimited, true);
        assert_eq!(unlimited.len(), 4, "as the backend said it");
    }
}
