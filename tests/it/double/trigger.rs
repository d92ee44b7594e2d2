//! Triggers: `POST /{FunctionName}` to the handler, and what becomes of its answer
//! (DefaultHttpWorkerService).

use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::Host;
use super::proxy::{VERSION, invocation_id};

/// What became of an invocation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The handler's answer.
    Succeeded(Value),
    /// The invocation failed; the host knows no more than this.
    Failed(String),
    /// It took longer than functionTimeout: the handler was killed, with all else that it did.
    TimedOut,
}

impl Host {
    /// Invokes a function with this body, which is sent in chunks.
    pub(crate) async fn invoke(&self, function: &str, body: &Value) -> Outcome {
        let limit = self.0.times.function_timeout;
        let invocation = self.post(function, body);
        if let Ok(outcome) = timeout(limit, invocation).await {
            return outcome;
        }
        self.restart().await;
        Outcome::TimedOut
    }

    async fn post(&self, function: &str, body: &Value) -> Outcome {
        let function = &self.function(function).name;
        let Some(address) = self.address() else {
            return Outcome::Failed("there is no handler".into());
        };
        let bytes = serde_json::to_vec(body).unwrap();
        let chunk = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes)]);
        let sent = self
            .0
            .client
            .post(format!("http://{address}/{function}"))
            .header("X-Azure-Functions-HostVersion", VERSION)
            .header("X-Azure-Functions-InvocationId", invocation_id())
            .header("User-Agent", format!("Azure-Functions-Host/{VERSION}"))
            .header("Content-Type", "application/json; charset=utf-8")
            .body(reqwest::Body::wrap_stream(chunk))
            .send();
        let answer = match sent.await.and_then(reqwest::Response::error_for_status) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let kind = answer.headers().get("content-type").cloned();
        let text = match answer.text().await {
            Ok(text) => text,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        // Nothing is a result that never comes: nobody ends the invocation but its time-out.
        if text.is_empty() || text.trim() == "null" {
            sleep(self.0.times.function_timeout * 2).await;
        }
        let is_json = kind.is_some_and(|kind| kind.to_str().unwrap().contains("json"));
        match serde_json::from_str(&text) {
            Ok(answer) if is_json => Outcome::Succeeded(answer),
            _ => Outcome::Failed("the answer is no JSON".into()),
        }
    }
}
