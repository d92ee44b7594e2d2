//! A thread that works beside the calls until it is asked to finish.

use std::io;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

/// A thread with a runtime of its own. It is asked to finish when this is dropped, too.
#[derive(Debug)]
pub(super) struct Thread {
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Thread {
    /// Has a thread of this name do `work`, which ends soon after what it is given says so.
    ///
    /// # Errors
    /// When the thread can't be started.
    pub(super) fn start<W>(
        name: &str,
        work: impl FnOnce(watch::Receiver<bool>) -> W + Send + 'static,
    ) -> io::Result<Self>
    where
        W: Future<Output = ()>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name(name.into());
        thread.spawn(move || {
            runtime.block_on(work(stopped));
            // Whoever asked may not wait any more.
            let _ = end.send(());
        })?;
        Ok(Self { stop, ended })
    }

    /// Asks it to finish and waits, `patience` at most. Whether it has.
    pub(super) async fn finish(self, patience: Duration) -> bool {
        self.stop.send_replace(true);
        // An error is the end of the thread.
        tokio::time::timeout(patience, self.ended).await.is_ok()
    }
}
