//! Refusals that are one deployment's own: another one of the same model may take the call.

use memchr::memmem;

use super::call::Call;
use crate::gateway::classify::{OwnRefusal, own_refusal};
use crate::gateway::deployment::Deployment;
use crate::gateway::event::Kind;
use crate::gateway::route::Operation;

/// Whether the body of a 400 has to be read to know if another deployment may take the call.
pub(super) fn is_read(call: &Call<'_>, deployment: &Deployment, status: u16) -> bool {
    status == 400 && (has_encrypted_content(call) || may_spill(call, deployment))
}

/// Whether this 400 is the deployment's own.
pub(super) fn is_own(call: &Call<'_>, deployment: &Deployment, body: &[u8]) -> bool {
    match own_refusal(body) {
        Some(OwnRefusal::EncryptedContent) => has_encrypted_content(call),
        Some(OwnRefusal::ContextLength) => may_spill(call, deployment),
        None => false,
    }
}

/// Whether the call brings encrypted reasoning, which no id tells the owner of.
fn has_encrypted_content(call: &Call<'_>) -> bool {
    call.route.operation == Operation::Responses
        && call.pinned.is_none()
        && memmem::find(&call.body, b"\"encrypted_content\"").is_some()
}

/// Whether the call may go to pay-as-you-go where a provisioned deployment does not take it.
fn may_spill(call: &Call<'_>, deployment: &Deployment) -> bool {
    let app = &call.caller.app;
    let mut others = call.model.deployments();
    deployment.spec.kind == Kind::Ptu
        && call.only.is_none()
        && others.any(|other| other.spec.kind == Kind::Payg && app.may_use(&other.spec))
}
