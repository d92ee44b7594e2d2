//! The way into the relay, for functions that make calls for apps. A function imports no other, so
//! that [`crate::serve`] hands it in.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::gateway::app::App;
use crate::gateway::batch::reply::Answer;
use crate::gateway::event::Kind;
use crate::gateway::priority::Priority;
use crate::gateway::time::Timestamp;

/// Something that is there some time later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A call for an app, through the relay's own attempt code.
#[derive(Clone, Debug)]
pub struct Errand {
    /// Who pays.
    pub app: Arc<App>,
    /// The path, in the v1 form.
    pub path: String,
    /// The request, JSON.
    pub body: Bytes,
    /// How urgent it is.
    pub priority: Priority,
    /// The one kind of deployment that it goes to; `None`: any.
    pub only: Option<Kind>,
}

/// What a call was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Called {
    /// The status.
    pub status: u16,
    /// The id of its usage event.
    pub request_id: String,
    /// When to come back, ms, where the answer says.
    pub retry_after_ms: Option<u64>,
    /// The code of the error that it is, where it is one.
    pub code: Option<String>,
    /// The body.
    pub body: Bytes,
    /// The most bytes that are taken of a body, where this one has more: `body` is empty then.
    pub beyond: Option<usize>,
}

/// What whoever asked for it is told. A body that is too large would be too large again.
impl From<Called> for Answer {
    fn from(called: Called) -> Self {
        match called.beyond {
            None => Self::Response {
                status: called.status,
                request_id: called.request_id,
                body: called.body,
            },
            Some(most) => Self::Error {
                code: "answer_too_large".into(),
                message: format!(
                    "The answer has more than {} MiB and is not kept; ask for less at once. The call that brought it is {}.",
                    most >> 20,
                    called.request_id
                ),
            },
        }
    }
}

/// A place among the low-priority calls that may run now; it is given back when it is dropped.
pub type Slot = Box<dyn fmt::Debug + Send>;

/// There was no slot in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSlot {
    /// When it is worth asking again, ms.
    pub retry_after_ms: u64,
}

/// What an app's calls for a model could go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Provisioned deployments.
    pub ptu: bool,
    /// Pay-as-you-go deployments.
    pub payg: bool,
}

/// The way into the relay.
pub trait Way: fmt::Debug + Send + Sync {
    /// The app of this name.
    fn app(&self, name: &str) -> Option<Arc<App>>;

    /// What the app's calls for the model could go to.
    fn kinds(&self, app: &App, model: &str) -> Kinds;

    /// Waits for a slot of the model's, until then at most.
    fn slot<'a>(&'a self, model: &'a str, until: Timestamp) -> Later<'a, Result<Slot, NoSlot>>;

    /// Makes a call, holding `slot` where it needs one.
    ///
    /// # Errors
    /// When the answer broke off.
    fn call(&self, errand: Errand, slot: Option<Slot>) -> Later<'_, Result<Called, String>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_too_large_is_told_as_an_error() {
        let mut called = Called {
            status: 200,
            request_id: "01J".into(),
            body: Bytes::from_static(b"{}"),
            ..Called::default()
        };
        let answer = Answer::from(called.clone());
        assert!(matches!(answer, Answer::Response { status: 200, .. }));
        called.beyond = Some(4 << 20);
        let Answer::Error { code, message } = Answer::from(called) else {
            panic!("it has no body");
        };
        assert_eq!(code, "answer_too_large");
        assert!(message.contains("4 MiB") && message.contains("01J"));
    }
}
