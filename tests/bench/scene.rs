//! The scene of pacing in real time: two `spillway local` beside each other with the same interactive
//! calls, a small day's shape of them; one has a backlog in its queue too. Both run at the same time, so
//! that whatever else the machine does meets both.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a scene whose figures are small"
)]

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::process::{Launch, Process};

/// Interactive calls a minute: at night and at the two peaks of the day.
const INTERACTIVE: (f64, f64) = (30.0, 200.0);

/// Generated tokens of an interactive call and of one of the backlog, and words of the latter's prompt.
const OUTPUT: (u32, u32) = (20, 30);
const WORDS: usize = 50;

/// Milliseconds to a simulated answer's first token; each further one takes a fifteenth of it. So a call in a
/// slot is some 6 % of the small deployment, and the slots of which the docs have the simulated day.
const LATENCY_MS: u64 = 1_500;
const SLOTS: u32 = 200;

/// Messages of the backlog for each minute: more than the deployment can do.
const BACKLOG_A_MINUTE: u64 = 200;

/// Input tokens a minute that the simulated PTU deployment does (15 PTUs of gpt-4o), and what a
/// generated one counts for.
const CAPACITY: f64 = 37_500.0;
const OUTPUT_RATIO: f64 = 4.0;

/// Longest wait for a gateway's start.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Scene {
    /// The program.
    #[arg(long)]
    spillway: PathBuf,
    /// How long it takes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The first of four ports.
    #[arg(long, default_value_t = 18000)]
    port: u16,
}

/// A gateway with its queue.
struct World {
    root: String,
    queue: String,
    client: Client,
    process: Process,
}

/// An interactive call's end.
struct Call {
    ms: u64,
    status: u16,
    backend: String,
}

/// A minute's end.
#[derive(Clone, Copy)]
struct Minute {
    /// Weighted tokens that the PTU deployment has served since the start.
    weighted: f64,
    /// Messages that are left.
    left: u64,
}

/// What became of a run.
struct Day {
    calls: Vec<Call>,
    minutes: Vec<Minute>,
}

/// Runs the scene; its tables.
pub(crate) fn run(args: &Scene) -> io::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let work = tempfile::tempdir()?;
        let alone = World::start(args, "alone", 0, &work).await?;
        let batch = World::start(args, "batch", 2, &work).await?;
        batch.fill(args.minutes * BACKLOG_A_MINUTE).await?;
        let due = arrivals(args.minutes);
        let days = tokio::join!(alone.day(&due, args.minutes), batch.day(&due, args.minutes));
        Ok(tables(&days.0?, &days.1?))
    })
}

/// When interactive calls come, ms from the start: two humps, as a day has them; the night is nearly
/// idle.
fn arrivals(minutes: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    let length_ms = minutes as f64 * 60_000.0;
    let (mut at, mut all) = (0.0, Vec::new());
    while at < length_ms {
        all.push(at as u64);
        let hour = at / length_ms * 24.0;
        let hump = |center: f64, width: f64| (-((hour - center) / width).powi(2)).exp();
        let shape = hump(10.5, 2.2).max(hump(15.5, 2.6));
        let a_minute = INTERACTIVE.0 + (INTERACTIVE.1 - INTERACTIVE.0) * shape;
        at += -(1.0 - random.f64()).ln() * 60_000.0 / a_minute;
    }
    all
}

fn body(tokens: u32, words: usize) -> Value {
    let content = "word ".repeat(words) + &format!("simulate-tokens:{tokens}");
    json!({
        "model": "gpt-4o",
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": content}],
    })
}

fn failed(error: reqwest::Error) -> io::Error {
    io::Error::other(error)
}

impl World {
    async fn start(
        args: &Scene,
        name: &str,
        offset: u16,
        work: &tempfile::TempDir,
    ) -> io::Result<Self> {
        let (port, queue_port) = (args.port + offset, args.port + offset + 1);
        let data = work.path().join(name);
        let launch = Launch::new(&args.spillway).args([
            "local",
            "--port",
            &port.to_string(),
            "--queue-port",
            &queue_port.to_string(),
            "--data",
            &data.display().to_string(),
            "--latency-ms",
            &LATENCY_MS.to_string(),
            "--slots",
            &SLOTS.to_string(),
        ]);
        let log = work.path().join(format!("{name}.log"));
        let mut world = Self {
            root: format!("http://127.0.0.1:{port}"),
            queue: format!("http://127.0.0.1:{queue_port}"),
            client: Client::new(),
            process: Process::start(&[], &launch, &log)?,
        };
        let begun = Instant::now();
        while world.client.get(&world.root).send().await.is_err() {
            if begun.elapsed() > PATIENCE || world.process.has_ended() {
                return Err(io::Error::other(world.process.last_words()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(world)
    }

    /// Puts the backlog into the queue.
    async fn fill(&self, messages: u64) -> io::Result<()> {
        let line =
            json!({"url": "/v1/chat/completions", "custom_id": "x", "body": body(OUTPUT.1, WORDS)});
        let line = line.to_string();
        for number in 0..messages {
            let sent = self
                .client
                .post(format!("{}/batch/messages", self.queue))
                .header("app", "\"anonymous\"")
                .header(
                    "BrokerProperties",
                    format!("{{\"MessageId\":\"{number}\"}}"),
                )
                .body(line.clone())
                .send()
                .await
                .and_then(reqwest::Response::error_for_status);
            sent.map_err(failed)?;
        }
        Ok(())
    }

    async fn day(&self, due: &[u64], minutes: u64) -> io::Result<Day> {
        let begun = Instant::now();
        let calls = async {
            let mut running = JoinSet::new();
            for ms in due {
                let due = begun + Duration::from_millis(*ms);
                sleep_until(due).await;
                let call = self
                    .client
                    .post(format!("{}/v1/chat/completions", self.root))
                    .json(&body(OUTPUT.0, 30));
                running.spawn(async move {
                    let answer = call.send().await?;
                    let status = answer.status().as_u16();
                    let backend = answer.headers().get("x-spillway-backend");
                    let backend = backend.and_then(|name| name.to_str().ok());
                    let backend = backend.unwrap_or_default().to_owned();
                    answer.bytes().await?;
                    // From when it was due: a gateway that stalls is charged for that.
                    let ms = due.elapsed().as_millis() as u64;
                    Ok::<_, reqwest::Error>(Call {
                        ms,
                        status,
                        backend,
                    })
                });
            }
            running
                .join_all()
                .await
                .into_iter()
                .collect::<Result<_, _>>()
        };
        let looks = async {
            let mut looks = vec![self.look().await?];
            for minute in 1..=minutes {
                sleep_until(begun + Duration::from_secs(minute * 60)).await;
                looks.push(self.look().await?);
            }
            Ok(looks)
        };
        let (calls, looks): (Result<Vec<Call>, _>, io::Result<Vec<Minute>>) =
            tokio::join!(calls, looks);
        Ok(Day {
            calls: calls.map_err(failed)?,
            minutes: looks?,
        })
    }

    async fn look(&self) -> io::Result<Minute> {
        let metrics = self.client.get(format!("{}/spillway/metrics", self.root));
        let metrics = metrics.send().await.map_err(failed)?;
        let metrics = metrics.text().await.map_err(failed)?;
        let tokens = |sort: &str| -> f64 {
            let is_meant = |line: &&str| {
                line.starts_with("spillway_tokens_total{backend=\"simulated-ptu\"")
                    && line.contains(&format!("gen_ai_token_type=\"{sort}\""))
            };
            let values = metrics.lines().filter(is_meant);
            let values = values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
            values.sum()
        };
        let queues = self.client.get(&self.queue).send().await.map_err(failed)?;
        let queues: Value = queues.json().await.map_err(failed)?;
        let left = queues.pointer("/queues/0/messages").and_then(Value::as_u64);
        Ok(Minute {
            weighted: tokens("input") - tokens("cached") + OUTPUT_RATIO * tokens("output"),
            left: left.ok_or_else(|| io::Error::other("the queue does not say its length"))?,
        })
    }
}

impl Day {
    /// Utilization by minute, percent.
    fn utilization(&self) -> Vec<f64> {
        let pairs = self.minutes.iter().zip(self.minutes.iter().skip(1));
        let tokens = pairs.map(|(before, after)| after.weighted - before.weighted);
        tokens.map(|tokens| tokens * 100.0 / CAPACITY).collect()
    }

    fn ms(&self, part: f64) -> u64 {
        let mut all: Vec<u64> = self.calls.iter().map(|call| call.ms).collect();
        all.sort_unstable();
        let place = (all.len().saturating_sub(1) as f64 * part) as usize;
        all.get(place).copied().unwrap_or_default()
    }

    fn count(&self, is_meant: impl Fn(&Call) -> bool) -> usize {
        self.calls.iter().filter(|call| is_meant(call)).count()
    }
}

fn tables(alone: &Day, batch: &Day) -> String {
    let with = batch.utilization();
    // As long as there is a backlog.
    let lasts = batch
        .minutes
        .iter()
        .skip(1)
        .take_while(|at| at.left > 0)
        .count();
    let mean = |all: &[f64]| all.iter().take(lasts).sum::<f64>() / lasts.max(1) as f64;
    let mut text = format!(
        "| | without batch | with batch |\n|---|---|---|\n\
         | PTU utilization, mean of the {lasts} minutes that the backlog lasted | {:.1} % | {:.1} % |\n",
        mean(&alone.utilization()),
        mean(&with),
    );
    let mut row = |name: &str, of: &dyn Fn(&Day) -> String| {
        let _ = writeln!(text, "| {name} | {} | {} |", of(alone), of(batch));
    };
    row("interactive calls", &|day| day.calls.len().to_string());
    row("of them answered with 429", &|day| {
        day.count(|call| call.status == 429).to_string()
    });
    row("of them passed on by the full PTU", &|day| {
        day.count(|call| call.backend == "simulated-payg")
            .to_string()
    });
    row("of them failed otherwise", &|day| {
        day.count(|call| call.status >= 400 && call.status != 429)
            .to_string()
    });
    row("interactive p50, p99", &|day| {
        format!("{} ms, {} ms", day.ms(0.5), day.ms(0.99))
    });
    row("batch calls answered", &|day| {
        let (first, last) = (day.minutes.first(), day.minutes.last());
        let answered = first.zip(last).map(|(first, last)| first.left - last.left);
        answered.unwrap_or_default().to_string()
    });
    text += "\n| minute | utilization without batch | with batch | messages left |\n|---|---|---|---|\n";
    let left = batch.minutes.iter().skip(1).map(|at| at.left);
    for (minute, ((alone, batch), left)) in
        (1..).zip(alone.utilization().iter().zip(&with).zip(left))
    {
        let _ = writeln!(text, "| {minute} | {alone:.0} % | {batch:.0} % | {left} |");
    }
    text
}
