//! A kept answer, and how it lies in a blob.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::gateway::event::{Kind, Saving, Tokens, UsageSource};
use crate::gateway::service_tier::ServiceTier;
use crate::gateway::time::Timestamp;

/// The version of the form in blobs. One of another version is none.
const FORM: u8 = 1;

/// An answer that may be given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    form: u8,
    /// When it was whole.
    pub made: Timestamp,
    /// Its `content-type`.
    pub content_type: String,
    /// Whether it is a stream.
    pub is_stream: bool,
    /// The tokens that it took.
    pub tokens: Tokens,
    /// Where those come from.
    pub usage: UsageSource,
    /// The service tier that processed its call.
    #[serde(skip_serializing_if = "ServiceTier::is_standard", default)]
    pub service_tier: ServiceTier,
    /// The backend that made it.
    pub backend: Arc<str>,
    /// The deployment there.
    pub deployment: Arc<str>,
    /// Its kind.
    pub kind: Option<Kind>,
    /// The backend's region.
    pub region: Arc<str>,
    /// Its body, as the backend sent it.
    #[serde(skip)]
    pub body: Bytes,
}

impl Kept {
    /// An answer of `event`'s call.
    pub fn new(
        event: &crate::gateway::event::UsageEvent,
        content_type: String,
        body: Bytes,
    ) -> Self {
        Self {
            form: FORM,
            made: event.time.plus_ms(event.total_ms),
            content_type,
            is_stream: event.streamed,
            tokens: event.tokens,
            usage: event.usage,
            service_tier: event.service_tier,
            backend: Arc::clone(&event.backend),
            deployment: Arc::clone(&event.deployment),
            kind: event.kind,
            region: Arc::clone(&event.region),
            body,
        }
    }

    /// What it spares a call that takes it for these tokens less.
    pub fn saving(&self, tokens: Tokens) -> Saving {
        Saving {
            tokens,
            backend: Arc::clone(&self.backend),
            deployment: Arc::clone(&self.deployment),
            kind: self.kind,
        }
    }

    /// Its form in a blob: all but the body as a line of JSON, then the body.
    pub fn to_blob(&self) -> Bytes {
        // Texts and numbers always have a JSON form.
        let mut blob = serde_json::to_vec(self).unwrap_or_default();
        blob.push(b'\n');
        blob.extend_from_slice(&self.body);
        blob.into()
    }

    /// Reads [`Self::to_blob`]'s form; `None` where it is another.
    pub fn from_blob(blob: &Bytes) -> Option<Self> {
        let end = memchr::memchr(b'\n', blob)?;
        let kept: Self = serde_json::from_slice(blob.get(..end)?).ok()?;
        (kept.form == FORM).then(|| Self {
            body: blob.slice(end + 1..),
            ..kept
        })
    }
}

/// Whether a content filter ended the answer before its end: it is the value of `finish_reason`, or of the
/// reason of `incomplete_details`. In a generated text its quotes would be escaped.
pub fn is_filtered(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"\"content_filter\"").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::event::UsageEvent;

    #[test]
    fn a_kept_answer_comes_back_from_its_blob() {
        let event = UsageEvent {
            time: Timestamp::from_unix_ms(5),
            total_ms: 7,
            streamed: true,
            kind: Some(Kind::Payg),
            backend: "a".into(),
            tokens: Tokens {
                input: 3,
                ..Tokens::default()
            },
            usage: UsageSource::Reported,
            service_tier: ServiceTier::Priority,
            ..UsageEvent::default()
        };
        let body = Bytes::from_static(b"data: {}\n\ndata: [DONE]\n\n");
        let kept = Kept::new(&event, "text/event-stream".into(), body);
        let blob = kept.to_blob();
        assert_eq!(Kept::from_blob(&blob), Some(kept.clone()));
        assert_eq!(kept.made, Timestamp::from_unix_ms(12));
        let other = Kept { form: 2, ..kept };
        assert_eq!(Kept::from_blob(&other.to_blob()), None);
        assert_eq!(Kept::from_blob(&blob.slice(..20)), None);
    }

    #[test]
    fn a_filters_end_is_told_from_its_results_and_from_text() {
        assert!(is_filtered(br#"{"finish_reason": "content_filter"}"#));
        assert!(is_filtered(
            br#"{"incomplete_details":{"reason":"content_filter"}}"#
        ));
        assert!(!is_filtered(
            br#"{"content_filter_results":{},"content":"\"content_filter\""}"#
        ));
    }
}
