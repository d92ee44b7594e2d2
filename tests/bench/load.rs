//! Calls at a fixed rate, whatever the answers do.
//!
//! Each call has a moment at which it is due, and its latency counts from then: a gateway that
//! stalls is charged for the calls that it kept from being sent (no coordinated omission).
//! Threads that block are used because their timer has some 50 us of slack, tokio's has 1 ms.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use memchr::memmem;

use crate::canned::USAGE_MARK;
use crate::http::{Client, Credential, KEY, chat_body, request_as};

/// Most calls in flight.
const CLIENTS: usize = 64;

/// What a load at a fixed rate found.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Latencies of the good answers, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Calls that got no answer, or one that is not the backend's.
    pub(crate) errors: usize,
    /// How long calls were sent.
    pub(crate) lasted: Duration,
}

impl Load {
    /// The latency that this share of the good answers kept, ms.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        percentile_ms(&self.latencies, share)
    }

    /// Good answers for each second of the load.
    pub(crate) fn good_per_second(&self) -> f64 {
        count(self.latencies.len()) / self.lasted.as_secs_f64()
    }
}

/// A count as a number to reckon with; exact below 2^53.
#[expect(clippy::as_conversions, reason = "no lossless conversion exists")]
pub(crate) fn count(number: usize) -> f64 {
    number as f64
}

/// The value that a share of sorted values does not exceed (nearest rank), ms.
pub(crate) fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let at = sorted
        .iter()
        .enumerate()
        .find(|(place, _)| count(place + 1) >= share * count(sorted.len()));
    at.map_or(f64::NAN, |(_, value)| value.as_secs_f64() * 1e3)
}

/// Sends `rate` calls a second for some time.
pub(crate) fn open_loop(address: SocketAddr, rate: u32, lasting: Duration) -> io::Result<Load> {
    open_loop_as(&Credential::Key(KEY), address, rate, lasting)
}

/// As [`open_loop`], with another credential.
pub(crate) fn open_loop_as(
    credential: &Credential,
    address: SocketAddr,
    rate: u32,
    lasting: Duration,
) -> io::Result<Load> {
    let next = Arc::new(AtomicU32::new(0));
    let request: Arc<[u8]> = request_as(credential, &chat_body(false)).into();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Client::new(address);
        client.connect()?;
        clients.push(client);
    }
    let begin = Instant::now() + Duration::from_millis(50);
    let end = begin + lasting;
    let threads = clients.into_iter().map(|client| {
        let (next, request) = (Arc::clone(&next), Arc::clone(&request));
        thread::spawn(move || {
            let due = || begin + Duration::from_secs(1) * next.fetch_add(1, Relaxed) / rate;
            send(client, &request, due, end)
        })
    });
    let threads: Vec<_> = threads.collect();
    let mut load = Load::default();
    for thread in threads {
        let part = thread.join();
        let part = part.map_err(|_| io::Error::other("a client's thread broke"))?;
        load.latencies.extend(part.latencies);
        load.errors += part.errors;
    }
    load.lasted = lasting;
    load.latencies.sort_unstable();
    Ok(load)
}

/// Takes calls one after the other and sends each when it is due.
fn send(mut client: Client, request: &[u8], due: impl Fn() -> Instant, end: Instant) -> Load {
    let mut load = Load::default();
    loop {
        let due = due();
        if due >= end {
            return load;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let good = client.call(request).is_ok_and(|answer| {
            answer.status == 200 && memmem::find(answer.body, USAGE_MARK).is_some()
        });
        if good {
            load.latencies.push(due.elapsed());
        } else {
            load.errors += 1;
        }
    }
}
