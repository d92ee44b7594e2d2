//! A low-priority call's slot: it waits for one before it goes to a provisioned deployment.

use super::call::Call;
use super::error::RelayError;
use super::record::CallRecord;
use crate::gateway::event::Kind;
use crate::gateway::priority::Priority;

/// Waits for the call's slot, where it needs one: a low-priority call that uses tokens and may go to a
/// provisioned deployment. The record holds the slot until the call has ended. One whose maker
/// has seen to that needs no other.
pub(super) async fn take_slot(call: &Call<'_>, record: &mut CallRecord) -> Result<(), RelayError> {
    if call.is_paced || !needs_slot(call, record) {
        return Ok(());
    }
    let limits = &call.relay.settings.limits;
    let longest_ms = limits.wait_budget_ms.min(limits.deadline_ms);
    let until = record.now().plus_ms(longest_ms);
    let model = call.model.name();
    let slot = call.relay.slots.acquire(model, until).await;
    let slot = slot.map_err(|none| RelayError::NoSlot {
        model: model.to_string(),
        retry_after_ms: none.retry_after_ms,
    })?;
    record.slot = Some(slot);
    Ok(())
}

fn needs_slot(call: &Call<'_>, record: &CallRecord) -> bool {
    let may_go_to_ptu = || {
        let mut deployments = call.model.deployments();
        deployments.any(|d| d.spec.kind == Kind::Ptu && call.caller.app.may_use(&d.spec))
    };
    record.event.priority == Priority::Low
        && record.can_use
        && call.route.operation.is_billed()
        && call.relay.slots.are_needed_for(call.model.name())
        && may_go_to_ptu()
}
