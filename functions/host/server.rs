//! The listener and its worker threads.
//!
//! Each worker is a single-threaded runtime with its own connections to clients and backends, so
//! a call is never handed from thread to thread. The accepting thread deals connections out in turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// How long a client may take to send a request's headers, a connection without a call included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest head of a request, bytes: a call with a larger one gets 431. The Functions host takes
/// 32 KiB, Entra's tokens stay below 8.
const MAX_HEAD: usize = 64 * 1024;

/// How a server is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Worker threads.
    pub workers: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// How long a connection may be open without a whole head of a request.
    pub head_timeout: Duration,
}

impl Settings {
    /// `workers`, or one a core.
    pub fn new(workers: Option<usize>, max_connections: usize) -> Self {
        let cores = || thread::available_parallelism().map_or(1, usize::from);
        Self {
            workers: workers.unwrap_or_else(cores).max(1),
            max_connections,
            head_timeout: HEADER_TIMEOUT,
        }
    }
}

/// A connection that no runtime watches yet: the worker's own has to. One that the accepting
/// thread watched would have each of its reads wake that thread first.
type Connection = (std::net::TcpStream, OwnedSemaphorePermit);

/// Serves `router` on `listener` until it fails. `router` is called once a worker.
///
/// # Errors
/// When a worker can't be started or has died: the process is of no use then.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    router: impl Fn() -> Router,
) -> io::Result<()> {
    let mut workers = Vec::new();
    for number in 0..settings.workers {
        let (sender, receiver) = mpsc::unbounded_channel();
        let router = router();
        thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || work(router, receiver, settings.head_timeout))?;
        workers.push(sender);
    }
    let connections = Arc::new(Semaphore::new(settings.max_connections));
    for worker in workers.iter().cycle() {
        let permit = Arc::clone(&connections).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let stream = accept(&listener).await;
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be handed on");
                continue;
            }
        };
        if worker.send((stream, permit)).is_err() {
            return Err(io::Error::other("a worker thread has ended"));
        }
    }
    Ok(())
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

fn work(
    router: Router,
    mut connections: mpsc::UnboundedReceiver<Connection>,
    head_timeout: Duration,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a worker could not start"),
    };
    runtime.block_on(async move {
        while let Some((stream, permit)) = connections.recv().await {
            let stream = match TcpStream::from_std(stream) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be watched");
                    continue;
                }
            };
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(head_timeout)
                    .max_header_size(MAX_HEAD)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a client's connection ended");
                }
                drop(permit);
            });
        }
    });
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
