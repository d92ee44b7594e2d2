//! Which operation a URL names, in the classic and in the v1 form.

use http::{Method, Uri};

use super::errors::WireError;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The deployment in a classic URL; in the v1 form it is the body's `model`.
    pub(super) deployment: Option<String>,
    /// The `api-version`, or `v1`.
    pub(super) api_version: String,
    pub(super) operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Chat,
    Completions,
    Embeddings,
    ImageGeneration,
    ImageEdit,
    Transcription,
    Translation,
    Speech,
    Realtime,
    CreateResponse,
    GetResponse(String),
    DeleteResponse(String),
    CancelResponse(String),
    UploadFile,
    ListFiles,
    GetFile(String),
    GetFileContent(String),
    DeleteFile(String),
    ListModels,
    GetModel(String),
}

impl Operation {
    /// The operation's name in Azure's messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Chat => "ChatCompletions_Create",
            Self::Completions => "Completions_Create",
            Self::Embeddings => "Embeddings_Create",
            Self::ImageGeneration => "ImageGenerations_Create",
            Self::ImageEdit => "ImageEdits_Create",
            Self::Transcription => "Transcriptions_Create",
            Self::Translation => "Translations_Create",
            Self::Speech => "Speech_Create",
            Self::Realtime => "Realtime_Create",
            Self::CreateResponse => "Responses_Create",
            _ => "Resource_Get",
        }
    }
}

impl Route {
    /// Reads the URL.
    ///
    /// # Errors
    /// 404 for a URL that Azure OpenAI does not have, or the classic form without `api-version`;
    /// 405 for a known URL with a method that it does not take.
    pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Self, WireError> {
        let path = uri
            .path()
            .strip_prefix("/openai/")
            .ok_or_else(WireError::not_found)?;
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        if let ["v1", rest @ ..] = segments.as_slice() {
            let operation = inference(method, rest).or_else(|| stateful(method, rest));
            let operation = operation.ok_or_else(|| unknown(rest))?;
            return Ok(Self {
                deployment: None,
                api_version: "v1".to_owned(),
                operation,
            });
        }
        let api_version = api_version(uri).ok_or_else(WireError::not_found)?;
        let (deployment, rest, operation) = match segments.as_slice() {
            ["deployments", deployment, rest @ ..] => (
                Some((*deployment).to_owned()),
                rest,
                inference(method, rest),
            ),
            rest => (None, rest, stateful(method, rest)),
        };
        let operation = operation.ok_or_else(|| unknown(rest))?;
        Ok(Self {
            deployment,
            api_version,
            operation,
        })
    }
}

fn api_version(uri: &Uri) -> Option<String> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut values = pairs.filter_map(|pair| pair.strip_prefix("api-version="));
    values
        .next()
        .filter(|version| !version.is_empty())
        .map(str::to_owned)
}

/// Operations that a deployment carries out.
fn inference(method: &Method, segments: &[&str]) -> Option<Operation> {
    if method != Method::POST {
        return None;
    }
    match segments {
        ["chat", "completions"] => Some(Operation::Chat),
        ["completions"] => Some(Operation::Completions),
        ["embeddings"] => Some(Operation::Embeddings),
        ["images", "generations"] => Some(Operation::ImageGeneration),
        ["images", "edits"] => Some(Operation::ImageEdit),
        ["audio", "transcriptions"] => Some(Operation::Transcription),
        ["audio", "translations"] => Some(Operation::Translation),
        ["audio", "speech"] => Some(Operation::Speech),
        _ => None,
    }
}

/// Operations on what the resource keeps. Responses name their deployment in the body in both
/// forms, realtime sessions in the query.
fn stateful(method: &Method, segments: &[&str]) -> Option<Operation> {
    let id = |id: &str| id.to_owned();
    match (method.as_str(), segments) {
        ("POST", ["responses"]) => Some(Operation::CreateResponse),
        ("GET", ["responses", r]) => Some(Operation::GetResponse(id(r))),
        ("DELETE", ["responses", r]) => Some(Operation::DeleteResponse(id(r))),
        ("POST", ["responses", r, "cancel"]) => Some(Operation::CancelResponse(id(r))),
        ("POST", ["files"]) => Some(Operation::UploadFile),
        ("GET", ["files"]) => Some(Operation::ListFiles),
        ("GET", ["files", f]) => Some(Operation::GetFile(id(f))),
        ("GET", ["files", f, "content"]) => Some(Operation::GetFileContent(id(f))),
        ("DELETE", ["files", f]) => Some(Operation::DeleteFile(id(f))),
        ("GET", ["realtime"]) => Some(Operation::Realtime),
        ("GET", ["models"]) => Some(Operation::ListModels),
        ("GET", ["models", m]) => Some(Operation::GetModel(id(m))),
        _ => None,
    }
}

/// 405 where some other method would have found an operation, else 404.
fn unknown(segments: &[&str]) -> WireError {
    let methods = [Method::GET, Method::POST, Method::DELETE];
    let known = methods
        .iter()
        .any(|m| inference(m, segments).is_some() || stateful(m, segments).is_some());
    if known {
        WireError::method_not_allowed()
    } else {
        WireError::not_found()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str) -> Result<Route, u16> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Route::parse(&method, &url.parse().unwrap()).map_err(|e| e.status().as_u16())
    }

    #[test]
    fn the_classic_form_names_its_deployment_in_the_path() {
        let url = "/openai/deployments/my-gpt/chat/completions?x=1&api-version=2024-10-21";
        let route = parse("POST", url).unwrap();
        assert_eq!(route.deployment.as_deref(), Some("my-gpt"));
        assert_eq!(route.api_version, "2024-10-21");
        assert_eq!(route.operation, Operation::Chat);
    }

    #[test]
    fn the_classic_form_without_api_version_is_not_found() {
        assert_eq!(
            parse("POST", "/openai/deployments/a/chat/completions"),
            Err(404)
        );
        assert_eq!(
            parse("POST", "/openai/deployments/a/embeddings?api-version="),
            Err(404)
        );
    }

    #[test]
    fn the_v1_form_needs_no_version() {
        let route = parse("GET", "/openai/v1/responses/resp_1").unwrap();
        assert_eq!(route.operation, Operation::GetResponse("resp_1".to_owned()));
        assert_eq!(route.deployment, None);
        let route = parse("POST", "/openai/responses?api-version=2025-04-01-preview").unwrap();
        assert_eq!(route.operation, Operation::CreateResponse);
    }

    #[test]
    fn other_urls_are_not_found_and_other_methods_not_allowed() {
        assert_eq!(parse("POST", "/v1/chat/completions"), Err(404));
        assert_eq!(parse("POST", "/openai/v1/nonsense"), Err(404));
        assert_eq!(
            parse("POST", "/openai/v1/deployments/a/chat/completions"),
            Err(404)
        );
        assert_eq!(parse("GET", "/openai/v1/chat/completions"), Err(405));
        assert_eq!(parse("PUT", "/openai/v1/files/f"), Err(405));
    }
}
