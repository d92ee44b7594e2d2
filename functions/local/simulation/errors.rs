//! What the resource says when it refuses, in Azure's words (azure-facts, section 1, "Error bodies").

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::limits::Refusal;
use super::route::Route;

/// An error answer: Azure's envelope with its status and headers.
#[derive(Debug)]
pub(super) struct WireError {
    status: StatusCode,
    body: Value,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl WireError {
    fn new(status: StatusCode, error: &Value) -> Self {
        Self {
            status,
            body: json!({ "error": error }),
            headers: Vec::new(),
        }
    }

    fn coded(status: StatusCode, code: &str, message: &str) -> Self {
        Self::new(status, &json!({ "code": code, "message": message }))
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// 400 of the model's own kind: `type`, `param` and no `code`.
    pub(super) fn invalid(param: &str, message: &str) -> Self {
        Self::invalid_coded(param, message, &Value::Null)
    }

    /// 400 with a `code` that clients may branch on.
    pub(super) fn invalid_coded(param: &str, message: &str, code: &Value) -> Self {
        let error = json!({
            "message": message, "type": "invalid_request_error", "param": param, "code": code,
        });
        Self::new(StatusCode::BAD_REQUEST, &error)
    }

    /// 400 for a body that is no JSON, or has a value of the wrong type.
    pub(super) fn unreadable(error: &serde_json::Error) -> Self {
        let message = if error.is_data() {
            format!("Invalid value in the body of your request: {error}.")
        } else {
            format!("We could not parse the JSON body of your request: {error}.")
        };
        let error = json!({
            "message": message, "type": "invalid_request_error", "param": null, "code": null,
        });
        Self::new(StatusCode::BAD_REQUEST, &error)
    }

    /// 400 with the verdict of the prompt's content filter.
    pub(super) fn content_filter() -> Self {
        let safe = json!({ "filtered": false, "severity": "safe" });
        let error = json!({
            "message": "The response was filtered due to the prompt triggering Azure OpenAI's \
                content management policy. Please modify your prompt and retry. To learn more about \
                our content filtering policies please read our documentation: \
                https://go.microsoft.com/fwlink/?linkid=2198766",
            "type": null, "param": "prompt", "code": "content_filter", "status": 400,
            "innererror": {
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {
                    "hate": safe, "jailbreak": { "detected": false, "filtered": false },
                    "self_harm": safe, "sexual": safe,
                    "violence": { "filtered": true, "severity": "high" },
                },
            },
        });
        Self::new(StatusCode::BAD_REQUEST, &error)
    }

    /// 401 for a missing or wrong key.
    pub(super) fn unauthorized() -> Self {
        let message = "Access denied due to invalid subscription key or wrong API endpoint. Make \
            sure to provide a valid key for an active subscription and use a correct regional API \
            endpoint for your resource.";
        Self::coded(StatusCode::UNAUTHORIZED, "401", message)
    }

    /// 404 for a URL that Azure OpenAI does not have.
    pub(super) fn not_found() -> Self {
        Self::coded(StatusCode::NOT_FOUND, "404", "Resource not found")
    }

    /// 404 for a deployment that the resource does not have.
    pub(super) fn deployment_not_found() -> Self {
        let message = "The API deployment for this resource does not exist. If you created the \
            deployment within the last 5 minutes, please wait a moment and try again.";
        Self::coded(StatusCode::NOT_FOUND, "DeploymentNotFound", message)
    }

    /// 404 for a response, file or model that the resource does not have (any more).
    pub(super) fn no_such(kind: &str, id: &str) -> Self {
        let error = json!({
            "message": format!("{kind} with id '{id}' not found."),
            "type": "invalid_request_error", "param": null, "code": null,
        });
        Self::new(StatusCode::NOT_FOUND, &error)
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::coded(StatusCode::METHOD_NOT_ALLOWED, "405", "Method not allowed")
    }

    pub(super) fn too_large() -> Self {
        let message = "The request body is too large or was cut off.";
        Self::coded(StatusCode::PAYLOAD_TOO_LARGE, "413", message)
    }

    /// 429 as the deployment's kind says it.
    pub(super) fn too_many(refusal: &Refusal, route: &Route) -> Self {
        let seconds = refusal.retry_after_ms.div_ceil(1000).max(1);
        let message = match refusal.exceeded {
            Some(rate) => format!(
                "Requests to the {} Operation under Azure OpenAI API version {} have exceeded {rate} \
                 rate limit of your current OpenAI S0 pricing tier. Please retry after {seconds} \
                 seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to \
                 further increase the default rate limit.",
                route.operation.name(),
                route.api_version,
            ),
            // No source shows a PTU's 429 body; clients go by status and headers.
            None => format!(
                "The provisioned deployment is at its capacity. Please retry after {} milliseconds.",
                refusal.retry_after_ms
            ),
        };
        let mut error = Self::coded(StatusCode::TOO_MANY_REQUESTS, "429", &message);
        error.headers.clone_from(&refusal.headers);
        error.headers.push((
            HeaderName::from_static("retry-after-ms"),
            HeaderValue::from(refusal.retry_after_ms),
        ));
        error
            .headers
            .push((header::RETRY_AFTER, HeaderValue::from(seconds)));
        error
    }
}

impl IntoResponse for WireError {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, content_type, self.body.to_string()).into_response();
        response.headers_mut().extend(self.headers);
        response
    }
}
