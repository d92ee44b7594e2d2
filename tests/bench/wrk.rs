//! `wrk`: as many calls as a number of connections can carry.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::http::{Credential, KEY, PATH, chat_body};

/// Which calls are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Calls {
    /// The same one over and over, made once.
    One,
    /// The same one, made each time.
    Same,
    /// One after the other, none twice.
    Distinct,
}

impl Calls {
    const fn script(self) -> &'static str {
        match self {
            Self::One => include_str!("chat.lua"),
            Self::Same | Self::Distinct => include_str!("cache.lua"),
        }
    }

    const fn step(self) -> &'static str {
        match self {
            Self::One | Self::Same => "0",
            Self::Distinct => "1",
        }
    }
}

/// Connections, as in the goals.
const CONNECTIONS: &str = "-c32";
const THREADS: &str = "-t2";

/// What a run found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) calls: f64,
    pub(crate) per_second: f64,
    /// Calls with another status than 2xx or 3xx, and broken or timed out ones.
    pub(crate) errors: f64,
}

/// Loads `address` for some time.
pub(crate) fn run(address: SocketAddr, lasting: Duration, work: &Path) -> io::Result<Run> {
    run_as(&Credential::Key(KEY), address, lasting, work)
}

/// As [`run`], with another credential.
pub(crate) fn run_as(
    credential: &Credential,
    address: SocketAddr,
    lasting: Duration,
    work: &Path,
) -> io::Result<Run> {
    run_of(Calls::One, credential, address, lasting, work)
}

/// As [`run_as`], with these calls.
pub(crate) fn run_of(
    calls: Calls,
    credential: &Credential,
    address: SocketAddr,
    lasting: Duration,
    work: &Path,
) -> io::Result<Run> {
    let (header, credential) = credential.header();
    let (script, body) = (work.join("chat.lua"), work.join("chat.json"));
    std::fs::write(&script, calls.script())?;
    std::fs::write(&body, chat_body(false))?;
    let output = Command::new("wrk")
        .args([THREADS, CONNECTIONS, "--timeout", "30s"])
        .arg(format!("-d{}s", lasting.as_secs()))
        .arg("-s")
        .arg(script)
        .arg(format!("http://{address}{PATH}"))
        .env("BENCH_HEADER", header)
        .env("BENCH_CREDENTIAL", credential)
        .env("BENCH_BODY", body)
        .env("BENCH_STEP", calls.step())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("wrk cannot be run: {e}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("bench "));
    let value = |name: &str| {
        let mut fields = line?.split_whitespace().filter_map(|f| f.split_once('='));
        fields.find_map(|(field, value)| (field == name).then(|| value.parse::<f64>().ok())?)
    };
    match (
        value("calls"),
        value("us"),
        value("bad_status"),
        value("broken"),
    ) {
        (Some(calls), Some(us), Some(bad), Some(broken)) if us > 0.0 => Ok(Run {
            calls,
            per_second: calls / us * 1e6,
            errors: bad + broken,
        }),
        _ => Err(io::Error::other(format!(
            "wrk said {text}{}",
            String::from_utf8_lossy(&output.stderr)
        ))),
    }
}
