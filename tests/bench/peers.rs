//! The gateways under test: how each is configured and started.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;
use sha2::{Digest as _, Sha256};

use crate::canned::USAGE_MARK;
use crate::growth;
use crate::http::{Client, FLOOD_KEY, KEY, chat_body, request};
use crate::process::{Launch, Process};
use crate::tenant;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Who {
    /// The backend itself.
    Direct,
    Nginx,
    Envoy,
    /// The libraries that Spillway is made of.
    Bare,
    Spillway,
    Litellm,
}

impl Who {
    pub(crate) const ALL: [Self; 6] = [
        Self::Direct,
        Self::Nginx,
        Self::Envoy,
        Self::Bare,
        Self::Spillway,
        Self::Litellm,
    ];
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
            Self::Bare => "bare",
            Self::Spillway => "Spillway",
            Self::Litellm => "LiteLLM",
        })
    }
}

/// What is run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Programs {
    #[arg(long)]
    pub(crate) spillway: PathBuf,
    #[arg(long)]
    pub(crate) nginx: Option<PathBuf>,
    #[arg(long)]
    pub(crate) envoy: Option<PathBuf>,
    #[arg(long)]
    pub(crate) litellm: Option<PathBuf>,
}

/// What a peer stands in front of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scene {
    /// One backend.
    One,
    /// A PTU deployment, and a PAYG one behind it.
    Spill,
    /// One backend, two apps and a tenant; for Spillway only.
    Apps,
    /// One backend, and answers that are kept; for Spillway only.
    Cache,
    /// So many backends and apps; for Spillway only.
    Grown { backends: u32, apps: u32 },
}

/// Where everything is.
pub(crate) struct Place {
    pub(crate) programs: Programs,
    pub(crate) work: PathBuf,
    /// The first of the ports.
    pub(crate) port: u16,
    pub(crate) backend: SocketAddr,
    pub(crate) ptu: SocketAddr,
}

/// A peer that runs.
pub(crate) struct Peer {
    pub(crate) who: Who,
    /// Where it takes calls.
    pub(crate) calls: SocketAddr,
    /// Where it takes calls that are streamed.
    pub(crate) streams: SocketAddr,
    /// None: the backend itself.
    pub(crate) process: Option<Process>,
    /// From the start of the process to its first good answer.
    pub(crate) started_in: Duration,
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

impl Place {
    /// Whether a peer can be run; why not, where it can't.
    pub(crate) fn has(&self, who: Who) -> Result<(), String> {
        let program = match who {
            Who::Direct | Who::Bare | Who::Spillway => return Ok(()),
            Who::Nginx => &self.programs.nginx,
            Who::Envoy => &self.programs.envoy,
            Who::Litellm => &self.programs.litellm,
        };
        match program {
            None => Err("it could not be installed".into()),
            Some(path) if path.exists() => Ok(()),
            Some(path) => Err(format!("there is no {}", path.display())),
        }
    }

    /// Where a peer takes calls, and those that are streamed.
    fn addresses(&self, who: Who, scene: Scene) -> (SocketAddr, SocketAddr) {
        let at = |offset| local(self.port + offset);
        match (who, scene) {
            (Who::Direct, _) => (self.backend, self.backend),
            (Who::Nginx, Scene::Spill) => (at(12), at(12)),
            (Who::Nginx, _) => (at(10), at(11)),
            (Who::Envoy, _) => (at(20), at(20)),
            (Who::Bare, _) => (at(25), at(25)),
            (Who::Spillway, Scene::One) => (at(30), at(30)),
            (Who::Spillway, Scene::Spill) => (at(31), at(31)),
            (Who::Spillway, Scene::Apps) => (at(32), at(32)),
            (Who::Spillway, Scene::Cache) => (at(34), at(34)),
            (Who::Spillway, Scene::Grown { .. }) => (at(35), at(35)),
            (Who::Litellm, _) => (at(40), at(40)),
        }
    }

    /// The port of the tenant's server.
    pub(crate) const fn tenant_port(&self) -> u16 {
        self.port + 33
    }

    /// Starts a peer and waits for its first good answer.
    pub(crate) fn start(&self, who: Who, scene: Scene) -> io::Result<Peer> {
        self.start_under(&[], who, scene)
    }

    /// Starts a peer under another program, given as its command line.
    pub(crate) fn start_under(&self, under: &[&str], who: Who, scene: Scene) -> io::Result<Peer> {
        let (calls, streams) = self.addresses(who, scene);
        let mut peer = Peer {
            who,
            calls,
            streams,
            process: None,
            started_in: Duration::ZERO,
        };
        if who == Who::Direct {
            return Ok(peer);
        }
        if TcpStream::connect(calls).is_ok() {
            let why = format!("{calls} is in use: choose another --port");
            return Err(io::Error::other(why));
        }
        let launch = self.launch(who, scene, calls.port())?;
        let log = self.work.join(format!("{who}-{}.log", calls.port()));
        let begin = Instant::now();
        let mut process = Process::start(under, &launch, &log)?;
        let is_slow = who == Who::Litellm || !under.is_empty();
        let patience = Duration::from_secs(if is_slow { 120 } else { 10 });
        wait_for_answer(calls, begin + patience, &mut process)
            .map_err(|e| io::Error::other(format!("{who}: {e}\n{}", process.last_words())))?;
        peer.started_in = begin.elapsed();
        peer.process = Some(process);
        Ok(peer)
    }

    /// How a peer is run, its configuration written.
    fn launch(&self, who: Who, scene: Scene, port: u16) -> io::Result<Launch> {
        let Programs {
            spillway,
            nginx,
            envoy,
            litellm,
        } = &self.programs;
        let missing = || io::Error::other(format!("{who} is not installed"));
        Ok(match (who, scene) {
            (Who::Nginx, _) => {
                let file = self.write("nginx.conf", include_str!("peers/nginx.conf"))?;
                // Until it has read its configuration it would log to the system's folder.
                let log = self.work.join("nginx-start.log").display().to_string();
                Launch::new(nginx.as_deref().ok_or_else(missing)?).args([
                    "-e",
                    log.as_str(),
                    "-c",
                    file.as_str(),
                ])
            }
            (Who::Envoy, _) => {
                let file = self.write("envoy.yaml", include_str!("peers/envoy.yaml"))?;
                Launch::new(envoy.as_deref().ok_or_else(missing)?)
                    .args(["-c", file.as_str(), "--concurrency", "2"])
                    .args(["--disable-hot-restart", "--log-level", "warning"])
            }
            (Who::Litellm, _) => {
                let file = self.write("litellm.yaml", include_str!("peers/litellm.yaml"))?;
                let port = port.to_string();
                Launch::new(litellm.as_deref().ok_or_else(missing)?)
                    .args(["--config", file.as_str(), "--num_workers", "1"])
                    .args(["--host", "127.0.0.1", "--port", port.as_str()])
                    .args(["--telemetry", "False"])
                    // Prices from the package, not from the network.
                    .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
                    .env("LITELLM_LOG", "ERROR")
            }
            (Who::Bare, _) => {
                let (port, backend) = (port.to_string(), self.backend.to_string());
                let own = std::env::current_exe()?;
                Launch::new(&own).args(["bare", "--port", port.as_str(), backend.as_str()])
            }
            (Who::Spillway | Who::Direct, scene) => {
                let (name, text) = match scene {
                    Scene::One => ("spillway.toml", include_str!("peers/spillway.toml").into()),
                    Scene::Spill => (
                        "spill.toml",
                        include_str!("peers/spillway-spill.toml").into(),
                    ),
                    Scene::Apps => ("apps.toml", include_str!("peers/spillway-apps.toml").into()),
                    Scene::Cache => (
                        "cache.toml",
                        include_str!("peers/spillway-cache.toml").into(),
                    ),
                    Scene::Grown { backends, apps } => {
                        ("grown.toml", growth::config(backends, apps))
                    }
                };
                let file = self.write(name, &text)?;
                let port = port.to_string();
                Launch::new(spillway)
                    .args(["serve", "--port", port.as_str(), "--config", file.as_str()])
                    .env("BACKEND_KEY", "sk-backend")
                    .env("RUST_LOG", "info")
            }
        })
    }

    fn write(&self, name: &str, template: &str) -> io::Result<String> {
        let file = self.work.join(name);
        std::fs::write(&file, self.filled(template))?;
        Ok(file.display().to_string())
    }

    fn filled(&self, template: &str) -> String {
        let hash = |key: &str| -> String {
            let digest = Sha256::digest(key);
            digest.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let (calls, streams) = self.addresses(Who::Nginx, Scene::One);
        let (spill, _) = self.addresses(Who::Nginx, Scene::Spill);
        let (envoy, _) = self.addresses(Who::Envoy, Scene::One);
        let values = [
            ("work", self.work.display().to_string()),
            ("key_hash", hash(KEY)),
            ("flood_key_hash", hash(FLOOD_KEY)),
            ("tenant", tenant::TENANT.into()),
            ("entra_app_id", tenant::APP_ID.into()),
            ("authority", local(self.tenant_port()).to_string()),
            ("calls", calls.to_string()),
            ("streams", streams.to_string()),
            ("spill", spill.to_string()),
            ("envoy_port", envoy.port().to_string()),
            ("backend", self.backend.to_string()),
            ("backend_port", self.backend.port().to_string()),
            ("ptu", self.ptu.to_string()),
            ("payg", self.backend.to_string()),
        ];
        values
            .iter()
            .fold(template.to_owned(), |text, (name, value)| {
                text.replace(&format!("{{{{{name}}}}}"), value)
            })
    }
}

/// Calls until an answer is the backend's. What comes before is no failure: the process starts.
fn wait_for_answer(address: SocketAddr, until: Instant, process: &mut Process) -> io::Result<()> {
    let request = request(&chat_body(false));
    let mut client = Client::new(address);
    let begun = Instant::now();
    loop {
        let said = match client.call(&request) {
            Ok(answer) if answer.status != 200 => format!("status {}", answer.status),
            Ok(answer) if memmem::find(answer.body, USAGE_MARK).is_none() => {
                "an answer that is not the backend's".into()
            }
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        };
        if process.has_ended() {
            return Err(io::Error::other("it ended by itself"));
        }
        if Instant::now() > until {
            return Err(io::Error::other(format!(
                "no good answer in time, but {said}"
            )));
        }
        // A peer that takes seconds to start needs no look every 200 us.
        let pause = if begun.elapsed() < Duration::from_secs(1) {
            200
        } else {
            20_000
        };
        thread::sleep(Duration::from_micros(pause));
    }
}
