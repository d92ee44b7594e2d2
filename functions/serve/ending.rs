//! How a process ends when it is asked to: no call and no usage event is cut off that can be finished
//! within a bound.

use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Gateway, Keeping, Serving};
use crate::host::server::Ending;
use crate::outbox::recorder::Calls;

/// Longest wait for the calls under way, then for their events, and then for their telemetry. Container Apps
/// kills 30 s after it has asked.
const CALLS: Duration = Duration::from_secs(15);
const EVENTS: Duration = Duration::from_secs(8);
const TELEMETRY: Duration = Duration::from_secs(4);

/// How often is looked whether calls are under way.
const LOOK: Duration = Duration::from_millis(20);

/// Who would start the process again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starter {
    /// The Functions host. It takes the exit code 0 for a handler that wants no restart
    /// (azure-functions-host, `WorkerProcess.OnProcessExited`), and asks for no end itself: whoever
    /// did may have meant another process.
    Host,
    /// Anybody else: who asks for an end gets 0.
    Other,
}

/// SIGTERM and ctrl-c, which ask the process to end. From when this is made they are heard, and wait;
/// before, they kill. So it is made before the process can be reached, or opens what is to be closed.
#[derive(Debug)]
pub struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    /// Listens for both.
    ///
    /// # Errors
    /// When the system does not let it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn heard(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves on `listener` until that fails, or the process is `asked` to end.
///
/// # Errors
/// Those of [`Gateway::serve`]; and, below the Functions host, that the process was asked to end.
pub async fn serve_until_asked(
    gateway: Gateway,
    listener: TcpListener,
    keeping: Keeping,
    starter: Starter,
    mut asked: Asked,
) -> io::Result<()> {
    let (calls, sessions) = (gateway.calls(), gateway.sessions());
    let Serving {
        server,
        beside,
        telemetry,
    } = gateway.start(listener.local_addr()?.ip())?;
    tokio::select! {
        done = server.serve(&listener) => return done,
        () = asked.heard() => {}
    }
    drop(listener);
    let ending = server.end();
    if let Some(sessions) = sessions {
        sessions.end();
    }
    finish(&calls, ending, keeping).await;
    if let Some(telemetry) = telemetry
        && !telemetry.finish(TELEMETRY).await
    {
        tracing::warn!("telemetry may be lost: it could not be sent in time");
    }
    drop(beside);
    match starter {
        Starter::Other => Ok(()),
        Starter::Host => Err(io::Error::other("asked to end")),
    }
}

async fn finish(calls: &Calls, mut ending: Ending, keeping: Keeping) {
    let under_way = calls.count();
    tracing::info!(under_way, "asked to end: no more calls are taken");
    let all = async {
        ending.wait().await;
        // Sessions, and what was called from inside.
        while calls.count() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(CALLS, all).await.is_err() {
        tracing::error!(cut = calls.count(), "calls are cut off");
    }
    if !keeping.finish(EVENTS).await {
        tracing::error!("usage events may be lost: they could not be delivered in time");
    }
}
