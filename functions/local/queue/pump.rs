//! What the Functions host does for a Service Bus trigger: takes messages, calls the function with
//! each, renews locks meanwhile, completes or abandons.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::broker::Delivery;
use super::host_form::{Host, body, guid};
use super::{LOCK, Queues};
use crate::host::invocation::INVOCATION_ID;

/// Messages at a time, and how long a lock is renewed: as in host.json.
const CONCURRENCY: usize = 16;
const RENEWAL: Duration = Duration::from_secs(29 * 60);

/// The function, by the name of its folder.
const FUNCTION: &str = "batch";

/// Takes messages from `queue` and calls the function at `handler` with each, until the end of the
/// process.
pub(super) async fn run(queues: Queues, queue: String, handler: SocketAddr) {
    let client = reqwest::Client::builder().no_proxy().build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "batch messages can't be delivered"),
    };
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let delivery = queues.receive(&queue).await;
        let call = Call {
            queues: queues.clone(),
            queue: queue.clone(),
            url: format!("http://{handler}/{FUNCTION}"),
            client: client.clone(),
        };
        tokio::spawn(async move {
            call.deliver(delivery).await;
            drop(permit);
        });
    }
}

struct Call {
    queues: Queues,
    queue: String,
    url: String,
    client: reqwest::Client,
}

impl Call {
    async fn deliver(self, delivery: Delivery) {
        let token = delivery.token;
        let end = Instant::now() + RENEWAL;
        let invoke = self.invoke(&delivery);
        tokio::pin!(invoke);
        let is_done = loop {
            let next = (Instant::now() + LOCK / 3).min(end);
            match timeout_at(next, &mut invoke).await {
                Ok(is_done) => break is_done,
                Err(_) if Instant::now() < end => self.queues.renew(&self.queue, token),
                // The lock runs out; the function goes on, as it would at the host.
                Err(_) => break (&mut invoke).await,
            }
        };
        if is_done {
            self.queues.complete(&self.queue, token);
        } else {
            self.queues.abandon(&self.queue, token);
        }
    }

    /// Calls the function; whether it says that it is done.
    async fn invoke(&self, delivery: &Delivery) -> bool {
        let host = Host {
            function: FUNCTION,
            namespace: "local",
            lock: &guid(fastrand::u128(..)),
            random: &guid(fastrand::u128(..)),
            now: self.queues.now(),
        };
        let request = self
            .client
            .post(&self.url)
            .header(INVOCATION_ID, guid(fastrand::u128(..)))
            .header("x-azure-functions-hostversion", "0.0.0.0")
            .header("content-type", "application/json; charset=utf-8")
            .body(body(&delivery.received, &host));
        match request.send().await {
            Ok(answer) => answer.status().is_success(),
            Err(error) => {
                tracing::warn!(%error, "the batch function was not reached");
                tokio::time::sleep(Duration::from_secs(1)).await;
                false
            }
        }
    }
}
