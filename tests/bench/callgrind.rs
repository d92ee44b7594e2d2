//! Instructions of a call, counted by valgrind: the same whatever else the machine does.
//! The kernel's are not among them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::http::{Client, chat_body, request};
use crate::mock::{Behaviour, Mock};
use crate::peers::{Peer, Place, Scene, Who};

/// Lines of the list of functions.
const LISTED: usize = 45;

/// Chunks of a stream.
const CHUNKS: u32 = 200;

/// Streams counted for each hundred calls.
const STREAMS_PER_100: u32 = 5;

/// Counts plain calls and streams, one after the other on one connection.
pub(crate) fn run(place: &Place, backend: &Mock, calls: u32) -> io::Result<String> {
    backend.play(Behaviour {
        chunks: CHUNKS,
        ..Behaviour::default()
    });
    let out = place.work.join("callgrind.out");
    let out_file = format!("--callgrind-out-file={}", out.display());
    let under = ["valgrind", "--tool=callgrind", "--dump-instr=no", &out_file];
    let peer = place.start_under(&under, Who::Spillway, Scene::One)?;
    let streams = (calls * STREAMS_PER_100 / 100).max(1);
    let plain = counted(&peer, &out, &request(&chat_body(false)), calls)?;
    let streamed = counted(&peer, &out, &request(&chat_body(true)), streams)?;
    let chunks = f64::from(streams) * f64::from(CHUNKS);
    let (per_call, per_chunk) = (
        plain.instructions / f64::from(calls),
        streamed.instructions / chunks,
    );
    Ok(format!(
        "{per_call:.0} instructions a call ({:.1} allocations), in {calls} calls\n\
         {per_chunk:.0} instructions a chunk ({:.2} allocations), in {streams} streams of {CHUNKS} chunks\n\n\
         Calls:\n{}\nStreams:\n{}",
        plain.allocations / f64::from(calls),
        streamed.allocations / chunks,
        plain.functions,
        streamed.functions
    ))
}

struct Counted {
    instructions: f64,
    allocations: f64,
    functions: String,
}

/// Counts what the peer does for so many calls, after some that warm it up.
fn counted(peer: &Peer, out: &Path, request: &[u8], calls: u32) -> io::Result<Counted> {
    let Some(process) = &peer.process else {
        return Err(io::Error::other("there is no process to count in"));
    };
    let pid = process.id().to_string();
    let mut client = Client::new(peer.calls);
    let mut send = |count: u32| -> io::Result<()> {
        for _ in 0..count {
            let status = client.call(request)?.status;
            if status != 200 {
                return Err(io::Error::other(format!("a call was answered {status}")));
            }
        }
        Ok(())
    };
    send(calls / 10 + 10)?;
    output("callgrind_control", &["--zero", &pid])?;
    send(calls)?;
    let before = dumps(out)?;
    output("callgrind_control", &["--dump", &pid])?;
    let dump = dumps(out)?.difference(&before).next().cloned();
    let dump = dump.ok_or_else(|| io::Error::other("callgrind wrote no dump"))?;
    let text = std::fs::read_to_string(&dump)?;
    let list = output(
        "callgrind_annotate",
        &["--auto=no", &dump.display().to_string()],
    )?;
    let functions = list.lines().skip_while(|line| !line.starts_with("Ir"));
    let functions: Vec<&str> = functions.take(LISTED).collect();
    Ok(Counted {
        instructions: total(&text)?,
        allocations: calls_of(&text, &["malloc", "calloc", "realloc"]),
        functions: functions.join("\n") + "\n",
    })
}

/// The files that callgrind has dumped to so far.
fn dumps(out: &Path) -> io::Result<BTreeSet<PathBuf>> {
    // callgrind_control returns when the process has been told; the dump follows.
    std::thread::sleep(Duration::from_secs(1));
    let folder = out.parent().unwrap_or(Path::new("."));
    let files = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let files = files.collect::<io::Result<BTreeSet<_>>>()?;
    let is_dump = |path: &PathBuf| path.display().to_string().contains("callgrind.out.");
    Ok(files.into_iter().filter(is_dump).collect())
}

fn output(program: &str, args: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|e| io::Error::new(e.kind(), format!("{program}: {e}")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{program}: {error}")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The instructions of a dump: its line `totals:` (callgrind's file format).
fn total(dump: &str) -> io::Result<f64> {
    let line = dump.lines().find_map(|line| line.strip_prefix("totals:"));
    let total = line.and_then(|line| line.trim().parse().ok());
    total.ok_or_else(|| io::Error::other("a dump without totals"))
}

/// How often these functions were called. A function's name stands where its number is first
/// used, `cfn=(12) malloc`; its calls follow as `calls=COUNT ...`.
fn calls_of(dump: &str, names: &[&str]) -> f64 {
    let mut numbers = BTreeSet::new();
    let mut is_named = false;
    let mut calls = 0.0;
    for line in dump.lines() {
        let function = line
            .strip_prefix("cfn=")
            .or_else(|| line.strip_prefix("fn="));
        if let Some(function) = function {
            let (number, name) = function.split_once(' ').unwrap_or((function, ""));
            if names.contains(&name) {
                numbers.insert(number);
            }
            is_named = numbers.contains(number);
        } else if let Some(rest) = line.strip_prefix("calls=").filter(|_| is_named) {
            let count = rest.split(' ').next().and_then(|count| count.parse().ok());
            calls += count.unwrap_or(0.0);
        }
    }
    calls
}
