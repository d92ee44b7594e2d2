//! The listener and its worker threads.
//!
//! Each worker is a single-threaded runtime with its own connections to clients and backends, so
//! a call is never handed from thread to thread. The accepting thread deals connections out in turn.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
#[cfg(target_os = "linux")]
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// How long a connection may be without a whole head of a request, idle between two calls included.
/// Longer than clients keep idle connections, one of whose calls would else meet the connection's end:
/// .NET's client, which the Functions host's proxy is, keeps them for 60 s, before .NET 6 for 120 s. Kestrel
/// keeps them for 130 s for that reason (learn: SocketsHttpHandler.PooledConnectionIdleTimeout; github:
/// dotnet/aspnetcore, pull request 32636).
const HEADER_TIMEOUT: Duration = Duration::from_secs(130);

/// How long a client may take nothing of what is sent to it: it has gone without a word, or never reads. It
/// would else hold its call, and the backend's connection, for as long as it likes. TCP itself gives a
/// client that has gone up after some 15 minutes, and one that does not read never (tcp(7): `tcp_retries2`,
/// `TCP_USER_TIMEOUT`). As long as a backend may be silent (`idle_timeout_ms`).
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Largest head of a request, bytes: a call with a larger one gets 431. The Functions host takes
/// 32 KiB, Entra's tokens stay below 8.
const MAX_HEAD: usize = 64 * 1024;

/// How often a worker's clock ticks. tokio wakes its own thread, by a write and one more wait, whenever
/// a timer is set that is due before all others: without a tick that is each call whose connection
/// waits for its next head again. Timers of a call last a second or more.
const TICK: Duration = Duration::from_secs(1);

/// How a server is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Worker threads.
    pub workers: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// How long a connection may be open without a whole head of a request.
    pub head_timeout: Duration,
    /// How long a client may take nothing of what is sent to it. On Linux only.
    pub stall_timeout: Duration,
}

impl Settings {
    /// `workers`, or one a core.
    pub fn new(workers: Option<usize>, max_connections: usize) -> Self {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: workers.unwrap_or_else(cores).max(1),
            max_connections,
            head_timeout: HEADER_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
        }
    }
}

/// A connection that no runtime watches yet: the worker's own has to. One that the accepting
/// thread watched would have each of its reads wake that thread first.
type Connection = (std::net::TcpStream, OwnedSemaphorePermit);

/// The worker threads. They end with it, and what they serve is cut off then.
#[derive(Debug)]
pub struct Server {
    workers: Vec<Worker>,
    connections: Arc<Semaphore>,
    stall_timeout: Duration,
}

#[derive(Debug)]
struct Worker {
    connections: mpsc::UnboundedSender<Connection>,
    life: Life,
}

/// What is left of a server that takes no more connections.
#[derive(Debug)]
pub struct Ending(Vec<Life>);

#[derive(Debug)]
struct Life {
    /// Heard when no connection has a call any more.
    ended: oneshot::Receiver<()>,
    /// The thread ends when this is gone.
    _release: oneshot::Sender<()>,
}

impl Server {
    /// Starts the workers. `router` is called once for each.
    ///
    /// # Errors
    /// When a thread can't be started.
    pub fn start(settings: Settings, router: impl Fn() -> Router) -> io::Result<Self> {
        let mut workers = Vec::new();
        for number in 0..settings.workers {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (ended, hear_ended) = oneshot::channel();
            let (release, released) = oneshot::channel();
            let router = router();
            let head_timeout = settings.head_timeout;
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || run(router, receiver, head_timeout, ended, released))?;
            workers.push(Worker {
                connections: sender,
                life: Life {
                    ended: hear_ended,
                    _release: release,
                },
            });
        }
        Ok(Self {
            workers,
            connections: Arc::new(Semaphore::new(settings.max_connections)),
            stall_timeout: settings.stall_timeout,
        })
    }

    /// Takes the connections that come to `listener`, until it fails.
    ///
    /// # Errors
    /// When a worker has died: the process is of no use then.
    pub async fn serve(&self, listener: &TcpListener) -> io::Result<()> {
        for worker in self.workers.iter().cycle() {
            let permit = Arc::clone(&self.connections).acquire_owned().await;
            let permit = permit.map_err(io::Error::other)?;
            let stream = accept(listener).await;
            limit_stalls(&stream, self.stall_timeout);
            let stream = match stream.into_std() {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be handed on");
                    continue;
                }
            };
            if worker.connections.send((stream, permit)).is_err() {
                return Err(io::Error::other("a worker thread has ended"));
            }
        }
        Ok(())
    }

    /// Takes no more connections, and has those that are open end with the call that they carry.
    pub fn end(self) -> Ending {
        let workers = self.workers.into_iter();
        Ending(workers.map(|worker| worker.life).collect())
    }
}

impl Ending {
    /// Waits until no connection carries a call any more. What has switched to another protocol goes on
    /// until this is dropped.
    pub async fn wait(&mut self) {
        for life in &mut self.0 {
            // A thread that has died has no call either.
            let _ = (&mut life.ended).await;
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // A failure costs latency only.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) => {
                // Out of file descriptors, or a client that left already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// Has the connection break where its client takes nothing for so long.
fn limit_stalls(stream: &TcpStream, longest: Duration) {
    #[cfg(target_os = "linux")]
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(longest)) {
        tracing::debug!(%error, "a connection has no bound on how long it may stall");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, longest);
}

fn run(
    router: Router,
    connections: mpsc::UnboundedReceiver<Connection>,
    head_timeout: Duration,
    ended: oneshot::Sender<()>,
    mut released: oneshot::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker could not start"),
    };
    runtime.block_on(async move {
        tokio::spawn(tick());
        let open = work(router, connections, head_timeout).await;
        open.send_replace(());
        tokio::select! {
            () = open.closed() => {}
            _ = &mut released => return,
        }
        // Nobody need wait for it.
        let _ = ended.send(());
        let _ = released.await;
    });
}

/// Keeps the first timer that is due near ([`TICK`]), as long as the runtime runs.
async fn tick() {
    loop {
        tokio::time::sleep(TICK).await;
    }
}

/// Serves connections until no more can come. Those that are open then hear from what it returns that
/// they are to end, and it from them when they have.
async fn work(
    router: Router,
    mut connections: mpsc::UnboundedReceiver<Connection>,
    head_timeout: Duration,
) -> watch::Sender<()> {
    let (open, _) = watch::channel(());
    while let Some((stream, permit)) = connections.recv().await {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be watched");
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .max_header_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut ending = open.subscribe();
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            let done = tokio::select! {
                biased;
                done = connection.as_mut() => done,
                _ = ending.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = done {
                tracing::debug!(%error, "a client's connection ended");
            }
            drop((permit, ending));
        });
    }
    open
}

/// Binds `address`.
///
/// # Errors
/// When it is in use or not this machine's.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
}
