//! What may stand in `spillway.toml`. The doc comments are the descriptions that editors show.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AppLimit, Auth, Batch, BatchApi, Cache, Chargeback, Day, Endpoint, Fallback, KeyHash, Live,
    Money, Pacing, Price, Prompts, Secret, StoragePlace, Telemetry, Transform,
};
use crate::gateway::budget::OnExhausted;
use crate::gateway::cache::Scope;
use crate::gateway::event::Kind;
use crate::gateway::price::RegionClass;
use crate::gateway::priority::Priority;
use crate::gateway::strategy::{HashOn, Selection, Strategy};

/// Spillway's configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Spillway")]
pub struct Config {
    /// Time-outs, bounds and what the gateway says of itself.
    #[serde(default)]
    pub gateway: Gateway,
    /// Who may call.
    #[serde(default)]
    pub auth: Auth,
    /// The Azure OpenAI resources and their deployments.
    #[serde(default, rename = "backend")]
    pub backends: Vec<Backend>,
    /// How a model's calls are spread: only what differs from the defaults.
    #[serde(default, rename = "model")]
    pub models: Vec<Model>,
    /// The apps that call.
    #[serde(default, rename = "app")]
    pub apps: Vec<App>,
    /// Where things are kept.
    #[serde(default)]
    pub storage: Storage,
    /// What calls cost.
    #[serde(default)]
    pub chargeback: Chargeback,
    /// Batch messages. Absent: there are none.
    pub batch: Option<Batch>,
    /// How many low-priority calls run at once on provisioned deployments; absent: as many as come.
    pub pacing: Option<Pacing>,
    /// Prices of your own, which win over the list that comes with the program.
    #[serde(default, rename = "price")]
    pub prices: Vec<Price>,
    /// How prompts are kept of apps with `log_prompts = true`.
    #[serde(default)]
    pub prompts: Prompts,
    /// Which answers are kept and given again to the same call.
    #[serde(default)]
    pub cache: Cache,
    /// OpenAI's Batch API. Absent: its paths go to backends.
    pub batch_api: Option<BatchApi>,
    /// Watches the configuration while the gateway runs. Absent: it is read once, at the start.
    pub live: Option<Live>,
    /// Traces and metrics over OTLP. Absent: nothing is sent.
    pub telemetry: Option<Telemetry>,
}

/// Time-outs, bounds and what the gateway says of itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Longest wait for marked deployments to come back before a 429, ms.
    #[schemars(range(min = 0, max = 120_000))]
    pub wait_budget_ms: u64,
    /// Longest wait of an attempt for the first byte of the answer's body, ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub first_byte_timeout_ms: u64,
    /// Longest wait for a connection to a backend, ms.
    #[schemars(range(min = 1, max = 60_000))]
    pub connect_timeout_ms: u64,
    /// Most attempts for one call.
    #[schemars(range(min = 1, max = 32))]
    pub max_attempts: u32,
    /// Largest request body, MiB. The Functions host takes 100 at most.
    #[schemars(range(min = 1, max = 100))]
    pub max_body_mb: u32,
    /// Most bytes of request bodies that are in memory at once, MiB: all calls together. A call beyond
    /// that is told to come back. A body that comes in parts takes up to twice its size while they are
    /// put together.
    #[schemars(range(min = 1, max = 65_536))]
    pub max_bodies_mb: u32,
    /// The Azure region that this gateway runs in.
    pub region: Option<String>,
    /// From a call's arrival to the last moment at which its answer may begin, ms. The Azure
    /// front end cuts a call that was silent for 230 s.
    #[schemars(range(min = 1000, max = 230_000))]
    pub deadline_ms: u64,
    /// Longest silence of a backend within an answer, ms.
    #[schemars(range(min = 1000, max = 600_000))]
    pub idle_timeout_ms: u64,
    /// Longest time from an answer's first byte to its last, ms. The Functions host ends the whole process
    /// when a call takes longer than its `functionTimeout` (30 minutes in host.json): together with
    /// `deadline_ms` this has to be below that.
    #[schemars(range(min = 1000, max = 86_400_000))]
    pub max_answer_ms: u64,
    /// Longest wait for the answer of a batch message, of a line of the batch API or of an asynchronous
    /// call, from its start, ms. These are not streamed: it is the whole time in which it is generated.
    #[schemars(range(min = 1000, max = 780_000))]
    pub batch_timeout_ms: u64,
    /// A comment is sent on a stream that was silent for so long, ms; 0: never.
    #[schemars(range(min = 0, max = 200_000))]
    pub heartbeat_ms: u64,
    /// Whether answers carry the `x-spillway-*` headers beside the request id.
    pub answer_headers: bool,
    /// How long a deployment is left alone that does not say itself, ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub default_mark_ms: u64,
    /// How long a deployment is left alone at most, however long it asks for, ms.
    #[schemars(range(min = 1, max = 86_400_000))]
    pub max_mark_ms: u64,
    /// How long a deployment that failed takes to get its whole share back, ms.
    #[schemars(range(min = 0, max = 600_000))]
    pub ramp_ms: u64,
    /// Whether instances tell each other which deployments are full, by the store: see docs/marks.md.
    pub share_marks: bool,
    /// Most usage events that wait to be written.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub event_queue: usize,
    /// Threads that serve calls; absent: one a core.
    #[schemars(range(min = 1, max = 64))]
    pub workers: Option<usize>,
    /// Most connections at once; further ones wait to be accepted.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_connections: usize,
    /// Most realtime sessions at once.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_realtime_sessions: usize,
    /// `api-version` for calls to the classic form that name none.
    #[schemars(length(min = 1, max = 64))]
    pub api_version: String,
}

impl Gateway {
    /// Largest request body, bytes.
    pub fn max_body(&self) -> usize {
        mebibytes(self.max_body_mb)
    }

    /// Most bytes of request bodies at once.
    pub fn max_bodies(&self) -> usize {
        mebibytes(self.max_bodies_mb)
    }
}

/// So many MiB in bytes.
pub fn mebibytes(mb: u32) -> usize {
    usize::try_from(mb).map_or(usize::MAX, |mb| mb.saturating_mul(1 << 20))
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            wait_budget_ms: 5000,
            first_byte_timeout_ms: 120_000,
            connect_timeout_ms: 2000,
            max_attempts: 6,
            max_body_mb: 32,
            max_bodies_mb: 256,
            region: None,
            deadline_ms: 220_000,
            idle_timeout_ms: 120_000,
            max_answer_ms: 1_500_000,
            batch_timeout_ms: 720_000,
            heartbeat_ms: 15_000,
            answer_headers: true,
            default_mark_ms: 10_000,
            max_mark_ms: 300_000,
            ramp_ms: 10_000,
            share_marks: false,
            event_queue: 65_536,
            workers: None,
            max_connections: 10_000,
            max_realtime_sessions: 1000,
            api_version: "2024-10-21".into(),
        }
    }
}

/// One Azure OpenAI resource.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Its name in this file, in logs and in answers.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// Its URL, for example `https://contoso-swe.openai.azure.com`.
    #[schemars(with = "String")]
    pub endpoint: Endpoint,
    /// The Azure region that it is in.
    pub region: Option<String>,
    /// Its id in Azure, `/subscriptions/.../providers/Microsoft.CognitiveServices/accounts/NAME`:
    /// Azure Monitor is asked by it how full its provisioned deployments are. Absent: it is not.
    #[schemars(length(min = 1, max = 512))]
    pub resource_id: Option<String>,
    /// Its key, as a reference: `${NAME}`. Absent: it is called with the gateway's own identity
    /// (see docs/identity.md), or, on this machine and without `scope`, with nothing.
    #[schemars(with = "Option<String>")]
    pub key: Option<Secret>,
    /// The scope of the gateway's tokens for it; absent:
    /// `https://cognitiveservices.azure.com/.default` for calls to the classic form,
    /// `https://ai.azure.com/.default` for the v1 form.
    #[schemars(length(min = 1, max = 256))]
    pub scope: Option<String>,
    /// The client id of the user-assigned identity to call it with; absent: what AZURE_CLIENT_ID
    /// says, else the system-assigned identity.
    pub client_id: Option<String>,
    /// The generation of URLs that it is called by.
    #[serde(default)]
    pub api: ApiForm,
    /// `api-version` for calls to the classic form that name none; absent: the gateway's.
    pub api_version: Option<String>,
    /// Its deployments.
    #[serde(default, rename = "deployment")]
    pub deployments: Vec<Deployment>,
    /// Those that were deleted: they are not called, only charged for.
    #[serde(skip)]
    pub deleted: Vec<Deployment>,
}

impl Backend {
    /// Sets those deployments aside that were deleted.
    pub(super) fn set_deleted_aside(&mut self) {
        let gone = |deployment: &mut Deployment| deployment.deleted.is_some();
        self.deleted.extend(self.deployments.extract_if(.., gone));
    }
}

/// The generation of URLs that a backend is called by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApiForm {
    /// The one that the app used.
    #[default]
    AsCalled,
    /// `/openai/deployments/...?api-version=...`
    Classic,
    /// `/openai/v1/...`
    V1,
}

/// A model on a backend.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Its name on the backend.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// The model that apps ask for; absent: the deployment's name.
    #[schemars(length(min = 1, max = 64))]
    pub model: Option<String>,
    /// How it is paid for.
    pub kind: Kind,
    /// Lower is tried first; absent: 1 for ptu, 2 for payg.
    #[schemars(range(min = 1, max = 9))]
    pub tier: Option<u8>,
    /// Its share of the calls within the tier.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// Provisioned throughput units; only for ptu. Without it the PTU's cost can't be shared out.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub ptus: Option<u32>,
    /// The model by Azure's name, with or without its version, for example `gpt-4o-2024-11-20`: its
    /// price goes by it. Absent: `model`.
    #[schemars(length(min = 1, max = 64))]
    pub base_model: Option<String>,
    /// Where Azure may process its calls, which decides the price: as the deployment's type on Azure
    /// says, Global, Data Zone or (Regional) Standard.
    #[serde(default)]
    pub region_class: RegionClass,
    /// The UTC day that it was made on, for example `"2026-11-15"`; only for ptu: it costs nothing
    /// before. Absent: it was always there.
    #[schemars(with = "Option<String>")]
    pub since: Option<Day>,
    /// The numbers of PTUs that it had before; only for ptu: what it cost then goes by them.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub before: Vec<PastSize>,
    /// The UTC day on which it was deleted; only for ptu. It is not called any more, and costs nothing
    /// from that day on: it stands here for the bills of the time before.
    #[schemars(with = "Option<String>")]
    pub deleted: Option<Day>,
    /// Whether others call it past this gateway: then Azure counts more than the gateway does, which is
    /// shown but not logged.
    #[serde(default)]
    pub shared: bool,
    /// The apps whose own it is: nobody else's calls go to it, and theirs go to it first within
    /// its tier. Absent: every app's.
    pub apps: Option<Vec<String>>,
}

/// How many PTUs a deployment had until a day.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PastSize {
    /// The UTC day from which it had another number, for example `"2026-11-15"`.
    #[schemars(with = "String")]
    pub until: Day,
    /// Provisioned throughput units.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub ptus: u32,
}

const fn one() -> u32 {
    1
}

impl Deployment {
    /// The model that apps ask for.
    pub fn model(&self) -> &str {
        self.model.as_deref().unwrap_or(&self.name)
    }

    /// The model by Azure's name.
    pub fn base_model(&self) -> &str {
        self.base_model.as_deref().unwrap_or_else(|| self.model())
    }

    /// The tier, or the kind's own.
    pub const fn tier(&self) -> u8 {
        match (self.tier, self.kind) {
            (Some(tier), _) => tier,
            (None, Kind::Ptu) => 1,
            (None, Kind::Payg) => 2,
        }
    }
}

/// How a model's calls are spread.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// The model that apps ask for.
    pub name: String,
    /// How one of a tier's deployments is picked.
    #[serde(default)]
    pub strategy: Strategy,
    /// What the strategy `hash` goes by: `caller`, `prompt` or `header:NAME`.
    pub hash_on: Option<String>,
    /// The strategy `hash` moves on from a deployment with more than this percentage of its fair
    /// share of the calls in flight.
    #[serde(default = "hash_load_percent")]
    #[schemars(range(min = 100, max = 1000))]
    pub hash_load_percent: u32,
    /// The strategy `lowest-latency` picks among those at most so much slower than the fastest, ms.
    #[serde(default = "latency_range_ms")]
    #[schemars(range(min = 0, max = 60_000))]
    pub latency_range_ms: u32,
    /// How long a call waits for a full PTU deployment before it goes to the next tier, ms.
    #[serde(default)]
    #[schemars(range(min = 0, max = 60_000))]
    pub spill_after_ms: u64,
    /// Deployments in the gateway's own region go first within a tier.
    #[serde(default)]
    pub prefer_region: bool,
    /// The models that may serve in its place, the first one first; absent: none.
    #[serde(default, rename = "fallback")]
    #[schemars(length(max = 8))]
    pub fallbacks: Vec<Fallback>,
}

fn hash_load_percent() -> u32 {
    Selection::default().hash_load_percent
}

fn latency_range_ms() -> u32 {
    Selection::default().latency_range_ms
}

impl Model {
    /// The settings that selection goes by.
    pub fn selection(&self) -> Selection {
        let hash_on = self.hash_on.as_deref().and_then(read_hash_on);
        Selection {
            strategy: self.strategy,
            hash_on: hash_on.unwrap_or_default(),
            hash_load_percent: self.hash_load_percent,
            latency_range_ms: self.latency_range_ms,
            spill_after_ms: self.spill_after_ms,
            prefer_region: self.prefer_region,
        }
    }
}

/// Reads `caller`, `prompt` or `header:NAME`.
pub(super) fn read_hash_on(text: &str) -> Option<HashOn> {
    match text {
        "caller" => Some(HashOn::Caller),
        "prompt" => Some(HashOn::Prompt),
        _ => {
            let name = text.strip_prefix("header:")?.trim().to_ascii_lowercase();
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            is_name.then_some(HashOn::Header(name))
        }
    }
}

/// An app that calls, and pays.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its name, as in chargeback.
    #[schemars(length(min = 1, max = 64))]
    pub name: String,
    /// SHA-256 of its keys: `sha256:` and 64 hexadecimal digits. Two, so that one can be replaced
    /// while the other is in use.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 2))]
    pub key_hashes: Vec<KeyHash>,
    /// Its application (client) ids in Entra, whose tokens are taken for it.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub entra_app_ids: Vec<String>,
    /// The models that it may use; absent: all.
    pub models: Option<Vec<String>>,
    /// The backends that its calls go to; absent: all.
    pub backends: Option<Vec<String>>,
    /// The tiers that its calls go to; absent: all.
    #[schemars(inner(range(min = 1, max = 9)))]
    pub tiers: Option<Vec<u8>>,
    /// How urgent its calls are. A call can lower it: `x-spillway-priority: low`, or a path that
    /// begins with `/low/`.
    #[serde(default)]
    pub priority: Priority,
    /// Tokens a minute, prompt and output together, of all instances; absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000_000_000_u64))]
    pub tokens_per_minute: Option<u64>,
    /// Requests a minute, of all instances; absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_minute: Option<u64>,
    /// Calls at the same time, of all instances; absent: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub calls_in_flight: Option<u32>,
    /// What it may do with one model, beside the limits above.
    #[serde(default, rename = "limit")]
    pub limits: Vec<AppLimit>,
    /// What it may spend in a month of UTC, in the currency of `[chargeback]`; a decimal number as
    /// text, for example `"2500.00"`. Absent: no budget.
    #[schemars(with = "Option<String>")]
    pub budget_per_month: Option<Money>,
    /// What becomes of its calls when that is spent; absent: they are refused.
    pub on_exhausted: Option<OnExhausted>,
    /// Whether its requests and answers are kept, whole, in `[storage] blobs`. What they say is then
    /// there for whoever may read that.
    #[serde(default)]
    pub log_prompts: bool,
    /// Whether it may call the responses API with `background = true`. What is generated then is on no
    /// bill and counts for no limit: it is fetched later, by calls that cost nothing.
    #[serde(default)]
    pub allow_background: bool,
    /// Whose answers its calls may be given; absent: as `[cache] scope` says.
    pub cache: Option<Scope>,
    /// What its requests are changed by, in this order.
    #[serde(default, rename = "transform")]
    #[schemars(length(max = 64))]
    pub transforms: Vec<Transform>,
}

/// Where things are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// `https://NAME.table.core.windows.net`: a storage account, reached with the gateway's own
    /// identity; `http://127.0.0.1:PORT/devstoreaccount1`: the emulator Azurite; `embedded:DIR`: a
    /// file in that folder. Absent: usage events are only logged, and owners of stored objects only
    /// remembered in memory.
    #[serde(deserialize_with = "super::place::tables")]
    #[schemars(with = "Option<String>")]
    pub tables: Option<StoragePlace>,
    /// `https://NAME.blob.core.windows.net`: a storage account, reached with the gateway's own
    /// identity; `http://127.0.0.1:PORT/devstoreaccount1`: the emulator Azurite; `embedded:DIR`:
    /// files in that folder. Absent: nothing that needs blobs (prompt logging, the batch API, large
    /// answers of the batch queue) can be switched on.
    #[serde(deserialize_with = "super::place::blobs")]
    #[schemars(with = "Option<String>")]
    pub blobs: Option<StoragePlace>,
}
