//! Has telemetry sent, where the configuration wants that.

use std::io;

use super::Gateway;
use super::thread::Thread;
use crate::gateway::event::Attempt;
use crate::relay::Relay;
use crate::telemetry::{Target, Telemetry};

impl Gateway {
    /// This gateway, whose calls and metrics are told of by `telemetry`, from now until its end.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn with_telemetry(mut self, telemetry: Telemetry) -> io::Result<Self> {
        let current = &self.swap.console;
        let console = current.get().counting(telemetry.dropped());
        let started = console.started();
        current.set(console);
        let (relay, console) = (self.relay.clone(), current.clone());
        let target = move |attempt: &Attempt| target(&relay.get(), attempt);
        let families = async move || console.get().families().await;
        let thread = Thread::start("telemetry", move |stop| {
            telemetry.run(target, families, started, stop)
        });
        self.telemetry = Some(thread?);
        Ok(self)
    }
}

/// What the running configuration says of where an attempt went. One that was made under an earlier one may
/// be gone.
fn target(relay: &Relay, attempt: &Attempt) -> Option<Target> {
    let backend = relay.settings.backends.get(&attempt.backend)?;
    let (address, port) = backend.place.address();
    let names = relay.metrics.names();
    let place = names.deployment(&attempt.backend, &attempt.deployment);
    let name = place.and_then(|place| names.deployments.get(place));
    Some(Target {
        address: address.to_owned(),
        port,
        model: name.map(|name| name.model.clone()),
        tier: name.map(|name| name.tier),
    })
}
