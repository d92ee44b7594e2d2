//! The way into the relay from within this process: a call that another function makes for an app
//! that it has identified itself. It is attempted, limited and charged like any other.

use std::sync::Arc;
use std::time::Instant;

use axum::response::Response;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::answer::{admit_and_run, log_prompt, prepare, refuse};
use super::call::{Call, Patience};
use super::error::RelayError;
use super::headers::set;
use super::reading::Reading;
use super::record::CallRecord;
use super::{Relay, Worker};
use crate::current::Current;
use crate::gateway::id::new_id;
use crate::gateway::identity::Identity;
use crate::gateway::route::Route;
use crate::way::Errand;

/// The relay, for other functions.
#[derive(Clone)]
pub struct Inside {
    worker: Worker,
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

impl Inside {
    /// A way into `relay`, with connections of its own.
    pub fn new(relay: &Current<Relay>, tls: &rustls::ClientConfig) -> Self {
        Self {
            worker: Worker::new(relay, tls),
        }
    }

    /// The relay as it is now.
    pub fn relay(&self) -> Arc<Relay> {
        self.worker.relay.get()
    }

    /// Makes a call. Its answer has the id of its usage event in `x-spillway-request-id`. `is_paced`:
    /// its slot is held until the answer has ended, or it goes where it needs none.
    pub async fn call(&self, errand: Errand, is_paced: bool) -> Response {
        let relay = self.relay();
        let id = new_id(relay.clock.now(), &mut fastrand::Rng::new());
        let mut response = self.answer(&relay, errand, is_paced, &id).await;
        set(response.headers_mut(), "x-spillway-request-id", &id);
        response
    }

    async fn answer(
        &self,
        relay: &Arc<Relay>,
        errand: Errand,
        is_paced: bool,
        id: &str,
    ) -> Response {
        let Some(route) = Route::parse(&errand.path, "") else {
            return RelayError::NoSuchPath(errand.path).into_response();
        };
        let caller = Identity {
            app: errand.app,
            principal: None,
        };
        let recorder = self.worker.recorder.clone();
        let mut record = CallRecord::new(relay.clock, recorder, id.to_owned(), route.path);
        record.called_by(&caller);
        record.operation = route.operation;
        record.event.priority = errand.priority;
        log_prompt(relay, &caller.app, &route, &errand.body, &mut record);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut call = Call {
            relay,
            upstream: &self.worker.upstream,
            method: Method::POST,
            headers: &headers,
            reading: Reading::none(),
            model: Arc::clone(&relay.settings.any_backend),
            pinned: None,
            homes: Vec::new(),
            only: errand.only,
            is_paced,
            patience: Patience::of_batch(&relay.settings.gateway),
            body: errand.body.clone(),
            route,
            caller,
            started: Instant::now(),
        };
        match prepare(&mut call, &errand.body, &mut record).await {
            Ok(()) => admit_and_run(&mut call, record).await,
            Err(error) => refuse(error, record),
        }
    }
}
