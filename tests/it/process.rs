//! The program as a process of its own.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_spillway");

/// Longest wait for a process to be ready, or to end: the host's own default, half of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A running handler; killed when dropped, as the host does.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The handler of an app's folder, with the environment that the host gives it and nothing else.
pub(crate) fn handler(folder: &Path, port: &str) -> Command {
    let mut command = Command::new(folder.join("spillway"));
    command
        .arg("serve")
        .current_dir(folder)
        .env_clear()
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port)
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", "worker-1")
        .env("FUNCTIONS_HTTPWORKER_PORT", port)
        .env("FUNCTIONS_HTTPWORKER_ID", "worker-1")
        .env("FUNCTIONS_APP_ROOT_PATH", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Writes an app's folder as `spillway package` does.
pub(crate) fn package(folder: &Path, config: &str) {
    let file = folder.with_extension("toml");
    std::fs::write(&file, config).unwrap();
    let done = Command::new(BINARY)
        .arg("package")
        .arg("--out")
        .arg(folder)
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

impl Process {
    /// Starts a handler and asks `GET /` every 25 ms until it answers.
    pub(crate) fn start(mut command: Command, port: u16) -> Self {
        let begun = Instant::now();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut child = command.spawn().unwrap();
        while !is_ready(address) {
            if child.try_wait().unwrap().is_some() {
                panic!("it ended: {:?}", child.wait_with_output());
            }
            assert!(begun.elapsed() < PATIENCE, "it is not ready");
            std::thread::sleep(Duration::from_millis(25));
        }
        Self { address, child }
    }

    /// The most memory that it has had, MiB (Linux, proc(5): VmHWM in KiB).
    pub(crate) fn peak_mib(&self) -> usize {
        let file = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(file).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let kib = line.and_then(|line| line.split_ascii_whitespace().nth(1));
        kib.unwrap().parse::<usize>().unwrap() / 1024
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(asked.unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it and returns what it wrote: stdout and stderr.
    pub(crate) fn kill(mut self) -> (String, String) {
        self.child.kill().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        stdout.unwrap().read_to_string(&mut out).unwrap();
        stderr.unwrap().read_to_string(&mut err).unwrap();
        (out, err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether anything answers the host's probe.
fn is_ready(address: SocketAddr) -> bool {
    use std::io::Write;
    let Ok(mut stream) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let asked = write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut start = [0; 8];
    asked.is_ok() && stream.read_exact(&mut start).is_ok() && &start == b"HTTP/1.1"
}

/// Runs a command that has to end by itself.
pub(crate) fn ends(mut command: Command) -> std::process::Output {
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it goes on: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}
