//! Instructions of a call, counted by valgrind: the same whatever else the machine does.
//! The kernel's are not among them.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::dump::Dump;
use crate::http::{Client, chat_body, request};
use crate::mock::{Behaviour, Mock};
use crate::peers::{Peer, Place, Scene, Who};

/// What frees memory, in the system's allocator and in mimalloc: each allocation ends in one call
/// of it, while the ways to allocate are many.
pub(crate) const FREE: [&str; 2] = ["free", "mi_free"];

/// Functions listed.
const LISTED: usize = 40;

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
    let bare = place.work.join("callgrind-bare.out");
    let peer = start(place, Who::Bare, Scene::One, &bare)?;
    let bare = counted(&peer, &bare, &request(&chat_body(false)), calls)?;
    drop(peer);
    let peer = start(place, Who::Spillway, Scene::One, &out)?;
    let streams = (calls * STREAMS_PER_100 / 100).max(1);
    let plain = counted(&peer, &out, &request(&chat_body(false)), calls)?;
    let streamed = counted(&peer, &out, &request(&chat_body(true)), streams)?;
    let (calls, chunks) = (f64::from(calls), f64::from(streams) * f64::from(CHUNKS));
    Ok(format!(
        "{:.0} instructions and {:.1} allocations a call, in {calls} calls; {:.0} instructions where \
         its libraries alone pass it on\n\
         {:.0} instructions and {:.2} allocations a chunk, in {streams} streams of {CHUNKS} chunks\n\n\
         A call: instructions of the function itself, with what it calls, times called\n{}\n\
         A chunk:\n{}",
        plain.instructions / calls,
        plain.calls_of(&FREE) / calls,
        bare.instructions / calls,
        streamed.instructions / chunks,
        streamed.calls_of(&FREE) / chunks,
        plain.list(LISTED, calls),
        streamed.list(LISTED, chunks),
    ))
}

/// Starts a peer under callgrind, whose files begin with `out`.
pub(crate) fn start(place: &Place, who: Who, scene: Scene, out: &Path) -> io::Result<Peer> {
    let out_file = format!("--callgrind-out-file={}", out.display());
    let under = ["valgrind", "--tool=callgrind", "--dump-instr=no", &out_file];
    place.start_under(&under, who, scene)
}

/// Counts what the peer does for so many calls, after some that warm it up.
pub(crate) fn counted(peer: &Peer, out: &Path, request: &[u8], calls: u32) -> io::Result<Dump> {
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
    tell("--zero", &pid)?;
    send(calls)?;
    let before = dumps(out)?;
    tell("--dump", &pid)?;
    let dump = dumps(out)?.difference(&before).next().cloned();
    let dump = dump.ok_or_else(|| io::Error::other("callgrind wrote no dump"))?;
    let text = std::fs::read_to_string(&dump)?;
    Dump::read(&text)
}

/// The files that callgrind has dumped to so far.
fn dumps(out: &Path) -> io::Result<BTreeSet<PathBuf>> {
    // callgrind_control returns when the process has been told; the dump follows.
    std::thread::sleep(Duration::from_secs(1));
    let folder = out.parent().unwrap_or(Path::new("."));
    let files = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let files = files.collect::<io::Result<BTreeSet<_>>>()?;
    let dump = format!("{}.", out.display());
    let is_dump = |path: &PathBuf| path.display().to_string().starts_with(&dump);
    Ok(files.into_iter().filter(is_dump).collect())
}

fn tell(what: &str, pid: &str) -> io::Result<()> {
    let output = Command::new("callgrind_control").args([what, pid]).output();
    let output = output.map_err(|e| io::Error::new(e.kind(), format!("callgrind_control: {e}")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("callgrind_control: {error}")));
    }
    Ok(())
}
