//! What calls have to have in common to be given the same answer, and which calls may be.

use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{Generated, Rules, Scope, canonical};
use crate::gateway::app::App;
use crate::gateway::pool::ModelPool;
use crate::gateway::route::{Operation, Route};
use crate::gateway::tree::is_too_large;

/// Largest body whose answer is kept, bytes: a longer one costs more to compare than it is likely to
/// save.
const MAX_BODY: usize = 1 << 20;

/// The client's headers that choose what a backend does with a call (Azure OpenAI: previews of an API,
/// and the content filter to use).
pub const VARYING: [&str; 3] = ["openai-beta", "x-ms-enable-preview", "x-policy-id"];

/// What of a body makes no difference to the answer: who asks and what for, and where backends look for a
/// prompt that they have seen already. `model` and `stream` are in the key by what they were read as;
/// `store` is not asked for, or there is no key.
const LEFT_OUT: [&str; 8] = [
    "model",
    "stream",
    "store",
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// What makes an answer depend on more than the body: an index that is searched, the web, and prompts that
/// lie at the backend. (`prompt` is one of those in the responses API only.)
const OUTSIDE: [&str; 3] = ["data_sources", "web_search_options", "background"];

/// Tells requests apart: the SHA-256 of all that an answer depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

#[cfg(test)]
impl Key {
    /// A key of no request.
    pub(crate) const fn test(number: u8) -> Self {
        Self([number; 32])
    }
}

/// In hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A request that names nothing stored and makes nothing that is.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks.
    pub app: &'a App,
    /// Its URL.
    pub route: &'a Route<'a>,
    /// The model that it asks for.
    pub model: &'a ModelPool,
    /// Whether it asks for a stream.
    pub is_stream: bool,
    /// The values of the headers [`VARYING`].
    pub headers: [&'a [u8]; VARYING.len()],
    /// Its body as the app's rules have it, JSON.
    pub body: &'a [u8],
}

/// What the answer is kept under; `None` where it may not be.
pub fn key(rules: &Rules, asked: &Asked<'_>) -> Option<Key> {
    let is_long = || asked.body.len() > MAX_BODY || is_too_large(asked.body);
    if !is_kept(rules, asked.route.operation) || is_long() {
        return None;
    }
    let mut fields = canonical::read(asked.body)?;
    // As the API has it, null is absent.
    fields.retain(|_, value| !value.is_null());
    if asked.route.operation != Operation::Embeddings {
        let is_meant_the_same = rules.generated == Generated::Any || is_deterministic(&fields);
        if !is_meant_the_same || !depends_on_itself_only(asked.route.operation, &fields) {
            return None;
        }
    }
    fields.retain(|name, _| !LEFT_OUT.contains(&name.as_str()));
    // The gateway asks for the usage of every stream, and shows it to who wants it.
    if let Some(Value::Object(options)) = fields.get_mut("stream_options") {
        options.remove("include_usage");
        if options.is_empty() {
            fields.remove("stream_options");
        }
    }
    let mut parts = Parts::default();
    parts.asked(rules, asked);
    parts.add(&serde_json::to_vec(&fields).ok()?);
    Some(Key(parts.0.finalize().into()))
}

const fn is_kept(rules: &Rules, operation: Operation) -> bool {
    match operation {
        Operation::Embeddings => rules.embeddings,
        Operation::ChatCompletions | Operation::Completions | Operation::Responses => {
            !matches!(rules.generated, Generated::Off)
        }
        _ => false,
    }
}

fn is_deterministic(fields: &Map<String, Value>) -> bool {
    let temperature = fields.get("temperature").and_then(Value::as_f64);
    let has_seed = fields.get("seed").is_some_and(Value::is_number);
    has_seed || temperature.is_some_and(|temperature| temperature.abs() == 0.0)
}

/// Whether everything that the answer depends on stands in the body. Tools that the client runs are a
/// part of that; those that the backend runs look elsewhere, or do something.
fn depends_on_itself_only(operation: Operation, fields: &Map<String, Value>) -> bool {
    let lies_outside = |name: &str| OUTSIDE.contains(&name);
    let has_template = operation == Operation::Responses && fields.contains_key("prompt");
    let by_the_client = |tool: &Value| {
        let sort = tool.get("type").and_then(Value::as_str);
        matches!(sort, Some("function" | "custom"))
    };
    let tools = fields.get("tools").map(Value::as_array);
    let runs_none = tools.is_none_or(|all| all.is_some_and(|all| all.iter().all(by_the_client)));
    let prompt = [fields.get("messages"), fields.get("input")];
    !fields.keys().any(|name| lies_outside(name))
        && !has_template
        && runs_none
        && !prompt.into_iter().flatten().any(points_elsewhere)
}

/// Whether a prompt names what lies elsewhere and may change: a file, a stored item, an image by its URL.
fn points_elsewhere(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(points_elsewhere),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| match (name.as_str(), value) {
                ("file_id" | "file_url", _) => true,
                ("image_url" | "url", Value::String(url)) => !url.starts_with("data:"),
                ("type", Value::String(sort)) => sort == "item_reference",
                (_, value) => points_elsewhere(value),
            }),
        _ => false,
    }
}

/// What is hashed, part by part, each with its length before it: no two lists of parts have the same text.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        let length = u64::try_from(part.len()).unwrap_or(u64::MAX);
        self.0.update(length.to_be_bytes());
        self.0.update(part);
    }

    fn all<'p>(&mut self, parts: impl ExactSizeIterator<Item = &'p [u8]>) {
        let count = u64::try_from(parts.len()).unwrap_or(u64::MAX);
        self.0.update(count.to_be_bytes());
        parts.for_each(|part| self.add(part));
    }

    /// The model's deployments that are some apps' own, as far as this app may use them. Which of the others it may
    /// use, its backends and tiers say.
    fn owned(&mut self, app: &App, model: &ModelPool) {
        let specs = model.deployments().map(|deployment| &deployment.spec);
        let mut owned: Vec<(&str, &str)> = specs
            .filter(|spec| !spec.apps.is_empty() && app.may_use(spec))
            .map(|spec| (&*spec.backend, &*spec.name))
            .collect();
        // The order of the configuration makes no difference.
        owned.sort_unstable();
        self.all(owned.iter().map(|(backend, _)| backend.as_bytes()));
        self.all(owned.iter().map(|(_, name)| name.as_bytes()));
    }

    fn asked(&mut self, rules: &Rules, asked: &Asked<'_>) {
        let (app, route) = (asked.app, asked.route);
        let owner: &str = match rules.scope {
            Scope::Shared => "",
            Scope::App | Scope::Off => &app.name,
        };
        self.add(owner.as_bytes());
        let backends = app.backends.as_deref();
        self.0.update([u8::from(backends.is_some())]);
        let backends = backends.unwrap_or_default().iter();
        self.all(backends.map(|name| name.as_bytes()));
        self.owned(app, asked.model);
        self.add(format!("{:?}{:?}", app.tiers, route.form).as_bytes());
        self.add(route.path.as_bytes());
        self.add(asked.model.name().as_bytes());
        self.0.update([u8::from(asked.is_stream)]);
        let mut query: Vec<&[u8]> = route.query.split('&').map(str::as_bytes).collect();
        // `code` is the host's function key, which backends don't get.
        query.retain(|pair| !pair.is_empty() && !pair.starts_with(b"code="));
        query.sort_unstable();
        self.all(query.into_iter());
        self.all(asked.headers.into_iter());
        let model = asked.model.name();
        for (name, value) in app.transform.iter().flat_map(|t| t.headers(model)) {
            self.add(name.as_str().as_bytes());
            self.add(value.map_or("", |value| value.as_str()).as_bytes());
        }
    }
}
