//! Gateways with a past, for looking at the console: `scene serve NAME` serves one, `scene measure`
//! says how long the pages of a large one take and how large they are.

#[path = "scene/past.rs"]
mod past;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use spillway::azure::service_bus::Counts;
use spillway::config::{Batch, Config, KeyHash};
use spillway::local::embedded;
use spillway::local::queue::Queues;
use spillway::local::simulation::Latency;
use spillway::serve::batch::Trigger;
use spillway::serve::{Gateway, Keeping, Place, keep};
use spillway::store::Store;
use spillway::store::embedded::Embedded;
use tokio::net::TcpListener;

use self::past::Past;

/// The admin key of the scene [`Name::Locked`].
const ADMIN_KEY: &str = "admin-key";

#[derive(Parser)]
#[command(name = "scene")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves a scene until it is ended.
    Serve {
        #[arg(value_enum)]
        name: Name,
        /// 0: any; the line that is printed says which.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// The folder of its store; new or empty.
        #[arg(long)]
        data: PathBuf,
    },
    /// Measures the pages of the large scene.
    Measure {
        /// Times that each page is asked for.
        #[arg(long, default_value_t = 20)]
        times: u32,
    },
}

/// The scenes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// `spillway local` after a week: its simulated deployments, with a past.
    Week,
    /// A gateway that has seen no call.
    Empty,
    /// 50 backends and 500 apps.
    Large,
    /// Names made of markup and emoji.
    Odd,
    /// Administrators have to sign in.
    Locked,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match Cli::parse().command {
                Command::Serve { name, port, data } => serve(name, port, &data).await,
                Command::Measure { times } => measure(times).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told where this fails.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(name: Name, port: u16, data: &Path) -> io::Result<()> {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    let address = listener.local_addr()?;
    let days = if name == Name::Large { 2 } else { 10 };
    let (mut gateway, store, _keeping) = start(name, data, days).await?;
    if name == Name::Week {
        gateway = with_queue(gateway, &store, data, address).await?;
    }
    let mut out = io::stdout();
    writeln!(out, "http://{address}")?;
    out.flush()?;
    gateway.serve(listener).await
}

/// A gateway with a past of so many days.
async fn start(
    name: Name,
    data: &Path,
    days: u64,
) -> io::Result<(Gateway, Arc<dyn Store>, Keeping)> {
    let text = config(name).await?;
    let config = Config::parse(&text, "the scene", &|_| None).map_err(io::Error::other)?;
    let store: Arc<dyn Store> = Arc::new(Embedded::open(data)?);
    if name != Name::Empty {
        let past = Past::new(&config, days);
        past.write(&store, &config.prices())
            .await
            .map_err(io::Error::other)?;
    }
    let (gateway, keeping) = gateway(&config, &store)?;
    Ok((gateway, store, keeping))
}

fn gateway(config: &Config, store: &Arc<dyn Store>) -> io::Result<(Gateway, Keeping)> {
    let (gateway, inbox) = Gateway::at(Place::Local, config, Some(Arc::clone(store)))?;
    let ledger = Arc::new(gateway.ledger(Arc::clone(store)));
    let keep_in = Some(Arc::clone(store));
    let keeping = keep(Place::Local, config, inbox, None, keep_in, Some(ledger))?;
    Ok((gateway, keeping))
}

/// The gateway with a queue, as `spillway local` has one: some messages are handled, some come later.
async fn with_queue(
    gateway: Gateway,
    store: &Arc<dyn Store>,
    data: &Path,
    handler: SocketAddr,
) -> io::Result<Gateway> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let namespace = url.parse().map_err(io::Error::other)?;
    let batch = Batch::new(namespace, "batch", &["results"]);
    let queues = Queues::open(data, &batch)?;
    let counts = Some(Arc::new(queues.clone()) as Arc<dyn Counts>);
    let gateway =
        gateway.with_batch(Place::Local, &batch, store, None, counts, Trigger::Invoked)?;
    queues.start(listener, handler);
    let client = reqwest::Client::new();
    for number in 0..15 {
        let later = r#","ScheduledEnqueueTimeUtc":"Fri, 31 Dec 2100 23:59:59 GMT""#;
        let scheduled = if number < 12 { later } else { "" };
        let broker = format!("{{\"MessageId\":\"{number}\"{scheduled}}}");
        let line = r#"{"custom_id":"a","url":"/v1/chat/completions","body":{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}]}}"#;
        let sent = client
            .post(format!("{url}/batch/messages"))
            .header("BrokerProperties", broker)
            .header("app", "\"reports\"")
            .body(line)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        sent.map_err(io::Error::other)?;
    }
    Ok(gateway)
}

async fn config(name: Name) -> io::Result<String> {
    const NOBODY: &str = "[auth]\nmode = \"off\"\n";
    let admin = KeyHash::of(ADMIN_KEY);
    let locked = format!("[auth]\nmode = \"key\"\nadmin_key_hashes = [\"{admin}\"]\n");
    Ok(match name {
        Name::Empty => NOBODY.to_owned() + &pair("eu", "gpt-4o", 100),
        Name::Locked => locked + &app("portal") + &pair("eu", "gpt-4o", 100),
        Name::Week => {
            let latency = Latency {
                first_token_ms: 20,
                per_token_ms: 1,
            };
            embedded::start(latency, 10).await? + &["portal", "search", "reports"].map(app).concat()
        }
        Name::Large => {
            let regions: String = (0..25)
                .zip(MODELS.into_iter().cycle())
                .map(|(i, model)| pair(&format!("region-{i:02}"), model, 100))
                .collect();
            let apps: String = (0..500).map(|i| app(&format!("app-{i:03}"))).collect();
            NOBODY.to_owned() + "[pacing]\n" + &regions + &apps
        }
        Name::Odd => {
            let model = "<script>alert(1)</script>&\\\"'🚰";
            let long = "🛶".repeat(30) + "<b>";
            NOBODY.to_owned()
                + "[pacing]\n"
                + &pair("odd", model, 100)
                + &pair("long", &long, 50)
                + &app("a.b-c_d")
        }
    })
}

/// Models that both the list of prices and that of PTUs know.
const MODELS: [&str; 3] = ["gpt-4o", "gpt-4o-mini", "gpt-4.1"];

/// A PTU and a pay-as-you-go backend of a model, which nobody answers for.
fn pair(name: &str, model: &str, ptus: u32) -> String {
    let backend = |kind: &str, more: &str| {
        format!(
            "[[backend]]\nname = \"{kind}-{name}\"\nendpoint = \"http://127.0.0.1:9\"\n\
             [[backend.deployment]]\nname = \"{kind}\"\nmodel = \"{model}\"\nkind = \"{kind}\"\n{more}"
        )
    };
    backend("ptu", &format!("ptus = {ptus}\n")) + &backend("payg", "")
}

fn app(name: &str) -> String {
    let hash = KeyHash::of(&format!("{name}-key"));
    format!("[[app]]\nname = \"{name}\"\nkey_hashes = [\"{hash}\"]\nbudget_per_month = \"2500\"\n")
}

/// The pages that are measured.
const PAGES: [&str; 7] = [
    "/spillway/",
    "/spillway/history?reach=week",
    "/spillway/money",
    "/spillway/what-if",
    "/spillway/calls",
    "/spillway/calls?app=app-007",
    "/spillway/metrics",
];

/// Days of the past that pages are measured with.
const DAYS: u64 = 30;

async fn measure(times: u32) -> io::Result<()> {
    let data = tempfile::tempdir()?;
    let started = Instant::now();
    let (first, store, _keeping) = start(Name::Large, data.path(), DAYS).await?;
    let mut out = io::stdout();
    writeln!(
        out,
        "50 backends, 500 apps, {DAYS} days of rows, written in {:.1} s",
        started.elapsed().as_secs_f64()
    )?;
    writeln!(out, "\nA gateway before whose start nobody looked:\n")?;
    measure_pages(first, times).await?;
    let text = config(Name::Large).await?;
    let config = Config::parse(&text, "the scene", &|_| None).map_err(io::Error::other)?;
    let (later, _keeping) = gateway(&config, &store)?;
    writeln!(
        out,
        "\nOne that is started later, when past days are summed up:\n"
    )?;
    measure_pages(later, times).await
}

async fn measure_pages(gateway: Gateway, times: u32) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let root = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(gateway.serve(listener));
    let mut out = io::stdout();
    let client = reqwest::Client::new();
    writeln!(
        out,
        "| page | bytes | first, ms | median, ms | slowest, ms |\n| --- | --- | --- | --- | --- |"
    )?;
    for page in PAGES {
        let (mut all, mut bytes) = (Vec::new(), 0);
        for _ in 0..times.max(1) {
            let asked = Instant::now();
            let answer = client.get(format!("{root}{page}")).send().await;
            let answer = answer.and_then(reqwest::Response::error_for_status);
            let body = answer.map_err(io::Error::other)?.bytes().await;
            bytes = body.map_err(io::Error::other)?.len();
            all.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let first = all.first().copied().unwrap_or_default();
        all.sort();
        let at = |place: usize| all.get(place).copied().unwrap_or_default();
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        writeln!(
            out,
            "| `{page}` | {bytes} | {:.1} | {:.1} | {:.1} |",
            ms(first),
            ms(at(all.len() / 2)),
            ms(at(all.len() - 1))
        )?;
    }
    serving.abort();
    Ok(())
}
