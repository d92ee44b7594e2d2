//! `spillway local`.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use spillway::azure::service_bus::Counts;
use spillway::config::{Batch, BatchApi, Config, StoragePlace};
use spillway::host::log::log_to_stdout;
use spillway::host::server::bind;
use spillway::local::queue::Queues;
use spillway::local::{embedded, simulation::Latency, timer};
use spillway::serve::Place;
use spillway::serve::batch::Trigger;
use spillway::serve::ending::{Asked, Starter, serve_until_asked};
use tokio::net::TcpListener;

use super::args::LocalArgs;
use super::serve::{Start, start};
use super::{Packaged, env, run};

/// The folder in which `spillway local` keeps what nobody said where to keep.
const DATA: &str = ".spillway";

pub(crate) fn local(args: &LocalArgs) -> io::Result<()> {
    log_to_stdout("warn");
    let real = args.config.as_deref();
    let real = real.map(|file| Packaged::read(Some(file))).transpose()?;
    let latency = Latency {
        first_token_ms: args.latency_ms,
        per_token_ms: args.latency_ms / 15,
    };
    let slots = args.slots;
    let (data, blobs) = (args.data.clone(), args.data.clone());
    let queue_port = args.queue_port.unwrap_or(match args.port {
        // Any that is free, as the gateway's.
        0 => 0,
        port => port.saturating_add(1),
    });
    run(async move {
        let asked = Asked::listen()?;
        let (mut config, watched) = match real {
            Some(real) => (real.config, Some((real.written, real.file))),
            None => {
                let text = embedded::start(latency, slots).await?;
                let config = Config::parse(&text, "the embedded configuration", &env);
                let config = Config {
                    batch_api: Some(BatchApi::default()),
                    ..config.map_err(io::Error::other)?
                };
                (config, None)
            }
        };
        let named = data.map(StoragePlace::Embedded).or(config.storage.tables);
        config.storage.tables = Some(named.unwrap_or_else(|| StoragePlace::Embedded(DATA.into())));
        let named = blobs.map(StoragePlace::Embedded).or(config.storage.blobs);
        config.storage.blobs = Some(named.unwrap_or_else(|| StoragePlace::Embedded(DATA.into())));
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, args.port))).await?;
        let queues = queues(&mut config, queue_port).await?;
        let counts = queues
            .as_ref()
            .map(|(queues, _)| Arc::new(queues.clone()) as Arc<dyn Counts>);
        let from = Start {
            place: Place::Local,
            config: config.clone(),
            watched,
            counts,
            trigger: Trigger::Invoked,
        };
        let (gateway, keeping) = start(from, |_| Ok(())).await?;
        let gateway = gateway.with_realtime();
        let address = listener.local_addr()?;
        say_how_to_try(address, &config)?;
        if let Some((queues, queue_listener)) = queues {
            say_how_to_queue(queue_listener.local_addr()?, &config)?;
            queues.start(queue_listener, address);
        }
        if config.backends.iter().any(|b| b.resource_id.is_some()) || config.live.is_some() {
            tokio::spawn(timer::keep(address));
        }
        serve_until_asked(gateway, listener, keeping, Starter::Other, asked).await
    })
}

/// The embedded queues, where the configuration names no other, and where they listen: at the address
/// that it names, else on `port`.
async fn queues(config: &mut Config, port: u16) -> io::Result<Option<(Queues, TcpListener)>> {
    let folder = match &config.storage.tables {
        Some(StoragePlace::Embedded(folder)) => folder.clone(),
        _ => DATA.into(),
    };
    let address = match &config.batch {
        Some(batch) if !batch.namespace.is_loopback() => {
            tracing::warn!(namespace = %batch.namespace, "batch messages are sent there, but only the Functions host can hand them over");
            return Ok(None);
        }
        Some(batch) => SocketAddr::from((Ipv4Addr::LOCALHOST, batch.namespace.port())),
        None => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
    };
    let listener = bind(address).await?;
    let namespace = format!("http://{}", listener.local_addr()?);
    let namespace = namespace.parse().map_err(io::Error::other)?;
    let batch = config
        .batch
        .get_or_insert_with(|| Batch::new(namespace, "batch", &["results"]));
    let queues = Queues::open(&folder, batch)?;
    Ok(Some((queues, listener)))
}

fn say_how_to_queue(address: SocketAddr, config: &Config) -> io::Result<()> {
    let Some(batch) = &config.batch else {
        return Ok(());
    };
    let replies = batch.reply_queues.first().map_or("results", String::as_str);
    let mut out = io::stdout();
    writeln!(
        out,
        "batch: POST http://{address}/{}/messages, DELETE http://{address}/{replies}/messages/head (docs/batch.md)",
        batch.queue
    )?;
    out.flush()
}

fn say_how_to_try(address: SocketAddr, config: &Config) -> io::Result<()> {
    let deployments = config
        .backends
        .iter()
        .flat_map(|backend| &backend.deployments);
    let model = deployments
        .map(spillway::config::Deployment::model)
        .next()
        .unwrap_or("gpt-4o");
    let mut out = io::stdout();
    writeln!(
        out,
        "curl http://{address}/v1/chat/completions -H 'content-type: application/json' -H 'api-key: local' -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    )?;
    writeln!(
        out,
        "python: OpenAI(base_url=\"http://{address}/v1\", api_key=\"local\").chat.completions.create(model=\"{model}\", messages=[{{\"role\": \"user\", \"content\": \"Hello\"}}])"
    )?;
    writeln!(out, "console: http://{address}/spillway/")?;
    out.flush()
}
