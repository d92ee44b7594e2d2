//! What the relay itself answers when it can't pass an answer on, in OpenAI's shape.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{Method, StatusCode};
use serde_json::json;

use super::headers::set;
use crate::gateway::event::Attempt;
use crate::gateway::identity::{Refusal, Wanted};
use crate::gateway::limit::Limit;
use crate::gateway::plan::GiveUp;
use crate::gateway::request::BodyError;
use crate::gateway::transform::TransformError;
use crate::host::bodies::{NO_ROOM, NO_ROOM_RETRY_MS};
use crate::host::problem::say_retry_after;

/// The methods of calls that are passed on, as an answer names them.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Why a call gets no backend's answer.
#[derive(Debug)]
pub(super) enum RelayError {
    /// The URL is none of the API's.
    NoSuchPath(String),
    /// Calls of this method are not passed on.
    MethodNotAllowed(Method),
    /// The body is compressed, in this way.
    Encoded(String),
    /// The caller was turned away at the door.
    Refused(Refusal),
    /// The call asks for a priority that there is not.
    NoSuchPriority,
    /// The app may not use this model.
    ModelNotAllowed {
        /// The app.
        app: String,
        /// The model.
        model: String,
    },
    /// No deployment serves this model.
    NoSuchModel(String),
    /// The call names no model where it has to.
    NoModel,
    /// A realtime session where none can be had.
    NoRealtime,
    /// A realtime session that was not asked for as one.
    UpgradeRequired,
    /// There are as many realtime sessions as the gateway takes.
    SessionsFull,
    /// The body can't be read.
    Body(BodyError),
    /// The response is to be made in the background, and the app may not have that.
    BackgroundNotAllowed {
        /// The app.
        app: String,
    },
    /// What the call asks for is refused by a rule of its app.
    NotByRule(TransformError),
    /// The body is larger than the gateway takes.
    TooLarge {
        /// The limit, MiB.
        max_mb: u32,
    },
    /// The bodies of other calls take all the memory that they may.
    NoRoom,
    /// The client broke off its body.
    BodyBroken,
    /// The body took too long to come.
    BodyLate {
        /// How long it could have taken, ms.
        deadline_ms: u64,
    },
    /// What the call names is not this app's, or not there.
    NoSuchObject(String),
    /// A limit of the app is reached.
    LimitReached {
        /// The app.
        app: String,
        /// The model, where the limit is the app's with this model only.
        model: Option<String>,
        /// The limit.
        limit: Limit,
        /// When a call is admitted again.
        retry_after_ms: u64,
    },
    /// A low-priority call got no slot in time.
    NoSlot {
        /// The model.
        model: String,
        /// When it is worth asking again.
        retry_after_ms: u64,
    },
    /// The app has spent its budget.
    BudgetExceeded {
        /// The app.
        app: String,
        /// When the next month begins.
        renews_in_ms: u64,
    },
    /// No deployment could answer.
    NoAnswer {
        /// Why.
        why: GiveUp,
        /// What was tried.
        attempts: Vec<Attempt>,
    },
    /// Who owns what the call names can't be read now.
    StoreUnavailable,
    /// The client wants a kept answer only, and there is none.
    NotKept,
    /// A request that cannot be built, for example for its URL.
    Unsendable(String),
}

impl RelayError {
    /// The status that the client sees.
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::NoSuchPath(_) | Self::NoSuchModel(_) | Self::NoSuchObject(_) => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Encoded(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Refused(why) => refused_status(why),
            Self::ModelNotAllowed { .. } => StatusCode::FORBIDDEN,
            Self::NoModel
            | Self::Body(_)
            | Self::BackgroundNotAllowed { .. }
            | Self::NotByRule(_)
            | Self::BodyBroken
            | Self::NoSuchPriority
            | Self::Unsendable(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoRealtime => StatusCode::NOT_IMPLEMENTED,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::StoreUnavailable | Self::SessionsFull | Self::NoRoom => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::LimitReached { .. } | Self::NoSlot { .. } | Self::BudgetExceeded { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::BodyLate { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::NotKept => StatusCode::GATEWAY_TIMEOUT,
            Self::NoAnswer { why, .. } => match why {
                GiveUp::AllThrottled { .. } => StatusCode::TOO_MANY_REQUESTS,
                GiveUp::DeadlinePassed => StatusCode::GATEWAY_TIMEOUT,
                GiveUp::AllFailed => StatusCode::SERVICE_UNAVAILABLE,
                GiveUp::NoDeployment => StatusCode::FORBIDDEN,
            },
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchPath(_) => "path_not_found",
            Self::MethodNotAllowed(_) => "method_not_allowed",
            Self::Encoded(_) => "encoding_not_supported",
            Self::Refused(why) => refused_code(why),
            Self::NoSuchPriority => "invalid_priority",
            Self::ModelNotAllowed { .. } => "model_not_allowed",
            Self::NoSuchModel(_) => "model_not_found",
            Self::NoModel => "model_missing",
            Self::NoRealtime => "realtime_not_available",
            Self::UpgradeRequired => "upgrade_required",
            Self::SessionsFull => "too_many_sessions",
            Self::Body(_) | Self::BodyBroken => "invalid_body",
            Self::BackgroundNotAllowed { .. } => "background_not_allowed",
            Self::NotByRule(_) => "parameter_not_allowed",
            Self::TooLarge { .. } => "body_too_large",
            Self::NoRoom => "bodies_full",
            Self::BodyLate { .. } => "body_late",
            Self::NoSuchObject(_) => "not_found",
            Self::StoreUnavailable => "store_unavailable",
            Self::Unsendable(_) => "invalid_request",
            Self::NotKept => "not_cached",
            Self::LimitReached { limit, .. } => limit.sort.code(),
            Self::NoSlot { .. } => "no_slot",
            Self::BudgetExceeded { .. } => "budget_exceeded",
            Self::NoAnswer { why, .. } => match why {
                GiveUp::AllThrottled { .. } => "all_deployments_full",
                GiveUp::DeadlinePassed => "deadline_passed",
                GiveUp::AllFailed => "all_deployments_failed",
                GiveUp::NoDeployment => "backend_not_allowed",
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self.status().as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NoSuchPath(path) => format!(
                "{path} is no path of this gateway; it serves /openai/deployments/MODEL/..., /openai/v1/... and /v1/..., each also below /low"
            ),
            Self::MethodNotAllowed(method) => {
                format!("The method {method} is not passed on; calls are made with {METHODS}.")
            }
            Self::Encoded(coding) => {
                format!(
                    "The body is encoded ({coding}); send it as it is, without Content-Encoding."
                )
            }
            Self::Refused(why) => refused_message(why),
            Self::NoSuchPriority => "`x-spillway-priority` must be `low` or `high`.".into(),
            Self::ModelNotAllowed { app, model } => {
                format!("The app `{app}` may not use the model `{model}`.")
            }
            Self::NoSuchModel(model) => {
                format!(
                    "The model `{model}` does not exist here; GET /v1/models lists those that do."
                )
            }
            Self::NoModel => "The call names no `model`.".into(),
            Self::NoRealtime => "The realtime API needs a WebSocket, which the Azure Functions host in front of this gateway does not pass on; a gateway that runs as a container, with `spillway serve`, has it.".into(),
            Self::UpgradeRequired => "The realtime API is spoken over WebSocket: ask for `Upgrade: websocket`.".into(),
            Self::SessionsFull => {
                "There are as many realtime sessions as this gateway takes; try again.".into()
            }
            Self::Body(error) => sentence(&error.to_string()),
            Self::BackgroundNotAllowed { app } => format!(
                "What a response uses that is made in the background can't be counted, because the call ends before it is known. Leave out `background`, or ask the operator for `allow_background` of the app `{app}`."
            ),
            Self::NotByRule(error) => sentence(&error.to_string()),
            Self::TooLarge { max_mb } => format!("The body is larger than {max_mb} MiB."),
            Self::NoRoom => NO_ROOM.into(),
            Self::BodyBroken => "The body broke off.".into(),
            Self::BodyLate { deadline_ms } => {
                format!("The body was not here within {deadline_ms} ms.")
            }
            Self::NoSuchObject(id) => format!("`{id}` was not found."),
            Self::StoreUnavailable => {
                "Where this object is kept can't be read at the moment; try again.".into()
            }
            Self::Unsendable(what) => sentence(what),
            Self::NotKept => {
                "No answer to this call is kept, and `cache-control: only-if-cached` allows no other.".into()
            }
            Self::LimitReached {
                app,
                model,
                limit,
                retry_after_ms,
            } => limit.reached(app, model.as_deref(), *retry_after_ms),
            Self::NoSlot {
                model,
                retry_after_ms,
            } => format!(
                "The model `{model}` has no room for low-priority calls at the moment; try again in {retry_after_ms} ms."
            ),
            Self::BudgetExceeded { app, .. } => {
                format!("The app `{app}` has spent its budget of this month.")
            }
            Self::NoAnswer { why, attempts } => no_answer(*why, attempts),
        }
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response {
        let param = match &self {
            Self::NoSuchModel(_) | Self::NoModel => Some("model"),
            Self::BackgroundNotAllowed { .. } => Some("background"),
            Self::NotByRule(TransformError::Refused { name, .. }) => Some(name.as_str()),
            _ => None,
        };
        let body = json!({"error": {
            "code": self.code(),
            "message": self.message(),
            "type": self.kind(),
            "param": param,
        }});
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Self::Refused(why) = &self
            && self.status() == StatusCode::UNAUTHORIZED
        {
            headers.insert(WWW_AUTHENTICATE, challenge(why));
        }
        match &self {
            Self::MethodNotAllowed(_) => set(headers, ALLOW.as_str(), METHODS),
            Self::Encoded(_) => set(headers, ACCEPT_ENCODING.as_str(), "identity"),
            _ => {}
        }
        if let Self::BudgetExceeded { .. } = self {
            // OpenAI's clients would try again in seconds where Retry-After is more than a minute.
            set(headers, "x-should-retry", "false");
        }
        if let Some(ms) = self.retry_after_ms() {
            say_retry_after(headers, ms);
        }
        response
    }

    const fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::NoAnswer {
                why: GiveUp::AllThrottled { retry_after_ms },
                ..
            }
            | Self::Refused(Refusal::KeysUnavailable { retry_after_ms })
            | Self::LimitReached { retry_after_ms, .. }
            | Self::NoSlot { retry_after_ms, .. } => Some(*retry_after_ms),
            Self::BudgetExceeded { renews_in_ms, .. } => Some(*renews_in_ms),
            Self::NoRoom => Some(NO_ROOM_RETRY_MS),
            _ => None,
        }
    }
}

const fn refused_status(why: &Refusal) -> StatusCode {
    match why {
        Refusal::NothingShown(_) | Refusal::WrongKey | Refusal::BadToken(_) => {
            StatusCode::UNAUTHORIZED
        }
        Refusal::UnknownApp { .. } | Refusal::Disagreement | Refusal::NotAdmin => {
            StatusCode::FORBIDDEN
        }
        Refusal::KeysUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

const fn refused_code(why: &Refusal) -> &'static str {
    match why {
        Refusal::NothingShown(Wanted::Token) => "token_missing",
        Refusal::NothingShown(Wanted::Key | Wanted::Either) => "key_missing",
        Refusal::WrongKey => "invalid_api_key",
        Refusal::BadToken(_) => "invalid_token",
        Refusal::UnknownApp { .. } => "unknown_app",
        Refusal::Disagreement => "key_and_token_differ",
        Refusal::KeysUnavailable { .. } => "identity_unavailable",
        Refusal::NotAdmin => "not_admin",
    }
}

fn refused_message(why: &Refusal) -> String {
    const KEY: &str =
        "the app's key as `api-key`, `Ocp-Apim-Subscription-Key` or `Authorization: Bearer`";
    match why {
        Refusal::NothingShown(Wanted::Key) => format!("No key: send {KEY}."),
        Refusal::NothingShown(Wanted::Token) => {
            "No token: send an Entra token as `Authorization: Bearer`.".into()
        }
        Refusal::NothingShown(Wanted::Either) => {
            format!(
                "No key and no token: send {KEY}, or an Entra token as `Authorization: Bearer`."
            )
        }
        Refusal::WrongKey => "This key is no app's.".into(),
        Refusal::BadToken(fault) => sentence(fault.as_str()),
        Refusal::UnknownApp { app_id } => {
            format!("The app with the application id {app_id} is not registered with this gateway.")
        }
        Refusal::Disagreement => "The key and the token are those of different apps.".into(),
        Refusal::KeysUnavailable { .. } => {
            "Tokens can't be verified at the moment: Entra's signing keys could not be fetched."
                .into()
        }
        Refusal::NotAdmin => "Only administrators may do this.".into(),
    }
}

/// What a 401 says in `WWW-Authenticate`. A call that showed nothing gets no error code
/// (RFC 6750, section 3.1).
fn challenge(why: &Refusal) -> HeaderValue {
    let text = match why {
        Refusal::BadToken(fault) => {
            let description = fault.as_str();
            format!("Bearer error=\"invalid_token\", error_description=\"{description}\"")
        }
        Refusal::WrongKey => "Bearer error=\"invalid_token\"".into(),
        _ => "Bearer".into(),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).chain(['.']).collect()
}

fn no_answer(why: GiveUp, attempts: &[Attempt]) -> String {
    let reason = match why {
        GiveUp::AllThrottled { retry_after_ms } => {
            format!("All deployments of this model are full; try again in {retry_after_ms} ms.")
        }
        GiveUp::DeadlinePassed => "No deployment answered in time.".into(),
        GiveUp::AllFailed => "No deployment of this model could answer.".into(),
        GiveUp::NoDeployment => {
            "This app may use none of the backends that serve this call.".into()
        }
    };
    let tried: Vec<String> = attempts.iter().map(describe).collect();
    if tried.is_empty() {
        return reason;
    }
    format!("{reason} Tried: {}.", tried.join(", "))
}

fn describe(attempt: &Attempt) -> String {
    match (attempt.status, &attempt.error) {
        (Some(status), None) => format!("{} ({status})", attempt.backend),
        (Some(status), Some(error)) => format!("{} ({status}, {error})", attempt.backend),
        (None, Some(error)) => format!("{} ({error})", attempt.backend),
        (None, None) => attempt.backend.to_string(),
    }
}
