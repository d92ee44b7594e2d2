//! Counts the messages of a queue by the service's management form: Atom XML at the queue's own
//! address, as the SDKs' `ServiceBusAdministrationClient` asks for it (learn:
//! service-bus-messaging/message-counters).
//!
//! That takes the right to manage the queue: the role Azure Service Bus Data Owner. How long the oldest
//! message has waited it does not say.

use std::fmt;
use std::pin::Pin;

use http::header::AUTHORIZATION;

use super::{PATIENCE, ServiceBus, encoded};
use crate::azure::{describe, whole};
use crate::gateway::time::Timestamp;

/// The version that the SDKs ask with.
const API_VERSION: &str = "2021-05";

/// Largest answer that is read, bytes: a queue's description has some 3 KB.
const MAX_ANSWER: usize = 64 * 1024;

/// The messages of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Messages {
    /// Those that wait to be delivered or are being handled.
    pub waiting: u64,
    /// Those that appear later.
    pub scheduled: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the oldest of those that wait came; `None` where there is none, or that is not told.
    pub oldest: Option<Timestamp>,
}

/// Why messages can't be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CountError {
    /// The identity may not.
    Forbidden,
    /// The service could not be reached, or said what can't be read.
    Unreadable(String),
}

impl fmt::Display for CountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden => f.write_str(
                "the gateway's identity may not count the queue's messages: that takes the role Azure Service Bus Data Owner on the queue",
            ),
            Self::Unreadable(why) => write!(f, "the queue's messages can't be counted: {why}"),
        }
    }
}

impl std::error::Error for CountError {}

/// What counting comes to, some time later.
pub type Counted<'a> = Pin<Box<dyn Future<Output = Result<Messages, CountError>> + Send + 'a>>;

/// Who can count the messages of queues.
pub trait Counts: fmt::Debug + Send + Sync {
    /// Counts those of a queue.
    fn count<'a>(&'a self, queue: &'a str) -> Counted<'a>;
}

impl Counts for ServiceBus {
    fn count<'a>(&'a self, queue: &'a str) -> Counted<'a> {
        Box::pin(self.messages(queue))
    }
}

impl ServiceBus {
    async fn messages(&self, queue: &str) -> Result<Messages, CountError> {
        let (namespace, queue) = (&self.namespace, encoded(queue));
        let url = format!("{namespace}/{queue}?api-version={API_VERSION}&enrich=false");
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            let header = token.header(self.clock.now(), PATIENCE).await;
            let none =
                |_| CountError::Unreadable("the gateway has no token for Service Bus".into());
            request = request.header(AUTHORIZATION, header.map_err(none)?);
        }
        let answer = request.send().await.map_err(|error| unreadable(&error))?;
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => return Err(CountError::Forbidden),
            status => {
                return Err(CountError::Unreadable(format!(
                    "Service Bus answers {status}"
                )));
            }
        }
        let body = whole(answer, MAX_ANSWER).await;
        let body = body.map_err(|_| CountError::Unreadable("the answer broke off".into()))?;
        read(&String::from_utf8_lossy(&body)).ok_or_else(|| {
            // A queue that is not there is a feed of nothing.
            CountError::Unreadable("there is no such queue, or the answer has no counts".into())
        })
    }
}

fn unreadable(error: &dyn std::error::Error) -> CountError {
    CountError::Unreadable(describe(error))
}

/// The counts of a queue's description.
fn read(xml: &str) -> Option<Messages> {
    Some(Messages {
        waiting: number(xml, "ActiveMessageCount")?,
        scheduled: number(xml, "ScheduledMessageCount")?,
        dead: number(xml, "DeadLetterMessageCount")?,
        oldest: None,
    })
}

/// The number in the first element of this name, in whatever namespace.
fn number(xml: &str, name: &str) -> Option<u64> {
    xml.split('<').find_map(|piece| {
        let (tag, text) = piece.split_once('>')?;
        let tag = tag.split_ascii_whitespace().next()?;
        let local = tag.rsplit(':').next()?;
        (local == name).then(|| text.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue's description, shortened.
    const QUEUE: &str = r#"<entry xmlns="http://www.w3.org/2005/Atom"><title type="text">batch</title><content type="application/xml"><QueueDescription xmlns="http://schemas.microsoft.com/netservices/2010/10/servicebus/connect" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"><LockDuration>PT1M</LockDuration><MessageCount>22</MessageCount><CountDetails xmlns:d2p1="http://schemas.microsoft.com/netservices/2011/06/servicebus"><d2p1:ActiveMessageCount>12</d2p1:ActiveMessageCount><d2p1:DeadLetterMessageCount>3</d2p1:DeadLetterMessageCount><d2p1:ScheduledMessageCount>7</d2p1:ScheduledMessageCount><d2p1:TransferMessageCount>0</d2p1:TransferMessageCount><d2p1:TransferDeadLetterMessageCount>0</d2p1:TransferDeadLetterMessageCount></CountDetails></QueueDescription></content></entry>"#;

    #[test]
    fn a_queues_description_has_its_counts() {
        let expected = Messages {
            waiting: 12,
            scheduled: 7,
            dead: 3,
            oldest: None,
        };
        assert_eq!(read(QUEUE), Some(expected));
    }

    #[test]
    fn what_has_no_counts_is_not_none_waiting() {
        let nothing = r#"<feed xmlns="http://www.w3.org/2005/Atom"><title type="text">Publicly Listed Services</title></feed>"#;
        for wrong in ["", nothing, &QUEUE.replace(">12<", ">many<"), "<<>><a:"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
