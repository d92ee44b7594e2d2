//! The URLs that apps call and the URLs that backends serve.
//!
//! Two generations are in use (azure-facts, "URLs and auth"): the classic form
//! `/openai/deployments/{deployment}/{operation}?api-version=...` and the v1 form
//! `/openai/v1/{operation}`, whose deployment stands in the body's `model`. Plain OpenAI clients
//! say `/v1/{operation}`. A backend of either generation can answer either form.

use std::borrow::Cow;

use super::priority::Priority;
use super::realtime;

/// The generation of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With `api-version`, and the deployment in the path where the operation has one.
    Classic,
    /// Without `api-version`; the deployment is the body's `model`.
    V1,
}

/// What is asked for, as far as the gateway treats operations differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `chat/completions`
    ChatCompletions,
    /// `completions`
    Completions,
    /// `embeddings`
    Embeddings,
    /// `responses`, to make one.
    Responses,
    /// `images/generations` and `images/edits`
    Images,
    /// `audio/transcriptions` and `audio/translations`
    Transcription,
    /// `audio/speech`
    Speech,
    /// `realtime`: a session over WebSocket.
    Realtime,
    /// `models` and `models/{model}`: the gateway's own answer.
    Models,
    /// Anything else: passed through.
    Other,
}

/// Whether the answer to a POST of this path is a stored object, changed or called off: the usage that it
/// says was counted when it was made.
pub fn shows_stored(path: &str) -> bool {
    let mut parts = path.split('/');
    let mut next = || parts.next();
    matches!(
        [next(), next(), next(), next(), next(), next()],
        [Some("chat"), Some("completions"), Some(_), None, ..]
            | [Some("responses"), Some(_), Some("cancel"), None, ..]
            | [Some("threads"), Some(_), Some("runs"), Some(_), None, _]
            | [
                Some("threads"),
                Some(_),
                Some("runs"),
                Some(_),
                Some("cancel"),
                None
            ]
    )
}

impl Operation {
    /// The operation of a path such as `chat/completions`.
    pub fn of(path: &str) -> Self {
        match path {
            "chat/completions" => Self::ChatCompletions,
            "completions" => Self::Completions,
            "embeddings" => Self::Embeddings,
            "responses" => Self::Responses,
            "images/generations" | "images/edits" | "images/variations" => Self::Images,
            "audio/transcriptions" | "audio/translations" => Self::Transcription,
            "audio/speech" => Self::Speech,
            "realtime" => Self::Realtime,
            "models" => Self::Models,
            _ if path.starts_with("models/") => Self::Models,
            _ => Self::Other,
        }
    }

    /// Whether the classic form names the deployment in the path for this operation.
    const fn has_deployment_in_path(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Completions
                | Self::Embeddings
                | Self::Images
                | Self::Transcription
                | Self::Speech
        )
    }

    /// Whether a stream of this operation takes `stream_options.include_usage`
    /// (OpenAI API reference: chat and completions; the responses API always reports usage).
    pub const fn takes_stream_options(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether answers of this operation cost tokens.
    pub const fn is_billed(self) -> bool {
        !matches!(self, Self::Models | Self::Other)
    }
}

/// What a path begins with whose call is of low priority.
const LOW_PREFIX: &str = "/low";

/// A URL of an app, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route<'a> {
    /// Low where the path begins with `/low/`.
    pub priority: Priority,
    /// The generation that the app speaks.
    pub form: Form,
    /// The model, where the URL names it (percent-decoded).
    pub model: Option<Cow<'a, str>>,
    /// What is asked for.
    pub operation: Operation,
    /// The operation's path, for example `chat/completions` or `responses/resp_1/cancel`.
    pub path: &'a str,
    /// The query, without its `?`; empty when there is none.
    pub query: &'a str,
}

impl<'a> Route<'a> {
    /// Reads a URL's path and query. `None` when it is none that the gateway serves.
    pub fn parse(path: &'a str, query: &'a str) -> Option<Self> {
        match path.strip_prefix(LOW_PREFIX) {
            Some(rest) if rest.starts_with('/') => Some(Self {
                priority: Priority::Low,
                ..Self::parse_plain(rest, query)?
            }),
            _ => Self::parse_plain(path, query),
        }
    }

    fn parse_plain(path: &'a str, query: &'a str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix("/openai/deployments/") {
            let (model, rest) = rest.split_once('/')?;
            return Self::new(Form::Classic, Some(percent_decode(model)), rest, query);
        }
        for prefix in ["/openai/v1/", "/v1/"] {
            if let Some(rest) = path.strip_prefix(prefix) {
                return Self::new(Form::V1, None, rest, query);
            }
        }
        Self::new(Form::Classic, None, path.strip_prefix("/openai/")?, query)
    }

    fn new(form: Form, model: Option<Cow<'a, str>>, path: &'a str, query: &'a str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let operation = Operation::of(path);
        let is_plain = path.split('/').all(is_plain_segment) && !is_respelt(path, operation);
        // In the backend's path it would lead elsewhere, also where that decodes what is escaped first.
        let is_name = |model: &str| model.split(['/', '\\']).all(leads_on);
        (is_plain && model.as_deref().is_none_or(is_name)).then_some(Self {
            priority: Priority::High,
            form,
            model,
            operation,
            path,
            query,
        })
    }

    /// The id of a stored thing that the URL names: a response, file, batch, thread, assistant,
    /// vector store, conversation, upload, container, video or stored completion.
    pub fn stored_id(&self) -> Option<&'a str> {
        let mut parts = self.path.split('/');
        let collection = parts.next()?;
        let nested = matches!(collection, "chat" | "fine_tuning");
        if nested {
            parts.next()?;
        } else if !STORED.contains(&collection) {
            return None;
        }
        // A thread's runs are made by `threads/runs`, which is no id.
        parts.next().filter(|id| *id != "runs")
    }

    /// The ids of all stored things that the URL names, that of [`Route::stored_id`] first: a file may be
    /// named within a vector store.
    pub fn stored_ids(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let parts = self.path.split('/').skip(2);
        let pairs = parts.clone().zip(parts.skip(1));
        let within = pairs.filter(|(collection, _)| STORED.contains(collection));
        self.stored_id().into_iter().chain(within.map(|(_, id)| id))
    }

    /// The id of the stored thing that the URL is about as a whole, so that a DELETE deletes it:
    /// none where the URL goes on to a part of it.
    pub fn stored_object(&self) -> Option<&'a str> {
        let id = self.stored_id()?;
        let (_, last) = self.path.rsplit_once('/')?;
        (last == id).then_some(id)
    }

    /// Whether a successful POST here makes something that later calls name by its id: the answer's own,
    /// or that of a file or thread in it. `store` is the body's wish: responses are kept unless it says
    /// no, chat completions only if it says yes.
    pub fn makes_stored(&self, store: Option<bool>) -> bool {
        match self.path {
            "chat/completions" => store == Some(true),
            "responses" => store != Some(false),
            "threads/runs" | "fine_tuning/jobs" => true,
            // One that is made of another: `videos/{id}/remix`.
            path => STORED.contains(&path) || path.starts_with("videos/") || completes_upload(path),
        }
    }

    /// Whether a POST here has a deployment generate something, as far as the path says. Others are about things
    /// that lie on a backend, whatever model they name.
    pub fn generates(&self) -> bool {
        let collection = self.path.split('/').next().unwrap_or_default();
        let is_about_things = match collection {
            "responses" | "videos" => false,
            "fine_tuning" | "evals" | "realtime" => true,
            other => STORED.contains(&other),
        };
        !is_about_things && !shows_stored(self.path)
    }

    /// The path and query at a backend that speaks `form`, for `deployment` there.
    ///
    /// `api_version` is used where the backend's form needs one and the app named none.
    pub fn upstream(&self, form: Form, deployment: Option<&str>, api_version: &str) -> String {
        if self.operation == Operation::Realtime {
            let deployment = deployment.unwrap_or_default();
            return realtime::upstream(self.query, form, deployment, api_version);
        }
        let mut url = String::with_capacity(self.path.len() + self.query.len() + 64);
        match (form, deployment) {
            (Form::Classic, Some(deployment)) if self.deployment_in_path(form) => {
                url.push_str("/openai/deployments/");
                percent_encode_into(&mut url, deployment);
                url.push('/');
            }
            (Form::Classic, _) => url.push_str("/openai/"),
            (Form::V1, _) => url.push_str("/openai/v1/"),
        }
        url.push_str(self.path);
        self.push_query(&mut url, form, api_version);
        url
    }

    /// Whether the deployment stands in the path at a backend that speaks `form`; otherwise it
    /// has to stand in the body's `model`.
    pub fn deployment_in_path(&self, form: Form) -> bool {
        form == Form::Classic && (self.model.is_some() || self.operation.has_deployment_in_path())
    }

    /// Whether the body's `model` is one that is to be tuned, by its own name: no deployment serves the call, and
    /// none is put in its place.
    pub fn is_of_base_models(&self) -> bool {
        self.path.starts_with("fine_tuning/")
    }

    /// Whether a backend that speaks `form` takes `stream_options`. The classic form does so from
    /// 2024-08-01-preview on; an earlier one refuses the call that has it (openai-python, issue 1469;
    /// azure-rest-api-specs, issues 29157 and 30810).
    pub fn knows_stream_options(&self, form: Form, api_version: &str) -> bool {
        if form == Form::V1 {
            return true;
        }
        let mut pairs = self.query.split('&');
        let named = pairs.find_map(|pair| {
            let (name, version) = pair.split_once('=')?;
            name.eq_ignore_ascii_case("api-version").then_some(version)
        });
        named.unwrap_or(api_version) >= "2024-08-01"
    }

    /// The app's query, without the host's function key and with an `api-version` only where
    /// the backend's form takes one.
    fn push_query(&self, url: &mut String, form: Form, api_version: &str) {
        let mut separator = '?';
        let mut version_seen = false;
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or(pair);
            let is_version = name.eq_ignore_ascii_case("api-version");
            // v1 backends take `preview` and `latest` here; a dated version is the classic form's.
            let dated = is_version && pair.as_bytes().iter().any(u8::is_ascii_digit);
            if name == "code" || (form == Form::V1 && dated) {
                continue;
            }
            version_seen |= is_version;
            url.push(separator);
            url.push_str(pair);
            separator = '&';
        }
        if form == Form::Classic && !version_seen {
            url.push(separator);
            url.push_str("api-version=");
            url.push_str(api_version);
        }
    }
}

/// Collections whose members live on the backend that made them.
const STORED: [&str; 11] = [
    "responses",
    "files",
    "batches",
    "threads",
    "assistants",
    "vector_stores",
    "conversations",
    "uploads",
    "containers",
    "evals",
    "videos",
];

/// Whether a path is `uploads/{id}/complete`, which makes a file of an upload.
fn completes_upload(path: &str) -> bool {
    let rest = path.strip_prefix("uploads/");
    let id = rest.and_then(|rest| rest.strip_suffix("/complete"));
    id.is_some_and(|id| !id.contains('/'))
}

/// Whether gateway and backend read the same in this part of a path. Who owns an id and what an
/// operation costs is told by the path as it came, so it has no second spelling here: no `.` and
/// `..`, nothing that some routers take for a separator, and as an escape only what can't stand
/// there plain.
fn is_plain_segment(part: &str) -> bool {
    let mut escapes = part.split('%').skip(1);
    leads_on(part)
        && !part.contains(['\\', ';'])
        && escapes.all(|rest| escaped(rest.as_bytes()).is_some_and(|(byte, _)| needs_escape(byte)))
}

/// Whether a part of a path leads to what is below, and not to itself or back.
fn leads_on(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
}

/// Whether a byte stands in a path segment as an escape only, and separates nothing once it is decoded.
fn needs_escape(byte: u8) -> bool {
    !is_unreserved(byte) && !byte.is_ascii_control() && !b"/\\;%".contains(&byte)
}

/// What RFC 3986 (section 2.3) calls unreserved.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether a backend could read another call in the path than the gateway does: one that does not mind
/// case, or that finds the beginning of a URL of the other form behind the one it was sent.
fn is_respelt(path: &str, operation: Operation) -> bool {
    let has_capitals = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
    let first = path.split('/').next().unwrap_or_default();
    matches!(first, "deployments" | "openai" | "v1")
        || has_capitals(first)
        || operation == Operation::Other
            && has_capitals(path)
            && Operation::of(&path.to_ascii_lowercase()) != Operation::Other
}

/// Decodes `%XX`; what is no valid escape or no UTF-8 stays as it is.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, escaped(tail)) {
            (b'%', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn escaped(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = tail.split_at_checked(2)?;
    let text = std::str::from_utf8(digits).ok()?;
    // The number's reader would take a sign.
    if !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let byte = u8::from_str_radix(text, 16).ok()?;
    Some((byte, after))
}

/// Encodes what RFC 3986 does not allow in a path segment.
pub(super) fn percent_encode_into(url: &mut String, segment: &str) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in segment.bytes() {
        if is_unreserved(byte) {
            url.push(char::from(byte));
        } else {
            url.push('%');
            url.extend(
                [byte >> 4, byte & 15]
                    .iter()
                    .filter_map(|n| HEX.get(usize::from(*n))),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route<'a>(path: &'a str, query: &'a str) -> Route<'a> {
        Route::parse(path, query).unwrap_or_else(|| panic!("{path} is served"))
    }

    #[test]
    fn what_changes_a_stored_object_makes_nothing() {
        for path in [
            "chat/completions/c1",
            "responses/resp_1/cancel",
            "threads/t/runs/r",
            "threads/t/runs/r/cancel",
        ] {
            assert!(shows_stored(path), "{path}");
        }
        for path in [
            "chat/completions",
            "responses",
            "responses/compact",
            "threads/runs",
            "threads/t/runs",
            "threads/t/runs/r/submit_tool_outputs",
            "threads/t/runs/r/cancel/x",
        ] {
            assert!(!shows_stored(path), "{path}");
        }
    }

    #[test]
    fn the_classic_form_names_the_model_in_the_path() {
        let r = route(
            "/openai/deployments/gpt%2D4o/chat/completions",
            "api-version=2024-10-21",
        );
        assert_eq!(r.form, Form::Classic);
        assert_eq!(r.model.as_deref(), Some("gpt-4o"));
        assert_eq!(
            (r.operation, r.path),
            (Operation::ChatCompletions, "chat/completions")
        );
    }

    #[test]
    fn the_low_prefix_lowers_the_priority_of_every_form() {
        for path in [
            "/openai/deployments/m/chat/completions",
            "/openai/v1/chat/completions",
            "/v1/chat/completions",
        ] {
            let low = format!("/low{path}");
            let (low, plain) = (route(&low, "q=1"), route(path, "q=1"));
            assert_eq!(
                (low.priority, plain.priority),
                (Priority::Low, Priority::High)
            );
            assert_eq!(
                (low.form, low.model, low.path),
                (plain.form, plain.model, plain.path)
            );
        }
        for path in ["/low", "/low/", "/lowv1/x", "/low/low/v1/x", "/lower/v1/x"] {
            assert_eq!(Route::parse(path, ""), None, "{path}");
        }
    }

    #[test]
    fn both_v1_forms_are_the_same() {
        for path in ["/openai/v1/responses", "/v1/responses"] {
            let r = route(path, "");
            assert_eq!((r.form, r.operation), (Form::V1, Operation::Responses));
            assert_eq!(r.model, None);
        }
    }

    #[test]
    fn each_operation_has_its_kind() {
        let kinds = [
            ("completions", Operation::Completions),
            ("embeddings", Operation::Embeddings),
            ("images/generations", Operation::Images),
            ("images/edits", Operation::Images),
            ("audio/transcriptions", Operation::Transcription),
            ("audio/translations", Operation::Transcription),
            ("audio/speech", Operation::Speech),
            ("realtime", Operation::Realtime),
            ("realtime/client_secrets", Operation::Other),
            ("models", Operation::Models),
            ("models/gpt-4o", Operation::Models),
            ("files", Operation::Other),
        ];
        for (path, kind) in kinds {
            assert_eq!(route(&format!("/v1/{path}"), "").operation, kind, "{path}");
            assert_eq!(
                kind.is_billed(),
                !matches!(
                    path,
                    "models" | "models/gpt-4o" | "files" | "realtime/client_secrets"
                )
            );
        }
        assert!(Operation::Completions.takes_stream_options());
        assert!(!Operation::Responses.takes_stream_options());
    }

    #[test]
    fn what_is_no_call_of_the_api_is_not_served() {
        for path in [
            "/",
            "/openai",
            "/v1/",
            "/openai/deployments/gpt-4o",
            "/chargeback",
        ] {
            assert_eq!(Route::parse(path, ""), None, "{path}");
        }
        for path in [
            "/v1/../admin",
            "/v1/%2e%2e/admin",
            "/v1/files//x",
            "/openai/deployments//chat",
            "/openai/deployments/../v1/chat",
            "/openai/deployments/%2e%2e/chat/completions",
            "/openai/deployments/./chat/completions",
            "/openai/deployments/..\\m/chat/completions",
            "/openai/deployments/a%2F..%5Cm/chat/completions",
        ] {
            assert_eq!(Route::parse(path, ""), None, "{path}");
        }
    }

    /// Each could be, for some backend, a file of another app's or a call that is billed.
    #[test]
    fn a_path_has_no_second_spelling() {
        for path in [
            "/v1/%66iles/file-1",
            "/v1/files%2Ffile-1",
            "/v1/files%2ffile-1",
            "/v1/files\\file-1",
            "/v1/files%5Cfile-1",
            "/v1/files;a/file-1",
            "/v1/files/file%2D1",
            "/v1/files/file-1%00",
            "/v1/files/%252e%252e",
            "/v1/files/file-1%",
            "/v1/files/file-1%2",
            "/v1/files/file-1%zz",
            "/v1/files/file-1%+4",
            "/v1/Files/file-1",
            "/v1/chat/Completions",
            "/v1/Chat/completions",
            "/openai/deployments/m/chat/COMPLETIONS",
            "/openai/Deployments/m/chat/completions",
            "/openai/V1/chat/completions",
            "/v1/deployments/m/chat/completions",
            "/v1/v1/chat/completions",
            "/v1/openai/deployments/m/chat/completions",
            "/openai/deployments",
        ] {
            assert_eq!(Route::parse(path, ""), None, "{path}");
        }
        for path in [
            "/v1/files/file-AbC",
            "/v1/models/ft%3Agpt-4o%3Acontoso",
            "/v1/files/%C3%A9%20x",
            "/v1/evals/openai/v1",
        ] {
            assert!(Route::parse(path, "").is_some(), "{path}");
        }
    }

    #[test]
    fn an_id_in_the_path_is_found() {
        let ids = [
            ("/v1/responses/resp_1", Some("resp_1")),
            ("/v1/responses/resp_1/cancel", Some("resp_1")),
            ("/openai/files/file-9/content", Some("file-9")),
            ("/openai/threads/runs", None),
            ("/openai/threads/thread_1/runs/run_2", Some("thread_1")),
            ("/v1/chat/completions/chatcmpl-3", Some("chatcmpl-3")),
            ("/v1/fine_tuning/jobs/ftjob-1", Some("ftjob-1")),
            ("/v1/responses", None),
            ("/v1/embeddings", None),
        ];
        for (path, id) in ids {
            assert_eq!(route(path, "").stored_id(), id, "{path}");
        }
    }

    #[test]
    fn an_id_behind_another_is_found_too() {
        let ids: [(&str, &[&str]); 8] = [
            ("/v1/vector_stores/vs_1/files/file-2", &["vs_1", "file-2"]),
            (
                "/low/openai/vector_stores/vs_1/files/file-2/content",
                &["vs_1", "file-2"],
            ),
            ("/v1/vector_stores/vs_1/files", &["vs_1"]),
            (
                "/openai/threads/thread_1/messages/msg_1/files/file-2",
                &["thread_1", "file-2"],
            ),
            ("/openai/threads/thread_1/runs/run_2", &["thread_1"]),
            ("/openai/threads/runs", &[]),
            ("/v1/chat/completions", &[]),
            ("/v1/files", &[]),
        ];
        for (path, ids) in ids {
            assert!(
                route(path, "").stored_ids().eq(ids.iter().copied()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_part_of_a_stored_thing_is_not_the_thing() {
        assert_eq!(
            route("/v1/responses/resp_1", "").stored_object(),
            Some("resp_1")
        );
        for path in [
            "/v1/vector_stores/vs_1/files/file-2",
            "/openai/threads/runs",
            "/v1/embeddings",
        ] {
            assert_eq!(route(path, "").stored_object(), None, "{path}");
        }
    }

    #[test]
    fn what_a_call_makes_is_remembered_unless_it_is_not_stored() {
        for path in [
            "/v1/responses",
            "/v1/files",
            "/openai/threads/runs",
            "/v1/videos/video_1/remix",
            "/v1/uploads",
            "/v1/uploads/upload_1/complete",
        ] {
            assert!(route(path, "").makes_stored(None), "{path}");
        }
        assert!(!route("/v1/responses", "").makes_stored(Some(false)));
        assert!(route("/v1/chat/completions", "").makes_stored(Some(true)));
        for path in [
            "/v1/chat/completions",
            "/v1/responses/resp_1/cancel",
            "/v1/embeddings",
            "/v1/uploads/upload_1/cancel",
            "/v1/uploads/upload_1/parts",
            "/v1/uploads/upload_1/parts/complete",
        ] {
            assert!(!route(path, "").makes_stored(None), "{path}");
        }
    }

    #[test]
    fn what_is_about_stored_things_generates_nothing() {
        for (path, generates) in [
            ("/v1/chat/completions", true),
            ("/v1/responses", true),
            ("/v1/videos", true),
            ("/v1/something/new", true),
            ("/v1/responses/resp_1/cancel", false),
            ("/v1/files", false),
            ("/v1/realtime/client_secrets", false),
            ("/openai/threads/runs", false),
        ] {
            assert_eq!(route(path, "").generates(), generates, "{path}");
        }
    }

    #[test]
    fn the_same_form_keeps_the_query() {
        let r = route(
            "/openai/deployments/gpt-4o/embeddings",
            "api-version=2024-06-01&x=1",
        );
        assert_eq!(
            r.upstream(Form::Classic, Some("emb 3"), "2024-10-21"),
            "/openai/deployments/emb%203/embeddings?api-version=2024-06-01&x=1"
        );
        assert!(r.deployment_in_path(Form::Classic));
    }

    #[test]
    fn a_classic_call_becomes_a_v1_call() {
        let r = route(
            "/openai/deployments/gpt-4o/chat/completions",
            "api-version=2024-10-21&x=1",
        );
        assert_eq!(
            r.upstream(Form::V1, Some("gpt-4o-ptu"), ""),
            "/openai/v1/chat/completions?x=1"
        );
        assert!(!r.deployment_in_path(Form::V1));
    }

    #[test]
    fn a_v1_call_becomes_a_classic_call() {
        let chat = route("/v1/chat/completions", "");
        assert_eq!(
            chat.upstream(Form::Classic, Some("d"), "2024-10-21"),
            "/openai/deployments/d/chat/completions?api-version=2024-10-21"
        );
        let responses = route("/v1/responses", "api-version=preview");
        assert_eq!(
            responses.upstream(Form::Classic, Some("d"), "2025-04-01-preview"),
            "/openai/responses?api-version=preview"
        );
        assert!(!responses.deployment_in_path(Form::Classic));
        assert_eq!(
            responses.upstream(Form::V1, Some("d"), ""),
            "/openai/v1/responses?api-version=preview"
        );
    }

    #[test]
    fn the_hosts_function_key_stays_here() {
        let r = route("/openai/v1/files", "code=secret&limit=2&");
        assert_eq!(r.upstream(Form::V1, None, ""), "/openai/v1/files?limit=2");
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(percent_decode("a%zz%4"), "a%zz%4");
        assert_eq!(percent_decode("%ff"), "%ff");
        assert_eq!(percent_decode("%c3%a9"), "é");
    }

    #[test]
    fn stream_options_are_for_versions_that_know_them() {
        let knows = |query, form, default| {
            let path = "/openai/deployments/m/chat/completions";
            route(path, query).knows_stream_options(form, default)
        };
        for (query, knows_them) in [
            ("api-version=2023-05-15", false),
            ("api-version=2024-07-01-preview", false),
            ("a=b&API-Version=2024-06-01", false),
            ("api-version=2024-08-01-preview", true),
            ("api-version=2024-10-21", true),
            ("", true),
        ] {
            assert_eq!(
                knows(query, Form::Classic, "2024-10-21"),
                knows_them,
                "{query}"
            );
        }
        assert!(!knows("", Form::Classic, "2024-02-01"));
        assert!(knows("api-version=2023-05-15", Form::V1, "2024-02-01"));
    }
}
