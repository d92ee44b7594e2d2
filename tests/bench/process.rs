//! The peers' processes: started, paused, stopped, and what they use, from `/proc`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Ticks of `/proc/PID/stat` a second: `USER_HZ`, which is 100 on x86-64 and arm64.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    program: PathBuf,
    args: Vec<String>,
    env: Vec<(&'static str, &'static str)>,
    folder: Option<PathBuf>,
}

impl Launch {
    pub(crate) fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            folder: None,
        }
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    /// In this folder, in place of the benchmark's own.
    pub(crate) fn inside(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }
}

/// A process and its children. Dropping it stops them.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// Memory of a process tree, MB (10^6 bytes).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident pages; what processes share counts once for each.
    pub(crate) rss: f64,
    /// Resident pages, those that are shared divided among their users.
    pub(crate) pss: f64,
}

impl Process {
    /// Starts a command, `under` another one where that isn't empty, with its output going to
    /// `log`. It ends when the benchmark's main thread does, however that ends.
    pub(crate) fn start(under: &[&str], launch: &Launch, log: &Path) -> io::Result<Self> {
        let out = File::create(log)?;
        let mut command = Command::new("setpriv");
        if let Some(folder) = &launch.folder {
            command.current_dir(folder);
        }
        let child = command
            .args(["--pdeathsig", "TERM", "--"])
            .args(under)
            .arg(&launch.program)
            .args(&launch.args)
            .envs(launch.env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// What the process wrote last.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end; how it did, or nothing where it runs on.
    pub(crate) fn ask_to_end(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal("TERM")?;
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(None)
    }

    /// CPU time used so far, seconds: all threads, in user and kernel mode.
    pub(crate) fn cpu_seconds(&self) -> io::Result<f64> {
        let mut ticks = 0;
        for pid in self.tree()? {
            let stat = stat(pid)?;
            ticks += stat.user_ticks + stat.system_ticks;
        }
        Ok(f64::from(ticks) / TICKS_PER_SECOND)
    }

    /// Memory held now.
    pub(crate) fn memory(&self) -> io::Result<Memory> {
        let mut memory = Memory::default();
        for pid in self.tree()? {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let mb = |name: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
                kib.map(|kib: f64| kib * 1024.0 / 1e6)
            };
            let missing = || io::Error::other(format!("no memory figures for process {pid}"));
            memory.rss += mb("Rss:").ok_or_else(missing)?;
            memory.pss += mb("Pss:").ok_or_else(missing)?;
        }
        Ok(memory)
    }

    /// Files and sockets that it has open now.
    pub(crate) fn open_files(&self) -> io::Result<usize> {
        let mut files = 0;
        for pid in self.tree()? {
            files += fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        }
        Ok(files)
    }

    /// Stops the clock for it, so that it takes nothing from the peer under test.
    pub(crate) fn pause(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> io::Result<()> {
        let pids = self.tree()?.into_iter().map(|pid| pid.to_string());
        let mut kill = Command::new("kill");
        let kill = kill.arg(format!("-{name}")).args(pids);
        let status = kill.stderr(Stdio::null()).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("could not send SIG{name}")));
        }
        Ok(())
    }

    fn tree(&self) -> io::Result<Vec<u32>> {
        let mut parents = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            // A process may end while the list is read.
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
                && let Ok(stat) = stat(pid)
            {
                parents.push((pid, stat.parent));
            }
        }
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while let Some(&pid) = tree.get(next) {
            let children = parents.iter().filter(|(_, parent)| *parent == pid);
            tree.extend(children.map(|(child, _)| *child));
            next += 1;
        }
        Ok(tree)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        // Whatever fails here, the process is gone or the benchmark's end takes it along.
        let _ = self.resume();
        let _ = self.signal("TERM");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if self.has_ended() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.signal("KILL");
        let _ = self.child.wait();
    }
}

struct Stat {
    parent: u32,
    user_ticks: u32,
    system_ticks: u32,
}

/// `/proc/PID/stat`: proc(5).
fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name, in brackets, may hold anything.
    let fields = text.rsplit_once(')').map(|(_, rest)| rest);
    let fields: Vec<&str> = fields.unwrap_or_default().split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|text| text.parse().ok());
    match (number(1), number(11), number(12)) {
        (Some(parent), Some(user_ticks), Some(system_ticks)) => Ok(Stat {
            parent,
            user_ticks,
            system_ticks,
        }),
        _ => Err(io::Error::other(format!(
            "/proc/{pid}/stat has a strange form"
        ))),
    }
}
