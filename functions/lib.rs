//! Spillway: an Azure OpenAI gateway that is a set of Azure Functions.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`gateway`] | the domain, pure: which deployment, when to retry, how usage is read |
//! | [`config`] | `spillway.toml`: its types, reading, every mistake with its line |
//! | [`relay`] | the HTTP function that apps call: attempts, streaming, usage events |
//! | [`batch`] | the Service Bus function: messages wait for a slot, are called, and answered |
//! | [`batches`] | OpenAI's Batch API: files of requests, worked off in the gaps |
//! | [`chargeback`] | the Event Hub function: usage events become rows and sums |
//! | [`console`] | health, and what operators look at |
//! | [`utilization`] | the timer function that asks Azure Monitor how full deployments are |
//! | [`alert`] | the HTTP function that Azure Monitor's alerts come to |
//! | [`door`] | who is calling, before every HTTP function |
//! | [`outbox`] | brings usage events to the Event Hub, or into the table, or into files |
//! | [`quota`] | what each app may still use: its limits, shared among instances, and its budget |
//! | [`pacing`] | which low-priority calls may run now: slots, shared among instances |
//! | [`billing`] | bills, from what is kept: by app, model, day and more; as a table, CSV and JSON |
//! | [`async_calls`] | calls over HTTP that are answered later, by way of the batch queue |
//! | [`discover`] | a configuration, proposed from what is deployed on Azure |
//! | [`way`] | the way into the relay, for functions that make calls for apps |
//! | [`azure`] | thin clients for Azure's services: Entra's keys, the gateway's own tokens |
//! | [`host`] | the process: clock, listener, worker threads, readiness |
//! | [`live`] | the configuration, changed while the gateway runs |
//! | [`telemetry`] | traces of calls and metrics, sent over OTLP |
//! | [`store`] | what is kept: the store's trait, Azure Tables behind it, a file behind it |
//! | [`local`] | the embedded Azure of `spillway local`: simulated deployments |
//! | [`current`] | a value that is replaced as a whole while others read it |
//! | [`serve`] | puts the functions together to one process |
//! | [`package`] | the folder that the Functions host runs |
//!
//! Who may import whom, top to bottom: `main` > `local` > the functions (`relay`, `batch`, `batches`,
//! `chargeback`, `console`, `utilization`, `alert`) > `door`, `outbox`, `quota`, `pacing`, `billing`,
//! `async_calls`, `way`, `live`, `telemetry` > `store` > `azure` > `host` > `gateway`, `config`, `current`. `gateway` does
//! no I/O and reads no clock.

pub mod alert;
pub mod async_calls;
pub mod azure;
pub mod batch;
pub mod batches;
pub mod billing;
pub mod chargeback;
pub mod config;
pub mod console;
pub mod current;
pub mod discover;
pub mod door;
pub mod gateway;
pub mod host;
pub mod live;
pub mod local;
pub mod outbox;
pub mod pacing;
pub mod package;
pub mod quota;
pub mod relay;
pub mod serve;
pub mod store;
mod sync;
pub mod telemetry;
pub mod utilization;
pub mod way;
