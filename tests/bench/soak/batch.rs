//! Batch messages: sent to the queue, and their replies counted.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use super::backend::name;
use super::lock;
use super::traffic::{NIGHTLY, Wrong};

/// How long the receiver waits for a reply, s.
const WAIT_S: u64 = 2;

/// Sender and receiver of batch messages.
pub(super) struct Batch {
    http: reqwest::Client,
    /// The queues.
    queues: SocketAddr,
    pub(super) sent: Mutex<u64>,
    /// Replies by the message that they answer.
    replies: Mutex<BTreeMap<String, u32>>,
    /// The events that replies name.
    pub(super) events: Mutex<Vec<String>>,
    pub(super) wrong: Mutex<Wrong>,
    is_over: AtomicBool,
}

impl Batch {
    pub(super) fn new(http: reqwest::Client, queues: SocketAddr) -> Self {
        Self {
            http,
            queues,
            sent: Mutex::default(),
            replies: Mutex::default(),
            events: Mutex::default(),
            wrong: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// No further replies are waited for, but those that are there.
    pub(super) fn finish(&self) {
        self.is_over.store(true, Relaxed);
    }

    /// So many messages a second until `end`.
    pub(super) async fn send(self: Arc<Self>, rate: f64, end: Instant) {
        let begin = Instant::now();
        let mut number = 0_u32;
        loop {
            let due = begin + Duration::from_secs_f64(f64::from(number) / rate);
            if due >= end {
                return;
            }
            sleep_until(due).await;
            match self.send_one(number).await {
                Ok(()) => *lock(&self.sent) += 1,
                Err(why) => lock(&self.wrong).add(format!("message {number}: {why}")),
            }
            number += 1;
        }
    }

    async fn send_one(&self, number: u32) -> Result<(), String> {
        let app = NIGHTLY;
        let request = json!({
            "model": "gpt-4o",
            "user": name(app, number.into()),
            "messages": [{"role": "user", "content": "Which pumps came back in March?"}],
        });
        let line = json!({"custom_id": format!("c{number}"), "method": "POST",
            "url": "/v1/chat/completions", "body": request});
        let broker = json!({"MessageId": message(number)});
        let sent = self
            .http
            .post(format!("http://{}/batch/messages", self.queues))
            .header("BrokerProperties", broker.to_string())
            .header("content-type", "application/json")
            .header("app", format!("\"{app}\""))
            .body(line.to_string())
            .send();
        let answer = sent.await.map_err(|why| format!("{why:?}"))?;
        match answer.status().as_u16() {
            201 => Ok(()),
            status => Err(status.to_string()),
        }
    }

    /// Takes replies out until it is over and no more come.
    pub(super) async fn receive(self: Arc<Self>) {
        let url = format!(
            "http://{}/results/messages/head?timeout={WAIT_S}",
            self.queues
        );
        loop {
            let was_over = self.is_over.load(Relaxed);
            match self.take(&url).await {
                Ok(true) => {}
                Ok(false) if was_over => return,
                Ok(false) => {}
                Err(why) => {
                    lock(&self.wrong).add(format!("a reply: {why}"));
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes a reply out; whether there was one.
    async fn take(&self, url: &str) -> Result<bool, String> {
        let answer = self.http.delete(url).send().await;
        let answer = answer.map_err(|why| format!("{why:?}"))?;
        match answer.status().as_u16() {
            200 => {}
            204 => return Ok(false),
            status => return Err(status.to_string()),
        }
        let broker = answer.headers().get("brokerproperties");
        let broker =
            broker.and_then(|broker| serde_json::from_slice::<Value>(broker.as_bytes()).ok());
        let text = answer.text().await.map_err(|why| format!("{why:?}"))?;
        let body: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        let of = broker
            .as_ref()
            .and_then(|broker| broker.get("CorrelationId")?.as_str());
        let of = of.ok_or_else(|| format!("it answers nothing: {text}"))?;
        *lock(&self.replies).entry(of.to_owned()).or_default() += 1;
        let number = of.strip_prefix("m-").unwrap_or_default();
        let said = |field: &str| body.pointer(field);
        let is_its_own = said("/custom_id") == Some(&format!("c{number}").into())
            && said("/response/status_code") == Some(&200.into())
            && said("/response/body/id") == Some(&format!("call.{}.{number}.", NIGHTLY).into());
        if !is_its_own {
            return Err(text);
        }
        if let Some(id) = said("/response/request_id").and_then(Value::as_str) {
            lock(&self.events).push(id.to_owned());
        }
        Ok(true)
    }

    /// Waits until each message has a reply, `patience` at most.
    pub(super) async fn settle(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while Instant::now() < end {
            let (sent, replied) = (*lock(&self.sent), lock(&self.replies).len());
            if u64::try_from(replied).is_ok_and(|replied| replied >= sent) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Messages without a reply, and with several.
    pub(super) fn without_one_reply(&self) -> io::Result<(u64, usize)> {
        let replies = lock(&self.replies);
        let answered = u64::try_from(replies.len()).map_err(io::Error::other)?;
        let several = replies.values().filter(|count| **count > 1).count();
        Ok((lock(&self.sent).saturating_sub(answered), several))
    }
}

fn message(number: u32) -> String {
    format!("m-{number}")
}
