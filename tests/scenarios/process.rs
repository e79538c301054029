//! A child process whose lines can be awaited, and which never outlives its test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a scenario waits for something that must happen before it calls the run hung. A guard, not a measurement.
pub const HANG_GUARD: Duration = Duration::from_secs(600);

/// A running child. Dropping it kills it (SIGKILL) and reaps it.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    tail: VecDeque<String>,
    log: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`. Lines of stdout are delivered to `next_line`; stderr goes to the test's own stderr, prefixed, and
    /// is kept for `logged`.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Process {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name} ({command:?}): {error}"));
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout was piped above");
        let stderr = child.stderr.take().expect("stderr was piped above");
        let out = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let log = Arc::new(Mutex::new(Vec::new()));
        let (prefix, kept) = (name.clone(), log.clone());
        let err = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("[{prefix}] {line}");
                kept.lock().expect("no reader panics").push(line);
            }
        });
        let stdin = child.stdin.take();
        Process { name, child, stdin, lines, tail: VecDeque::new(), log, readers: vec![out, err] }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout; `None` when the process has closed it.
    pub fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(HANG_GUARD) {
            Ok(line) => {
                self.remember(&line);
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{}: nothing printed for {HANG_GUARD:?}; last lines {:?}", self.name, self.tail)
            }
        }
    }

    /// Lines that are there now, without waiting longer than `patience` for the first.
    pub fn lines_within(&mut self, patience: Duration) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(line) = self.lines.recv_timeout(patience) {
            found.push(line);
        }
        while let Ok(line) = self.lines.try_recv() {
            found.push(line);
        }
        for line in &found {
            self.remember(line);
        }
        found
    }

    /// Skips lines until one satisfies `wanted` and returns it.
    pub fn wait_for_line(&mut self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        loop {
            match self.next_line() {
                Some(line) if wanted(&line) => return line,
                Some(_) => {}
                None => panic!("{} ended before {what}; last lines {:?}", self.name, self.tail),
            }
        }
    }

    /// Whether a line of stderr so far satisfies `wanted`.
    pub fn logged(&self, wanted: impl Fn(&str) -> bool) -> bool {
        self.log.lock().expect("no reader panics").iter().any(|line| wanted(line))
    }

    /// What was written to stderr so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().expect("no reader panics").clone()
    }

    /// Tells a driver to end by closing its input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// SIGKILL: the process gets no chance to flush anything.
    pub fn kill_hard(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, then waits for the orderly end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait_exit()
    }

    /// SIGTERM.
    pub fn ask_to_end(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// Waits for the process to end by itself, and for all that it has written.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waiting for a child of ours") {
                self.join_readers();
                return status;
            }
            assert!(started.elapsed() < HANG_GUARD, "{} does not end; last lines {:?}", self.name, self.tail);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("waiting for a child of ours").is_some()
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }

    fn remember(&mut self, line: &str) {
        self.tail.push_back(line.to_owned());
        if self.tail.len() > 20 {
            self.tail.pop_front();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        self.kill_hard();
        self.join_readers();
    }
}

/// What a command printed and how it ended.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Finished {
    let output =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Polls until `condition` gives a value. The pause only bounds how often we ask.
pub fn await_condition<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < HANG_GUARD, "still waiting for {what} after {HANG_GUARD:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
