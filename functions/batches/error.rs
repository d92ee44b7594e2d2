//! What the batch API answers when it can't do what it was asked, in OpenAI's shape.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::json;

use crate::gateway::batches::record::Status;
use crate::gateway::limit::Limit;
use crate::host::bodies::{NO_ROOM, NO_ROOM_RETRY_MS};
use crate::host::problem::say_retry_after;
use crate::store::StoreError;
use crate::store::blobs::BlobError;

/// Why a call is answered with an error.
#[derive(Debug)]
pub(super) enum ApiError {
    /// There is no such file or batch, or it is another app's.
    NotFound(String),
    /// Something asked for can't be.
    Invalid {
        /// The parameter.
        param: &'static str,
        /// What is wrong and what to do.
        message: String,
    },
    /// The file is larger than the gateway takes.
    TooLarge {
        /// The most that is taken, MiB.
        max_mb: u32,
    },
    /// The client broke off what it was sending, or it is no form.
    Form(String),
    /// The client sends too slowly.
    Late,
    /// The bodies of other calls take all the memory that they may.
    NoRoom,
    /// A limit of the app is reached.
    LimitReached {
        /// The app.
        app: String,
        /// The limit.
        limit: Limit,
        /// When a call is admitted again.
        retry_after_ms: u64,
    },
    /// The app has as many batches that have not ended as it may.
    TooManyBatches {
        /// The most that it may have.
        most: usize,
    },
    /// A batch that has ended is to be called off.
    Ended(Status),
    /// What is kept can't be reached now.
    Unavailable(String),
    /// A method that the path does not have.
    Method,
}

impl ApiError {
    pub(super) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            param,
            message: message.into(),
        }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid { .. } | Self::Form(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Ended(_) => StatusCode::CONFLICT,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::LimitReached { .. } | Self::TooManyBatches { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unavailable(_) | Self::NoRoom => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found",
            Self::Invalid { .. } => "invalid_value",
            Self::Form(_) => "invalid_body",
            Self::TooLarge { .. } => "body_too_large",
            Self::Late => "body_late",
            Self::NoRoom => "bodies_full",
            Self::LimitReached { limit, .. } => limit.sort.code(),
            Self::TooManyBatches { .. } => "too_many_batches",
            Self::Ended(_) => "batch_ended",
            Self::Unavailable(_) => "store_unavailable",
            Self::Method => "method_not_allowed",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NotFound(id) => format!("`{id}` was not found."),
            Self::Invalid { message, .. } | Self::Form(message) => message.clone(),
            Self::TooLarge { max_mb } => format!("The file is larger than {max_mb} MiB."),
            Self::Late => "The body was not here in time.".into(),
            Self::NoRoom => NO_ROOM.into(),
            Self::LimitReached {
                app,
                limit,
                retry_after_ms,
            } => limit.reached(app, None, *retry_after_ms),
            Self::TooManyBatches { most } => format!(
                "The app has {most} batches that have not ended; wait for one to end, or call one off."
            ),
            Self::Ended(status) => format!("The batch has ended: it is {}.", status.as_str()),
            Self::Unavailable(_) => {
                "What is kept of files and batches can't be reached at the moment; try again."
                    .into()
            }
            Self::Method => "This path does not have that method.".into(),
        }
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response {
        if let Self::Unavailable(why) = &self {
            tracing::error!(why, "the batch API can't reach what is kept");
        }
        let kind = match self.status().as_u16() {
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let param = match &self {
            Self::Invalid { param, .. } => Some(*param),
            _ => None,
        };
        let body = json!({"error": {
            "code": self.code(),
            "message": self.message(),
            "type": kind,
            "param": param,
        }});
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status();
        let json = HeaderValue::from_static("application/json");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, json);
        if let Self::TooManyBatches { .. } = self {
            // Batches take minutes to hours; OpenAI's clients would try again in seconds.
            let name = HeaderName::from_static("x-should-retry");
            headers.insert(name, HeaderValue::from_static("false"));
        }
        if let Some(ms) = self.retry_after_ms() {
            say_retry_after(headers, ms);
        }
        response
    }

    const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::NoRoom => Some(NO_ROOM_RETRY_MS),
            Self::LimitReached { retry_after_ms, .. } => Some(*retry_after_ms),
            _ => None,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
