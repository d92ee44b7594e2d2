//! Azurite, with a door before it: the door can be shut, and what is behind it can be stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::process::{Launch, Process};

/// The longest wait for a service to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// One of Azurite's services, its rows or blobs in memory.
pub(super) struct Service {
    process: Process,
    door: Door,
    /// Past the door.
    pub(super) address: SocketAddr,
}

impl Service {
    /// Starts `table` or `blob`.
    pub(super) async fn start(azurite: &Path, name: &str, work: &Path) -> io::Result<Self> {
        let main = azurite.join(name).join("main.js");
        if !main.exists() {
            let why = format!("{} is missing: run tests/soak/run", main.display());
            return Err(io::Error::other(why));
        }
        let address = free_address()?;
        let (main, port) = (main.canonicalize()?, address.port().to_string());
        let (host_option, port_option) = (format!("--{name}Host"), format!("--{name}Port"));
        let launch = Launch::new(Path::new("node"))
            .args([&*main.to_string_lossy(), &host_option, "127.0.0.1"])
            .args([&*port_option, &port, "--inMemoryPersistence", "--silent"])
            // It would report its use to Microsoft.
            .args(["--disableTelemetry"])
            .inside(work);
        let log = work.join(format!("azurite-{name}.log"));
        let mut process = Process::start(&[], &launch, &log)?;
        listens(address, &mut process).await?;
        Ok(Self {
            process,
            door: Door::open(address).await?,
            address,
        })
    }

    /// Where the gateway finds it.
    pub(super) const fn door(&self) -> SocketAddr {
        self.door.address
    }

    /// It takes connections, and answers nothing.
    pub(super) fn stop(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// It goes on with what it was asked meanwhile.
    pub(super) fn go_on(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Connections break, whatever is under way on them, and there are no new ones.
    pub(super) fn shut(&self) {
        self.door.shut.send_replace(true);
    }

    pub(super) fn open(&self) {
        self.door.shut.send_replace(false);
    }
}

/// A port that was free a moment ago.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Waits until something listens there.
pub(super) async fn listens(address: SocketAddr, process: &mut Process) -> io::Result<()> {
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        if process.has_ended() || begun.elapsed() > PATIENCE {
            let words = process.last_words();
            return Err(io::Error::other(format!(
                "nothing listens at {address}: {words}"
            )));
        }
        sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

/// Passes bytes on to an address while it is open.
struct Door {
    address: SocketAddr,
    shut: watch::Sender<bool>,
}

impl Door {
    async fn open(behind: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (shut, watched) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                tokio::spawn(pass(outside, behind, watched.clone()));
            }
        });
        Ok(Self { address, shut })
    }
}

async fn pass(mut outside: TcpStream, behind: SocketAddr, mut shut: watch::Receiver<bool>) {
    let passing = async {
        let mut inside = TcpStream::connect(behind).await?;
        copy_bidirectional(&mut outside, &mut inside).await
    };
    // However it ends, both ends are closed.
    tokio::select! {
        biased;
        _ = shut.wait_for(|shut| *shut) => {}
        _ = passing => {}
    }
}
