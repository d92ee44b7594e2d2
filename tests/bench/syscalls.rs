//! System calls of a call, counted by strace.

use std::fmt::Write as _;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::{Client, chat_body, request};
use crate::mock::{Behaviour, Mock};
use crate::peers::{Place, Scene, Who};

/// The longest wait until strace watches all threads, and until it has written what it counted.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts plain calls on one connection; a table of system calls a call. Those of the threads that serve
/// no calls, some twenty a second, are among them.
pub(crate) fn run(place: &Place, backend: &Mock, calls: u32) -> io::Result<String> {
    backend.play(Behaviour::default());
    let peer = place.start(Who::Spillway, Scene::One)?;
    let Some(process) = &peer.process else {
        return Err(io::Error::other("there is no process to count in"));
    };
    let request = request(&chat_body(false));
    let mut client = Client::new(peer.calls);
    let mut send = |count: u32| -> io::Result<()> {
        for _ in 0..count {
            let status = client.call(&request)?.status;
            if status != 200 {
                return Err(io::Error::other(format!("a call was answered {status}")));
            }
        }
        Ok(())
    };
    send(calls / 10 + 10)?;
    let out = place.work.join("strace.out");
    let mut strace = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&out)
        .args(["-p", &process.id().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| io::Error::new(e.kind(), format!("strace: {e}")))?;
    wait_until(|| is_traced(process.id()))?;
    let sent = send(calls);
    stop(&mut strace)?;
    sent?;
    table(&std::fs::read_to_string(out)?, calls)
}

/// Whether each thread of the process has a tracer (proc(5), `TracerPid`).
fn is_traced(pid: u32) -> io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(thread?.path().join("status"))?;
        if status.contains("TracerPid:\t0\n") {
            return Ok(false);
        }
    }
    Ok(true)
}

fn stop(strace: &mut Child) -> io::Result<()> {
    let status = Command::new("kill")
        .args(["-INT", &strace.id().to_string()])
        .status()?;
    if !status.success() {
        return Err(io::Error::other("could not stop strace"));
    }
    wait_until(|| Ok(strace.try_wait()?.is_some()))
}

fn wait_until(mut is_so: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "strace took too long",
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Of strace's summary (strace(1), `-c`): the fourth column has the calls, the last the name.
fn table(summary: &str, calls: u32) -> io::Result<String> {
    let counts = summary.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let count: f64 = columns.get(3)?.parse().ok()?;
        Some((*columns.last()?, count / f64::from(calls)))
    });
    let counts: Vec<(&str, f64)> = counts.collect();
    let total = counts.iter().find(|(name, _)| *name == "total");
    let (_, total) = total.ok_or_else(|| io::Error::other("a summary without a total"))?;
    let mut text = format!("{total:.2} system calls a call, in {calls} calls on one connection\n");
    for (name, count) in counts
        .iter()
        .filter(|(name, count)| *name != "total" && *count >= 0.01)
    {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{count:>8.2}  {name}");
    }
    Ok(text)
}
